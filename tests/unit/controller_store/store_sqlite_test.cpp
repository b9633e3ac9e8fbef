// What the SQLite state does about damage, other versions, other processes and full disks.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sqlite3.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>

#include "controller/data_lock.hpp"
#include "controller/store_sqlite.hpp"
#include "core/prng.hpp"
#include "scratch.hpp"

namespace aiv::controller {
namespace {

std::unique_ptr<Store> open_in(const Scratch& scratch, bool accept_older = false) {
  auto store = open_sqlite_store(scratch.path, {.accept_older_state = accept_older, .ballast_bytes = 0});
  EXPECT_TRUE(store) << store.error().message();
  return store ? std::move(*store) : nullptr;
}

std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void spill(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

void fill(const Scratch& scratch, int rows) {
  auto store = open_in(scratch);
  for (int i = 0; i < rows; ++i) {
    ASSERT_TRUE(store->txn({{}, {Op::put("/row/" + std::to_string(i), std::string(200, static_cast<char>('a' + i % 26)))}})
                    .committed());
  }
}

// Everything in one file: what a copy of state.db alone would show.
void checkpoint(const Scratch& scratch) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(scratch.db().c_str(), &db), SQLITE_OK);
  sqlite3_exec(db, "PRAGMA wal_checkpoint(TRUNCATE)", nullptr, nullptr, nullptr);
  sqlite3_close(db);
}

void run_sql(const Scratch& scratch, const char* sql) {
  sqlite3* db = nullptr;
  ASSERT_EQ(sqlite3_open(scratch.db().c_str(), &db), SQLITE_OK);
  ASSERT_EQ(sqlite3_exec(db, sql, nullptr, nullptr, nullptr), SQLITE_OK) << sqlite3_errmsg(db);
  sqlite3_close(db);
}

TEST(SqliteStore, ReopeningGivesTheSameStateAndGoesOnCounting) {
  Scratch scratch;
  fill(scratch, 20);
  auto store = open_in(scratch);
  EXPECT_EQ(store->status().rev, 20);
  EXPECT_EQ(store->range("/", prefix_end("/"))->kvs.size(), 20u);
  EXPECT_EQ(store->watch("/", 1)->events.size(), 20u);
  EXPECT_EQ(store->txn({{}, {Op::put("/more", "")}}).rev, 21);
}

TEST(SqliteStore, EverySingleBitThatChangesWhatIsReadIsFound) {
  Scratch scratch;
  fill(scratch, 60);
  checkpoint(scratch);
  const std::string sound = slurp(scratch.db());
  const auto before = open_in(scratch)->range("/", prefix_end("/"))->kvs;
  Prng prng(7);
  int found = 0;
  constexpr int kFlips = 300;
  for (int i = 0; i < kFlips; ++i) {
    Scratch other;
    std::string bytes = sound;
    const std::size_t at = prng.below(static_cast<std::uint32_t>(bytes.size()));
    bytes[at] = static_cast<char>(static_cast<unsigned char>(bytes[at]) ^ (1U << prng.below(8)));
    spill(other.db(), bytes);
    auto store = open_sqlite_store(other.path, {.ballast_bytes = 0});
    if (!store || (*store)->status().health == StoreHealth::kReadOnly) {
      ++found;
      continue;
    }
    const auto after = (*store)->range("/", prefix_end("/"));
    ASSERT_TRUE(after);
    ASSERT_EQ(after->kvs, before) << "bit at byte " << at << " changed the state unseen";
    ASSERT_EQ(after->rev, 60) << "bit at byte " << at;
  }
  EXPECT_GT(found, kFlips / 2) << "most bytes carry state: most flips must be found";
}

TEST(SqliteStore, ATruncatedFileIsReportedAndLeftAsItIs) {
  Scratch scratch;
  fill(scratch, 60);
  checkpoint(scratch);
  const std::string sound = slurp(scratch.db());
  for (const std::size_t size : {sound.size() - 1, sound.size() - 4096, sound.size() / 2, std::size_t{5000},
                                 std::size_t{100}, std::size_t{1}, std::size_t{0}}) {
    spill(scratch.db(), sound.substr(0, size));
    auto store = open_sqlite_store(scratch.path, {.ballast_bytes = 0});
    ASSERT_TRUE(store);
    EXPECT_EQ((*store)->status().health, StoreHealth::kReadOnly) << size;
    EXPECT_NE((*store)->status().reason.find("restore"), std::string::npos);
    const TxnResult refused = (*store)->txn({{}, {Op::put("/a", "1")}});
    EXPECT_EQ(refused.outcome, TxnOutcome::kUnavailable);
    EXPECT_FALSE(refused.reason.empty());
    store->reset();
    EXPECT_EQ(slurp(scratch.db()).size(), size) << "a bad file must not be touched";
  }
}

TEST(SqliteStore, AMissingFileIsNotAFreshStartWhenRevisionsWereAcknowledged) {
  Scratch scratch;
  fill(scratch, 3);
  std::filesystem::remove(scratch.db());
  std::filesystem::remove(scratch.db() + "-wal");
  std::filesystem::remove(scratch.db() + "-shm");
  auto store = open_in(scratch);
  EXPECT_EQ(store->status().health, StoreHealth::kReadOnly);
  EXPECT_NE(store->status().reason.find("revision 3"), std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(scratch.db()));
}

TEST(SqliteStore, AnOlderStateThanWasAcknowledgedNeedsAWordFromTheAdmin) {
  Scratch scratch;
  fill(scratch, 3);
  checkpoint(scratch);
  const std::string older = slurp(scratch.db());
  { open_in(scratch)->txn({{}, {Op::put("/late", "1")}}); }
  std::filesystem::remove(scratch.db() + "-wal");
  std::filesystem::remove(scratch.db() + "-shm");
  spill(scratch.db(), older);
  {
    auto store = open_in(scratch);
    EXPECT_EQ(store->status().health, StoreHealth::kReadOnly);
    EXPECT_NE(store->status().reason.find("from revision 4 to 3"), std::string::npos) << store->status().reason;
    EXPECT_EQ(store->range("/", prefix_end("/"))->kvs.size(), 3u) << "reading goes on";
  }
  auto accepted = open_in(scratch, true);
  EXPECT_EQ(accepted->status().health, StoreHealth::kOk);
  EXPECT_EQ(accepted->txn({{}, {Op::put("/a", "1")}}).rev, 4);
}

TEST(SqliteStore, ANewerSchemaIsRefusedByBothNumbers) {
  Scratch scratch;
  fill(scratch, 1);
  run_sql(scratch, "PRAGMA user_version=9");
  const auto store = open_sqlite_store(scratch.path, {.ballast_bytes = 0});
  ASSERT_FALSE(store);
  EXPECT_EQ(store.error().code, ErrorCode::kRefused);
  EXPECT_NE(store.error().reason.find("schema 9"), std::string::npos);
  EXPECT_NE(store.error().reason.find("knows 1"), std::string::npos);
}

TEST(SqliteStore, ADatabaseOfAnotherProgramIsNotTouched) {
  Scratch scratch;
  run_sql(scratch, "CREATE TABLE diary(day, text); INSERT INTO diary VALUES(1, 'dear')");
  const std::string before = slurp(scratch.db());
  EXPECT_EQ(open_in(scratch)->status().health, StoreHealth::kReadOnly);
  EXPECT_EQ(slurp(scratch.db()), before);
}

TEST(SqliteStore, ARowEditedByHandIsFound) {
  Scratch scratch;
  fill(scratch, 5);
  run_sql(scratch, "UPDATE kv SET value = x'00' WHERE key = CAST('/row/2' AS BLOB)");
  EXPECT_NE(open_in(scratch)->status().reason.find("does not match its sum"), std::string::npos);
}

TEST(SqliteStore, ARowDeletedByHandIsFound) {
  Scratch scratch;
  fill(scratch, 5);
  run_sql(scratch, "DELETE FROM kv WHERE key = CAST('/row/2' AS BLOB)");
  EXPECT_NE(open_in(scratch)->status().reason.find("recorded root"), std::string::npos);
}

TEST(SqliteStore, TheFilesBelongToTheOwnerAlone) {
  Scratch scratch;
  fill(scratch, 1);
  for (const char* name : {"/state.db", "/revision.mark"}) {
    const auto mode = std::filesystem::status(scratch.path + name).permissions();
    EXPECT_EQ(mode & (std::filesystem::perms::group_all | std::filesystem::perms::others_all),
              std::filesystem::perms::none)
        << name;
  }
}

TEST(DataLock, ASecondServerLearnsThePidOfTheFirst) {
  Scratch scratch;
  auto first = DataLock::take(scratch.path);
  ASSERT_TRUE(first);
  const pid_t child = ::fork();
  if (child == 0) {
    const auto second = DataLock::take(scratch.path);
    const std::string want = "pid " + std::to_string(::getppid());
    ::_exit(!second && second.error().code == ErrorCode::kConflict && second.error().reason.contains(want) ? 0 : 1);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  first->reset();
  EXPECT_TRUE(DataLock::take(scratch.path));
}

}  // namespace
}  // namespace aiv::controller
