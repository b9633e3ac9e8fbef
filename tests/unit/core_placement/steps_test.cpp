#include "builders.hpp"
#include "core/placement_steps.hpp"

namespace aiv::test {
namespace {

using placement::Index;
using placement::Problem;
using placement::Replica;

// Orders the steps towards placements chosen by the test; the planner would choose its own.
Plan steps_towards(const PlanInput& input, const std::vector<PlanPlacement>& wanted) {
  const Problem problem = placement::compile(input);
  std::vector<Replica> planned;
  Plan result;
  for (const PlanPlacement& p : wanted) {
    Replica replica;
    Index v = 0;
    for (Index m = 0; m < input.models.size(); ++m) {
      if (input.models[m].id == p.model) replica.model = m;
    }
    for (Index m = 0; m < replica.model; ++m) v += static_cast<Index>(input.models[m].variants.size());
    replica.variant = v;
    for (const PlanPart& part : p.parts) {
      Index d = 0;
      for (const auto& n : input.nodes) {
        for (const auto& dev : n.devices) {
          if (dev.id == part.device) replica.device[replica.parts] = d;
          ++d;
        }
      }
      replica.bytes[replica.parts++] = part.bytes;
    }
    problem.complete(replica);
    planned.push_back(replica);
    result.placements.push_back(p);
  }
  const auto place = [&](const Replica& r) {
    PlanPlacement p;
    p.model = input.models[r.model].id;
    p.variant = "q4";
    p.node = input.nodes[r.node].id;
    for (std::size_t i = 0; i < r.parts; ++i) {
      const Index first = problem.nodes[r.node].first_device;
      p.parts.push_back({input.nodes[r.node].devices[r.device[i] - first].id, r.bytes[i]});
    }
    return p;
  };
  for (const auto& step : placement::order_steps(problem, planned)) {
    PlanStep out;
    out.action = step.action;
    out.reason = step.reason;
    PlanPlacement to;
    PlanPlacement from;
    if (step.unload != placement::kNone) from = input.current[problem.current[step.unload].input];
    if (step.from_spare) from = place(step.spare);
    if (step.load != placement::kNone) to = place(planned[step.load]);
    if (step.load == placement::kNone && step.spare.model != placement::kNone && !step.from_spare) to = place(step.spare);
    if (step.action == StepAction::kUnload) to = from;
    out.model = to.model;
    out.variant = to.variant;
    out.node = to.node;
    out.parts = to.parts;
    for (const auto& part : to.parts) out.bytes += part.bytes;
    out.from_node = from.node;
    out.from_parts = from.parts;
    result.steps.push_back(out);
  }
  return result;
}

TEST(StepsTest, RoomIsMadeBeforeItIsUsed) {
  PlanInput input;
  input.nodes = {node("a", {device(8)}), node("b", {device(8)}), node("c", {device(8)})};
  input.models = {model("x", 6, 2), model("y", 6, 2)};
  input.current = {runs("x", "a", 6), runs("y", "b", 6)};
  // x moves to b, y to c: y must go first.
  const Plan plan = steps_towards(input, {runs("x", "b", 6), runs("y", "c", 6)});
  const StepWalk walk = walk_steps(input, plan);
  EXPECT_TRUE(walk.faults.empty()) << walk.faults.front();
  EXPECT_EQ(walk.gaps, 0);
  ASSERT_EQ(plan.steps.size(), 2U);
  EXPECT_EQ(plan.steps[0].model, "y");
}

TEST(StepsTest, TwoFullDevicesCanOnlySwapWithAGapAndTheStepSaysSo) {
  PlanInput input;
  input.nodes = {node("a", {device(8)}), node("b", {device(8)})};
  input.models = {model("heavy", 6, 1, 9), model("light", 5, 1, 1)};
  input.current = {runs("heavy", "a", 6), runs("light", "b", 5)};
  const Plan plan = steps_towards(input, {runs("heavy", "b", 6), runs("light", "a", 5)});
  const StepWalk walk = walk_steps(input, plan);
  EXPECT_TRUE(walk.faults.empty()) << walk.faults.front();
  EXPECT_EQ(walk.gaps, 1);
  EXPECT_EQ(plan.steps.front().model, "light") << "the one whose absence costs least goes";
  EXPECT_EQ(plan.steps.front().reason, StepReason::kGap);
}

TEST(StepsTest, ASwapGoesByWayOfFreeMemoryWhereThereIsSome) {
  PlanInput input;
  input.nodes = {node("a", {device(8)}), node("b", {device(8)}), node("c", {device(8)})};
  input.models = {model("x", 6), model("y", 6)};
  input.current = {runs("x", "a", 6), runs("y", "b", 6)};
  const Plan plan = steps_towards(input, {runs("x", "b", 6), runs("y", "a", 6)});
  const StepWalk walk = walk_steps(input, plan);
  EXPECT_TRUE(walk.faults.empty()) << walk.faults.front();
  EXPECT_EQ(walk.gaps, 0);
}

TEST(StepsTest, AReplicaThatIsNoLongerWantedGoesBeforeAnotherNeedsItsRoom) {
  PlanInput input;
  input.nodes = {node("a", {device(8)}), node("b", {device(8)})};
  input.models = {model("x", 6, 2), model("y", 6)};
  input.current = {runs("x", "a", 6), runs("x", "b", 6)};
  const Plan plan = steps_towards(input, {runs("x", "a", 6), runs("y", "b", 6)});
  EXPECT_TRUE(walk_steps(input, plan).faults.empty());
  ASSERT_EQ(plan.steps.size(), 2U);
  EXPECT_EQ(plan.steps[0].action, StepAction::kUnload);
}

}  // namespace
}  // namespace aiv::test
