#include <gmock/gmock.h>

#include "builders.hpp"

namespace aiv::test {
namespace {

using ::testing::HasSubstr;

Unplaced only_unplaced(const PlanInput& input) {
  const Plan result = checked_plan(input);
  EXPECT_EQ(result.unplaced.size(), 1U);
  return result.unplaced.empty() ? Unplaced{} : result.unplaced.front();
}

TEST(ReasonsTest, TooLargeNamesBothNumbers) {
  PlanInput input;
  input.nodes = {node("a", {device(8), device(8)}), node("b", {device(12)})};
  input.models = {model("m", 22.1)};
  const Unplaced why = only_unplaced(input);
  EXPECT_EQ(why.reason, UnplacedReason::kTooLarge);
  EXPECT_THAT(describe(why), HasSubstr("needs 22.1 GiB on one node; the largest node has 16.0 GiB free"));
  EXPECT_THAT(describe(why), HasSubstr("a lacks 6.1 GiB"));
}

TEST(ReasonsTest, NoRoomNamesTheHoleAndTheReplicaThatWouldHaveToGo) {
  PlanInput input;
  input.nodes = {node("a", {device(8)})};
  input.models = {model("vital", 6, 1, 9), model("m", 5)};
  const Unplaced why = only_unplaced(input);
  EXPECT_EQ(why.reason, UnplacedReason::kNoRoom);
  EXPECT_EQ(why.largest_bytes, gib(2));
  EXPECT_EQ(why.hint.kind, HintKind::kUnloadOther);
  EXPECT_EQ(why.hint.other_model, "vital");
}

TEST(ReasonsTest, AMoveThatWouldMakeRoomIsNamed) {
  PlanInput input;
  input.nodes = {node("a", {device(8)}), node("b", {device(6)})};
  // The price forbids the move, the model's weight is small.
  input.models = {model("llama3-3b", 5, 1, 1), model("m", 7, 1, 0.05)};
  input.models[1].min_replicas = 0;
  input.current = {runs("llama3-3b", "a", 5)};
  const Unplaced why = only_unplaced(input);
  EXPECT_EQ(why.hint.kind, HintKind::kMoveAway);
  EXPECT_THAT(describe(why), HasSubstr("fits on a if llama3-3b moves to b"));
}

TEST(ReasonsTest, AVariantThatMayNotBeChosenButWouldFitIsNamed) {
  PlanInput input;
  input.nodes = {node("a", {device(8)})};
  input.models = {model("m", 9)};
  PlanVariant small = input.models[0].variants[0];
  small.id = "q4 at ctx 4096";
  small.bytes = gib(7);
  small.hint_only = true;
  input.models[0].variants.push_back(small);
  EXPECT_THAT(describe(only_unplaced(input)), HasSubstr("fits with variant q4 at ctx 4096 on a"));
}

TEST(ReasonsTest, BackendBufferNodeAndVariantAreTold) {
  PlanInput input;
  input.nodes = {node("a", {device(8, 320, "rocm")})};
  input.models = {model("m", 6)};
  EXPECT_EQ(only_unplaced(input).reason, UnplacedReason::kBackend);
  input.nodes[0].devices[0].backend = "cuda";
  input.nodes[0].devices[0].largest_buffer_bytes = 100;
  input.models[0].variants[0].largest_tensor_bytes = 101;
  EXPECT_EQ(only_unplaced(input).reason, UnplacedReason::kBufferLimit);
  input.nodes[0].state = NodePlanState::kUnschedulable;
  EXPECT_EQ(only_unplaced(input).reason, UnplacedReason::kNoNode);
  input.models[0].max_replicas = input.models[0].min_replicas = 0;
  EXPECT_EQ(only_unplaced(input).reason, UnplacedReason::kNoVariant);
}

TEST(ReasonsTest, TooFewNodesForTheReplicasWantedIsItsOwnReason) {
  PlanInput input;
  input.nodes = {node("a", {device(24)})};
  input.models = {model("m", 6, 3)};
  input.models[0].min_replicas = 2;
  const Unplaced why = only_unplaced(input);
  EXPECT_EQ(why.reason, UnplacedReason::kDistinctNodes);
  EXPECT_EQ(why.replicas, 1);
  EXPECT_THAT(describe(why), HasSubstr("has 1 of 2 replicas"));
}

}  // namespace
}  // namespace aiv::test
