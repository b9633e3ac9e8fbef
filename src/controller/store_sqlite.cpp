#include "controller/store_sqlite.hpp"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <optional>

#include "base/hash.hpp"
#include "controller/sqlite_statement.hpp"

namespace aiv::controller {

namespace {

constexpr const char* kSchema =
    "CREATE TABLE kv(key BLOB PRIMARY KEY, value BLOB NOT NULL, create_rev INTEGER NOT NULL,"
    "                mod_rev INTEGER NOT NULL, sum BLOB NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE log(rev INTEGER NOT NULL, n INTEGER NOT NULL, key BLOB NOT NULL, op INTEGER NOT NULL,"
    "                 value BLOB NOT NULL, sum BLOB NOT NULL, PRIMARY KEY(rev, n)) WITHOUT ROWID;"
    "CREATE TABLE meta(id INTEGER PRIMARY KEY CHECK(id = 1), rev INTEGER NOT NULL, count INTEGER NOT NULL,"
    "                  oldest_rev INTEGER NOT NULL, root BLOB NOT NULL, sum BLOB NOT NULL);";

struct Meta {
  std::int64_t rev = 0;
  std::int64_t count = 0;
  std::int64_t oldest_rev = 1;
  RowSum root;
  // Over every field, so that a flipped revision is found as well.
  [[nodiscard]] std::string sum() const {
    return row_sum(root.bytes(), std::to_string(oldest_rev), rev, count).bytes();
  }
};

bool holds(const Compare& compare, const std::optional<KeyValue>& current) {
  switch (compare.target) {
    case Compare::Target::kAbsent: return !current.has_value();
    case Compare::Target::kModRev: return current && current->mod_rev == compare.mod_rev;
    case Compare::Target::kValue: return current && current->value == compare.value;
  }
  return false;
}

class SqliteStore : public Store {
 public:
  SqliteStore(std::string directory, SqliteOptions options)
      : directory_(std::move(directory)), options_(options), path_(directory_ + "/state.db") {}
  ~SqliteStore() override {
    statements_ = {};
    sqlite3_close(db_);
    if (mark_fd_ >= 0) ::close(mark_fd_);
  }

  Result<> open();

  Result<RangeResult> range(std::string_view from, std::string_view to, std::size_t limit,
                            std::int64_t at_rev) override;
  TxnResult txn(const Txn& txn) override;
  Result<WatchResult> watch(std::string_view prefix, std::int64_t from_rev, std::size_t limit) override;
  Result<> compact(std::int64_t rev) override;
  StoreStatus status() override;

 private:
  struct Statements {
    Statement get, put, erase, range, log_put, log_read, log_trim, meta_put;
  };

  int exec(const char* sql) { return sqlite3_exec(db_, sql, nullptr, nullptr, nullptr); }
  std::int64_t pragma(const char* sql);
  Result<> create_schema();
  std::string verify();
  void prepare();
  void damaged(std::string reason);
  void write_mark();
  std::optional<std::int64_t> read_mark() const;
  void make_ballast();
  [[nodiscard]] bool has_ballast() const;
  [[nodiscard]] std::string full_reason() const;
  void write_no_more();
  bool unread_for_want_of_room();
  Result<std::optional<KeyValue>> get(const std::string& key);
  int write(const Txn& txn, Meta& meta);
  int put_row(const KeyValue& kv, Meta& meta);
  int put_meta(const Meta& meta);
  TxnResult failed(int code, bool at_commit);

