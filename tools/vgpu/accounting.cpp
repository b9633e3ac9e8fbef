#include "vgpu/accounting.hpp"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <string>

namespace aiv::vgpu {
namespace {

constexpr std::array<char, 8> kMagic = {'a', 'i', 'v', '-', 'v', 'g', 'p', 'u'};
constexpr std::uint32_t kVersion = 1;
constexpr std::size_t kLabelMax = 31;
constexpr std::size_t kBootIdMax = 40;

enum EntryKind : std::uint32_t { kUnused = 0, kProcess = 1, kForeign = 2 };

std::string system_error(const char* what) { return std::string(what) + ": " + std::strerror(errno); }

// A few kilobytes of a file in /proc; nullopt with errno set.
std::optional<std::string> read_small(const char* path) {
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return std::nullopt;
  std::array<char, 4096> buffer{};
  const ssize_t n = ::read(fd, buffer.data(), buffer.size());
  const int saved = errno;
  ::close(fd);
  errno = saved;
  if (n < 0) return std::nullopt;
  return std::string(buffer.data(), static_cast<std::size_t>(n));
}

std::string boot_id() {
  auto text = read_small("/proc/sys/kernel/random/boot_id").value_or("");
  while (!text.empty() && text.back() == '\n') text.pop_back();
  text.resize(std::min(text.size(), kBootIdMax - 1));
  return text;
}

// False only if the process is surely gone: what cannot be read (hidepid) counts as alive.
bool still_alive(pid_t pid, std::uint64_t start_time) {
  const auto now = start_time_of(pid);
  if (now) return *now == start_time;
  return now.error().code != ErrorCode::kNotFound;
}

}  // namespace

struct Accounting::Entry {
  DeviceUuid device;
  std::int32_t pid;
  std::uint32_t kind;  // written last: a process killed in the middle of a claim leaves an unused entry
  std::uint64_t start_time;
  std::uint64_t bytes;
  char label[kLabelMax + 1];

  void become(std::uint32_t new_kind) { std::atomic_ref(kind).store(new_kind, std::memory_order_release); }
};

struct Accounting::Table {
  std::array<char, 8> magic;
  std::uint32_t version;
  std::uint32_t entries;
  char boot_id[kBootIdMax];
  Entry entry[kEntriesMax];
};

// The mutex keeps threads of this process apart, flock the processes.
class Accounting::Lock {
 public:
  explicit Lock(Accounting& accounting) : guard_(accounting.mutex_), accounting_(accounting) {
    reopen_after_fork();
    while (::flock(accounting_.fd_, LOCK_EX) != 0 && errno == EINTR) {
    }
  }
  ~Lock() { ::flock(accounting_.fd_, LOCK_UN); }
  Lock(const Lock&) = delete;
  Lock& operator=(const Lock&) = delete;

 private:
  // A lock belongs to the open file description, which a forked child shares with its parent.
  void reopen_after_fork() {
    if (accounting_.owner_pid_ == ::getpid()) return;
    const std::string self = "/proc/self/fd/" + std::to_string(accounting_.fd_);
    const int fresh = ::open(self.c_str(), O_RDWR | O_CLOEXEC);
    AIV_ASSERT(fresh >= 0);  // the descriptor is open, so this fails only when the process may open no file at all
    ::close(accounting_.fd_);
    accounting_.fd_ = fresh;
    accounting_.owner_pid_ = ::getpid();
    accounting_.own_start_time_ = start_time_of(::getpid()).value_or(0);
  }

