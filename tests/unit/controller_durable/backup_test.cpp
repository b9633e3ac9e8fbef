// Copies of the state verify by themselves, bring it back, and nothing is touched before they do.
#include <gtest/gtest.h>

#include <fstream>

#include "base/file.hpp"
#include "controller/data_lock.hpp"
#include "controller/records.hpp"
#include "controller/store_backup.hpp"
#include "controller/store_sqlite.hpp"
#include "scratch.hpp"

namespace aiv::controller {
namespace {

std::unique_ptr<Store> open_at(const std::string& directory) {
  SqliteOptions options;
  options.ballast_bytes = 0;
  auto store = open_sqlite_store(directory, options);
  EXPECT_TRUE(store) << store.error().message();
  return std::move(*store);
}

void put(Store& store, const std::string& key, const std::string& value) {
  Txn txn;
  txn.ops.push_back(Op::put(key, value));
  ASSERT_TRUE(store.txn(txn).committed());
}

std::string value_of(const std::string& directory, const std::string& key) {
  const auto store = open_at(directory);
  const auto row = store->range(key, "");
  return row && !row->kvs.empty() ? row->kvs.front().value : "";
}

TEST(Backup, ACopyOfALivingStoreBringsItBackWithAnEpochAboveAllOthers) {
  const Scratch scratch;
  const std::string file = scratch.path + "/copy";
  {
    const auto store = open_at(scratch.path);
    put(*store, kEpochKey, "7");
    put(*store, "/aiv/keys/a", "first");
    const auto made = backup_state(scratch.path, file);
    ASSERT_TRUE(made) << made.error().message();
    EXPECT_EQ(made->revision, 2);
    EXPECT_EQ(made->epoch, 7);
    put(*store, "/aiv/keys/a", "second");
    put(*store, kEpochKey, "9");
  }
  EXPECT_FALSE(backup_state(scratch.path, file)) << "no file is overwritten";
  const auto done = restore_state(scratch.path, file);
  ASSERT_TRUE(done) << done.error().message();
  EXPECT_EQ(value_of(scratch.path, "/aiv/keys/a"), "first");
  EXPECT_GT(std::stoll(value_of(scratch.path, kEpochKey)), 9);
  EXPECT_TRUE(std::filesystem::exists(done->kept));
}

TEST(Backup, ACopyThatIsCutChangedOrNotOneIsRefusedAndTheStateIsLeftAsItWas) {
  const Scratch scratch;
  const std::string file = scratch.path + "/copy";
  {
    const auto store = open_at(scratch.path);
    for (int i = 0; i < 50; ++i) put(*store, "/aiv/keys/" + std::to_string(i), std::string(300, 'x'));
    ASSERT_TRUE(backup_state(scratch.path, file));
  }
  const std::string good = *read_file(file, 1 << 24);
  const std::string state = *read_file(scratch.db(), 1 << 24);
  const auto refuse = [&](const std::string& bytes, const char* what) {
    std::ofstream(scratch.path + "/bad", std::ios::binary | std::ios::trunc) << bytes;
    EXPECT_FALSE(restore_state(scratch.path, scratch.path + "/bad")) << what;
    EXPECT_EQ(*read_file(scratch.db(), 1 << 24), state) << what;
  };
  refuse(good.substr(0, good.size() / 2), "cut");
  refuse("", "empty");
  refuse("hello", "not a database");
  std::string changed = good;
  const auto at = changed.find(std::string(300, 'x'));
  ASSERT_NE(at, std::string::npos);
  changed[at + 100] = 'y';
  refuse(changed, "one byte of one value");
  EXPECT_EQ(restore_state(scratch.path, scratch.path + "/none").error().code, ErrorCode::kNotFound);
}

TEST(Backup, ARunningServersStateIsNotReplaced) {
  const Scratch scratch;
  {
    const auto store = open_at(scratch.path);
    put(*store, kEpochKey, "1");
    ASSERT_TRUE(backup_state(scratch.path, scratch.path + "/copy"));
  }
  const auto lock = DataLock::take(scratch.path);
  ASSERT_TRUE(lock);
  const auto refused = restore_state(scratch.path, scratch.path + "/copy");
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, ErrorCode::kConflict);
}

}  // namespace
}  // namespace aiv::controller
