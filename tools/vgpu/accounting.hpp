// How much memory each process holds on each virtual GPU: one small file, mapped by every process that uses one.
//
// Rules, each with its reason:
// - An entry belongs to (device, pid, start time). Pids come back; the start time (field 22 of /proc/PID/stat)
//   tells the new process from the dead one, and the boot id in the header does so across a reboot.
// - A dead process counts for nothing, however it died. Nobody is told when a process is killed, so the dead are
//   found when it matters: when a reader asks, or when an allocation would be refused. A zombie is dead: its
//   memory is gone although its parent has not asked for its status yet.
// - Check and charge happen under one file lock, so two processes cannot both take the last bytes. The lock is
//   flock(2): the kernel releases it when the holder is killed.
// - A full table refuses the allocation. To let it pass uncounted would make every figure wrong.
// - Entries of "foreign" kind belong to no process and stay until they are set to 0: a test's "another program
//   holds 3 GiB".
//
// No Vulkan here: the node agent and tests link this part alone.
#pragma once
#include <sys/types.h>

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace aiv::vgpu {

using DeviceUuid = std::array<std::uint8_t, 16>;

// 32 lower-case hex digits, without dashes; parse takes dashes too.
std::string format_uuid(const DeviceUuid& uuid);
Result<DeviceUuid> parse_uuid(std::string_view text);

// One process (or foreign program) and what it holds on one device.
struct Holder {
  pid_t pid = 0;  // 0 for a foreign entry
  std::uint64_t start_time = 0;  // clock ticks after boot, as /proc/PID/stat has it
  std::uint64_t bytes = 0;
  std::string label;  // of a foreign entry
};

struct Usage {
  std::uint64_t total = 0;    // all holders
  std::uint64_t own = 0;      // the calling process
  std::uint64_t foreign = 0;  // foreign entries
};

enum class Charge {
  kOk,
  kNoRoom,     // total + bytes would exceed the capacity
  kTableFull,  // more than kEntriesMax (process, device) pairs live at once
};

// Most pairs of (process, device) that can be counted at once; an engine holds one.
inline constexpr std::size_t kEntriesMax = 1024;

class Accounting {
 public:
  // Opens or creates the file (mode 0600, directory must exist). kCorrupt: the file is something else, or of
  // another version; kIo: the system's reason. A file that another user owns is refused (kUnauthorized).
  static Result<std::unique_ptr<Accounting>> open(const std::string& path);
  ~Accounting();
  Accounting(const Accounting&) = delete;
  Accounting& operator=(const Accounting&) = delete;

  // Adds `bytes` to the calling process on `device` if the sum over all holders stays within `capacity` bytes.
  Charge charge(const DeviceUuid& device, std::uint64_t bytes, std::uint64_t capacity);
  // Takes `bytes` off the calling process's entry; what is more than it holds becomes 0.
  void release(const DeviceUuid& device, std::uint64_t bytes);
  Usage usage(const DeviceUuid& device);
  // Live holders of the device, in table order; the dead are cleared on the way.
  std::vector<Holder> holders(const DeviceUuid& device);
  // A foreign program that holds `bytes`; one entry per (device, label), 0 removes it. May exceed the capacity:
  // nobody asks us. The label is cut to 31 bytes. kRefused: table full.
  Result<> set_foreign(const DeviceUuid& device, std::uint64_t bytes, std::string_view label);

 private:
  struct Table;
  struct Entry;
  class Lock;
  Accounting(std::string path, int fd, Table* table);
  Result<> adopt_file();
  Entry* find_own(const DeviceUuid& device);
  Entry* claim(const DeviceUuid& device);
  void reap();
  std::uint64_t sum(const DeviceUuid& device) const;

  std::string path_;
  std::mutex mutex_;
  int fd_ = -1;
  Table* table_ = nullptr;
  pid_t owner_pid_ = 0;  // whose description fd_ is: a forked child must open its own to have its own lock
  std::uint64_t own_start_time_ = 0;
};

// Start time of a process that is alive (not a zombie), in clock ticks after boot; kNotFound otherwise.
Result<std::uint64_t> start_time_of(pid_t pid);

}  // namespace aiv::vgpu
