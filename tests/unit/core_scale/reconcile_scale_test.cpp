// The autoscaler and eviction inside the reconcile step.
#include "story.hpp"

namespace aiv {
namespace {

using test::Story;

TEST(Scale, AModelWithoutReplicasIsLoadedByTheFirstRequestAndUnloadedAfterHalfAnHourOfSilence) {
  Story story;
  story.join("n1", {8 * kGiB});
  story.deploy_elastic("a", 0, 1, 2 * kGiB);
  story.seconds(60);
  EXPECT_EQ(story.placed("a"), 0);
  EXPECT_EQ(story.state.status.at("a").state, "idle");
  story.counts["a"] = {0, 1};
  story.seconds(3);
  EXPECT_EQ(story.routed("a").size(), 1U);
  story.counts["a"] = {1, 0};
  story.seconds(30);
  story.counts["a"] = {0, 0};
  story.seconds(1790);
  EXPECT_EQ(story.placed("a"), 1);
  story.seconds(20);
  EXPECT_EQ(story.placed("a"), 0);
  EXPECT_EQ(story.unloads, 1);
  EXPECT_EQ(story.state.status.at("a").state, "idle");
}

TEST(Scale, AnIdleReplicaMakesRoomForAModelThatIsWaitedFor) {
  Story story;
  story.join("n1", {8 * kGiB});
  story.deploy_elastic("a", 0, 1, 5 * kGiB);
  story.deploy_elastic("b", 0, 1, 5 * kGiB);
  story.load_and_leave("a", 60);
  ASSERT_EQ(story.placed("a"), 1);
  story.counts["b"] = {0, 2};
  story.seconds(5);
  EXPECT_EQ(story.placed("a"), 0);
  EXPECT_EQ(story.routed("b").size(), 1U);
  EXPECT_EQ(story.state.status.at("a").state, "idle") << "it is not waited for any more";
  EXPECT_NE(story.reason_of("replica.evicted").find("make room for b, which 2 requests wait for"),
            std::string::npos)
      << story.reason_of("replica.evicted");
}

TEST(Scale, AnIdleReplicaMakesRoomForAModelThatFitsTheEmptyCardWithOneSlotOnly) {
  Story story;
  story.join("n1", {5280 * kMiB});
  story.deploy_elastic("a", 0, 1, 3 * kGiB);
  story.deploy_elastic("b", 0, 1, 5 * kGiB);
  story.load_and_leave("a", 60);
  ASSERT_EQ(story.placed("a"), 1);
  story.counts["b"] = {0, 1};
  story.seconds(5);
  EXPECT_EQ(story.placed("a"), 0);
  ASSERT_EQ(story.routed("b").size(), 1U);
  EXPECT_EQ(story.state.placements.of_deployment("b").front()->variant, "--ctx 4096 --slots 1");
}

// Who does not stream is not kept waiting: he is told to come back (and does, every fourth second).
TEST(Scale, AnIdleReplicaMakesRoomForAModelWhoseClientsAreTurnedAway) {
  Story story;
  story.join("n1", {8 * kGiB});
  story.deploy_elastic("a", 0, 1, 5 * kGiB);
  story.deploy_elastic("b", 0, 1, 5 * kGiB);
  story.load_and_leave("a", 1);
  for (int i = 0; i < 10; ++i) {
    story.turned_away["b"] = 1;
    story.seconds(1);
    story.turned_away["b"] = 0;
    story.seconds(3);
  }
  EXPECT_EQ(story.placed("a"), 0);
  EXPECT_EQ(story.routed("b").size(), 1U);
  EXPECT_NE(story.reason_of("replica.evicted").find("make room for b, which was asked for and has no replica"),
            std::string::npos)
      << story.reason_of("replica.evicted");
}

TEST(Scale, NobodyMakesRoomForClientsWhoDidNotComeBack) {
  Story story;
  story.join("n1", {8 * kGiB});
  story.deploy_elastic("a", 0, 1, 5 * kGiB);
  story.deploy_elastic("b", 0, 1, 5 * kGiB);
  story.counts["a"] = {1, 0};
  story.seconds(60);
  story.turned_away["b"] = 1;
  story.seconds(3);
  story.turned_away["b"] = 0;
  story.seconds(40);
  story.counts["a"] = {0, 0};
  story.seconds(100);
  EXPECT_EQ(story.placed("a"), 1);
  EXPECT_EQ(story.placed("b"), 0);
  EXPECT_EQ(story.state.status.at("b").state, "idle");
}

TEST(Scale, OnACardForOneReplicaAtATimeAnIdleOneMakesWay) {
  Story story;
  story.join("n1", {8 * kGiB});
  NodePolicy policy;
  policy.devices["n1/0"].exclusive = true;
  story.take(event::NodePut{"n1", policy});
  story.deploy_elastic("a", 0, 1, 1 * kGiB);
  story.deploy_elastic("b", 0, 1, 1 * kGiB);
  story.load_and_leave("a", 60);
  story.counts["b"] = {0, 1};
  story.seconds(5);
  EXPECT_EQ(story.placed("a"), 0);
  EXPECT_EQ(story.routed("b").size(), 1U);
  EXPECT_NE(story.reason_of("replica.evicted").find("its 1.2 GiB on n1/0 make room for b"), std::string::npos)
      << story.reason_of("replica.evicted");
}

TEST(Scale, NobodyOfAHigherPriorityMakesRoomAndOfTwoTheLowerGoes) {
  for (const int priority : {5, 10, 20}) {
    Story story;
    story.join("n1", {8 * kGiB});
    for (const char* name : {"high", "low"}) story.deploy_elastic(name, 0, 1, 3 * kGiB);
    story.state.deployments.at("high").priority = 20;
    story.state.deployments.at("low").priority = 10;
    story.counts["high"] = story.counts["low"] = {0, 1};
    story.seconds(5);
    story.counts["high"] = story.counts["low"] = {0, 0};
    story.seconds(45);
    story.deploy_elastic("b", 0, 1, 3 * kGiB);
    story.state.deployments.at("b").priority = priority;
    story.counts["b"] = {0, 1};
    story.seconds(10);
    EXPECT_EQ(story.placed("high"), 1) << priority;
    EXPECT_EQ(story.placed("low"), priority == 5 ? 1 : 0) << priority;
    EXPECT_EQ(story.placed("b"), priority == 5 ? 0 : 1) << priority;
  }
}

// A model of about 1000 MiB that fits no card of the node alone, and two idle ones that fill a card each.
struct SplitStory : Story {
  void fill_two_cards(int first_min, bool first_pinned) {
    join("n1", {1300 * kMiB, 1300 * kMiB}, "vulkan");
    small("a", first_min, first_pinned);
    small("b", 0, false);
    counts["a"] = counts["b"] = {0, 1};
    seconds(10);
    counts["a"] = counts["b"] = {0, 0};
    seconds(60);
    ASSERT_EQ(placed("a"), 1);
    ASSERT_EQ(placed("b"), 1);
  }
  void small(const std::string& name, int min, bool pinned) {
    add_real_model(name, "llama", 250 * kMiB);
    put(name, min, pinned);
  }
  void large(const std::string& name) {
    add_real_model(name, "llama", 500 * kMiB);
    put(name, 0, false);
  }
  void put(const std::string& name, int min, bool pinned) {
    Deployment deployment;
    deployment.name = deployment.model = name;
    deployment.replicas_min = min;
    deployment.replicas_max = 1;
    deployment.ctx = 512;
    deployment.slots = 1;
    deployment.pinned = pinned;
    take(event::DeploymentPut{deployment});
    deliver();
  }
};

TEST(Scale, IdleReplicasOnSeveralCardsMakeRoomForAModelThatNeedsThemAll) {
  SplitStory story;
  story.fill_two_cards(0, false);
  story.large("big");
  story.counts["big"] = {0, 2};
  story.seconds(10);
  EXPECT_EQ(story.placed("a"), 0);
  EXPECT_EQ(story.placed("b"), 0);
  ASSERT_EQ(story.placed("big"), 1);
  EXPECT_EQ(story.state.placements.of_deployment("big").front()->spec.devices.size(), 2U);
  EXPECT_NE(story.reason_of("replica.evicted").find("make room for big, which 2 requests wait for"),
            std::string::npos)
      << story.reason_of("replica.evicted");
}

TEST(Scale, NobodyMakesRoomForASplitWhereOneOfItsCardsCannotBeCleared) {
  for (const bool pinned : {true, false}) {
    SplitStory story;
    story.fill_two_cards(pinned ? 0 : 1, pinned);
    story.large("big");
    story.counts["big"] = {0, 2};
    story.seconds(60);
    EXPECT_EQ(story.placed("a"), 1) << "pinned, or its minimum";
    EXPECT_EQ(story.placed("b"), 1) << "that it goes would help nobody";
    EXPECT_FALSE(story.told("replica.evicted"));
  }
}

TEST(Scale, NobodyMakesRoomWhereTheModelMayNotBe) {
  Story story;
  story.join("n1", {8 * kGiB});
  story.deploy_elastic("a", 0, 1, 5 * kGiB);
  story.load_and_leave("a", 60);
  story.add_model("b", 5 * kGiB);
  Deployment elsewhere;
  elsewhere.name = elsewhere.model = "b";
  elsewhere.replicas_min = 0;
  elsewhere.on = {{"room", "cellar"}};
  story.take(event::DeploymentPut{elsewhere});
  story.counts["b"] = {0, 2};
  story.seconds(30);
  EXPECT_EQ(story.placed("a"), 1);
  EXPECT_FALSE(story.told("replica.evicted"));
}

TEST(Scale, ABusyReplicaAPinnedOneAndAMinimumMakeNoRoom) {
  for (int which = 0; which < 3; ++which) {
    Story story;
    story.join("n1", {8 * kGiB});
    story.deploy_elastic("a", which == 2 ? 1 : 0, 2, 5 * kGiB, which == 1);
    story.deploy_elastic("b", 0, 1, 5 * kGiB);
    story.counts["a"] = {0, 1};
    story.seconds(3);
    story.counts["a"] = {which == 0 ? 1 : 0, 0};
    story.seconds(60);
    story.counts["b"] = {0, 2};
    story.seconds(60);
    EXPECT_EQ(story.placed("a"), 1) << which;
    EXPECT_EQ(story.placed("b"), 0) << which;
    EXPECT_FALSE(story.told("replica.evicted")) << which;
    EXPECT_EQ(story.unloads, 0) << which;
  }
}

TEST(Scale, TheLastReplicaOfAModelThatIsAskedEveryThreeSecondsStays) {
  Story story;
  story.join("n1", {8 * kGiB});
  story.deploy_elastic("a", 0, 1, 5 * kGiB);
  story.deploy_elastic("b", 0, 1, 5 * kGiB);
  story.counts["a"] = {1, 0};
  story.seconds(60);
  story.counts["b"] = {0, 1};
  for (int i = 0; i < 20; ++i) {
    story.counts["a"] = {0, 0};
    story.seconds(2);
    story.counts["a"] = {1, 0};
    story.seconds(1);
  }
  EXPECT_EQ(story.placed("a"), 1);
  EXPECT_EQ(story.unloads, 0);
}

TEST(Scale, OfTwoReplicasTheOneThatRunsNothingMakesRoom) {
  for (const std::size_t busy : {0U, 1U}) {
    Story story;
    story.busy = busy;
    for (const char* node : {"n1", "n2"}) story.join(node, {8 * kGiB});
    story.deploy_elastic("a", 0, 2, 5 * kGiB);
    story.deploy_elastic("b", 0, 1, 5 * kGiB);
    story.counts["a"] = {2, 2};
    story.seconds(120);
    const auto replicas = story.routed("a");
    ASSERT_EQ(replicas.size(), 2U);
    story.counts["a"] = {1, 0};
    story.counts["b"] = {0, 1};
    story.seconds(10);
    EXPECT_EQ(story.routed("a"), std::vector<std::string>{replicas[busy]});
    EXPECT_EQ(story.routed("b").size(), 1U);
  }
}

TEST(Scale, WhatIsBusyNowMakesRoomAsSoonAsItIsIdle) {
  Story story;
  story.join("n1", {8 * kGiB});
  story.deploy_elastic("a", 0, 1, 5 * kGiB);
  story.deploy_elastic("b", 0, 1, 5 * kGiB);
  story.counts["a"] = {1, 0};
  story.seconds(60);
  story.counts["b"] = {0, 1};
  story.seconds(60);
  EXPECT_EQ(story.placed("b"), 0);
  story.counts["a"] = {0, 0};
  story.seconds(10);
  EXPECT_EQ(story.routed("b").size(), 1U);
}

TEST(Scale, OldCountsUnloadNothing) {
  Story story;
  story.join("n1", {8 * kGiB});
  story.deploy_elastic("a", 0, 1, 5 * kGiB);
  story.load_and_leave("a", 60);
  story.run(20'000);  // the gateway is silent: is "a" busy? Nobody knows
  story.deploy("b", 1, 5 * kGiB);
  story.run(30'000);
  EXPECT_EQ(story.placed("a"), 1);
  EXPECT_EQ(story.unloads, 0);
  story.seconds(3);
  EXPECT_EQ(story.placed("b"), 1) << "b must have one, and a is idle";
}

TEST(Scale, AReplicaIsAddedUnderLoadAndTakenAwayLongAfterIt) {
  Story story;
  for (const char* node : {"n1", "n2", "n3"}) story.join(node, {8 * kGiB});
  story.deploy_elastic("a", 1, 3, 2 * kGiB);
  story.counts["a"] = {2, 0};
  story.seconds(120);
  EXPECT_GE(story.routed("a").size(), 2U);
  story.counts["a"] = {0, 0};
  story.seconds(300);
  EXPECT_GE(story.routed("a").size(), 2U);
  story.seconds(2400);
  EXPECT_EQ(story.routed("a").size(), 1U);
}

TEST(Scale, ANewControllerKeepsTheNumberThatItFinds) {
  Story story;
  for (const char* node : {"n1", "n2", "n3"}) story.join(node, {8 * kGiB});
  story.deploy_elastic("a", 1, 3, 2 * kGiB);
  story.counts["a"] = {2, 0};
  story.seconds(120);
  const int before = story.placed("a");
  ASSERT_GE(before, 2);
  story.restart_controller();
  story.run(30'000);
  EXPECT_EQ(story.placed("a"), before) << "without counts";
  story.seconds(60);
  EXPECT_GE(story.placed("a"), before);
  EXPECT_EQ(story.unloads, 0);
}

TEST(Scale, WhileTheStateTakesNoWritesTheNumberStays) {
  Story story;
  story.join("n1", {8 * kGiB});
  story.deploy_elastic("a", 0, 1, 2 * kGiB);
  story.state.frozen_writes = true;
  story.counts["a"] = {0, 1};
  story.seconds(10);
  EXPECT_EQ(story.placed("a"), 0);
  EXPECT_FALSE(story.told("deployment.scaled"));
  story.state.frozen_writes = false;
  story.seconds(3);
  EXPECT_EQ(story.routed("a").size(), 1U);
}

// A takes 5312 MiB with two slots and 5248 with one; B fits beside the latter alone.
struct Variants : testing::Test {
  static constexpr Bytes kA = 5120 * kMiB;
  static constexpr Bytes kB = 2800 * kMiB;
  Story story;
  std::string variant_of(const std::string& deployment) const {
    std::string text;
    for (const auto& [id, placement] : story.state.placements) {
      if (placement.spec.deployment == deployment && !placement.spec.draining) text += placement.variant;
    }
    return text;
  }
  void start_a() {
    story.join("n1", {8 * kGiB});
    story.deploy("a", 1, kA);
    story.seconds(60);
    ASSERT_EQ(variant_of("a"), "--ctx 4096 --slots 2");
  }
};

TEST_F(Variants, AnIdleReplicaStepsDownForAModelThatHasNoRoom) {
  start_a();
  story.deploy("b", 1, kB);
  story.seconds(10);
  EXPECT_EQ(variant_of("a"), "--ctx 4096 --slots 1");
  EXPECT_EQ(variant_of("b"), "--ctx 4096 --slots 1");
  EXPECT_EQ(story.routed("a").size() + story.routed("b").size(), 2U);
  EXPECT_TRUE(story.reason_of("replica.stepped_down").contains("room for b"));
  story.seconds(3600);
  EXPECT_EQ(story.loads, 3) << "and nothing swings back while both are wanted";
}

TEST_F(Variants, ABusyOrPinnedReplicaStaysAsItIs) {
  start_a();
  story.counts["a"] = {1, 0};
  story.seconds(5);
  story.deploy("b", 1, kB);
  story.seconds(30);
  EXPECT_EQ(story.placed("b"), 0);
  story.state.deployments.at("a").pinned = true;
  story.counts["a"] = {0, 0};
  story.seconds(60);
  EXPECT_EQ(story.placed("b"), 0);
  EXPECT_EQ(story.unloads, 0);
}

TEST_F(Variants, NothingStepsDownWhereThatWouldNotHelp) {
  start_a();
  story.deploy("b", 1, kB + kGiB);
  story.seconds(60);
  EXPECT_EQ(variant_of("a"), "--ctx 4096 --slots 2");
  EXPECT_EQ(story.unloads, 0);
}

TEST_F(Variants, WithRoomInItsOwnPlaceAnIdleReplicaStepsUpAfterTenMinutes) {
  start_a();
  story.deploy("b", 1, kB);
  story.seconds(10);
  story.take(event::DeploymentErased{"b"});
  story.seconds(570);
  EXPECT_EQ(variant_of("a"), "--ctx 4096 --slots 1");
  story.seconds(90);
  EXPECT_EQ(variant_of("a"), "--ctx 4096 --slots 2");
  EXPECT_EQ(story.loads, 4);
  story.seconds(3600);
  EXPECT_EQ(story.loads, 4);
}

TEST_F(Variants, ABusyReplicaStepsUpOnAnotherNodeAndServesUntilItsSuccessorDoes) {
  story.join("n1", {kA + 130 * kMiB});
  story.deploy("a", 1, kA);
  story.counts["a"] = {1, 0};
  story.seconds(60);
  ASSERT_EQ(variant_of("a"), "--ctx 4096 --slots 1");
  story.seconds(1800);
  EXPECT_EQ(story.loads, 1) << "no room, no step";
  story.join("n2", {8 * kGiB});
  for (int i = 0; i < 700; ++i) {
    story.seconds(1);
    ASSERT_GE(story.routed("a").size(), 1U);
  }
  EXPECT_EQ(story.nodes_of("a"), std::set<std::string>{"n2"});
  EXPECT_EQ(variant_of("a"), "--ctx 4096 --slots 2");
  EXPECT_EQ(story.unloads, 1);
}

TEST_F(Variants, RoomThatComesAndGoesIsNotTaken) {
  start_a();
  story.deploy("b", 1, kB);
  story.seconds(10);
  for (int i = 0; i < 6; ++i) {
    story.take(event::DeploymentErased{"b"});
    story.seconds(500);
    story.deploy("b", 1, kB);
    story.seconds(60);
  }
  EXPECT_EQ(variant_of("a"), "--ctx 4096 --slots 1");
  EXPECT_FALSE(story.told("replica.stepped_up"));
}

}  // namespace
}  // namespace aiv