  const std::string directory_;
  const SqliteOptions options_;
  const std::string path_;
  std::mutex mutex_;
  sqlite3* db_ = nullptr;
  Statements statements_;
  Meta meta_;
  int mark_fd_ = -1;
  bool readable_ = false;
  bool disk_full_ = false;
  std::string read_only_;  // reason; empty = writable
};

std::int64_t SqliteStore::pragma(const char* sql) {
  Statement statement(db_, sql);
  return statement.step() == SQLITE_ROW ? statement.integer(0) : -1;
}

void SqliteStore::damaged(std::string reason) {
  read_only_ = std::move(reason) + ". The file is left as it is; restore a backup with `aiv server restore`, or move "
                                   "state.db* and revision.mark away to begin anew.";
}

Result<> SqliteStore::open() {
  struct stat info {};
  const bool exists = ::stat(path_.c_str(), &info) == 0;
  const std::optional<std::int64_t> mark = read_mark();
  mark_fd_ = ::open((directory_ + "/revision.mark").c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (mark_fd_ < 0) return fail(ErrorCode::kIo, std::strerror(errno), directory_ + "/revision.mark");
  if (!exists && mark.value_or(0) > 0 && !options_.accept_older_state) {
    damaged("state.db is missing although revision " + std::to_string(*mark) + " was acknowledged");
    return {};
  }
  if (exists && info.st_size == 0 && mark.value_or(0) > 0 && !options_.accept_older_state) {
    damaged("state.db is empty although revision " + std::to_string(*mark) + " was acknowledged");
    return {};
  }
  bool fresh = !exists || info.st_size == 0;
  const int flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX | SQLITE_OPEN_NOFOLLOW;
  if (sqlite3_open_v2(path_.c_str(), &db_, flags, nullptr) != SQLITE_OK) {
    damaged("state.db cannot be opened: " + std::string(db_ != nullptr ? sqlite3_errmsg(db_) : "no memory"));
    return {};
  }
  ::chmod(path_.c_str(), 0600);
  sqlite3_busy_timeout(db_, 2000);
  exec("PRAGMA trusted_schema=OFF");
  exec("PRAGMA cell_size_check=ON");
  // A first start that was killed before its one transaction leaves a file without any table.
  if (!fresh && mark.value_or(0) == 0 && pragma("SELECT count(*) FROM sqlite_master") == 0 &&
      pragma("PRAGMA application_id") == 0) {
    fresh = true;
  }
  if (fresh) {
    if (auto made = create_schema(); !made) return made;
  } else {
    const std::int64_t application = pragma("PRAGMA application_id");
    const std::int64_t version = pragma("PRAGMA user_version");
    if (application == kSqliteApplicationId && version > kSqliteSchemaVersion) {
      return fail(ErrorCode::kRefused, "the state has schema " + std::to_string(version) + ", this version knows " +
                                           std::to_string(kSqliteSchemaVersion) + ": use the newer aiv again", path_);
    }
    if (application < 0 && unread_for_want_of_room()) return {};
    if (application < 0) {
      damaged("state.db cannot be read: it is cut off or damaged");
      return {};
    }
    if (application != kSqliteApplicationId || version != kSqliteSchemaVersion) {
      damaged("state.db is not a state of ours (application id " + std::to_string(application) + ", schema " +
              std::to_string(version) + ")");
      return {};
    }
    exec("PRAGMA journal_mode=WAL");
    exec("PRAGMA synchronous=FULL");
    exec("PRAGMA foreign_keys=ON");
  }
  if (std::string reason = verify(); !reason.empty()) {
    if (!unread_for_want_of_room()) damaged("state.db is damaged: " + reason);
    return {};
  }
  prepare();
  readable_ = true;
  if (mark.value_or(0) > meta_.rev && !options_.accept_older_state) {
    read_only_ = "the state went back from revision " + std::to_string(*mark) + " to " + std::to_string(meta_.rev) +
                 ": acknowledged changes are gone. Restore a backup, or go on from here with --accept-older-state";
    return {};
  }
  write_mark();
  if (options_.ballast_bytes > 0 && !has_ballast() && options_.free_bytes(directory_) < kFreeBytesToWrite) {
    write_no_more();
    return {};
  }
  make_ballast();
  return {};
}

Result<> SqliteStore::create_schema() {
  // The change to WAL is written with a rollback journal. Only EXTRA syncs the folder after that is deleted
  // (sqlite.org/pragma.html#pragma_synchronous): a power cut could bring the journal back, and with it the empty file.
  const std::string head =
      "PRAGMA synchronous=EXTRA; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;";
  const std::string body = "BEGIN IMMEDIATE; PRAGMA application_id=" + std::to_string(kSqliteApplicationId) +
                           "; PRAGMA user_version=" + std::to_string(kSqliteSchemaVersion) + ";" + kSchema;
  const bool ok = exec(head.c_str()) == SQLITE_OK && exec(body.c_str()) == SQLITE_OK;
  statements_.meta_put = Statement(db_, "INSERT OR REPLACE INTO meta VALUES(1,?1,?2,?3,?4,?5)");
  if (!ok || put_meta(Meta{}) != SQLITE_DONE || exec("COMMIT") != SQLITE_OK) {
    return fail(ErrorCode::kIo, std::string("the state cannot be created: ") + sqlite3_errmsg(db_), path_);
  }
  return {};
}

// Structure by SQLite, content by our sums. Empty when sound.
std::string SqliteStore::verify() {
  {
    Statement check(db_, "PRAGMA integrity_check(1)");
    if (check.step() != SQLITE_ROW) return sqlite3_errmsg(db_);
    if (const std::string answer = check.blob(0); answer != "ok") return answer;
  }
  {
    Statement read(db_, "SELECT rev, count, oldest_rev, root, sum FROM meta WHERE id=1");
    if (read.step() != SQLITE_ROW) return "the revision record cannot be read";
    meta_ = {read.integer(0), read.integer(1), read.integer(2), RowSum::from_bytes(read.blob(3))};
    if (read.blob(4) != meta_.sum()) return "the revision record does not match its sum";
  }
  RowSum root;
  std::int64_t count = 0;
  Statement rows(db_, "SELECT key, value, create_rev, mod_rev, sum FROM kv");
  int code = rows.step();
  for (; code == SQLITE_ROW; code = rows.step()) {
    const RowSum sum = row_sum(rows.blob(0), rows.blob(1), rows.integer(2), rows.integer(3));
    if (rows.blob(4) != sum.bytes()) return "row " + std::to_string(count + 1) + " does not match its sum";
    root += sum;
    ++count;
  }
  if (code != SQLITE_DONE) return sqlite3_errmsg(db_);
  if (count != meta_.count || !(root == meta_.root)) return "the rows do not add up to the recorded root";
  Statement log(db_, "SELECT key, value, rev * 256 + n, op, sum FROM log");
  for (code = log.step(); code == SQLITE_ROW; code = log.step()) {
    if (log.blob(4) != row_sum(log.blob(0), log.blob(1), log.integer(2), log.integer(3)).bytes()) {
      return "a row of the change log does not match its sum";
    }
  }
  return code == SQLITE_DONE ? std::string() : std::string(sqlite3_errmsg(db_));
}

void SqliteStore::prepare() {
  statements_.get = Statement(db_, "SELECT value, create_rev, mod_rev FROM kv WHERE key=?1");
  statements_.put = Statement(db_, "INSERT OR REPLACE INTO kv VALUES(?1,?2,?3,?4,?5)");
  statements_.erase = Statement(db_, "DELETE FROM kv WHERE key=?1");
  statements_.range =
      Statement(db_, "SELECT key, value, create_rev, mod_rev FROM kv WHERE key>=?1 AND key<?2 ORDER BY key LIMIT ?3");
  statements_.log_put = Statement(db_, "INSERT INTO log VALUES(?1,?2,?3,?4,?5,?6)");
  statements_.log_read = Statement(
      db_, "SELECT rev, key, op, value FROM log WHERE rev>=?1 AND key>=?2 AND key<?3 ORDER BY rev, n");
  statements_.log_trim = Statement(db_, "DELETE FROM log WHERE rev<?1");
  statements_.meta_put = Statement(db_, "INSERT OR REPLACE INTO meta VALUES(1,?1,?2,?3,?4,?5)");
}

std::optional<std::int64_t> SqliteStore::read_mark() const {
  const int fd = ::open((directory_ + "/revision.mark").c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  if (fd < 0) return std::nullopt;
  std::array<std::uint64_t, 2> words{};
  const ssize_t n = ::read(fd, words.data(), sizeof words);
  ::close(fd);
  if (n != static_cast<ssize_t>(sizeof words)) return std::nullopt;
  const std::string_view text(reinterpret_cast<const char*>(words.data()), sizeof words[0]);
  if (fnv1a(text) != words[1]) return std::nullopt;  // torn: it was never synced
  return static_cast<std::int64_t>(words[0]);
}

void SqliteStore::write_mark() {
  std::array<std::uint64_t, 2> words{static_cast<std::uint64_t>(meta_.rev), 0};
  words[1] = fnv1a(std::string_view(reinterpret_cast<const char*>(words.data()), sizeof words[0]));
  if (::pwrite(mark_fd_, words.data(), sizeof words, 0) < 0) return;  // a guard, not a promise
}

void SqliteStore::make_ballast() {
  if (options_.ballast_bytes == 0) return;
  const int fd = ::open(ballast_file(directory_).c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return;
  if (::posix_fallocate(fd, 0, options_.ballast_bytes) != 0) ::unlink(ballast_file(directory_).c_str());
  ::close(fd);
}

bool SqliteStore::has_ballast() const {
  struct stat info {};
  return ::stat(ballast_file(directory_).c_str(), &info) == 0 && info.st_size >= options_.ballast_bytes;
}

// After a read that failed: even reading writes some kilobytes (SQLite's shared memory), so a full disk looks like a fault
// of the file. True: that is all it is, and read_only_ says so.
bool SqliteStore::unread_for_want_of_room() {
  const int code = sqlite3_errcode(db_) & 0xff;
  if (code != SQLITE_FULL && code != SQLITE_IOERR && code != SQLITE_CANTOPEN) return false;
  if (options_.free_bytes(directory_) >= kFreeBytesToStart) return false;
  read_only_ = "state.db cannot be read (" + std::string(sqlite3_errmsg(db_)) + "): " + full_reason() + " and start again";
  return true;
}

void SqliteStore::write_no_more() {
  disk_full_ = true;
  read_only_ = full_reason() + "; writing goes on by itself then";
}

std::string SqliteStore::full_reason() const {
  return "the disk of " + directory_ + " is full: free at least 16 MiB there";
}

Result<std::optional<KeyValue>> SqliteStore::get(const std::string& key) {
  statements_.get.bind(1, key);
  const int code = statements_.get.step();
  std::optional<KeyValue> found;
  if (code == SQLITE_ROW) {
    found = KeyValue{key, statements_.get.blob(0), statements_.get.integer(1), statements_.get.integer(2)};
  }
  statements_.get.reset();
  if (code != SQLITE_ROW && code != SQLITE_DONE) return fail(ErrorCode::kIo, sqlite3_errmsg(db_), "state.db");
  return found;
}

Result<RangeResult> SqliteStore::range(std::string_view from, std::string_view to, std::size_t limit,
                                       std::int64_t at_rev) {
  const std::scoped_lock lock(mutex_);
  if (!readable_) return fail(ErrorCode::kUnavailable, read_only_, "state.db");
  if (at_rev != 0 && at_rev != meta_.rev) {
    return fail(ErrorCode::kConflict, "the state has moved on to revision " + std::to_string(meta_.rev));
  }
  RangeResult result;
  result.rev = meta_.rev;
  const std::string end = to.empty() ? std::string(from) + '\0' : std::string(to);
  Statement& read = statements_.range;
  read.bind(1, from).bind(2, end).bind(3, limit == 0 ? -1 : static_cast<std::int64_t>(limit) + 1);
  int code = read.step();
  for (; code == SQLITE_ROW; code = read.step()) {
    if (limit != 0 && result.kvs.size() == limit) {
      result.more = true;
      break;
    }
    result.kvs.push_back({read.blob(0), read.blob(1), read.integer(2), read.integer(3)});
  }
  read.reset();
  if (code != SQLITE_ROW && code != SQLITE_DONE) return fail(ErrorCode::kIo, sqlite3_errmsg(db_), "state.db");
  return result;
}

int SqliteStore::put_row(const KeyValue& kv, Meta& meta) {
  const RowSum sum = row_sum(kv.key, kv.value, kv.create_rev, kv.mod_rev);
  meta.root += sum;
  Statement& put = statements_.put;
  put.bind(1, kv.key).bind(2, kv.value).bind(3, kv.create_rev).bind(4, kv.mod_rev).bind(5, sum.bytes());
  const int code = put.step();
  put.reset();
  return code;
}

int SqliteStore::put_meta(const Meta& meta) {
  Statement& put = statements_.meta_put;
  put.bind(1, meta.rev).bind(2, meta.count).bind(3, meta.oldest_rev).bind(4, meta.root.bytes()).bind(5, meta.sum());
  const int code = put.step();
  put.reset();
  return code;
}

// The writes of one transaction; `meta` becomes the new one. SQLITE_DONE or the first error.
int SqliteStore::write(const Txn& txn, Meta& meta) {
  ++meta.rev;
  std::int64_t n = 0;
  for (const Op& op : txn.ops) {
    auto found = get(op.key);
    if (!found) return sqlite3_errcode(db_);
    const std::optional<KeyValue>& old = *found;
    if (old) meta.root -= row_sum(old->key, old->value, old->create_rev, old->mod_rev);
    int code = SQLITE_DONE;
    if (op.kind == Op::Kind::kPut) {
      if (!old) ++meta.count;
      code = put_row({op.key, op.value, old ? old->create_rev : meta.rev, meta.rev}, meta);
    } else {
      if (!old) continue;
      --meta.count;
      statements_.erase.bind(1, op.key);
      code = statements_.erase.step();
      statements_.erase.reset();
    }
    if (code != SQLITE_DONE) return code;
    const std::int64_t kind = op.kind == Op::Kind::kPut ? 0 : 1;
    Statement& log = statements_.log_put;
    log.bind(1, meta.rev).bind(2, n).bind(3, op.key).bind(4, kind).bind(5, op.value);
    log.bind(6, row_sum(op.key, op.value, meta.rev * 256 + n, kind).bytes());
    code = log.step();
    log.reset();
    if (code != SQLITE_DONE) return code;
    ++n;
  }
  // Trimmed in steps of 256 revisions: one range delete instead of one a transaction.
  if (meta.rev % 256 == 0 && meta.rev - kLogRevisionsKept > meta.oldest_rev) {
    meta.oldest_rev = meta.rev - kLogRevisionsKept + 1;
    statements_.log_trim.bind(1, meta.oldest_rev);
    const int code = statements_.log_trim.step();
    statements_.log_trim.reset();
    if (code != SQLITE_DONE) return code;
  }
  return put_meta(meta);
}

TxnResult SqliteStore::failed(int code, bool at_commit) {
  TxnResult result;
  result.reason = sqlite3_errmsg(db_);
  if (sqlite3_get_autocommit(db_) == 0) exec("ROLLBACK");
  if (code == SQLITE_FULL) {
    // Nothing was applied: SQLite rolls a full disk back. The ballast gives the next ones room.
    ::unlink(ballast_file(directory_).c_str());
    write_no_more();
    result.reason = read_only_;
  } else if (at_commit && code != SQLITE_BUSY) {
    result.outcome = TxnOutcome::kUnknown;
  }
  // Whatever happened, what counts is what is in the file.
  if (std::string reason = verify(); !reason.empty()) {
    readable_ = false;
    damaged("state.db is damaged: " + reason);
  }
  return result;
}

TxnResult SqliteStore::txn(const Txn& txn) {
  const std::scoped_lock lock(mutex_);
  TxnResult result;
  if (result.reason = txn_over_limit(txn); !result.reason.empty()) {
    result.outcome = TxnOutcome::kInvalid;
    return result;
  }
  if (disk_full_ && readable_ && options_.free_bytes(directory_) >= kFreeBytesToWrite) {
    disk_full_ = false;
    read_only_.clear();
    make_ballast();
  }
  if (!read_only_.empty()) {
    result.reason = read_only_;
    return result;
  }
  if (int code = exec("BEGIN IMMEDIATE"); code != SQLITE_OK) return failed(code, false);
  bool all_hold = true;
  for (const Compare& compare : txn.compares) {
    auto current = get(compare.key);
    if (!current) return failed(sqlite3_errcode(db_), false);
    if (!holds(compare, *current)) all_hold = false;
    if (current->has_value()) result.current.push_back(**current);
  }
  if (!all_hold) {
    exec("ROLLBACK");
    result.outcome = TxnOutcome::kCompareFailed;
    result.rev = meta_.rev;
    return result;
  }
  result.current.clear();
  Meta meta = meta_;
  if (int code = write(txn, meta); code != SQLITE_DONE) return failed(code, false);
  if (int code = exec("COMMIT"); code != SQLITE_OK) return failed(code, true);
  meta_ = meta;
  write_mark();
  result.outcome = TxnOutcome::kCommitted;
  result.rev = meta_.rev;
  return result;
}

Result<WatchResult> SqliteStore::watch(std::string_view prefix, std::int64_t from_rev, std::size_t limit) {
  const std::scoped_lock lock(mutex_);
  if (!readable_) return fail(ErrorCode::kUnavailable, read_only_, "state.db");
  WatchResult result;
  result.oldest_rev = meta_.oldest_rev;
  result.next_rev = std::max(from_rev, meta_.rev + 1);
  if (from_rev < meta_.oldest_rev) {
    result.compacted = true;
    return result;
  }
  Statement& read = statements_.log_read;
  read.bind(1, from_rev).bind(2, prefix).bind(3, prefix_end(prefix));
  int code = read.step();
  for (; code == SQLITE_ROW; code = read.step()) {
    const std::int64_t rev = read.integer(0);
    if (result.events.size() >= limit && rev != result.events.back().rev) {
      result.next_rev = rev;
      break;
    }
    result.events.push_back({rev, read.integer(2) == 0 ? Op::Kind::kPut : Op::Kind::kDelete, read.blob(1), read.blob(3)});
  }
  read.reset();
  if (code != SQLITE_ROW && code != SQLITE_DONE) return fail(ErrorCode::kIo, sqlite3_errmsg(db_), "state.db");
  return result;
}

Result<> SqliteStore::compact(std::int64_t rev) {
  const std::scoped_lock lock(mutex_);
  if (!read_only_.empty()) return fail(ErrorCode::kUnavailable, read_only_, "state.db");
  Meta meta = meta_;
  meta.oldest_rev = std::max(meta_.oldest_rev, std::min(rev, meta_.rev + 1));
  if (exec("BEGIN IMMEDIATE") != SQLITE_OK) return fail(ErrorCode::kIo, sqlite3_errmsg(db_), "state.db");
  statements_.log_trim.bind(1, meta.oldest_rev);
  const int trimmed = statements_.log_trim.step();
  statements_.log_trim.reset();
  if (trimmed != SQLITE_DONE || put_meta(meta) != SQLITE_DONE || exec("COMMIT") != SQLITE_OK) {
    const std::string reason = sqlite3_errmsg(db_);
    if (sqlite3_get_autocommit(db_) == 0) exec("ROLLBACK");
    return fail(ErrorCode::kIo, reason, "state.db");
  }
  meta_ = meta;
  return {};
}

StoreStatus SqliteStore::status() {
  const std::scoped_lock lock(mutex_);
  StoreStatus status;
  status.role = "single";
  status.rev = meta_.rev;
  struct stat info {};
  if (::stat(path_.c_str(), &info) == 0) status.size_bytes = info.st_size;
  status.health = read_only_.empty() ? StoreHealth::kOk : StoreHealth::kReadOnly;
  status.reason = read_only_;
  return status;
}

}  // namespace

Result<std::unique_ptr<Store>> open_sqlite_store(const std::string& directory, SqliteOptions options) {
  auto store = std::make_unique<SqliteStore>(directory, options);
  if (auto opened = store->open(); !opened) return std::unexpected(opened.error());
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace aiv::controller
