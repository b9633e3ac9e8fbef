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
  EXPECT_EQ(chosen->device, "n2/0");
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
  EXPECT_EQ(choose_evictions(input)->device, "n2/0");
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

TEST(Eviction, WhatCannotRunOnADeviceClearsItNot) {
  EvictionInput input;
  input.devices = {{"n1/0", "n1", 0, 0}};
  input.candidates = {idle_one("a", "n1/0", 5)};
  input.spare = {{"a", 1}};
  EXPECT_FALSE(choose_evictions(input).has_value());
}

// Against every subset of every device, by brute force.
TEST(EvictionProperty, TheChosenSetFreesEnoughKeepsTheFloorsAndLosesLeast) {
  const bool held = rc::check([] {
    EvictionInput input;
    const int devices = *rc::gen::inRange(1, 4);
    const int count = *rc::gen::inRange(0, 8);
    for (int d = 0; d < devices; ++d) {
      input.devices.push_back(
          {"d" + std::to_string(d), "n", *rc::gen::inRange<Bytes>(0, 10), *rc::gen::inRange<Bytes>(0, 30)});
    }
    for (int i = 0; i < count; ++i) {
      const std::string deployment(1, static_cast<char>('a' + *rc::gen::inRange(0, 4)));
      auto candidate = idle_one(deployment, "d" + std::to_string(*rc::gen::inRange(0, devices)),
                                *rc::gen::inRange<Bytes>(1, 12), *rc::gen::inRange(1, 1000),
                                *rc::gen::inRange(1000, 60'000));
      candidate.replica += std::to_string(i);
      input.candidates.push_back(candidate);
      input.spare[deployment] = *rc::gen::inRange(0, 4);
    }
    std::optional<std::int64_t> least;
    for (const EvictionDevice& device : input.devices) {
      if (device.needed_bytes <= 0) continue;
      for (unsigned mask = 0; mask < (1U << count); ++mask) {
        Bytes free = device.free_bytes;
        std::int64_t loss = 0;
        std::map<std::string, int> lost;
        bool may = true;
        for (int i = 0; i < count; ++i) {
          if ((mask & (1U << i)) == 0) continue;
          const auto& candidate = input.candidates[static_cast<std::size_t>(i)];
          const auto there = candidate.bytes.find(device.id);
          may = may && there != candidate.bytes.end() &&
                ++lost[candidate.deployment] <= input.spare[candidate.deployment];
          if (there != candidate.bytes.end()) free += there->second;
          loss += worth_of(candidate);
        }
        if (may && free >= device.needed_bytes && (!least || loss < *least)) least = loss;
      }
    }
    const auto chosen = choose_evictions(input);
    RC_ASSERT(chosen.has_value() == least.has_value());
    if (!chosen) return;
    RC_ASSERT(chosen->loss == *least);
    const auto device = std::ranges::find(input.devices, chosen->device, &EvictionDevice::id);
    RC_ASSERT(device->free_bytes + chosen->freed_bytes >= device->needed_bytes);
    std::map<std::string, int> lost;
    for (const std::string& replica : chosen->replicas) {
      const auto candidate = std::ranges::find(input.candidates, replica, &EvictionCandidate::replica);
      RC_ASSERT(++lost[candidate->deployment] <= input.spare[candidate->deployment]);
    }
  });
  EXPECT_TRUE(held);
}

}  // namespace
}  // namespace aiv
