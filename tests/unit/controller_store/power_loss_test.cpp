// No acknowledged change is lost, whenever the power goes.
#include "power_loss.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>

#include "base/units.hpp"
#include "controller/store_sqlite.hpp"
#include "scratch.hpp"

namespace aiv::controller {
namespace {

constexpr int kChanges = 160;  // enough for a checkpoint in the midst of them
constexpr int kImages = 1500;

struct Recorded {
  std::vector<test::DiskOp> log;
  std::vector<std::size_t> acknowledged;      // [rev - 1]: operations when that revision was acknowledged
  std::vector<std::vector<KeyValue>> states;  // [rev - 1]
};

// A store that lives through many changes of many sizes, and what the disk was asked meanwhile.
Recorded record() {
  Recorded out;
  const Scratch scratch;
  test::RecordingDisk disk;
  SqliteOptions options;
  options.ballast_bytes = 0;
  auto store = open_sqlite_store(scratch.path, options);
  EXPECT_TRUE(store) << store.error().message();
  Prng prng(7);
  for (int i = 0; i < kChanges; ++i) {
    if (i == kChanges / 2) {  // a restart: the same promises from a file that was there
      store->reset();
      store = open_sqlite_store(scratch.path, options);
      EXPECT_TRUE(store) << store.error().message();
    }
    Txn txn;
    const auto ops = 1 + prng.below(4);
    for (std::uint32_t k = 0; k < ops; ++k) {
      const std::string key = "/k" + std::to_string(prng.below(6)) + "/" + std::to_string(k);
      if (prng.chance(1, 6)) {
        txn.ops.push_back(Op::erase(key));
      } else {
        txn.ops.push_back(
            Op::put(key, std::string(prng.below(4000), static_cast<char>('a' + prng.below(26)))));
      }
    }
    const TxnResult result = (*store)->txn(txn);
    EXPECT_TRUE(result.committed()) << result.reason;
    out.acknowledged.push_back(disk.length());
    out.states.push_back((*store)->range("/", "\xff")->kvs);
  }
  out.log = disk.log();
  return out;
}

struct Verdict {
  int lost = 0;     // acknowledged changes that are not there
  int wrong = 0;    // a state that never was
  int damaged = 0;  // refused as damaged
};

Verdict judge(const Recorded& recorded, int images, bool lying) {
  Verdict verdict;
  Prng prng(11);
  for (int i = 0; i < images; ++i) {
    const std::size_t begin = recorded.acknowledged.front();
    const std::size_t cut = begin + prng.below(static_cast<std::uint32_t>(recorded.log.size() - begin + 1));
    const Scratch scratch;
    for (const auto& [name, bytes] : test::image_after_cut(recorded.log, cut, prng, lying)) {
      if (name.ends_with("-shm")) continue;  // memory, not disk
      std::ofstream(scratch.path + "/" + name, std::ios::binary) << bytes;
    }
    std::int64_t acknowledged = 0;
    while (static_cast<std::size_t>(acknowledged) < recorded.acknowledged.size() &&
           recorded.acknowledged[static_cast<std::size_t>(acknowledged)] <= cut) {
      ++acknowledged;
    }
    SqliteOptions options;
    options.ballast_bytes = 0;
    const auto store = open_sqlite_store(scratch.path, options);
    if (!store || (*store)->status().health != StoreHealth::kOk) {
      ++verdict.damaged;
      continue;
    }
    const std::int64_t rev = (*store)->status().rev;
    if (rev < acknowledged) ++verdict.lost;
    if (rev > kChanges) ++verdict.wrong;
    const auto kvs = (*store)->range("/", "\xff");
    if (rev >= 1 && rev <= kChanges &&
        (!kvs || kvs->kvs != recorded.states[static_cast<std::size_t>(rev - 1)]))
      ++verdict.wrong;
  }
  return verdict;
}

TEST(StoreUnderPowerLoss, FifteenHundredImagesAndNoAcknowledgedChangeIsLost) {
  const Recorded recorded = record();
  ASSERT_EQ(recorded.states.size(), static_cast<std::size_t>(kChanges));
  const auto checkpointed = [&](const test::DiskOp& op) {
    return op.kind == test::DiskOp::Kind::kWrite && op.file == "state.db";
  };
  ASSERT_TRUE(std::any_of(recorded.log.begin() + static_cast<std::ptrdiff_t>(recorded.acknowledged.front()),
                          recorded.log.end(), checkpointed));
  const Verdict verdict = judge(recorded, kImages, false);
  std::printf("power loss: %d images of %zu disk operations: %d lost, %d wrong, %d damaged\n", kImages,
              recorded.log.size(), verdict.lost, verdict.wrong, verdict.damaged);
  EXPECT_EQ(verdict.lost, 0);
  EXPECT_EQ(verdict.wrong, 0);
  EXPECT_EQ(verdict.damaged, 0);

  // The tool bites: on a disk that only says it has synced, changes are lost, and never silently wrong.
  const Verdict liar = judge(recorded, 100, true);
  std::printf("the same with a disk that lies: 100 images: %d lost, %d wrong, %d damaged\n", liar.lost,
              liar.wrong, liar.damaged);
  EXPECT_GT(liar.lost + liar.damaged, 50);
  EXPECT_EQ(liar.wrong, 0);
}

}  // namespace
}  // namespace aiv::controller
