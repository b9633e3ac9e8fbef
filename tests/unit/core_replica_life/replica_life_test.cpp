#include "core/replica_life.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace aiv {
namespace {

using testing::HasSubstr;

constexpr LifeAction kAsk{LifeDo::kAskRoom, 0};
constexpr LifeAction kStart{LifeDo::kStart, 0};
constexpr LifeAction kProve{LifeDo::kProve, 0};
constexpr LifeAction kCanaryAction{LifeDo::kCanary, 0};
constexpr LifeAction kForEver{LifeDo::kWait, 0};
constexpr LifeAction kKill{LifeDo::kKill, 0};
constexpr LifeAction kRelease{LifeDo::kRelease, 0};
constexpr LifeAction kEnd{LifeDo::kEnd, 0};

LifeAction until(std::int64_t ms) {
  return {LifeDo::kWait, ms};
}

void make_ready(ReplicaLife& life, std::int64_t now) {
  ASSERT_EQ(life.resume(LifeEvent::kRoom, now), kStart);
  ASSERT_EQ(life.resume(LifeEvent::kEngineReady, now), kProve);
  ASSERT_EQ(life.resume(LifeEvent::kProved, now), kCanaryAction);
  ASSERT_EQ(life.resume(LifeEvent::kCanaryPassed, now), kForEver);
  ASSERT_EQ(life.state(), ReplicaState::kReady);
}

TEST(ReplicaLife, IsReadyOnlyAfterRoomLoadProofAndCanary) {
  ReplicaLife life({.load_ms = 1000});
  EXPECT_EQ(life.state(), ReplicaState::kPending);
  EXPECT_EQ(life.resume(LifeEvent::kBegin, 0), kAsk);
  EXPECT_EQ(life.resume(LifeEvent::kRoom, 5), kStart);
  EXPECT_EQ(life.state(), ReplicaState::kLoading);
  EXPECT_EQ(life.resume(LifeEvent::kTick, 10), until(1005));
  EXPECT_EQ(life.resume(LifeEvent::kEngineReady, 20), kProve);
  EXPECT_FALSE(life.accepts_requests());
  EXPECT_EQ(life.resume(LifeEvent::kProved, 20), kCanaryAction);
  EXPECT_EQ(life.state(), ReplicaState::kLoading);
  EXPECT_FALSE(life.accepts_requests());
  EXPECT_EQ(life.resume(LifeEvent::kCanaryPassed, 30), kForEver);
  EXPECT_EQ(life.state(), ReplicaState::kReady);
  EXPECT_TRUE(life.accepts_requests());
  EXPECT_EQ(life.reason(), "");
}

TEST(ReplicaLife, WaitsForRoomForAWhileThenFailsWithTheReason) {
  ReplicaLife life({.room_patience_ms = 600, .room_retry_ms = 250});
  life.resume(LifeEvent::kBegin, 0);
  EXPECT_EQ(life.resume(LifeEvent::kNoRoom, 0, "needs 6.1 GiB on n1/0, 4.9 GiB free"), until(250));
  EXPECT_EQ(life.state(), ReplicaState::kPending);
  EXPECT_EQ(life.resume(LifeEvent::kTick, 100), until(250));
  EXPECT_EQ(life.resume(LifeEvent::kTick, 250), kAsk);
  EXPECT_EQ(life.resume(LifeEvent::kNoRoom, 250, "needs 6.1 GiB"), until(500));
  EXPECT_EQ(life.resume(LifeEvent::kTick, 600), kAsk);
  EXPECT_EQ(life.resume(LifeEvent::kNoRoom, 600, "needs 6.1 GiB on n1/0, 5.0 GiB free"), kForEver);
  EXPECT_EQ(life.state(), ReplicaState::kFailed);
  EXPECT_EQ(life.reason(), "needs 6.1 GiB on n1/0, 5.0 GiB free");
  EXPECT_EQ(life.resume(LifeEvent::kTick, 99'999), kForEver)
      << "a failed replica is not tried again by itself";
}

TEST(ReplicaLife, WaitsForItsTurnWithoutALimit) {
  ReplicaLife life({.room_patience_ms = 600, .room_retry_ms = 250});
  life.resume(LifeEvent::kBegin, 0);
  std::int64_t now = 0;
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(life.resume(LifeEvent::kNotYet, now, "other-1 is loading on n1/0"), until(now + 250));
    now += 250;
    ASSERT_EQ(life.resume(LifeEvent::kTick, now), kAsk);
  }
  EXPECT_EQ(life.state(), ReplicaState::kPending);
  EXPECT_EQ(life.reason(), "other-1 is loading on n1/0");
}

TEST(ReplicaLife, ADeviceThatCanNeverHoldItFailsAtOnce) {
  ReplicaLife life;
  life.resume(LifeEvent::kBegin, 0);
  EXPECT_EQ(life.resume(LifeEvent::kUnfit, 0, "a tensor is too large"), kForEver);
  EXPECT_EQ(life.state(), ReplicaState::kFailed);
}

TEST(ReplicaLife, WhatIsNotProvedIsKilledAndNeverTriedAgain) {
  ReplicaLife life;
  life.resume(LifeEvent::kBegin, 0);
  life.resume(LifeEvent::kRoom, 0);
  life.resume(LifeEvent::kEngineReady, 1);
  EXPECT_EQ(life.resume(LifeEvent::kNotProved, 1, "weights on the CPU: 157.7 MiB"), kKill);
  EXPECT_NE(life.state(), ReplicaState::kFailed) << "its memory is still held";
  EXPECT_EQ(life.resume(LifeEvent::kExited, 2, "killed by SIGKILL"), kRelease);
  EXPECT_EQ(life.resume(LifeEvent::kReleased, 3), kForEver);
  EXPECT_EQ(life.state(), ReplicaState::kFailed);
  EXPECT_EQ(life.reason(), "weights on the CPU: 157.7 MiB");
  EXPECT_EQ(life.restarts(), 0);
  EXPECT_EQ(life.resume(LifeEvent::kStop, 4), kEnd);
}

TEST(ReplicaLife, ACrashRestartsAtOnceThenLaterThenFails) {
  ReplicaLife life({.backoff_first_ms = 1000});
  life.resume(LifeEvent::kBegin, 0);
  make_ready(life, 0);
  EXPECT_EQ(life.resume(LifeEvent::kExited, 10, "killed by SIGSEGV"), kRelease);
  EXPECT_EQ(life.state(), ReplicaState::kPending);
  EXPECT_EQ(life.resume(LifeEvent::kReleased, 20), kAsk) << "the first restart is at once";
  make_ready(life, 30);
  life.resume(LifeEvent::kExited, 40, "killed by SIGSEGV");
  EXPECT_EQ(life.resume(LifeEvent::kReleased, 50), until(1050));
  EXPECT_THAT(life.reason(), HasSubstr("killed by SIGSEGV; restarting in"));
  EXPECT_EQ(life.resume(LifeEvent::kTick, 1050), kAsk);
  make_ready(life, 1060);
  life.resume(LifeEvent::kExited, 1070, "killed by SIGSEGV");
  EXPECT_EQ(life.resume(LifeEvent::kReleased, 1080), kForEver);
  EXPECT_EQ(life.state(), ReplicaState::kFailed);
  EXPECT_EQ(life.reason(), "killed by SIGSEGV (3 times in a row)");
  EXPECT_EQ(life.restarts(), 2);
}

TEST(ReplicaLife, BackOffDoublesUpToItsBound) {
  ReplicaLife life({.backoff_first_ms = 1000, .backoff_max_ms = 3000, .failures_max = 100});
  life.resume(LifeEvent::kBegin, 0);
  std::int64_t now = 0;
  std::vector<std::int64_t> delays;
  for (int i = 0; i < 5; ++i) {
    ASSERT_EQ(life.resume(LifeEvent::kRoom, now), kStart);
    life.resume(LifeEvent::kExited, now, "exit 1");
    const LifeAction next = life.resume(LifeEvent::kReleased, now);
    if (next == kAsk) {
      delays.push_back(0);
      continue;
    }
    delays.push_back(next.wake_ms - now);
    now = next.wake_ms;
    ASSERT_EQ(life.resume(LifeEvent::kTick, now), kAsk);
  }
  EXPECT_THAT(delays, testing::ElementsAre(0, 1000, 2000, 3000, 3000));
}

TEST(ReplicaLife, ALongCalmForgetsEarlierFailures) {
  ReplicaLife life({.stable_ms = 10'000});
  life.resume(LifeEvent::kBegin, 0);
  std::int64_t now = 0;
  for (int i = 0; i < 10; ++i) {
    make_ready(life, now);
    now += 10'000;
    life.resume(LifeEvent::kExited, now, "exit 1");
    ASSERT_EQ(life.resume(LifeEvent::kReleased, now), kAsk) << i;
  }
}

TEST(ReplicaLife, WhatDoesNotFitAtLoadIsNotTriedInALoop) {
  ReplicaLife life;
  life.resume(LifeEvent::kBegin, 0);
  life.resume(LifeEvent::kRoom, 0);
  EXPECT_EQ(life.resume(LifeEvent::kExitedForGood, 5, "the weights do not fit"), kRelease);
  EXPECT_EQ(life.resume(LifeEvent::kReleased, 6), kForEver);
  EXPECT_EQ(life.state(), ReplicaState::kFailed);
  EXPECT_EQ(life.reason(), "the weights do not fit");
}

TEST(ReplicaLife, AnEngineThatNeverGetsReadyIsCut) {
  ReplicaLife life({.load_ms = 1000});
  life.resume(LifeEvent::kBegin, 0);
  life.resume(LifeEvent::kRoom, 0);
  EXPECT_EQ(life.resume(LifeEvent::kTick, 999), until(1000));
  EXPECT_EQ(life.resume(LifeEvent::kTick, 1000), kKill);
  EXPECT_EQ(life.resume(LifeEvent::kExited, 1001, "killed by SIGKILL"), kRelease);
  EXPECT_EQ(life.resume(LifeEvent::kReleased, 1002), kAsk);
  EXPECT_THAT(life.reason(), HasSubstr("was not ready after"));
}

TEST(ReplicaLife, ACanaryThatIsNotAnsweredBringsTheEngineDown) {
  ReplicaLife life({.canary_ms = 500});
  life.resume(LifeEvent::kBegin, 0);
  life.resume(LifeEvent::kRoom, 0);
  life.resume(LifeEvent::kEngineReady, 0);
  life.resume(LifeEvent::kProved, 0);
  EXPECT_EQ(life.resume(LifeEvent::kTick, 499), until(500));
  EXPECT_EQ(life.resume(LifeEvent::kTick, 500), kKill);
  EXPECT_EQ(life.state(), ReplicaState::kPending);
}

TEST(ReplicaLife, AStopWaitsForRunningRequestsThenAsksThenInsists) {
  ReplicaLife life({.drain_ms = 100, .term_ms = 50});
  life.resume(LifeEvent::kBegin, 0);
  make_ready(life, 0);
  EXPECT_EQ(life.resume(LifeEvent::kStop, 10), until(110));
  EXPECT_EQ(life.state(), ReplicaState::kDraining);
  EXPECT_FALSE(life.accepts_requests());
  EXPECT_EQ(life.resume(LifeEvent::kTick, 110), (LifeAction{LifeDo::kTerm, 160}));
  EXPECT_EQ(life.resume(LifeEvent::kTick, 160), kKill);
  EXPECT_EQ(life.resume(LifeEvent::kExited, 161), kRelease);
  EXPECT_EQ(life.state(), ReplicaState::kDraining) << "not stopped before the memory is back";
  EXPECT_EQ(life.resume(LifeEvent::kReleased, 170), kEnd);
  EXPECT_EQ(life.state(), ReplicaState::kStopped);
}

TEST(ReplicaLife, AnIdleReplicaStopsWithoutWaiting) {
  ReplicaLife life;
  life.resume(LifeEvent::kBegin, 0);
  make_ready(life, 0);
  life.resume(LifeEvent::kStop, 10);
  EXPECT_EQ(life.resume(LifeEvent::kIdle, 11).what, LifeDo::kTerm);
}

TEST(ReplicaLife, ADrainedReplicaStopsWhenIdleAndCanBeWantedAgain) {
  ReplicaLife life;
  life.resume(LifeEvent::kBegin, 0);
  make_ready(life, 0);
  EXPECT_EQ(life.resume(LifeEvent::kDrain, 10), kForEver);
  EXPECT_EQ(life.state(), ReplicaState::kDraining);
  EXPECT_EQ(life.resume(LifeEvent::kTick, 1'000'000), kForEver) << "a drain has no limit of its own";
  EXPECT_EQ(life.resume(LifeEvent::kUndrain, 1'000'001), kForEver);
  EXPECT_EQ(life.state(), ReplicaState::kReady);
  life.resume(LifeEvent::kDrain, 1'000'002);
  EXPECT_EQ(life.resume(LifeEvent::kIdle, 1'000'003).what, LifeDo::kTerm);
  life.resume(LifeEvent::kExited, 1'000'004, "exit 0");
  EXPECT_EQ(life.resume(LifeEvent::kReleased, 1'000'005), kForEver);
  EXPECT_EQ(life.state(), ReplicaState::kStopped);
  EXPECT_EQ(life.resume(LifeEvent::kUndrain, 1'000'006), kAsk);
}

TEST(ReplicaLife, AStopWhileLoadingEndsTheEngineAtOnce) {
  ReplicaLife life;
  life.resume(LifeEvent::kBegin, 0);
  life.resume(LifeEvent::kRoom, 0);
  EXPECT_EQ(life.resume(LifeEvent::kStop, 1).what, LifeDo::kTerm);
  EXPECT_EQ(life.resume(LifeEvent::kExited, 2, "killed by SIGTERM"), kRelease);
  EXPECT_EQ(life.resume(LifeEvent::kReleased, 3), kEnd);
}

TEST(ReplicaLife, AnAdoptedEngineIsProvedAndAskedBeforeItServes) {
  ReplicaLife life;
  EXPECT_EQ(life.resume(LifeEvent::kBeginAdopted, 0), kProve);
  EXPECT_EQ(life.resume(LifeEvent::kProved, 1), kCanaryAction);
  EXPECT_EQ(life.resume(LifeEvent::kCanaryPassed, 2), kForEver);
  EXPECT_EQ(life.state(), ReplicaState::kReady);
  EXPECT_EQ(life.restarts(), 0);
}

// Any order of events: no assertion of the machine's own breaks, and Ready is reached only through the proof
// and the canary of the present engine.
TEST(ReplicaLife, NoOrderOfEventsMakesItReadyUnproved) {
  std::uint64_t seed = 1;
  auto draw = [&seed](std::uint64_t n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return seed % n;
  };
  for (int round = 0; round < 2000; ++round) {
    ReplicaLife life({.failures_max = 5});
    bool proved = false;
    bool answered = false;
    std::int64_t now = 0;
    LifeAction action{};
    for (int i = 0; i < 60; ++i) {
      const auto event = static_cast<LifeEvent>(draw(static_cast<std::uint64_t>(LifeEvent::kIdle) + 1));
      now += static_cast<std::int64_t>(draw(3000));
      const ReplicaState before = life.state();
      if (action.what == LifeDo::kProve && event == LifeEvent::kProved) proved = true;
      if (proved && event == LifeEvent::kCanaryPassed) answered = true;
      const LifeAction next = life.resume(event, now, "x");
      if (next.what != LifeDo::kWait) action = next;
      if (next.what == LifeDo::kStart || next.what == LifeDo::kProve) proved = answered = false;
      if (life.state() == ReplicaState::kReady && before != ReplicaState::kReady &&
          before != ReplicaState::kDraining) {
        ASSERT_TRUE(proved && answered) << "round " << round << " step " << i;
      }
      if (next.what == LifeDo::kEnd) break;
    }
  }
}

}  // namespace
}  // namespace aiv
