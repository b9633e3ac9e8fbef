// Judges plans by the rules of core/placement.hpp and nothing else: shares no code with the planner, works on the
// strings, keeps no running sums.
#pragma once
#include <string>
#include <vector>

#include "core/cluster.hpp"

namespace aiv::test {

// Value by the contract's formula, from the placements alone.
[[nodiscard]] double value_of(const PlanInput& input, const std::vector<PlanPlacement>& placements);

// Every rule that the placements break, one sentence each.
[[nodiscard]] std::vector<std::string> check_placements(const PlanInput& input,
                                                        const std::vector<PlanPlacement>& placements);

// Walks the steps from `current` to the placements. Faults: a step about something that is not there, an overfilled
// device, a model below min(replicas now, replicas planned) at a step that does not say kGap or kForeign, an end that is
// not the plan.
struct StepWalk {
  std::vector<std::string> faults;
  int gaps = 0;
};
[[nodiscard]] StepWalk walk_steps(const PlanInput& input, const Plan& plan);

// All of the above, and what the plan says of itself: value, bound, keep, bytes moved, unplaced.
[[nodiscard]] std::vector<std::string> check_plan(const PlanInput& input, const Plan& plan);

}  // namespace aiv::test
