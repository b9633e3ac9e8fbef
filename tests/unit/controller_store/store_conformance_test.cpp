// The rules of controller/store.hpp, the same for every backend.
#include <gtest/gtest.h>

#include <functional>

#include "controller/store_memory.hpp"
#include "controller/store_sqlite.hpp"
#include "scratch.hpp"

namespace aiv::controller {
namespace {

struct Backend {
  const char* name;
  std::function<std::unique_ptr<Store>(const Scratch&)> make;
};

std::unique_ptr<Store> make_memory(const Scratch&) { return std::make_unique<MemoryStore>(); }
std::unique_ptr<Store> make_sqlite(const Scratch& scratch) {
  auto store = open_sqlite_store(scratch.path, {.ballast_bytes = 0});
  return store ? std::move(*store) : nullptr;
}

class StoreConformance : public testing::TestWithParam<Backend> {
 protected:
  void SetUp() override {
    store_ = GetParam().make(scratch_);
    ASSERT_NE(store_, nullptr);
  }
  TxnResult put(std::string key, std::string value) {
    return store_->txn({{}, {Op::put(std::move(key), std::move(value))}});
  }
  Scratch scratch_;
  std::unique_ptr<Store> store_;
};

TEST_P(StoreConformance, ATransactionAddsExactlyOneToTheRevision) {
  EXPECT_EQ(put("/a", "1").rev, 1);
  const TxnResult two = store_->txn({{}, {Op::put("/b", "1"), Op::put("/c", "1"), Op::erase("/a")}});
  ASSERT_TRUE(two.committed());
  EXPECT_EQ(two.rev, 2);
  EXPECT_EQ(store_->status().rev, 2);
}

TEST_P(StoreConformance, ARangeGivesKeysInOrderWithTheirRevisions) {
  put("/b", "1");
  put("/a", "2");
  put("/b", "3");
  put("/c", "4");
  const auto all = store_->range("/", prefix_end("/"));
  ASSERT_TRUE(all);
  EXPECT_EQ(all->rev, 4);
  ASSERT_EQ(all->kvs.size(), 3u);
  EXPECT_EQ(all->kvs[0], (KeyValue{"/a", "2", 2, 2}));
  EXPECT_EQ(all->kvs[1], (KeyValue{"/b", "3", 1, 3}));
  EXPECT_EQ(store_->range("/b", "")->kvs.size(), 1u);
  EXPECT_EQ(store_->range("/a", "/c")->kvs.size(), 2u);
}

TEST_P(StoreConformance, ALimitedRangeGoesOnAtTheSameRevisionOrSaysThatTheStateMovedOn) {
  for (int i = 0; i < 5; ++i) put("/k" + std::to_string(i), "v");
  const auto first = store_->range("/k", prefix_end("/k"), 2);
  ASSERT_EQ(first->kvs.size(), 2u);
  EXPECT_TRUE(first->more);
  const auto rest = store_->range(first->kvs.back().key + '\0', prefix_end("/k"), 0, first->rev);
  ASSERT_TRUE(rest);
  EXPECT_EQ(rest->kvs.size(), 3u);
  EXPECT_FALSE(rest->more);
  put("/k9", "v");
  const auto late = store_->range("/k", prefix_end("/k"), 0, first->rev);
  ASSERT_FALSE(late);
  EXPECT_EQ(late.error().code, ErrorCode::kConflict);
}

TEST_P(StoreConformance, AFailedCompareChangesNothingAndShowsWhatIsThere) {
  const std::int64_t rev = put("/a", "1").rev;
  const TxnResult failed =
      store_->txn({{Compare::mod_rev_is("/a", rev + 7), Compare::absent("/b")}, {Op::put("/a", "2")}});
  EXPECT_EQ(failed.outcome, TxnOutcome::kCompareFailed);
  ASSERT_EQ(failed.current.size(), 1u);
  EXPECT_EQ(failed.current[0], (KeyValue{"/a", "1", rev, rev}));
  EXPECT_EQ(store_->range("/a", "")->kvs[0].value, "1");
  EXPECT_EQ(store_->status().rev, rev);
}

TEST_P(StoreConformance, EachKindOfCompareHoldsWhenItShould) {
  const std::int64_t rev = put("/a", "1").rev;
  EXPECT_TRUE(store_->txn({{Compare::mod_rev_is("/a", rev)}, {Op::put("/x", "")}}).committed());
  EXPECT_TRUE(store_->txn({{Compare::value_is("/a", "1")}, {Op::put("/y", "")}}).committed());
  EXPECT_TRUE(store_->txn({{Compare::absent("/z")}, {Op::put("/z", "")}}).committed());
  EXPECT_FALSE(store_->txn({{Compare::absent("/z")}, {Op::put("/z", "2")}}).committed());
  EXPECT_FALSE(store_->txn({{Compare::value_is("/nobody", "")}, {Op::put("/z", "2")}}).committed());
}

TEST_P(StoreConformance, AKeyThatWasDeletedAndMadeAgainIsNewer) {
  put("/a", "1");
  store_->txn({{}, {Op::erase("/a")}});
  EXPECT_TRUE(store_->range("/a", "")->kvs.empty());
  const std::int64_t rev = put("/a", "2").rev;
  EXPECT_EQ(store_->range("/a", "")->kvs[0].create_rev, rev);
}

TEST_P(StoreConformance, AWatchGivesEveryChangeBelowItsPrefixInOrder) {
  put("/d/1", "a");
  put("/other", "x");
  store_->txn({{}, {Op::put("/d/2", "b"), Op::erase("/d/1")}});
  const auto seen = store_->watch("/d/", 1);
  ASSERT_TRUE(seen);
  ASSERT_EQ(seen->events.size(), 3u);
  EXPECT_EQ(seen->events[0], (WatchEvent{1, Op::Kind::kPut, "/d/1", "a"}));
  EXPECT_EQ(seen->events[1], (WatchEvent{3, Op::Kind::kPut, "/d/2", "b"}));
  EXPECT_EQ(seen->events[2], (WatchEvent{3, Op::Kind::kDelete, "/d/1", ""}));
  EXPECT_EQ(seen->next_rev, 4);
  EXPECT_TRUE(store_->watch("/d/", seen->next_rev)->events.empty());
}

TEST_P(StoreConformance, ALimitedWatchNeverCutsARevisionInTwo) {
  store_->txn({{}, {Op::put("/1", ""), Op::put("/2", ""), Op::put("/3", "")}});
  put("/4", "");
  const auto first = store_->watch("/", 1, 2);
  ASSERT_EQ(first->events.size(), 3u);
  EXPECT_EQ(first->next_rev, 2);
  EXPECT_EQ(store_->watch("/", first->next_rev)->events.size(), 1u);
}

TEST_P(StoreConformance, AWatchFromACompactedRevisionSaysWhereToBegin) {
  for (int i = 0; i < 5; ++i) put("/a", std::to_string(i));
  ASSERT_TRUE(store_->compact(4));
  const auto old = store_->watch("/", 2);
  ASSERT_TRUE(old);
  EXPECT_TRUE(old->compacted);
  EXPECT_EQ(old->oldest_rev, 4);
  EXPECT_FALSE(store_->watch("/", 4)->compacted);
  EXPECT_EQ(store_->watch("/", 4)->events.size(), 2u);
  EXPECT_EQ(store_->range("/a", "")->kvs[0].value, "4");
}

TEST_P(StoreConformance, WhatIsOverALimitIsRefusedAsSuchAndNotApplied) {
  Txn many;
  for (std::size_t i = 0; i <= kTxnOpsMax; ++i) many.ops.push_back(Op::put("/k" + std::to_string(i), ""));
  EXPECT_EQ(store_->txn(many).outcome, TxnOutcome::kInvalid);
  many.ops.pop_back();
  EXPECT_TRUE(store_->txn(many).committed());
  EXPECT_EQ(put(std::string(kKeyBytesMax + 1, 'k'), "").outcome, TxnOutcome::kInvalid);
  EXPECT_TRUE(put(std::string(kKeyBytesMax, 'k'), "").committed());
  EXPECT_EQ(put("/v", std::string(kValueBytesMax + 1, 'v')).outcome, TxnOutcome::kInvalid);
  EXPECT_TRUE(put("/v", std::string(kValueBytesMax, 'v')).committed());
  EXPECT_EQ(put("", "x").outcome, TxnOutcome::kInvalid);
  EXPECT_EQ(store_->txn({{}, {Op::put("/t", "1"), Op::put("/t", "2")}}).outcome, TxnOutcome::kInvalid);
  Txn heavy;
  for (int i = 0; i < 5; ++i) heavy.ops.push_back(Op::put("/h" + std::to_string(i), std::string(kValueBytesMax, 'x')));
  const TxnResult refused = store_->txn(heavy);
  EXPECT_EQ(refused.outcome, TxnOutcome::kInvalid);
  EXPECT_NE(refused.reason.find("1 MiB"), std::string::npos);
}

TEST_P(StoreConformance, AnyBytesAreKept) {
  const std::string bytes("\0\x01\xff'\";--\n", 9);
  put("/" + bytes, bytes);
  const auto all = store_->range("/", prefix_end("/"));
  ASSERT_EQ(all->kvs.size(), 1u);
  EXPECT_EQ(all->kvs[0].key, "/" + bytes);
  EXPECT_EQ(all->kvs[0].value, bytes);
}

TEST_P(StoreConformance, TheLogForgetsWhatIsOlderThanItsBound) {
  for (std::int64_t i = 0; i < kLogRevisionsKept + 600; ++i) put("/a", std::to_string(i));
  EXPECT_TRUE(store_->watch("/", 1)->compacted);
  EXPECT_FALSE(store_->watch("/", store_->status().rev - kLogRevisionsKept + 600)->compacted);
}

INSTANTIATE_TEST_SUITE_P(Backends, StoreConformance,
                         testing::Values(Backend{"Memory", make_memory}, Backend{"Sqlite", make_sqlite}),
                         [](const testing::TestParamInfo<Backend>& backend) { return std::string(backend.param.name); });

TEST(MemoryStore, AScriptedUnknownMayHaveBeenApplied) {
  MemoryStore memory;
  memory.fail_next({TxnOutcome::kUnknown, true});
  memory.fail_next({TxnOutcome::kUnknown, false});
  Store& store = memory;
  EXPECT_EQ(store.txn({{}, {Op::put("/a", "1")}}).outcome, TxnOutcome::kUnknown);
  EXPECT_EQ(store.txn({{}, {Op::put("/b", "1")}}).outcome, TxnOutcome::kUnknown);
  EXPECT_EQ(store.range("/a", "")->kvs.size(), 1u);
  EXPECT_TRUE(store.range("/b", "")->kvs.empty());
}

}  // namespace
}  // namespace aiv::controller
