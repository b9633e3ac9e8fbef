#include "core/eviction.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>

namespace aiv {
namespace {

EvictionCandidate idle_one(const std::string& name, const std::string& device, Bytes bytes,
                           std::int64_t reuse = 500, std::int64_t reload_ms = 10'000) {
  EvictionCandidate out;
  out.replica = name + "-1";
  out.deployment = name;
  out.bytes[device] = bytes;
  out.reuse_permille = reuse;
  out.reload_ms = reload_ms;
  return out;
}

TEST(Eviction, AHoleThatIsThereCostsNothing) {
  EvictionInput input;
  input.devices = {{"n1/0", "n1", 2, 5}, {"n2/0", "n2", 6, 5}};
  input.candidates = {idle_one("a", "n1/0", 9)};
  input.spare = {{"a", 1}};
  const auto chosen = choose_evictions(input);
  ASSERT_TRUE(chosen.has_value());
  EXPECT_EQ(chosen->devices, std::vector<std::string>{"n2/0"});
  EXPECT_TRUE(chosen->replicas.empty());
}

TEST(Eviction, TheOneThatIsLeastLikelyToBeAskedForAgainGoes) {
  EvictionInput input;
  input.devices = {{"n1/0", "n1", 0, 5}};
  input.candidates = {idle_one("often", "n1/0", 5, 900), idle_one("never", "n1/0", 5, 20)};
  input.spare = {{"often", 1}, {"never", 1}};
  EXPECT_EQ(choose_evictions(input)->replicas, std::vector<std::string>{"never-1"});
}

TEST(Eviction, TheOneThatLoadsQuicklyGoesBeforeTheOneThatLoadsForMinutes) {
  EvictionInput input;
  input.devices = {{"n1/0", "n1", 0, 5}};
  input.candidates = {idle_one("slow", "n1/0", 5, 500, 120'000), idle_one("quick", "n1/0", 5, 500, 4'000)};
  input.spare = {{"slow", 1}, {"quick", 1}};
  EXPECT_EQ(choose_evictions(input)->replicas, std::vector<std::string>{"quick-1"});
}

TEST(Eviction, OneLargeGoesRatherThanThreeSmallThatAreWorthMoreTogether) {
  EvictionInput input;
  input.devices = {{"n1/0", "n1", 0, 6}};
  input.candidates = {idle_one("a", "n1/0", 2, 300), idle_one("b", "n1/0", 2, 300),
                      idle_one("c", "n1/0", 2, 300), idle_one("large", "n1/0", 6, 700)};
  input.spare = {{"a", 1}, {"b", 1}, {"c", 1}, {"large", 1}};
  EXPECT_EQ(choose_evictions(input)->replicas, std::vector<std::string>{"large-1"});
}

TEST(Eviction, TheDeviceWhereTheLossIsLeastIsCleared) {
  EvictionInput input;
  input.devices = {{"n1/0", "n1", 0, 5}, {"n2/0", "n2", 4, 5}};
  input.candidates = {idle_one("a", "n1/0", 5, 100), idle_one("b", "n2/0", 1, 50)};
  input.spare = {{"a", 1}, {"b", 1}};
  EXPECT_EQ(choose_evictions(input)->devices, std::vector<std::string>{"n2/0"});
}

TEST(Eviction, WhatADeploymentMustKeepIsKept) {
  EvictionInput input;
  input.devices = {{"n1/0", "n1", 0, 10}};
  input.candidates = {idle_one("a", "n1/0", 6), idle_one("a", "n1/0", 6)};
  input.candidates[1].replica = "a-2";
  input.spare = {{"a", 1}};
  EXPECT_FALSE(choose_evictions(input).has_value()) << "both would have to go, one may";
  input.spare = {};
  EXPECT_FALSE(choose_evictions(input).has_value());
}

TEST(Eviction, ACardFullOfSmallOnesIsClearedAsFarAsNeeded) {
  EvictionInput input;
  input.devices = {{"n1/0", "n1", 1, 30}};
  for (int i = 0; i < 20; ++i) {
    const std::string name = "m" + std::to_string(10 + i);
    input.candidates.push_back(idle_one(name, "n1/0", i < 2 ? 1 : 2, 100 + 10 * i));
    input.spare[name] = 1;
  }
  const auto chosen = choose_evictions(input);
  ASSERT_TRUE(chosen.has_value());
  // m10 and m11 of one byte each, then 14 of two: 30 for 29. One of the two is not needed, the one that is worth more.
  EXPECT_EQ(chosen->replicas.size(), 15U);
  EXPECT_EQ(chosen->freed_bytes, 29);
  EXPECT_EQ(std::ranges::count(chosen->replicas, "m11-1"), 0);
  EXPECT_EQ(std::ranges::count(chosen->replicas, "m26-1"), 0) << "worth more than what was enough";
  input.devices = {{"n1/0", "n1", 1, 40}};
  EXPECT_FALSE(choose_evictions(input).has_value()) << "all of them are 38";
}

TEST(Eviction, WhatCannotRunOnADeviceClearsItNot) {
  EvictionInput input;
  input.devices = {{"n1/0", "n1", 0, 0}};
  input.candidates = {idle_one("a", "n1/0", 5)};
  input.spare = {{"a", 1}};
  EXPECT_FALSE(choose_evictions(input).has_value());
}

TEST(Eviction, AModelThatNeedsTwoDevicesClearsBothWithTheLeastLoss) {
  EvictionInput input;
  input.splits = {{{"n1/0", "n1", 2, 8}, {"n1/1", "n1", 3, 8}}};
  input.candidates = {idle_one("a", "n1/0", 6, 300), idle_one("b", "n1/1", 5, 300),
                      idle_one("c", "n1/1", 5, 200), idle_one("both", "n1/0", 6, 450)};
  input.candidates[3].bytes["n1/1"] = 5;
  input.spare = {{"a", 1}, {"b", 1}, {"c", 1}, {"both", 1}};
  const auto chosen = choose_evictions(input);
  ASSERT_TRUE(chosen.has_value());
  EXPECT_EQ(chosen->devices, (std::vector<std::string>{"n1/0", "n1/1"}));
  EXPECT_EQ(chosen->replicas, std::vector<std::string>{"both-1"})
      << "one worth 450 rather than two worth 500";
  EXPECT_EQ(chosen->freed_bytes, 11);
  input.spare["both"] = 0;
  EXPECT_EQ(choose_evictions(input)->replicas, (std::vector<std::string>{"a-1", "c-1"}));
}

TEST(Eviction, ADeviceOfASplitThatHasRoomAlreadyLosesNobody) {
  EvictionInput input;
  input.splits = {{{"n1/0", "n1", 9, 8}, {"n1/1", "n1", 3, 8}}};
  input.candidates = {idle_one("cheap", "n1/0", 6, 1), idle_one("b", "n1/1", 5, 900)};
  input.spare = {{"cheap", 1}, {"b", 1}};
  EXPECT_EQ(choose_evictions(input)->replicas, std::vector<std::string>{"b-1"});
}

TEST(Eviction, ASplitClearsDevicesOnlyWhereNoSingleDeviceCanBeCleared) {
  EvictionInput input;
  input.devices = {{"n2/0", "n2", 0, 14}};
  input.splits = {{{"n1/0", "n1", 2, 8}, {"n1/1", "n1", 8, 8}}};
  input.candidates = {idle_one("a", "n1/0", 6, 1), idle_one("b", "n2/0", 14, 900)};
  input.spare = {{"a", 1}, {"b", 1}};
  EXPECT_EQ(choose_evictions(input)->replicas, std::vector<std::string>{"b-1"});
  input.spare["b"] = 0;
  EXPECT_EQ(choose_evictions(input)->replicas, std::vector<std::string>{"a-1"});
}

// The least loss by brute force that gives every device of the place its room; nothing if no set does.
std::optional<std::int64_t> least_loss(const EvictionInput& input, const EvictionSplit& place) {
  std::optional<std::int64_t> least;
  for (unsigned mask = 0; mask < (1U << input.candidates.size()); ++mask) {
    std::map<std::string, int> lost;
    std::map<std::string, Bytes> freed;
    std::int64_t loss = 0;
    bool may = true;
    for (std::size_t i = 0; i < input.candidates.size(); ++i) {
      if ((mask & (1U << i)) == 0) continue;
      const EvictionCandidate& candidate = input.candidates[i];
      may = may && ++lost[candidate.deployment] <= input.spare.at(candidate.deployment);
      for (const auto& [device, bytes] : candidate.bytes) freed[device] += bytes;
      loss += worth_of(candidate);
    }
    for (const EvictionDevice& device : place) {
      may = may && device.free_bytes + freed[device.id] >= device.needed_bytes;
    }
    if (may && (!least || loss < *least)) least = loss;
  }
  return least;
}

// Against every subset of all candidates, by brute force, for single devices and for splits over two and
// three.
TEST(EvictionProperty, TheChosenSetFreesEnoughKeepsTheFloorsAndLosesLeast) {
  const bool held = rc::check([] {
    EvictionInput input;
    const int devices = *rc::gen::inRange(1, 4);
    const int count = *rc::gen::inRange(0, 8);
    EvictionSplit all;
    for (int d = 0; d < devices; ++d) {
      all.push_back(
          {"d" + std::to_string(d), "n", *rc::gen::inRange<Bytes>(0, 10), *rc::gen::inRange<Bytes>(0, 30)});
    }
    if (*rc::gen::inRange(0, 2) == 0) input.devices = all;
    if (devices > 1) {
      input.splits.push_back(all);
      input.splits.push_back({all[0], all[1]});
    }
    for (int i = 0; i < count; ++i) {
      const std::string deployment(1, static_cast<char>('a' + *rc::gen::inRange(0, 4)));
      auto candidate = idle_one(deployment, "d" + std::to_string(*rc::gen::inRange(0, devices)),
                                *rc::gen::inRange<Bytes>(1, 12), *rc::gen::inRange(1, 1000),
                                *rc::gen::inRange(1000, 60'000));
      if (*rc::gen::inRange(0, 3) == 0) {  // itself a split
        candidate.bytes["d" + std::to_string(*rc::gen::inRange(0, devices))] =
            *rc::gen::inRange<Bytes>(1, 12);
      }
      candidate.replica += std::to_string(i);
      input.candidates.push_back(candidate);
      input.spare[deployment] = *rc::gen::inRange(0, 4);
    }
    std::optional<std::int64_t> least;
    const auto consider = [&](const EvictionSplit& place) {
      const auto loss = least_loss(input, place);
      if (loss && (!least || *loss < *least)) least = loss;
    };
    for (const EvictionDevice& device : input.devices) {
      if (device.needed_bytes > 0) consider({device});
    }
    if (!least) std::ranges::for_each(input.splits, consider);
    const auto chosen = choose_evictions(input);
    RC_ASSERT(chosen.has_value() == least.has_value());
    if (!chosen) return;
    RC_ASSERT(chosen->loss == *least);
    std::map<std::string, int> lost;
    std::map<std::string, Bytes> freed;
    for (const std::string& replica : chosen->replicas) {
      const auto candidate = std::ranges::find(input.candidates, replica, &EvictionCandidate::replica);
      RC_ASSERT(++lost[candidate->deployment] <= input.spare[candidate->deployment]);
      for (const auto& [device, bytes] : candidate->bytes) freed[device] += bytes;
    }
    for (const std::string& id : chosen->devices) {
      const auto device = std::ranges::find(all, id, &EvictionDevice::id);
      RC_ASSERT(device->free_bytes + freed[id] >= device->needed_bytes);
    }
  });
  EXPECT_TRUE(held);
}

}  // namespace
}  // namespace aiv
