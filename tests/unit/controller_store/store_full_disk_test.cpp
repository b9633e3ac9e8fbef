// What the state does on a disk that is full, or nearly, when it is opened.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <fstream>

#include "base/file.hpp"
#include "base/units.hpp"
#include "controller/store_sqlite.hpp"
#include "full_disk.hpp"
#include "scratch.hpp"

namespace aiv::controller {
namespace {

using aiv::test::FullDisk;

SqliteOptions on_disk_with(const std::int64_t& free_bytes, std::int64_t ballast_bytes = kMiB) {
  SqliteOptions options;
  options.ballast_bytes = ballast_bytes;
  options.free_bytes = [&free_bytes](const std::string&) { return free_bytes; };
  return options;
}

TxnResult put(Store& store, const std::string& key) { return store.txn({{}, {Op::put(key, "value")}}); }

bool has_ballast(const Scratch& scratch) {
  struct stat info {};
  return ::stat((scratch.path + "/state.ballast").c_str(), &info) == 0;
}

TEST(FullDiskAtOpen, AStoreWithoutBallastOnANearlyFullDiskTakesNoChangesUntilThereIsRoom) {
  Scratch scratch;
  std::int64_t free_bytes = kGiB;
  {
    auto store = open_sqlite_store(scratch.path, on_disk_with(free_bytes));
    ASSERT_TRUE(put(**store, "/a").committed());
  }
  ASSERT_EQ(::unlink((scratch.path + "/state.ballast").c_str()), 0);
  free_bytes = kFreeBytesToWrite - 1;
  auto opened = open_sqlite_store(scratch.path, on_disk_with(free_bytes));
  ASSERT_TRUE(opened);
  Store& store = **opened;
  EXPECT_EQ(store.status().health, StoreHealth::kReadOnly);
  EXPECT_NE(store.status().reason.find(scratch.path + " is full: free at least 16 MiB"), std::string::npos) << store.status().reason;
  EXPECT_EQ(put(store, "/b").outcome, TxnOutcome::kUnavailable);
  ASSERT_EQ(store.range("/", "0", 0, 0)->kvs.size(), 1u) << "reading goes on";
  EXPECT_FALSE(has_ballast(scratch)) << "the last room is not taken for ballast";

  free_bytes = kFreeBytesToWrite;
  EXPECT_TRUE(put(store, "/b").committed()) << "by itself, when there is room again";
  EXPECT_TRUE(has_ballast(scratch));
}

TEST(FullDiskAtOpen, WithItsBallastAStoreOnANearlyFullDiskGoesOn) {
  Scratch scratch;
  std::int64_t free_bytes = kGiB;
  { auto store = open_sqlite_store(scratch.path, on_disk_with(free_bytes)); }
  free_bytes = kFreeBytesToWrite - 1;
  auto store = open_sqlite_store(scratch.path, on_disk_with(free_bytes));
  EXPECT_TRUE(put(**store, "/a").committed());
}

TEST(FullDiskAtOpen, WithoutOneByteTheStateIsCalledUnreadableAndNotDamagedAndNothingIsLost) {
  Scratch scratch;
  std::int64_t free_bytes = kGiB;
  {
    auto store = open_sqlite_store(scratch.path, on_disk_with(free_bytes, 0));
    for (int i = 0; i < 20; ++i) ASSERT_TRUE(put(**store, "/row/" + std::to_string(i)).committed());
  }
  {
    const FullDisk full;
    free_bytes = 0;
    auto store = open_sqlite_store(scratch.path, on_disk_with(free_bytes, 0));
    ASSERT_TRUE(store) << store.error().message();
    EXPECT_EQ((*store)->status().health, StoreHealth::kReadOnly);
    const std::string reason = (*store)->status().reason;
    EXPECT_NE(reason.find("is full: free at least 16 MiB there and start again"), std::string::npos) << reason;
    EXPECT_EQ(reason.find("damaged"), std::string::npos) << reason;
    EXPECT_EQ(reason.find("restore"), std::string::npos) << reason;
    EXPECT_EQ(put(**store, "/x").outcome, TxnOutcome::kUnavailable);
  }
  free_bytes = kGiB;
  auto store = open_sqlite_store(scratch.path, on_disk_with(free_bytes, 0));
  EXPECT_EQ((*store)->status().health, StoreHealth::kOk) << (*store)->status().reason;
  EXPECT_EQ((*store)->range("/", "0", 0, 0)->kvs.size(), 20u);
}

TEST(FullDiskAtOpen, ADiskThatFillsUpLaterRefusesTheChangeAndHeals) {
  Scratch scratch;
  std::int64_t free_bytes = kGiB;
  auto store = open_sqlite_store(scratch.path, on_disk_with(free_bytes));
  ASSERT_TRUE(put(**store, "/a").committed());
  {
    const FullDisk full;
    free_bytes = 0;
    const TxnResult refused = put(**store, "/b");
    EXPECT_EQ(refused.outcome, TxnOutcome::kUnavailable);
    EXPECT_NE(refused.reason.find("is full: free at least 16 MiB"), std::string::npos) << refused.reason;
    EXPECT_FALSE(has_ballast(scratch));
    EXPECT_EQ((*store)->range("/", "0", 0, 0)->kvs.size(), 1u);
  }
  free_bytes = kGiB;
  EXPECT_TRUE(put(**store, "/b").committed());
}

TEST(RoomToStart, AFullDiskGivesUpItsBallastForAStart) {
  Scratch scratch;
  std::ofstream(scratch.path + "/state.ballast") << std::string(1000, 'x');
  const auto free_bytes = [&](const std::string&) { return has_ballast(scratch) ? std::int64_t{0} : 8 * kMiB; };
  EXPECT_TRUE(make_room_to_start(scratch.path, free_bytes));
  EXPECT_FALSE(has_ballast(scratch));
}

TEST(RoomToStart, WithoutRoomOrBallastItSaysWhereAndHowMuch) {
  const auto none = [](const std::string&) { return std::int64_t{0}; };
  const auto refused = make_room_to_start("/nowhere/data", none);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().where, "/nowhere/data");
  EXPECT_NE(refused.error().reason.find("the disk is full (0 B are free, a start writes up to 512.0 KiB)"), std::string::npos)
      << refused.error().reason;
}

TEST(RoomToStart, ADirectoryThatIsStillToBeMadeIsMeasuredWhereItWillBe) {
  Scratch scratch;
  EXPECT_EQ(free_bytes_of(scratch.path + "/to/be/made") / kGiB, free_bytes_of(scratch.path) / kGiB);
}

TEST(RoomToStart, BallastStaysWhereThereIsRoom) {
  Scratch scratch;
  std::ofstream(scratch.path + "/state.ballast") << "x";
  EXPECT_TRUE(make_room_to_start(scratch.path, [](const std::string&) { return kFreeBytesToStart; }));
  EXPECT_TRUE(has_ballast(scratch));
}

}  // namespace
}  // namespace aiv::controller
