#include "core/demand.hpp"

#include <gtest/gtest.h>

namespace aiv {
namespace {

LoadSample second_with(std::int64_t concurrency_milli) {
  LoadSample sample;
  sample.deployment = "m";
  sample.interval_ms = 1000;
  sample.running_ms = concurrency_milli;
  sample.running = concurrency_milli > 0 ? 1 : 0;
  sample.arrivals = concurrency_milli > 0 ? 1 : 0;
  return sample;
}

struct Story {
  Demand demand;
  std::int64_t now_ms = 0;
  void runs_for(int seconds, std::int64_t concurrency_milli) {
    for (int i = 0; i < seconds; ++i) demand.observe(second_with(concurrency_milli), now_ms += 1000);
  }
};

TEST(Demand, WhatRunsAndWhatWaitsIsAskedForAlike) {
  Demand demand;
  LoadSample sample = second_with(2000);
  sample.waiting_ms = 3000;
  demand.observe(sample, 1000);
  EXPECT_EQ(demand.fast_milli(), 5000);
}

TEST(Demand, ARiseIsSeenWithinAMinute) {
  Story story;
  story.runs_for(600, 1000);
  EXPECT_EQ(story.demand.planning_milli(), 1000);
  story.runs_for(30, 5000);
  EXPECT_GT(story.demand.planning_milli(), 3400);
  story.runs_for(60, 5000);
  EXPECT_GT(story.demand.planning_milli(), 4700);
}

TEST(Demand, AFallIsBelievedOnlyAfterTenMinutes) {
  Story story;
  story.runs_for(600, 5000);
  story.runs_for(500, 1000);
  EXPECT_EQ(story.demand.planning_milli(), 5000) << "a tenth of the ten minutes still had it";
  story.runs_for(60, 1000);
  EXPECT_EQ(story.demand.base_milli(), 1000);
  EXPECT_LT(story.demand.planning_milli(), 1050);
}

TEST(Demand, OneBurstOfTwentySecondsRaisesTheBaseNot) {
  Story story;
  story.runs_for(600, 1000);
  story.runs_for(20, 9000);
  story.runs_for(300, 1000);
  EXPECT_EQ(story.demand.base_milli(), 1000);
}

TEST(Demand, SilenceOfTheGatewayForAnHourDoesNotCountAsAnHourOfNothing) {
  Story story;
  story.runs_for(600, 5000);
  LoadSample late = second_with(0);
  late.interval_ms = 3'600'000;
  story.demand.observe(late, story.now_ms += 3'600'000);
  EXPECT_EQ(story.demand.base_milli(), 5000);
}

TEST(Demand, IdleTimeBeginsWhenTheLastRequestEnds) {
  Story story;
  EXPECT_EQ(story.demand.idle_ms(0), 0) << "nothing is known, so nothing is idle";
  story.runs_for(10, 1000);
  EXPECT_EQ(story.demand.idle_ms(story.now_ms), 0);
  EXPECT_EQ(story.demand.idle_ms(story.now_ms + 5'000), 0) << "as far as is known it still runs";
  story.runs_for(70, 0);
  EXPECT_EQ(story.demand.idle_ms(story.now_ms), 70'000);
  story.runs_for(1, 1);
  EXPECT_EQ(story.demand.idle_ms(story.now_ms), 0);
  EXPECT_EQ(story.demand.gaps().total(), 1);
}

TEST(Demand, NegativeCountsAreNone) {
  Demand demand;
  LoadSample sample = second_with(-5000);
  sample.running = -3;
  sample.waiting_ms = -1;
  demand.observe(sample, 1000);
  EXPECT_EQ(demand.planning_milli(), 0);
  EXPECT_EQ(demand.running(), 0);
}

TEST(IdleHistogram, WhatComesEveryMinuteIsLikelyToComeAgainSoonAndWhatWasSilentForADayIsNot) {
  IdleHistogram minutely;
  for (int i = 0; i < 20; ++i) minutely.add(60'000);
  EXPECT_GT(minutely.reuse_permille(10'000, 600'000), 900);
  IdleHistogram daily;
  for (int i = 0; i < 20; ++i) daily.add(86'400'000);
  EXPECT_LT(daily.reuse_permille(10'000, 600'000), 100);
  EXPECT_EQ(IdleHistogram{}.reuse_permille(0, 600'000), 500);
}

TEST(IdleHistogram, TheLongerAGapLastsTheMoreOfTheShortOnesAreOutOfTheQuestion) {
  IdleHistogram gaps;
  for (int i = 0; i < 90; ++i) gaps.add(30'000);
  for (int i = 0; i < 10; ++i) gaps.add(7'200'000);
  EXPECT_GT(gaps.reuse_permille(5'000, 600'000), gaps.reuse_permille(300'000, 600'000));
}

TEST(Band, NoiseOfTenPercentStaysWithinItAndAFifthLeavesIt) {
  EXPECT_FALSE(leaves_band(1000, 1100, 15));
  EXPECT_FALSE(leaves_band(1000, 900, 15));
  EXPECT_TRUE(leaves_band(1000, 1200, 15));
  EXPECT_TRUE(leaves_band(1000, 800, 15));
  EXPECT_TRUE(leaves_band(0, 1, 15));
}

}  // namespace
}  // namespace aiv
