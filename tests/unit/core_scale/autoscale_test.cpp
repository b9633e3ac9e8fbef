#include "core/autoscale.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <vector>

#include "core/prng.hpp"

namespace aiv {
namespace {

// A deployment of four slots a replica whose load is set by the test, second by second.
struct Story {
  AutoscaleSettings settings;
  ScaleFacts facts;
  Demand demand;
  ScaleMemory memory;
  std::int64_t now_ms = 0;
  int moves = 0;
  std::string reason;  // of the last move
  std::int64_t moved_at_ms = -1;
  bool loads = true;  // what is wanted is there in the next second

  Story(int min, int max, int wanted) {
    facts.min = min;
    facts.max = max;
    facts.slots = 4;
    memory.wanted = facts.placed = wanted;
  }
  void second(std::int64_t running_milli, int waiting = 0) {
    LoadSample sample;
    sample.interval_ms = 1000;
    sample.running_ms = running_milli;
    sample.waiting_ms = 1000 * waiting;
    sample.running = static_cast<int>((running_milli + 999) / 1000);
    sample.waiting = waiting;
    now_ms += 1000;
    demand.observe(sample, now_ms);
    const ScaleDecision decision = decide_scale(settings, facts, demand, now_ms, memory);
    if (!decision.reason.empty()) {
      ++moves;
      reason = decision.reason;
      moved_at_ms = now_ms;
    }
    if (loads) facts.placed = memory.wanted;
  }
  void seconds(int count, std::int64_t running_milli) {
    for (int i = 0; i < count; ++i) second(running_milli);
  }
};

TEST(Autoscale, AnHourOfConstantDemandWithTenPercentNoiseMovesNothing) {
  for (const std::int64_t level : {500, 1800, 2600, 4200, 5600}) {
    for (std::uint64_t seed = 1; seed <= 5; ++seed) {
      Prng prng(seed);
      Story story(1, 4, 1);
      const auto noisy = [&] { return level * (900 + static_cast<std::int64_t>(prng.below(201))) / 1000; };
      for (int i = 0; i < 1800; ++i) story.second(noisy());  // it finds its number
      const int before = story.moves;
      for (int i = 0; i < 3600; ++i) story.second(noisy());
      EXPECT_EQ(story.moves, before) << level << " seed " << seed << ": " << story.reason;
    }
  }
}

TEST(Autoscale, ADemandAboveThreeQuartersForHalfAMinuteGetsMore) {
  Story story(1, 4, 1);
  story.seconds(120, 1000);
  EXPECT_EQ(story.moves, 0);
  story.seconds(120, 3800);
  EXPECT_EQ(story.memory.wanted, 2);
  EXPECT_NE(story.reason.find("1 -> 2 replicas: "), std::string::npos) << story.reason;
  EXPECT_NE(story.reason.find("on 4 slots"), std::string::npos) << story.reason;
  EXPECT_GE(story.moved_at_ms, 150'000) << "not before 30 s of it";
}

TEST(Autoscale, ABurstOfTenSecondsMovesNothing) {
  Story story(1, 4, 1);
  story.seconds(120, 1000);
  story.seconds(10, 4000);
  story.seconds(600, 1000);
  EXPECT_EQ(story.moves, 0) << story.reason;
}

TEST(Autoscale, WhatWaitsCountsToo) {
  Story story(1, 4, 1);
  for (int i = 0; i < 90; ++i) story.second(4000, 20);
  EXPECT_EQ(story.memory.wanted, 2) << "at most twice as many in one move";
  for (int i = 0; i < 90; ++i) story.second(8000, 20);
  EXPECT_EQ(story.memory.wanted, 4);
}

TEST(Autoscale, ItComesDownOneByOneAfterTheDemandWasForgotten) {
  Story story(1, 4, 4);
  story.seconds(900, 13'000);
  story.seconds(600, 500);
  EXPECT_EQ(story.memory.wanted, 4) << "the last ten minutes still needed them";
  story.seconds(1800, 500);
  EXPECT_EQ(story.memory.wanted, 1);
  EXPECT_EQ(story.moves, 3);
  EXPECT_NE(story.reason.find("2 -> 1 replicas: with one less"), std::string::npos) << story.reason;
}

TEST(Autoscale, NothingIsAddedWhileWhatWasAddedIsNotThereYet) {
  Story story(1, 8, 1);
  story.loads = false;
  for (int i = 0; i < 1200; ++i) story.second(4000, 50);
  EXPECT_EQ(story.memory.wanted, 2) << story.reason;
}

TEST(Autoscale, TheLastReplicaGoesAfterTheIdleTimeAndComesBackWithTheFirstRequest) {
  Story story(0, 1, 1);
  story.seconds(60, 1000);
  story.seconds(1799, 0);
  EXPECT_EQ(story.memory.wanted, 1);
  story.seconds(2, 0);
  EXPECT_EQ(story.memory.wanted, 0);
  EXPECT_NE(story.reason.find("nothing was asked for 30 min"), std::string::npos) << story.reason;
  story.second(0, 1);
  EXPECT_EQ(story.memory.wanted, 1) << "at once: somebody waits";
  EXPECT_NE(story.reason.find("1 requests wait"), std::string::npos) << story.reason;
}

TEST(Autoscale, WhileOthersLackMemoryAnIdleReplicaIsKeptForAsLongAsItsLoadIsWorth) {
  Story story(0, 1, 1);
  story.facts.load_ms = 6'000;
  story.facts.memory_wanted = true;
  story.seconds(60, 1000);
  story.seconds(119, 0);
  EXPECT_EQ(story.memory.wanted, 1);
  story.seconds(2, 0);
  EXPECT_EQ(story.memory.wanted, 0) << "20 load times of 6 s";
}

TEST(Autoscale, AMinimumOfOneIsNeverUnloaded) {
  Story story(1, 3, 1);
  story.facts.memory_wanted = true;
  story.seconds(7200, 0);
  EXPECT_EQ(story.moves, 0);
}

TEST(Autoscale, ARequestThatWentAwayUnservedIsForgottenAfterAMinute) {
  Story story(0, 1, 0);
  story.loads = false;
  story.second(0, 1);
  EXPECT_EQ(story.memory.wanted, 1);
  story.seconds(30, 0);
  EXPECT_EQ(story.memory.wanted, 1);
  story.seconds(40, 0);
  EXPECT_EQ(story.memory.wanted, 0);
}

TEST(Autoscale, WithoutSamplesNothingIsDecided) {
  ScaleMemory memory;
  memory.wanted = 2;
  ScaleFacts facts;
  facts.min = 0;
  facts.max = 3;
  EXPECT_TRUE(decide_scale({}, facts, Demand{}, 10'000'000, memory).reason.empty());
  EXPECT_EQ(memory.wanted, 2);
}

TEST(Autoscale, ANewRangeIsKeptAtOnce) {
  Story story(1, 4, 4);
  story.facts.max = 2;
  story.second(1000);
  EXPECT_EQ(story.memory.wanted, 2);
  story.facts.min = story.facts.max = 3;
  story.second(1000);
  EXPECT_EQ(story.memory.wanted, 3);
}

// Whatever the load does: the range is kept, moves are apart by the cool-down (but for the first request),
// and none is undone before the demand of the move has changed.
TEST(AutoscaleProperty, EveryLoadKeepsTheRangeAndTheCoolDown) {
  const bool held = rc::check([] {
    const int min = *rc::gen::inRange(0, 3);
    const int max = min + *rc::gen::inRange(0, 4);
    Story story(min, max, *rc::gen::inRange(min, max + 1));
    story.facts.load_ms = *rc::gen::inRange(1, 60) * 1000;
    const auto levels = *rc::gen::container<std::vector<int>>(8, rc::gen::inRange(0, 30'000));
    const int each = *rc::gen::inRange(1, 400);
    std::int64_t last_move = -1;
    for (const int level : levels) {
      for (int i = 0; i < each; ++i) {
        const int before = story.memory.wanted;
        const int moves = story.moves;
        story.second(level / 3 * 2, level / 3000);
        RC_ASSERT(story.memory.wanted >= min);
        RC_ASSERT(story.memory.wanted <= max);
        if (story.moves == moves) continue;
        RC_ASSERT(!story.reason.empty());
        RC_ASSERT(story.memory.wanted <= 2 * std::max(1, before));
        const std::int64_t cooldown = std::max<std::int64_t>(60'000, 5 * story.facts.load_ms);
        const bool to_or_from_zero = before == 0 || story.memory.wanted == 0;
        RC_ASSERT(to_or_from_zero || last_move < 0 || story.now_ms - last_move >= cooldown);
        last_move = story.now_ms;
      }
    }
  });
  EXPECT_TRUE(held);
}

}  // namespace
}  // namespace aiv