  std::lock_guard<std::mutex> guard_;
  Accounting& accounting_;
};

std::string format_uuid(const DeviceUuid& uuid) {
  constexpr std::string_view kDigits = "0123456789abcdef";
  std::string text;
  for (const std::uint8_t byte : uuid) {
    text += kDigits[byte >> 4];
    text += kDigits[byte & 15];
  }
  return text;
}

Result<DeviceUuid> parse_uuid(std::string_view text) {
  std::string digits;
  for (const char c : text) {
    if (c != '-') digits += c;
  }
  DeviceUuid uuid{};
  if (digits.size() != uuid.size() * 2) return fail(ErrorCode::kInvalidArgument, "a uuid has 32 hex digits");
  for (std::size_t i = 0; i < uuid.size(); ++i) {
    const char* begin = digits.data() + 2 * i;
    const auto [end, error] = std::from_chars(begin, begin + 2, uuid[i], 16);
    if (error != std::errc{} || end != begin + 2) {
      return fail(ErrorCode::kInvalidArgument, "a uuid has 32 hex digits");
    }
  }
  return uuid;
}

Result<std::uint64_t> start_time_of(pid_t pid) {
  const std::string path = "/proc/" + std::to_string(pid) + "/stat";
  const auto text = read_small(path.c_str());
  if (!text) {
    if (errno == ENOENT || errno == ESRCH) {
      // hidepid hides what kill(2) still sees.
      if (::kill(pid, 0) != 0 && errno == ESRCH) return fail(ErrorCode::kNotFound, "no such process");
    }
    return fail(ErrorCode::kIo, system_error("cannot be read"), path);
  }
  // The second field is the name in parentheses and may hold anything, also ')'.
  const std::size_t name_end = text->rfind(')');
  if (name_end == std::string::npos) return fail(ErrorCode::kIo, "not as proc(5) has it", path);
  std::string_view rest = std::string_view(*text).substr(name_end + 1);
  std::string_view field;
  for (int number = 3; number <= 22; ++number) {
    rest.remove_prefix(std::min(rest.find_first_not_of(' '), rest.size()));
    field = rest.substr(0, rest.find(' '));
    rest.remove_prefix(field.size());
    if (number == 3 && (field == "Z" || field == "X")) return fail(ErrorCode::kNotFound, "the process has ended");
  }
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(field.data(), field.data() + field.size(), value);
  if (error != std::errc{} || end == field.data()) return fail(ErrorCode::kIo, "not as proc(5) has it", path);
  return value;
}

Accounting::Accounting(std::string path, int fd, Table* table)
    : path_(std::move(path)),
      fd_(fd),
      table_(table),
      owner_pid_(::getpid()),
      own_start_time_(start_time_of(::getpid()).value_or(0)) {}

Accounting::~Accounting() {
  ::munmap(table_, sizeof(Table));
  ::close(fd_);
}

Result<std::unique_ptr<Accounting>> Accounting::open(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return fail(ErrorCode::kIo, system_error("cannot open the accounting file"), path);
  struct stat info {};
  Error error;
  if (::fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    error = {ErrorCode::kIo, "the accounting file is not a plain file", path};
  } else if (info.st_uid != ::geteuid()) {
    error = {ErrorCode::kUnauthorized, "the accounting file belongs to another user; give each user a file", path};
  } else if (info.st_size != 0 && info.st_size != static_cast<off_t>(sizeof(Table))) {
    error = {ErrorCode::kCorrupt, "not an accounting file of this version; stop its users and delete it", path};
  } else if (const int e = ::posix_fallocate(fd, 0, sizeof(Table)); e != 0) {
    // Not ftruncate: a full disk must fail here, not as SIGBUS at the first write into the map.
    error = {ErrorCode::kIo, std::string("cannot make room for the accounting file: ") + std::strerror(e), path};
  } else {
    void* map = ::mmap(nullptr, sizeof(Table), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map != MAP_FAILED) {
      std::unique_ptr<Accounting> accounting(new Accounting(path, fd, static_cast<Table*>(map)));
      if (auto adopted = accounting->adopt_file(); !adopted) return std::unexpected(adopted.error());
      return accounting;
    }
    error = {ErrorCode::kIo, system_error("cannot map the accounting file"), path};
  }
  ::close(fd);
  return std::unexpected(error);
}

// Initialises a new file, clears what an earlier boot left, refuses what is not ours.
Result<> Accounting::adopt_file() {
  Lock lock(*this);
  if (table_->magic == std::array<char, 8>{}) {
    std::memset(static_cast<void*>(table_), 0, sizeof(Table));
    table_->version = kVersion;
    table_->entries = kEntriesMax;
    std::memcpy(table_->boot_id, boot_id().c_str(), boot_id().size() + 1);
    std::atomic_signal_fence(std::memory_order_release);
    table_->magic = kMagic;
    return {};
  }
  if (table_->magic != kMagic || table_->version != kVersion || table_->entries != kEntriesMax) {
    return fail(ErrorCode::kCorrupt, "not an accounting file of this version; stop its users and delete it", path_);
  }
  if (std::string_view(table_->boot_id, ::strnlen(table_->boot_id, kBootIdMax)) != boot_id()) {
    std::memset(static_cast<void*>(table_->entry), 0, sizeof(table_->entry));
    std::memcpy(table_->boot_id, boot_id().c_str(), boot_id().size() + 1);
  }
  return {};
}

Accounting::Entry* Accounting::find_own(const DeviceUuid& device) {
  for (Entry& entry : table_->entry) {
    if (entry.kind == kProcess && entry.pid == owner_pid_ && entry.start_time == own_start_time_ &&
        entry.device == device) {
      return &entry;
    }
  }
  return nullptr;
}

// A free entry with the device set, of kind kUnused still; nullptr when the living fill the table.
Accounting::Entry* Accounting::claim(const DeviceUuid& device) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    for (Entry& entry : table_->entry) {
      if (entry.kind != kUnused) continue;
      std::memset(static_cast<void*>(&entry), 0, sizeof(entry));
      entry.device = device;
      return &entry;
    }
    reap();
  }
  return nullptr;
}

