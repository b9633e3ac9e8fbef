// What an operator says of a device decides the plan: exclusive, shared, memory kept free, off at all hours
// or at some.
#include "reconcile_world.hpp"

namespace aiv {
namespace {

using test::World;

void set(World& world, const DevicePolicy& device) {
  NodePolicy policy;
  policy.devices["n1/0"] = device;
  world.take(event::NodePut{"n1", policy});
  world.deliver();
}

TEST(DevicePolicies, AnExclusiveDeviceTakesOneReplicaAndTheNextWaitsWithAReason) {
  World world;
  world.join("n1", {8 * kGiB});
  set(world, {.exclusive = true});
  world.deploy("one", 1, kGiB);
  world.deploy("two", 1, kGiB);
  world.run(3'000);
  EXPECT_EQ(world.nodes_of("one").size() + world.nodes_of("two").size(), 1u);
  EXPECT_EQ(world.nodes_of("one"), (std::set<std::string>{"n1"}));
  EXPECT_EQ(world.state.status.at("two").state, "pending");
  EXPECT_FALSE(world.state.status.at("two").reason.empty());
  set(world, {});
  world.run(3'000);
  EXPECT_EQ(world.nodes_of("two"), (std::set<std::string>{"n1"})) << "shared again";
}

TEST(DevicePolicies, ADeviceThatBecomesExclusiveKeepsOneOfItsReplicas) {
  World world;
  world.join("n1", {8 * kGiB});
  world.deploy("one", 1, kGiB);
  world.deploy("two", 1, kGiB);
  world.run(3'000);
  ASSERT_EQ(world.nodes_of("one").size() + world.nodes_of("two").size(), 2u);
  set(world, {.exclusive = true});
  world.run(5'000);
  EXPECT_EQ(world.nodes_of("one").size() + world.nodes_of("two").size(), 1u);
  EXPECT_TRUE(world.told("replica.yielded"));
}

TEST(DevicePolicies, ASuccessorWaitsUntilTheExclusiveDeviceIsEmpty) {
  World world;
  world.join("n1", {8 * kGiB});
  set(world, {.exclusive = true});
  world.deploy("one", 1, kGiB);
  world.run(3'000);
  Deployment changed = world.state.deployments.at("one");
  ++changed.generation;
  changed.ctx = 2048;
  world.take(event::DeploymentPut{changed});
  world.deliver();
  for (int i = 0; i < 60; ++i) {
    world.run(100);
    ASSERT_LE(world.agents.at("n1").engines.size(), 1u) << "two at once on an exclusive device";
  }
  ASSERT_EQ(world.state.placements.size(), 1u);
  EXPECT_EQ(world.state.placements.begin()->second.generation, changed.generation);
  EXPECT_EQ(world.state.status.at("one").state, "ready");
}

TEST(DevicePolicies, OffHoursMoveWhatRunsThereAndTheirEndGivesTheDeviceBack) {
  World world;
  world.join("n1", {8 * kGiB});
  const WeeklyHours hours = *WeeklyHours::parse("Mo-Fr 08-18");
  constexpr int kMondayEight = 8 * 60;
  world.take(event::Tick{true, kMondayEight - 1});
  set(world, {.off_hours = hours});
  world.deploy("one", 1, kGiB);
  world.run(3'000);
  ASSERT_EQ(world.nodes_of("one"), (std::set<std::string>{"n1"})) << "it is not eight yet";
  world.join("n2", {8 * kGiB});
  world.take(event::Tick{true, kMondayEight});
  world.deliver();
  world.run(5'000);
  EXPECT_EQ(world.nodes_of("one"), (std::set<std::string>{"n2"}));
  EXPECT_TRUE(std::ranges::any_of(world.words, [](const command::Tell& word) {
    return word.kind == "replica.retired" && word.reason.contains("its GPU is switched off");
  })) << "and says why";
  EXPECT_TRUE(world.told("device.off_hours_began"));
  EXPECT_EQ(used_bytes(world.state, "n1/0"), 0);
  world.deploy("two", 2, kGiB);
  world.run(3'000);
  EXPECT_EQ(world.nodes_of("two"), (std::set<std::string>{"n2"})) << "nothing new there either";
  world.take(event::Tick{true, 18 * 60});
  world.deliver();
  world.run(3'000);
  EXPECT_TRUE(world.told("device.off_hours_ended"));
  EXPECT_EQ(world.nodes_of("two"), (std::set<std::string>{"n1", "n2"}));
}

TEST(DevicePolicies, MemoryKeptFreeForOthersIsNotPlannedWith) {
  World world;
  world.join("n1", {8 * kGiB});
  set(world, {.reserve_bytes = 6 * kGiB});
  world.deploy("one", 1, 3 * kGiB);
  EXPECT_TRUE(world.nodes_of("one").empty());
  set(world, {});
  EXPECT_EQ(world.nodes_of("one"), (std::set<std::string>{"n1"}));
}

TEST(DevicePolicies, MemoryKeptFreeWhereReplicasRunMakesThemMove) {
  World world;
  world.join("n1", {8 * kGiB});
  for (const char* name : {"one", "two", "three"}) world.deploy(name, 1, kGiB);
  world.run(3'000);
  world.join("n2", {8 * kGiB});
  world.run(3'000);
  ASSERT_GT(used_bytes(world.state, "n1/0"), 2 * kGiB);
  set(world, {.reserve_bytes = 6 * kGiB});
  world.run(10'000);
  EXPECT_LE(used_bytes(world.state, "n1/0"), 2 * kGiB);
  for (const char* name : {"one", "two", "three"}) EXPECT_EQ(world.state.status.at(name).state, "ready") << name;
}

TEST(DevicePolicies, TheyMoveToAnotherDeviceOfTheSameNodeToo) {
  World world;
  world.join("n1", {4 * kGiB, 8 * kGiB});
  for (const char* name : {"one", "two", "three"}) world.deploy(name, 1, kGiB);
  world.run(3'000);
  const Bytes before = used_bytes(world.state, "n1/0");
  ASSERT_GT(before, 2 * kGiB);
  set(world, {.reserve_bytes = 3 * kGiB});
  world.run(10'000);
  EXPECT_LE(used_bytes(world.state, "n1/0"), kGiB);
  for (const char* name : {"one", "two", "three"}) EXPECT_EQ(world.state.status.at(name).state, "ready") << name;
}

}  // namespace
}  // namespace aiv
