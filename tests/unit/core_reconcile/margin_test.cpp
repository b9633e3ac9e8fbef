// Loads teach what to keep free beside an estimate, and later placements use the room that is won.
#include <gtest/gtest.h>

#include "core/footprint.hpp"
#include "reconcile_world.hpp"

namespace aiv {
namespace {

using test::World;

const Device& first_device(const World& world, const std::string& node) {
  return world.state.nodes.at(node).observed->devices.front();
}

// One load and unload after the other; each is a residual.
void load_times(World& world, const std::string& name, int times) {
  for (int i = 0; i < times; ++i) {
    world.deploy(name, 1);
    world.run(2'000);
    world.take(event::DeploymentErased{name});
    world.run(2'000);
  }
}

class Margins : public testing::Test {
 protected:
  Margins() {
    world.join("n1", {8 * kGiB}, "vulkan");
    world.add_real_model("chat", "llama");
  }
  World world;
};

TEST_F(Margins, NothingKnownKeepsTheStartValueFree) {
  world.deploy("chat", 1);
  world.run(2'000);
  EXPECT_EQ(margin_of(first_device(world, "n1")), kMarginUnknown);
  EXPECT_EQ(budget_of(first_device(world, "n1")), 8 * kGiB - kMarginUnknown);
}

TEST_F(Margins, EachLoadIsOneResidualAndIsSaved) {
  world.residual = 3 * kMiB;
  world.deploy("chat", 1);
  world.run(10'000);
  ASSERT_EQ(world.margins.size(), 1u) << "once for a load, however often the node reports";
  EXPECT_EQ(world.margins.front().key, (MarginKey{"vulkan", "", "card", "llama"}));
  EXPECT_EQ(world.margins.front().history.residuals, std::vector<Bytes>{3 * kMiB});
}

TEST_F(Margins, TwentyGoodLoadsWinTheRoomThatNobodyNeeded) {
  load_times(world, "chat", 20);
  world.deploy("chat", 1);
  world.run(2'000);
  EXPECT_EQ(margin_of(first_device(world, "n1")), 8 * kGiB / 100);
}

TEST_F(Margins, ALoadThatTakesMoreThanEstimatedRaisesTheMarginAtOnceAndUnloadsNothing) {
  world.residual = 700 * kMiB;
  world.deploy("chat", 1);
  world.run(5'000);
  EXPECT_EQ(margin_of(first_device(world, "n1")), 700 * kMiB + 8 * kGiB / 100);
  EXPECT_EQ(world.routed("chat").size(), 1u);
  EXPECT_EQ(world.unloads, 0);
}

TEST_F(Margins, OutOfMemoryAtALoadRaisesTheMarginAndNotWithoutEnd) {
  world.broken.insert("n1");
  world.broken_by_memory = true;
  world.deploy("chat", 1);
  world.run(1'000);
  EXPECT_GT(margin_of(first_device(world, "n1")), kMarginUnknown);
  world.run(24 * 3'600'000LL / 60);
  EXPECT_LE(margin_of(first_device(world, "n1")), 2 * kGiB);
  EXPECT_LT(world.loads, 12) << "no crash loop";
}

TEST_F(Margins, MemoryThatSomebodyElseTookIsNotTheEstimatesFault) {
  world.broken.insert("n1");
  world.broken_by_memory = true;
  world.load_ms = 3'000;
  world.deploy("chat", 1);
  world.foreign("n1", 7 * kGiB + 500 * kMiB);
  world.run(4'000);
  EXPECT_TRUE(world.margins.empty());
}

TEST_F(Margins, AnArchitectureThatIsNewIsGivenTheStartValueAgain) {
  load_times(world, "chat", 20);
  world.add_real_model("other", "qwen3");
  world.deploy("other", 1);
  world.run(2'000);
  EXPECT_EQ(margin_of(first_device(world, "n1")), kMarginUnknown);
}

TEST_F(Margins, WhatWasLearnedOutlivesTheControllerAndIsNotLearnedTwice) {
  load_times(world, "chat", 20);
  world.deploy("chat", 1);
  world.run(2'000);
  const std::size_t saved = world.margins.size();
  world.restart_controller();
  world.run(10'000);
  EXPECT_EQ(margin_of(first_device(world, "n1")), 8 * kGiB / 100);
  EXPECT_EQ(world.margins.size(), saved);
}

}  // namespace
}  // namespace aiv
