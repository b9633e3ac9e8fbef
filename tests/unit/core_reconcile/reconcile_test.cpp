// Stories of the reconcile step: given this state and these events, these decisions. The nodes are played by a world
// that takes documents, loads for a while and reports, like an agent does.
#include "core/reconcile.hpp"

#include <gtest/gtest.h>

#include "reconcile_world.hpp"

namespace aiv {
namespace {

using test::World;

TEST(Reconcile, ADeploymentIsPlacedToldToItsNodeAndRoutedToOnceReady) {
  World world;
  world.join("n1", {8 * kGiB});
  world.deploy("chat", 1);
  EXPECT_EQ(world.placed("chat"), 1);
  EXPECT_EQ(world.state.status.at("chat").state, "loading");
  EXPECT_TRUE(world.routed("chat").empty()) << "nothing is routed to before it was seen ready";
  world.run(2'000);
  EXPECT_EQ(world.routed("chat").size(), 1u);
  EXPECT_EQ(world.state.status.at("chat").state, "ready");
  EXPECT_TRUE(world.told("replica.ready"));
}

TEST(Reconcile, TheRouterIsToldHowFarTheFurthestLoadIsAndNothingMoreOnceAReplicaServes) {
  World world;
  world.load_ms = 60'000;
  for (const char* node : {"n1", "n2"}) world.join(node, {8 * kGiB});
  world.deploy("chat", 2);
  const auto route = [&] { return world.state.routes->models.front(); };
  EXPECT_EQ(route().load_percent, std::nullopt) << "no node has reported a load yet";
  const auto report = [&](const char* node, double progress) {
    for (auto& [id, engine] : world.agents.at(node).engines) engine.progress = progress;
    world.agents.at(node).changed = true;
    world.run(250);
  };
  world.run(250);
  EXPECT_EQ(route().load_percent, 0);
  report("n1", 0.31);
  EXPECT_EQ(route().load_percent, 30);
  report("n2", 0.58);
  EXPECT_EQ(route().load_percent, 50);
  EXPECT_EQ(route().reason, "loading on n2, 50 % done");
  const Version version = world.state.routes->version;
  report("n2", 0.59);
  EXPECT_EQ(world.state.routes->version, version) << "less than a step is no news";
  world.run(61'000);
  EXPECT_EQ(route().state, "ready");
  EXPECT_EQ(route().load_percent, std::nullopt);
}

TEST(Reconcile, TheBestFittingDeviceIsTaken) {
  World world;
  world.join("n1", {24 * kGiB, 4 * kGiB});
  world.deploy("chat", 1, 3 * kGiB);
  ASSERT_EQ(world.state.placements.size(), 1u);
  EXPECT_EQ(world.state.placements.begin()->second.spec.devices.front().device_id, "n1/1");
}

TEST(Reconcile, ReplicasGoToDifferentNodes) {
  World world;
  for (const char* node : {"n1", "n2", "n3"}) world.join(node, {8 * kGiB, 8 * kGiB});
  world.deploy("chat", 3);
  world.run(2'000);
  EXPECT_EQ(world.routed("chat").size(), 3u);
  EXPECT_EQ(world.nodes_of("chat").size(), 3u);
  EXPECT_TRUE(world.state.status.at("chat").survives_node_loss);
}

TEST(Reconcile, WhatFitsNowhereWaitsWithTheReasonAndIsPlacedWhenRoomAppears) {
  World world;
  world.join("n1", {4 * kGiB});
  world.deploy("big", 1, 6 * kGiB);
  EXPECT_EQ(world.state.status.at("big").state, "pending");
  EXPECT_FALSE(world.state.status.at("big").reason.empty());
  EXPECT_TRUE(world.told("deployment.unplaced"));
  world.join("n2", {12 * kGiB});
  world.run(2'000);
  EXPECT_EQ(world.nodes_of("big"), (std::set<std::string>{"n2"}));
}

TEST(Reconcile, AChangeIsToldToTheNodesItConcernsAndToNoOther) {
  World world;
  for (int i = 0; i < 6; ++i) world.join("n" + std::to_string(i), {2 * kGiB});
  for (int i = 0; i < 5; ++i) world.deploy("chat" + std::to_string(i), 1, 1500 * kMiB);
  world.run(3'000);
  world.add_model("more", 1500 * kMiB);
  Deployment more;
  more.name = more.model = "more";
  std::vector<std::string> told;
  for (const Command& command : step(world.state, event::DeploymentPut{more}, {world.now, world.now})) {
    if (const auto* sent = std::get_if<command::PublishDesired>(&command)) told.push_back(sent->document.node);
  }
  ASSERT_EQ(told.size(), 1u);
  EXPECT_EQ(world.nodes_of("more"), (std::set<std::string>{told.front()}));
}

TEST(Reconcile, WhatAnAgentRunsThatNobodyPlacedTakesRoomAndGivesItBack) {
  World world;
  world.join("n1", {4 * kGiB});
  world.deploy("chat", 1, kGiB);
  world.run(2'000);
  const NodeObserved without = *world.state.nodes.at("n1").observed;
  NodeObserved with = without;
  ReplicaStatus stray;
  stray.id = "stray";
  stray.deployment = "gone";
  stray.state = ReplicaState::kReady;
  stray.measured = {{.device_id = "n1/0", .weights = 2 * kGiB}};
  with.replicas.push_back(stray);
  ++with.seq;
  world.take(event::Observed{with});
  EXPECT_GE(used_bytes(world.state, "n1/0"), 3 * kGiB);
  world.deploy("other", 1, 2 * kGiB);
  EXPECT_TRUE(world.nodes_of("other").empty());
  NodeObserved gone = without;
  gone.seq = with.seq + 1;
  world.take(event::Observed{gone});
  EXPECT_EQ(world.nodes_of("other"), (std::set<std::string>{"n1"})) << "a plan was made when the room was there";
}

TEST(Reconcile, NewsOfALifeOfTheAgentThatIsOverChangeNothing) {
  World world;
  world.join("n1", {4 * kGiB});
  world.deploy("chat", 1, kGiB);
  world.run(2'000);
  const NodeObserved first = *world.state.nodes.at("n1").observed;
  NodeObserved second = first;
  second.incarnation = 2;
  second.seq = 1;
  second.replicas.clear();
  world.take(event::Observed{second});
  EXPECT_EQ(world.state.nodes.at("n1").observed->incarnation, 2U);
  NodeObserved replayed = first;
  replayed.seq = first.seq + 100;
  world.take(event::Observed{replayed});
  EXPECT_EQ(world.state.nodes.at("n1").observed->incarnation, 2U);
  EXPECT_TRUE(world.state.nodes.at("n1").observed->replicas.empty());
  NodeObserved third = first;
  third.incarnation = 3;
  world.take(event::Observed{third});
  EXPECT_EQ(world.state.nodes.at("n1").observed->incarnation, 3U) << "a new life is always taken";
}

TEST(Reconcile, MoreReplicasThanNodesAreNotPutTwiceOnOneNode) {
  World world;
  world.join("n1", {24 * kGiB, 24 * kGiB});
  world.deploy("chat", 2);
  world.run(2'000);
  EXPECT_EQ(world.routed("chat").size(), 1u);
  EXPECT_FALSE(world.state.status.at("chat").reason.empty());
}

TEST(Reconcile, ScalingDownUnloadsTheExtraOnesOnly) {
  World world;
  for (const char* node : {"n1", "n2", "n3"}) world.join(node, {8 * kGiB});
  world.deploy("chat", 3);
  world.run(2'000);
  world.deploy("chat", 1);
  world.run(2'000);
  EXPECT_EQ(world.routed("chat").size(), 1u);
  EXPECT_EQ(world.state.placements.size(), 1u);
  EXPECT_EQ(world.processes(), 1);
}

TEST(Reconcile, ADeletedDeploymentLeavesNothingBehind) {
  World world;
  world.join("n1", {8 * kGiB});
  world.deploy("chat", 1);
  world.run(2'000);
  world.take(event::DeploymentErased{"chat"});
  world.run(2'000);
  EXPECT_TRUE(world.state.placements.empty());
  EXPECT_EQ(world.processes(), 0);
  EXPECT_TRUE(world.state.routes->models.empty());
}

TEST(Reconcile, TheRouterIsToldWhichReplicaRunsOnASoftwareGpu) {
  World world;
  world.join("n1", {8 * kGiB}, "vulkan");
  world.join("n2", {8 * kGiB}, "vulkan");
  world.agents.at("n1").facts.devices[0].kind = DeviceKind::kSoftware;
  world.agents.at("n1").changed = true;
  world.add_real_model("chat", "llama");
  world.deploy("chat", 2);
  world.run(2'000);
  const auto& replicas = world.state.routes->models.front().replicas;
  ASSERT_EQ(replicas.size(), 2u);
  for (const RouteReplica& replica : replicas) EXPECT_EQ(replica.software, replica.node == "n1");
}

TEST(Reconcile, ALostNodeIsRoutedAroundAtOnceAndReplacedAfterTenSeconds) {
  World world;
  world.join("n1", {8 * kGiB});
  world.join("n2", {8 * kGiB});
  world.join("n3", {8 * kGiB});
  world.deploy("chat", 1);
  world.run(2'000);
  const std::string first = *world.nodes_of("chat").begin();
  world.cut(first);
  world.run(2'750);
  EXPECT_TRUE(world.routed("chat").empty()) << "the route is gone within 2.75 s";
  EXPECT_EQ(world.placed("chat"), 1) << "and nothing is replaced yet";
  world.run(7'000);
  EXPECT_EQ(world.nodes_of("chat"), (std::set<std::string>{first}));
  world.run(2'500);
  EXPECT_EQ(world.routed("chat").size(), 1u);
  EXPECT_FALSE(world.nodes_of("chat").contains(first));
}

TEST(Reconcile, AReturnedNodeGivesUpWhatWasReplacedMeanwhile) {
  World world;
  world.join("n1", {8 * kGiB});
  world.join("n2", {8 * kGiB});
  world.join("n3", {8 * kGiB});
  world.deploy("chat", 1);
  world.run(2'000);
  const std::string first = *world.nodes_of("chat").begin();
  world.cut(first);
  world.run(15'000);
  ASSERT_EQ(world.processes(), 2) << "the cut node goes on running its replica";
  world.heal(first);
  world.run(5'000);
  EXPECT_EQ(world.processes(), 1);
  EXPECT_EQ(world.state.placements.size(), 1u);
  EXPECT_FALSE(world.nodes_of("chat").contains(first)) << "the new one stays";
}

TEST(Reconcile, AShortSilenceChangesNothing) {
  World world;
  world.join("n1", {8 * kGiB});
  world.join("n2", {8 * kGiB});
  world.deploy("chat", 1);
  world.run(2'000);
  const std::string replica = world.routed("chat").front();
  world.cut(*world.nodes_of("chat").begin());
  world.run(4'000);
  world.heal(*world.nodes_of("chat").begin());
  world.run(1'000);
  EXPECT_EQ(world.routed("chat"), (std::vector<std::string>{replica}));
  EXPECT_EQ(world.loads, 1);
}

TEST(Reconcile, AFailingReplicaIsTriedElsewhereAndNotInALoop) {
  World world;
  world.join("n1", {8 * kGiB});
  world.join("n2", {16 * kGiB});
  world.broken.insert("n1");
  world.deploy("chat", 1);
  world.run(3'000);
  EXPECT_EQ(world.nodes_of("chat"), (std::set<std::string>{"n2"}));
  EXPECT_TRUE(world.told("replica.failed"));
  const int loads = world.loads;
  world.run(60'000);
  EXPECT_EQ(world.loads, loads) << "what serves is left alone";
}

TEST(Reconcile, AReplicaThatLacksANodeAndNotBytesKeepsTheBestVariant) {
  World world;
  world.join("n1", {8 * kGiB});
  world.deploy("chat", 2);  // one node: the second replica has no place, whatever its size
  ASSERT_EQ(world.placed("chat"), 1);
  EXPECT_EQ(world.state.placements.begin()->second.spec.slots, 2);
}

TEST(Reconcile, AModelThatFailsEverywhereIsTriedLessAndLessOften) {
  World world;
  world.join("n1", {8 * kGiB});
  world.broken.insert("n1");
  world.deploy("chat", 1);
  world.run(2'000);
  EXPECT_EQ(world.state.status.at("chat").state, "failed");
  EXPECT_NE(world.state.status.at("chat").reason.find("no such device"), std::string::npos);
  world.run(600'000);
  EXPECT_LE(world.loads, 10) << "5, 10, 20 ... s apart: no crash loop";
  EXPECT_GE(world.loads, 6);
  world.broken.clear();
  world.run(700'000);
  EXPECT_EQ(world.routed("chat").size(), 1u) << "and it heals by itself";
}

TEST(Reconcile, AChangedDeploymentLoadsTheSuccessorFirstWhereThereIsRoom) {
  World world;
  world.join("n1", {8 * kGiB});
  world.join("n2", {8 * kGiB});
  world.deploy("chat", 1);
  world.run(2'000);
  Deployment changed = world.state.deployments.at("chat");
  changed.slots = 1;
  ++changed.generation;
  world.take(event::DeploymentPut{changed});
  for (int i = 0; i < 40; ++i) {
    world.run(250);
    EXPECT_FALSE(world.routed("chat").empty()) << "served all the time";
  }
  ASSERT_EQ(world.state.placements.size(), 1u);
  EXPECT_EQ(world.state.placements.begin()->second.spec.slots, 1);
}

TEST(Reconcile, AChangedDeploymentOnTheOnlyNodeIsUnloadedBeforeItIsLoadedAgain) {
  World world;
  world.join("n1", {8 * kGiB});
  world.deploy("chat", 1, 5 * kGiB);
  world.run(2'000);
  Deployment changed = world.state.deployments.at("chat");
  changed.slots = 1;
  ++changed.generation;
  world.take(event::DeploymentPut{changed});
  world.run(5'000);
  EXPECT_EQ(world.routed("chat").size(), 1u);
  EXPECT_EQ(world.state.placements.begin()->second.spec.slots, 1);
}

TEST(Reconcile, ADrainedNodeIsEmptiedAfterTheSuccessorsServe) {
  World world;
  world.join("n1", {8 * kGiB});
  world.join("n2", {8 * kGiB});
  world.deploy("chat", 1);
  world.run(2'000);
  const std::string first = *world.nodes_of("chat").begin();
  world.take(event::NodePut{first, {true, ""}});
  for (int i = 0; i < 40; ++i) {
    world.run(250);
    EXPECT_FALSE(world.routed("chat").empty());
  }
  EXPECT_FALSE(world.nodes_of("chat").contains(first));
  EXPECT_EQ(world.processes(), 1);
}

TEST(Reconcile, MemoryTakenByOthersMakesUsYield) {
  World world;
  world.join("n1", {8 * kGiB});
  world.deploy("chat", 1, 5 * kGiB);
  world.run(2'000);
  world.foreign("n1", 4 * kGiB);
  world.run(2'000);
  EXPECT_EQ(world.processes(), 0);
  EXPECT_TRUE(world.told("replica.yielded"));
  world.foreign("n1", 0);
  world.run(3'000);
  EXPECT_EQ(world.processes(), 1);
}

TEST(Reconcile, AfterARestartNothingIsUnloadedWhileNodesHaveNotReported) {
  World world;
  world.join("n1", {8 * kGiB});
  world.join("n2", {8 * kGiB});
  world.deploy("a", 1);
  world.deploy("b", 2);
  world.run(2'000);
  const int loads = world.loads;
  const auto before = world.state.placements;
  world.restart_controller();
  world.silence_reports("n2");  // slow to come back
  world.run(4'000);
  EXPECT_TRUE(world.state.observing);
  EXPECT_EQ(world.unloads, 0);
  world.run(2'000);
  EXPECT_FALSE(world.state.observing);
  world.allow_reports("n2");
  world.run(3'000);
  EXPECT_EQ(world.unloads, 0);
  EXPECT_EQ(world.loads, loads) << "engines are adopted, not loaded again";
  EXPECT_EQ(world.state.placements.size(), before.size());
  EXPECT_EQ(world.routed("b").size(), 2u);
}

TEST(Reconcile, TheWindowIsOverAsSoonAsEveryNodeHasReported) {
  World world;
  world.join("n1", {8 * kGiB});
  world.deploy("a", 1);
  world.run(2'000);
  world.restart_controller();
  world.run(500);
  EXPECT_FALSE(world.state.observing);
  EXPECT_EQ(world.routed("a").size(), 1u);
}

TEST(Reconcile, AnOrphanIsKeptDuringTheWindowAndUnloadedAfterIt) {
  World world;
  world.join("n1", {8 * kGiB});
  world.deploy("a", 1);
  world.run(2'000);
  world.restart_controller(/*forget_state=*/true);
  world.run(6'000);
  EXPECT_EQ(world.processes(), 0) << "nobody wants it";
}

TEST(Reconcile, WhileTheStateTakesNoWritesNothingNewIsDecided) {
  World world;
  world.join("n1", {8 * kGiB});
  world.deploy("a", 1);
  world.run(2'000);
  world.state.frozen_writes = true;
  world.deploy("b", 1);
  world.run(2'000);
  EXPECT_EQ(world.placed("b"), 0);
  EXPECT_EQ(world.routed("a").size(), 1u);
  world.state.frozen_writes = false;
  world.run(2'000);
  EXPECT_EQ(world.placed("b"), 1);
}

TEST(Reconcile, WhatIfAnswersWithoutChangingAnything) {
  World world;
  world.join("n1", {8 * kGiB});
  world.add_model("m", 5 * kGiB);
  Deployment wanted;
  wanted.name = "m";
  wanted.model = "m";
  const auto fits = what_if(world.state, wanted, world.now);
  ASSERT_TRUE(fits);
  EXPECT_TRUE(fits->placed);
  ASSERT_EQ(fits->placements.size(), 1u);
  EXPECT_EQ(fits->placements[0].node, "n1");
  world.add_model("huge", 50 * kGiB);
  wanted.model = "huge";
  const auto not_at_all = what_if(world.state, wanted, world.now);
  ASSERT_TRUE(not_at_all);
  EXPECT_FALSE(not_at_all->placed);
  EXPECT_FALSE(not_at_all->reason.empty());
  EXPECT_TRUE(world.state.deployments.empty());
}

TEST(Reconcile, WhenHalfTheNodesFallSilentAtOnceTheirRoutesStayAsTheLastChoiceAndNothingIsPlacedAnew) {
  World world;
  for (const char* node : {"n1", "n2", "n3", "n4"}) world.join(node, {8 * kGiB});
  world.deploy("chat", 2);
  world.run(3'000);
  const auto before = world.routed("chat");
  ASSERT_EQ(before.size(), 2u);
  for (const char* node : {"n1", "n2", "n3", "n4"}) world.cut(node);
  world.run(20'000);
  EXPECT_TRUE(world.told("cluster.frozen"));
  EXPECT_EQ(world.routed("chat"), before);
  for (const RouteReplica& replica : world.state.routes->models.front().replicas) EXPECT_TRUE(replica.suspect);
  EXPECT_EQ(world.state.placements.size(), 2u);
  EXPECT_FALSE(world.told("replica.abandoned"));
  for (const char* node : {"n1", "n2", "n3", "n4"}) world.heal(node);
  world.run(6'000);
  EXPECT_EQ(world.routed("chat"), before);
}

TEST(Reconcile, LabelsTaintsAndSwitchedOffDevicesDecideWhereNewReplicasGo) {
  World world;
  for (const char* node : {"n1", "n2", "n3"}) world.join(node, {8 * kGiB});
  NodePolicy zone;
  zone.labels["zone"] = "b";
  world.take(event::NodePut{"n2", zone});
  NodePolicy tainted;
  tainted.taints.insert("exam");
  world.take(event::NodePut{"n3", tainted});
  world.deploy("chat", 3);
  world.run(2'000);
  EXPECT_EQ(world.nodes_of("chat"), (std::set<std::string>{"n1", "n2"})) << "the tainted node is left alone";
  Deployment picky = world.state.deployments.at("chat");
  picky.name = "picky";
  picky.replicas_min = picky.replicas_max = 1;
  picky.on["zone"] = "b";
  world.take(event::DeploymentPut{picky});
  world.run(2'000);
  EXPECT_EQ(world.nodes_of("picky"), (std::set<std::string>{"n2"}));
  NodePolicy off = zone;
  off.devices["n2/0"].off = true;
  world.take(event::NodePut{"n2", off});
  world.run(8'000);
  EXPECT_TRUE(world.nodes_of("chat").contains("n1"));
  EXPECT_FALSE(world.nodes_of("chat").contains("n2")) << "nothing of ours stays on a device that is off";
}

}  // namespace
}  // namespace aiv
