#include "builders.hpp"
#include "labs.hpp"

namespace aiv::test {
namespace {

using ::testing::Test;

TEST(PlacementTest, AModelTakesTheSmallestHoleThatFitsSoThatTheLargeOneStaysWhole) {
  PlanInput input;
  input.nodes = {node("big", {device(24)}), node("small", {device(8)})};
  input.models = {model("m", 6)};
  EXPECT_EQ(nodes_of(checked_plan(input), "m"), std::vector<std::string>{"small"});
}

TEST(PlacementTest, TheSecondReplicaGoesToAnotherFailureDomain) {
  PlanInput input;
  input.nodes = {node("a", {device(8)}, "rack1"), node("b", {device(8)}, "rack1"), node("c", {device(24)}, "rack2")};
  input.models = {model("m", 6, 2)};
  const Plan result = checked_plan(input);
  const auto nodes = nodes_of(result, "m");
  ASSERT_EQ(nodes.size(), 2U);
  EXPECT_EQ(nodes[1], "c");
  EXPECT_DOUBLE_EQ(result.value, 150);
}

TEST(PlacementTest, AModelLargerThanAnyDeviceIsSplitOverThoseOfOneNode) {
  PlanInput input;
  input.nodes = {node("a", {device(8), device(8), device(8)}), node("b", {device(12)})};
  for (auto& d : input.nodes[0].devices) d.overhead_bytes = gib(0.5);
  input.models = {model("m", 14)};
  const Plan result = checked_plan(input);
  ASSERT_EQ(result.placements.size(), 1U);
  EXPECT_EQ(result.placements[0].node, "a");
  EXPECT_EQ(result.placements[0].parts.size(), 2U) << "no more devices than needed";
}

TEST(PlacementTest, WhatMayNotBeSplitStaysWholeOrUnplaced) {
  PlanInput input;
  input.nodes = {node("a", {device(8), device(8)})};
  input.models = {model("m", 12)};
  input.models[0].variants[0].splittable = false;
  const Plan result = checked_plan(input);
  EXPECT_TRUE(result.placements.empty());
  ASSERT_EQ(result.unplaced.size(), 1U);
  EXPECT_EQ(result.unplaced[0].reason, UnplacedReason::kSplitForbidden);
}

TEST(PlacementTest, OverheadIsPaidOncePerReplicaAndDevice) {
  PlanInput input;
  input.nodes = {node("a", {device(10)})};
  input.nodes[0].devices[0].overhead_bytes = gib(1);
  input.models = {model("x", 4), model("y", 4)};
  EXPECT_EQ(checked_plan(input).placements.size(), 2U);
  input.nodes[0].devices[0].free_bytes -= 1;
  EXPECT_EQ(checked_plan(input).placements.size(), 1U);
}

TEST(PlacementTest, BackendsAndBuffersAndNodeListsAreKept) {
  PlanInput input;
  input.nodes = {node("cuda", {device(24)}), node("rocm", {device(24, 320, "rocm")}),
                 node("tight", {device(24, 320, "vulkan")}), node("free", {device(24)})};
  input.nodes[2].devices[0].largest_buffer_bytes = gib(1);
  input.models = {model("m", 6, 4)};
  input.models[0].variants[0].largest_tensor_bytes = gib(2);
  input.models[0].excluded_nodes = {"cuda"};
  EXPECT_EQ(nodes_of(checked_plan(input, 500), "m"), std::vector<std::string>{"free"});
  input.models[0].only_nodes = {"a node that is gone"};
  const Plan none = checked_plan(input);
  ASSERT_EQ(none.unplaced.size(), 1U);
  EXPECT_EQ(none.unplaced[0].reason, UnplacedReason::kNoNode) << "a list of gone nodes is not 'anywhere'";
}

TEST(PlacementTest, ASplitKeepsWholeLayersAndPaysItsExtra) {
  PlanInput input;
  input.nodes = {node("a", {device(8), device(8)})};
  input.models = {model("m", 13)};
  input.models[0].variants[0].split_unit_bytes = gib(1.5);
  input.models[0].variants[0].split_extra_bytes = gib(0.5);
  const Plan result = checked_plan(input);
  ASSERT_EQ(result.placements.size(), 1U);
  Bytes whole = 0;
  for (const auto& part : result.placements[0].parts) whole += part.bytes % gib(1.5) == 0 ? 1 : 0;
  EXPECT_EQ(whole, 1) << "all parts but one are whole layers";
  input.models[0].variants[0].split_extra_bytes = gib(1.6);
  EXPECT_TRUE(checked_plan(input).placements.empty());
}

TEST(PlacementTest, NothingGoesToAClosedNodeAndASuspectOneOnlyKeeps) {
  PlanInput input;
  input.nodes = {node("closed", {device(24)}), node("suspect", {device(24)}), node("open", {device(8)})};
  input.nodes[0].state = NodePlanState::kUnschedulable;
  input.nodes[1].state = NodePlanState::kKeepOnly;
  input.models = {model("old", 6), model("new", 6)};
  input.current = {runs("old", "suspect", 6)};
  const Plan result = checked_plan(input, 1000);
  EXPECT_EQ(nodes_of(result, "old"), std::vector<std::string>{"suspect"});
  EXPECT_EQ(nodes_of(result, "new"), std::vector<std::string>{"open"});
}

TEST(PlacementTest, ADrainedNodesReplicaMovesWithoutAGap) {
  PlanInput input;
  input.nodes = {node("drained", {device(8)}), node("other", {device(8)})};
  input.nodes[0].state = NodePlanState::kUnschedulable;
  input.models = {model("m", 6)};
  input.current = {runs("m", "drained", 6)};
  const Plan result = checked_plan(input);
  ASSERT_EQ(result.steps.size(), 1U);
  EXPECT_EQ(result.steps[0].action, StepAction::kMove);
  EXPECT_EQ(result.steps[0].from_node, "drained");
  EXPECT_EQ(walk_steps(input, result).gaps, 0);
}

TEST(PlacementTest, NothingChangedMeansNoStep) {
  for (std::uint64_t seed = 1; seed <= 20; ++seed) {
    PlanInput input = random_lab(seed, {.nodes = 6, .load = seed % 2 == 0 ? 0.7 : 1.4});
    const Plan first = checked_plan(input, 6000, seed);
    input.current = as_current(first);
    const Plan again = checked_plan(input, 6000, seed + 1);
    EXPECT_TRUE(again.steps.empty()) << "seed " << seed << ": " << first.value << " -> " << again.value << " of "
                                     << again.upper_bound << " with " << again.steps.size() << " steps";
    EXPECT_EQ(again.bytes_moved, 0) << "seed " << seed;
  }
}

TEST(PlacementTest, AFewPointsOfDemandDoNotPayForAReload) {
  PlanInput input;
  input.nodes = {node("slow", {device(8, 100)}), node("fast", {device(8, 400)})};
  input.models = {model("m", 6)};
  input.models[0].demand_tokens_per_s = 80;
  input.current = {runs("m", "slow", 6)};
  EXPECT_TRUE(checked_plan(input, 2000).steps.empty()) << "gains 7 points, costs 4 + 6";
  input.policy.move_price = 0;
  input.policy.move_price_per_gib = 0;
  const Plan free = checked_plan(input, 2000);
  ASSERT_EQ(free.steps.size(), 1U);
  EXPECT_EQ(nodes_of(free, "m"), std::vector<std::string>{"fast"});
}

TEST(PlacementTest, AMinimumIsWorthDisplacingALessImportantModelEvenWithoutSearch) {
  PlanInput input;
  input.nodes = {node("a", {device(8)})};
  input.models = {model("idle", 6, 1, 1), model("vital", 7, 1, 10)};
  input.current = {runs("idle", "a", 6)};
  const Plan result = checked_plan(input, 0);
  EXPECT_EQ(nodes_of(result, "vital").size(), 1U);
  ASSERT_EQ(result.unplaced.size(), 1U);
  EXPECT_EQ(result.unplaced[0].model, "idle");
  input.models[1].weight = 1;
  EXPECT_TRUE(checked_plan(input, 0).steps.empty()) << "an equal one does not displace";
}

TEST(PlacementTest, APinnedReplicaStays) {
  PlanInput input;
  input.nodes = {node("a", {device(8)})};
  input.models = {model("idle", 6, 1, 1), model("vital", 7, 1, 10)};
  input.current = {runs("idle", "a", 6)};
  input.current[0].pinned = true;
  EXPECT_EQ(nodes_of(checked_plan(input, 3000), "idle").size(), 1U);
}

TEST(PlacementTest, WhereOthersTookMemoryWhatNoLongerFitsGoesFirst) {
  PlanInput input;
  input.nodes = {node("a", {device(12)}), node("b", {device(8)})};
  input.models = {model("x", 6, 1, 5), model("y", 5, 1, 1)};
  input.current = {runs("x", "a", 6), runs("y", "a", 5)};
  input.nodes[0].devices[0].free_bytes = gib(7);
  const Plan result = checked_plan(input);
  EXPECT_EQ(nodes_of(result, "x"), std::vector<std::string>{"a"});
  EXPECT_EQ(nodes_of(result, "y"), std::vector<std::string>{"b"});
  ASSERT_EQ(result.steps.size(), 1U);
}

TEST(PlacementTest, EntriesAboutThingsThatAreGoneAreDropped) {
  PlanInput input;
  input.nodes = {node("a", {device(8)})};
  input.models = {model("m", 6)};
  input.current = {runs("gone", "a", 6), runs("m", "gone", 6), runs("m", "a", 6, 7)};
  input.current.push_back(runs("m", "a", 6));
  input.current.back().variant = "gone";
  const Plan result = checked_plan(input);
  ASSERT_EQ(result.steps.size(), 1U);
  EXPECT_EQ(result.steps[0].action, StepAction::kLoad);
}

TEST(PlacementTest, ABetterVariantIsTakenWhereItCostsNothing) {
  PlanInput input;
  input.nodes = {node("a", {device(16)})};
  input.models = {model("m", 6)};
  PlanVariant q8 = input.models[0].variants[0];
  q8.id = "q8";
  q8.bytes = gib(10);
  q8.quality = 2;
  input.models[0].variants.push_back(q8);
  EXPECT_EQ(checked_plan(input).placements.at(0).variant, "q8");
  input.models[0].demand_tokens_per_s = 30;  // q4 makes 29.8 tokens/s on this card, q8 17.9
  EXPECT_EQ(checked_plan(input).placements.at(0).variant, "q4");
}

TEST(PlacementTest, AnEmptyClusterAndAnEmptyCatalogueArePlansToo) {
  PlanInput input;
  EXPECT_EQ(checked_plan(input, 100).value, 0);
  input.models = {model("m", 6)};
  EXPECT_EQ(checked_plan(input, 100).unplaced.size(), 1U);
  input.nodes = {node("bare", {}), node("full", {device(0)})};
  EXPECT_EQ(checked_plan(input, 100).unplaced.size(), 1U);
  input.models.clear();
  EXPECT_TRUE(checked_plan(input, 100).unplaced.empty());
}

TEST(PlacementTest, TheLargestNumbersDoNotWrap) {
  constexpr Bytes kHuge = std::int64_t{1} << 62;
  PlanInput input;
  input.nodes = {node("a", {device(1), device(1), device(1)})};
  for (auto& d : input.nodes[0].devices) {
    d.free_bytes = kHuge;
    d.overhead_bytes = kHuge;
  }
  input.models = {model("m", 1, 3)};
  input.models[0].variants[0].bytes = kHuge;
  input.models[0].weight = 1e18;
  input.models.push_back(model("tiny", 1));
  input.models[1].weight = 1e-9;
  EXPECT_TRUE(checked_plan(input, 100).placements.empty());
  for (auto& d : input.nodes[0].devices) d.overhead_bytes = 0;
  // A weight 27 orders of magnitude below another's still counts as more than none.
  EXPECT_FALSE(checked_plan(input, 100).placements.empty());
}

TEST(PlacementTest, TheSafetyStopEndsTheSearchAndSaysSo) {
  const PlanInput input = random_lab(3, {.nodes = 6, .load = 2.0});
  PlanOptions options;
  options.steps = 1'000'000'000;
  int asked = 0;
  options.spent = [&asked] { return ++asked > 100 ? 1.0 : 0.0; };
  const Plan result = plan(input, options);
  EXPECT_TRUE(result.truncated);
  EXPECT_LT(result.search_steps, 2000);
}

TEST(PlacementTest, NoPartOfAPlanForgetsTheClock) {
  for (const int nodes : {2, 8, 30, 120}) {
    for (const bool current : {false, true}) {
      const PlanInput input = random_lab(9, {.nodes = nodes, .load = 1.8, .current = current});
      // Each look at this clock takes a thousandth of the limit: what does not look is not counted, what looks and goes
      // on is.
      double gone = 0;
      PlanOptions options;
      options.steps = 1'000'000'000;
      options.spent = [&gone] { return gone += 0.001; };
      const Plan result = plan(input, options);
      EXPECT_TRUE(result.truncated);
      EXPECT_GT(gone, 0.8) << "what is left is used";
      EXPECT_LT(gone, 1.02) << nodes << " nodes";
      EXPECT_EQ(check_plan(input, result), std::vector<std::string>{});
    }
  }
}

TEST(PlacementTest, WhereTheTimeIsOverAtOnceThePlanIsLegalAndSaysSo) {
  const PlanInput input = random_lab(9, {.nodes = 30, .load = 1.8, .current = true});
  PlanOptions options;
  options.steps = 1'000'000'000;
  int asked = 0;
  options.spent = [&asked] { return ++asked, 2.0; };
  const Plan result = plan(input, options);
  EXPECT_TRUE(result.truncated);
  EXPECT_EQ(result.search_steps, 0);
  EXPECT_LT(asked, 20);
  EXPECT_EQ(check_plan(input, result), std::vector<std::string>{});
  EXPECT_FALSE(result.placements.empty()) << "what runs is kept";
}

TEST(PlacementTest, AClockThatCutsNothingChangesNothing) {
  const PlanInput input = random_lab(9, {.nodes = 12, .load = 1.8, .current = true});
  PlanOptions options;
  options.steps = 2'000;
  const Plan without = plan(input, options);
  options.spent = [] { return 0.01; };
  const Plan with = plan(input, options);
  EXPECT_FALSE(with.truncated);
  EXPECT_EQ(with.placements, without.placements);
  EXPECT_EQ(with.upper_bound, without.upper_bound);
  EXPECT_EQ(with.search_steps, without.search_steps);
}

TEST(PlacementTest, TheBoundsStopLeavesAValidBound) {
  const PlanInput input = random_lab(3, {.nodes = 6, .load = 2.0});
  PlanOptions options;
  options.steps = 3000;
  const Plan whole = plan(input, options);
  // The clock stands still until all but the bound is done.
  int asked = 0;
  options.spent = [&asked] { return ++asked, 0.0; };
  options.with_bound = false;
  (void)plan(input, options);
  options.with_bound = true;
  const int before_bound = asked;
  asked = 0;
  options.spent = [&asked, before_bound] { return ++asked > before_bound + 5 ? 1.0 : 0.0; };
  const Plan cut = plan(input, options);
  EXPECT_TRUE(cut.truncated);
  EXPECT_FALSE(whole.truncated);
  EXPECT_EQ(asked, before_bound + 6) << "once it has said that the time is over it is not asked again";
  EXPECT_EQ(cut.value, whole.value);
  EXPECT_GE(cut.upper_bound, whole.upper_bound);
}

TEST(PlannerTest, ALostNodeDisplacesNothingWhileHolesSuffice) {
  PlanInput input;
  input.nodes = {node("a", {device(8)}), node("b", {device(16)}), node("c", {device(16)})};
  input.models = {model("x", 6, 1), model("y", 6, 2)};
  input.current = {runs("x", "a", 6), runs("y", "b", 6), runs("y", "c", 6)};
  Planner planner(input);
  planner.first_plan();
  const PlanDelta delta = planner.lose_node("a");
  planner.check_invariants();
  ASSERT_EQ(delta.removed.size(), 1U);
  EXPECT_EQ(delta.removed[0].model, "x");
  ASSERT_EQ(delta.added.size(), 1U);
  EXPECT_EQ(delta.added[0].model, "x");
  EXPECT_TRUE(delta.unplaced.empty());
}

TEST(PlannerTest, AReturnedNodeGetsNothingUntilThePlanIsImproved) {
  PlanInput input;
  input.nodes = {node("a", {device(8)}), node("b", {device(8)})};
  input.models = {model("x", 6, 2), model("y", 6, 1)};
  Planner planner(input);
  planner.first_plan();
  EXPECT_EQ(planner.lose_node("b").unplaced.size(), 1U);
  planner.return_node("b");
  planner.check_invariants();
  const double before = planner.value();
  EXPECT_EQ(planner.result({}).placements.size(), 1U);
  PlanOptions options;
  options.steps = 500;
  planner.improve(options);
  EXPECT_GT(planner.value(), before);
  EXPECT_TRUE(planner.lose_node("no such node").removed.empty());
}

TEST(PlacementTest, TheSearchOfALargeClusterNeverTakesAFirstReplicaForValue) {
  LabShape shape;
  shape.nodes = 40;
  shape.load = 2.5;
  for (std::uint64_t seed = 1; seed <= 3; ++seed) {
    const PlanInput input = random_lab(seed, shape);
    const Plan first = plan(input, {});
    PlanOptions options;
    options.steps = 3000;
    const Plan searched = plan(input, options);
    EXPECT_LE(searched.unplaced.size(), first.unplaced.size()) << "seed " << seed;
    EXPECT_GT(searched.value, first.value);
  }
}

}  // namespace
}  // namespace aiv::test
