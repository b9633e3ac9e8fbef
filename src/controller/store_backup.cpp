#include "controller/store_backup.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>

#include "base/file.hpp"
#include "base/hash.hpp"
#include "base/host.hpp"
#include "base/json.hpp"
#include "base/units.hpp"
#include "controller/data_lock.hpp"
#include "controller/records.hpp"
#include "controller/store_sqlite.hpp"

namespace aiv::controller {

namespace {

namespace fs = std::filesystem;

constexpr std::int64_t kEpochLeap = 1000;  // above every epoch of starts that are not known of

// A directory beside `path`, gone with the object.
class Workshop {
 public:
  explicit Workshop(const std::string& path) : path_(path + ".work-" + random_base62(8)) {}
  ~Workshop() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  Workshop(const Workshop&) = delete;
  Workshop& operator=(const Workshop&) = delete;
  Result<> make() const { return make_directories(path_, 0700); }
  [[nodiscard]] std::string state() const { return path_ + "/state.db"; }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_;
};

Result<> copy_file(const std::string& from, const std::string& to) {
  std::error_code error;
  fs::copy_file(from, to, error);
  if (error) return fail(ErrorCode::kIo, error.message(), from);
  fs::permissions(to, fs::perms::owner_read | fs::perms::owner_write, error);
  return {};
}

Result<> sync_file(const std::string& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool done = fd >= 0 && ::fsync(fd) == 0;
  if (fd >= 0) ::close(fd);
  if (!done) return fail(ErrorCode::kIo, "cannot be written to the disk", path);
  return {};
}

std::int64_t epoch_in(Store& store) {
  const auto row = store.range(kEpochKey, "");
  if (!row || row->kvs.empty()) return 0;
  const auto json = parse_json(row->kvs.front().value);
  return json && json->is_number_integer() ? json->get<std::int64_t>() : 0;
}

// Opens DIR/state.db as the controller does, with all its checks.
Result<BackupFacts> facts_of(const std::string& directory) {
  SqliteOptions options;
  options.ballast_bytes = 0;
  auto store = open_sqlite_store(directory, options);
  if (!store) return std::unexpected(store.error());
  const StoreStatus status = (*store)->status();
  if (status.health != StoreHealth::kOk) return fail(ErrorCode::kCorrupt, status.reason);
  return BackupFacts{status.rev, epoch_in(**store), status.size_bytes};
}

// The highest epoch that was ever published here, as far as anybody still knows.
std::int64_t highest_epoch(const std::string& data_dir, std::int64_t in_copy) {
  std::int64_t highest = in_copy;
  if (const auto text = read_file(data_dir + "/gateway/routes.json", 64 << 20)) {
    const auto json = parse_json(*text);
    const Json* table = json && json->is_object() ? &*json : nullptr;
    if (table != nullptr && table->contains("document") && (*table)["document"].is_object()) table = &(*table)["document"];
    if (table != nullptr && table->contains("version") && (*table)["version"].is_object()) {
      highest = std::max(highest, (*table)["version"].value("epoch", std::int64_t{0}));
    }
  }
  return highest;
}

}  // namespace

Result<BackupFacts> check_backup(const std::string& file) {
  std::error_code ignored;
  if (!fs::exists(file, ignored)) return fail(ErrorCode::kNotFound, "there is no such file", file);
  // SQLite takes an empty file for a new database: it would verify, and restoring it would forget everything.
  const auto size = fs::file_size(file, ignored);
  if (ignored || size < 512) return fail(ErrorCode::kCorrupt, "is not a copy of a state: it is empty or cut", file);
  // In a place of its own: opening makes files beside it, and the copy may lie where nothing can be written.
  const Workshop workshop(fs::temp_directory_path(ignored).string() + "/aiv-check");
  if (auto made = workshop.make(); !made) return std::unexpected(made.error());
  if (auto copied = copy_file(file, workshop.state()); !copied) return std::unexpected(copied.error());
  auto facts = facts_of(workshop.path());
  if (!facts) return fail(facts.error().code, facts.error().reason, file);
  return facts;
}

Result<BackupFacts> backup_state(const std::string& data_dir, const std::string& file) {
  std::error_code ignored;
  const std::string state = data_dir + "/state.db";
  if (!fs::exists(state, ignored)) return fail(ErrorCode::kNotFound, "there is no state here; is it the server's --data?", data_dir);
  if (fs::exists(file, ignored)) return fail(ErrorCode::kConflict, "exists already; choose another name", file);
  const Workshop workshop(file);
  if (auto made = workshop.make(); !made) return std::unexpected(made.error());
  sqlite3* db = nullptr;
  int code = sqlite3_open_v2(state.c_str(), &db, SQLITE_OPEN_READWRITE, nullptr);
  std::string reason;
  if (code == SQLITE_OK) {
    sqlite3_busy_timeout(db, 10'000);
    sqlite3_stmt* statement = nullptr;
    code = sqlite3_prepare_v2(db, "VACUUM INTO ?1", -1, &statement, nullptr);
    if (code == SQLITE_OK) {
      sqlite3_bind_text(statement, 1, workshop.state().c_str(), -1, SQLITE_TRANSIENT);
      code = sqlite3_step(statement) == SQLITE_DONE ? SQLITE_OK : sqlite3_errcode(db);
    }
    if (code != SQLITE_OK) reason = sqlite3_errmsg(db);
    sqlite3_finalize(statement);
  } else {
    reason = sqlite3_errstr(code);
  }
  sqlite3_close(db);
  if (code != SQLITE_OK) return fail(code == SQLITE_CORRUPT ? ErrorCode::kCorrupt : ErrorCode::kIo, reason, state);
  fs::permissions(workshop.state(), fs::perms::owner_read | fs::perms::owner_write, ignored);
  auto facts = check_backup(workshop.state());
  if (!facts) return fail(facts.error().code, "the state does not verify: " + facts.error().reason, state);
  if (auto synced = sync_file(workshop.state()); !synced) return std::unexpected(synced.error());
  std::error_code error;
  fs::rename(workshop.state(), file, error);
  if (error) return fail(ErrorCode::kIo, error.message(), file);
  const std::string folder = fs::absolute(file, ignored).parent_path().string();
  if (auto synced = sync_file(folder); !synced) return std::unexpected(synced.error());
  return facts;
}

Result<Restored> restore_state(const std::string& data_dir, const std::string& file) {
  auto facts = check_backup(file);
  if (!facts) return std::unexpected(facts.error());
  if (auto made = make_directories(data_dir, 0700); !made) return std::unexpected(made.error());
  auto lock = DataLock::take(data_dir);
  if (!lock) return std::unexpected(lock.error());
  std::int64_t epoch = highest_epoch(data_dir, facts->epoch);
  if (const auto present = facts_of(data_dir); present) epoch = std::max(epoch, present->epoch);
  // Everything that can fail is done on a copy beside; then names change.
  const Workshop workshop(data_dir + "/restore");
  if (auto made = workshop.make(); !made) return std::unexpected(made.error());
  if (auto copied = copy_file(file, workshop.state()); !copied) return std::unexpected(copied.error());
  {
    SqliteOptions options;
    options.ballast_bytes = 0;
    auto store = open_sqlite_store(workshop.path(), options);
    if (!store) return std::unexpected(store.error());
    Txn txn;
    txn.ops.push_back(Op::put(kEpochKey, std::to_string(epoch + kEpochLeap)));
    const TxnResult written = (*store)->txn(txn);
    if (!written.committed()) return fail(ErrorCode::kIo, written.reason, workshop.state());
  }
  // The store is closed: SQLite has folded its log into the file.
  if (auto synced = sync_file(workshop.state()); !synced) return std::unexpected(synced.error());
  Restored out{*facts, {}};
  std::error_code error;
  std::string suffix = ".replaced-" + rfc3339(unix_ms());
  std::erase(suffix, ':');
  for (const char* name : {"/state.db", "/state.db-wal", "/state.db-shm", "/revision.mark"}) {
    const std::string old = data_dir + name;
    if (!fs::exists(old, error)) continue;
    fs::rename(old, old + suffix, error);
    if (error) return fail(ErrorCode::kIo, error.message(), old);
    if (std::string_view(name) == "/state.db") out.kept = old + suffix;
  }
  fs::rename(workshop.state(), data_dir + "/state.db", error);
  if (error) return fail(ErrorCode::kIo, error.message(), data_dir + "/state.db");
  if (auto synced = sync_file(data_dir); !synced) return std::unexpected(synced.error());
  return out;
}

}  // namespace aiv::controller
