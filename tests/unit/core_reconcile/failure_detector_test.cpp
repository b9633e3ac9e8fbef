#include "core/failure_detector.hpp"

#include <gtest/gtest.h>

namespace aiv {
namespace {

// A clock that ticks every 250 ms, and nodes that beat as often while they are alive.
struct Story {
  FailureDetector detector;
  std::int64_t now = 10'000;
  std::vector<std::string> beating;
  std::vector<HealthEvent> seen;
  bool gateway_heard = true;

  void join(const std::string& node) {
    add(detector.link_up(node, now));
    add(detector.report(node, now));
    beating.push_back(node);
  }
  void silence(const std::string& node) { std::erase(beating, node); }
  void run(std::int64_t ms) {
    for (const std::int64_t end = now + ms; now < end;) {
      now += 250;
      for (const std::string& node : beating) detector.heartbeat(node, now);
      add(detector.tick(gateway_heard, now));
    }
  }
  void add(std::vector<HealthEvent> events) { seen.insert(seen.end(), events.begin(), events.end()); }
  [[nodiscard]] int count(HealthChange change) const {
    int n = 0;
    for (const HealthEvent& event : seen) n += event.change == change ? 1 : 0;
    return n;
  }
};

TEST(FailureDetector, AHeardNodeStaysReadyForEver) {
  Story story;
  story.join("n1");
  story.run(3'600'000);
  EXPECT_EQ(story.detector.health("n1"), NodeHealth::kReady);
  EXPECT_EQ(story.seen.size(), 1u);
}

TEST(FailureDetector, ASilentNodeIsSuspectThenLostThenReplaceableAtTheirTimes) {
  Story story;
  story.join("n1");
  story.run(1'000);
  story.silence("n1");
  story.run(1'250);
  EXPECT_EQ(story.detector.health("n1"), NodeHealth::kReady);
  story.run(250);
  EXPECT_EQ(story.detector.health("n1"), NodeHealth::kSuspect);
  story.run(750);
  EXPECT_EQ(story.detector.health("n1"), NodeHealth::kSuspect);
  story.run(250);
  EXPECT_EQ(story.detector.health("n1"), NodeHealth::kLost) << "2.5 s, and never later than 2.75 s";
  story.run(7'250);
  EXPECT_FALSE(story.detector.replaceable("n1"));
  story.run(250);
  EXPECT_TRUE(story.detector.replaceable("n1"));
}

TEST(FailureDetector, AClosedLinkIsSuspectAtOnceAndReplaceableAfterFiveSeconds) {
  Story story;
  story.join("n1");
  story.run(1'000);
  story.silence("n1");
  story.add(story.detector.link_down("n1", false, story.now));
  EXPECT_EQ(story.detector.health("n1"), NodeHealth::kSuspect);
  story.run(4'750);
  EXPECT_FALSE(story.detector.replaceable("n1"));
  story.run(250);
  EXPECT_TRUE(story.detector.replaceable("n1"));
}

TEST(FailureDetector, AGoodbyeIsReplaceableAtOnce) {
  Story story;
  story.join("n1");
  story.add(story.detector.link_down("n1", true, story.now));
  EXPECT_EQ(story.detector.health("n1"), NodeHealth::kLost);
  EXPECT_TRUE(story.detector.replaceable("n1"));
}

TEST(FailureDetector, HeartbeatsAloneDoNotBringALostNodeBackAFreshReportDoes) {
  Story story;
  story.join("n1");
  story.silence("n1");
  story.run(3'000);
  ASSERT_EQ(story.detector.health("n1"), NodeHealth::kLost);
  story.beating.push_back("n1");
  story.run(2'000);
  EXPECT_EQ(story.detector.health("n1"), NodeHealth::kLost);
  story.add(story.detector.report("n1", story.now));
  EXPECT_EQ(story.detector.health("n1"), NodeHealth::kReady);
}

TEST(FailureDetector, AControllerThatWasStoppedForFiveSecondsLosesNobody) {
  Story story;
  for (const char* node : {"n1", "n2", "n3"}) story.join(node);
  story.run(2'000);
  story.now += 5'000;  // stopped: no tick, and what arrived meanwhile is still in the socket
  story.add(story.detector.tick(true, story.now));
  story.run(1'000);
  EXPECT_EQ(story.count(HealthChange::kSuspect), 0);
  EXPECT_EQ(story.count(HealthChange::kLost), 0);
}

TEST(FailureDetector, ATickThatIsAlittleLateForgivesOnlyTheExcess) {
  FailureDetector detector;
  detector.link_up("n1", 0);
  detector.report("n1", 0);
  std::int64_t now = 0;
  std::int64_t lost_at = -1;
  for (int i = 0; i < 40 && lost_at < 0; ++i) {
    now += 290;  // 40 ms late: within the allowance
    for (const HealthEvent& event : detector.tick(true, now)) {
      if (event.change == HealthChange::kLost) lost_at = now;
    }
  }
  EXPECT_LE(lost_at, 2'750);
}

TEST(FailureDetector, NoSilenceCountsWhileTheGatewayIsNotHeard) {
  Story story;
  story.join("n1");
  story.join("n2");
  story.silence("n1");
  story.silence("n2");
  story.gateway_heard = false;
  story.run(60'000);
  EXPECT_EQ(story.detector.health("n1"), NodeHealth::kReady);
  story.gateway_heard = true;
  story.run(2'750);
  EXPECT_EQ(story.detector.health("n1"), NodeHealth::kLost);
}

TEST(FailureDetector, HalfOfTheNodesSilentAtOnceFreezesReplacementFor30Seconds) {
  Story story;
  for (const char* node : {"n1", "n2", "n3", "n4"}) story.join(node);
  story.run(1'000);
  story.silence("n1");
  story.silence("n2");
  story.run(20'000);
  EXPECT_EQ(story.count(HealthChange::kFrozen), 1);
  EXPECT_EQ(story.detector.health("n1"), NodeHealth::kLost);
  EXPECT_FALSE(story.detector.replaceable("n1"));
  story.run(15'000);
  EXPECT_EQ(story.count(HealthChange::kUnfrozen), 1);
  EXPECT_TRUE(story.detector.replaceable("n1"));
}

TEST(FailureDetector, OneOfTwoNodesIsNoMassFailure) {
  Story story;
  story.join("n1");
  story.join("n2");
  story.silence("n1");
  story.run(10'250);
  EXPECT_EQ(story.count(HealthChange::kFrozen), 0);
  EXPECT_TRUE(story.detector.replaceable("n1"));
}

TEST(FailureDetector, ANodeLostThreeTimesIsQuarantinedAndTheNextTimeTwiceAsLong) {
  Story story;
  for (const char* node : {"n1", "n2", "n3"}) story.join(node);
  const auto flap = [&] {
    story.silence("n1");
    story.run(3'000);
    story.add(story.detector.report("n1", story.now));
    story.beating.push_back("n1");
    story.run(1'000);
  };
  flap();
  flap();
  EXPECT_FALSE(story.detector.quarantined("n1"));
  flap();
  EXPECT_TRUE(story.detector.quarantined("n1"));
  EXPECT_EQ(story.detector.health("n1"), NodeHealth::kReady) << "it keeps what it has";
  story.run(58'000);
  EXPECT_TRUE(story.detector.quarantined("n1"));
  story.run(4'000);
  EXPECT_FALSE(story.detector.quarantined("n1"));
  flap();
  EXPECT_TRUE(story.detector.quarantined("n1"));
  story.run(100'000);
  EXPECT_TRUE(story.detector.quarantined("n1"));
  story.run(25'000);
  EXPECT_FALSE(story.detector.quarantined("n1"));
}

TEST(FailureDetector, AnExpectedNodeThatNeverReportsIsLostLikeAnyOther) {
  Story story;
  story.detector.expect("n9", story.now);
  EXPECT_EQ(story.detector.health("n9"), NodeHealth::kSuspect);
  story.run(2'750);
  EXPECT_EQ(story.detector.health("n9"), NodeHealth::kLost);
  EXPECT_EQ(story.detector.health("stranger"), NodeHealth::kLost);
}

}  // namespace
}  // namespace aiv