void Accounting::reap() {
  for (Entry& entry : table_->entry) {
    if (entry.kind == kProcess && !still_alive(entry.pid, entry.start_time)) entry.become(kUnused);
  }
}

std::uint64_t Accounting::sum(const DeviceUuid& device) const {
  std::uint64_t total = 0;
  for (const Entry& entry : table_->entry) {
    if (entry.kind == kUnused || entry.device != device) continue;
    total = entry.bytes > UINT64_MAX - total ? UINT64_MAX : total + entry.bytes;
  }
  return total;
}

Charge Accounting::charge(const DeviceUuid& device, std::uint64_t bytes, std::uint64_t capacity) {
  Lock lock(*this);
  const auto fits = [&] {
    const std::uint64_t total = sum(device);
    return total <= capacity && bytes <= capacity - total;
  };
  if (!fits()) {
    reap();
    if (!fits()) return Charge::kNoRoom;
  }
  Entry* entry = find_own(device);
  if (entry == nullptr) {
    entry = claim(device);
    if (entry == nullptr) return Charge::kTableFull;
    entry->pid = owner_pid_;
    entry->start_time = own_start_time_;
    entry->become(kProcess);
  }
  entry->bytes += bytes;
  return Charge::kOk;
}

void Accounting::release(const DeviceUuid& device, std::uint64_t bytes) {
  Lock lock(*this);
  Entry* entry = find_own(device);
  if (entry == nullptr) return;
  entry->bytes -= std::min(bytes, entry->bytes);
  if (entry->bytes == 0) entry->become(kUnused);
}

Usage Accounting::usage(const DeviceUuid& device) {
  Lock lock(*this);
  reap();
  Usage usage{.total = sum(device)};
  for (const Entry& entry : table_->entry) {
    if (entry.kind == kForeign && entry.device == device) usage.foreign += entry.bytes;
  }
  if (const Entry* own = find_own(device)) usage.own = own->bytes;
  return usage;
}

std::vector<Holder> Accounting::holders(const DeviceUuid& device) {
  Lock lock(*this);
  reap();
  std::vector<Holder> result;
  for (const Entry& entry : table_->entry) {
    if (entry.kind == kUnused || entry.device != device) continue;
    result.push_back({.pid = entry.kind == kForeign ? 0 : entry.pid,
                      .start_time = entry.start_time,
                      .bytes = entry.bytes,
                      .label = std::string(entry.label, ::strnlen(entry.label, kLabelMax))});
  }
  return result;
}

Result<> Accounting::set_foreign(const DeviceUuid& device, std::uint64_t bytes, std::string_view label) {
  Lock lock(*this);
  label = label.substr(0, kLabelMax);
  Entry* found = nullptr;
  for (Entry& entry : table_->entry) {
    if (entry.kind == kForeign && entry.device == device &&
        std::string_view(entry.label, ::strnlen(entry.label, kLabelMax)) == label) {
      found = &entry;
    }
  }
  if (bytes == 0) {
    if (found != nullptr) found->become(kUnused);
    return {};
  }
  if (found == nullptr) {
    found = claim(device);
    if (found == nullptr) return fail(ErrorCode::kRefused, "the accounting table is full", path_);
    label.copy(found->label, kLabelMax);
  }
  found->bytes = bytes;
  found->become(kForeign);
  return {};
}

}  // namespace aiv::vgpu
