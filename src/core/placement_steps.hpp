// The order in which to get from what runs to what is planned.
#pragma once
#include <vector>

#include "core/placement_state.hpp"

namespace aiv::placement {

// One action. `load` is an index into the planned replicas or kNone, `unload` into Problem::current or kNone; both
// are set for a move (load there, switch the routes, unload here). A detour loads `spare` for a while; its unload has
// `spare_of` set and neither index.
struct Step {
  StepAction action = StepAction::kLoad;
  Index load = kNone;
  Index unload = kNone;
  Replica spare;         // model != kNone: this step loads, or unloads, a temporary replica
  bool from_spare = false;  // the unload side of a move (or an unload) is the temporary replica `spare`
  StepReason reason = StepReason::kNone;
};

// `planned` is what shall be placed in the end; those with `current` set stand already. Each intermediate state obeys
// the memory rule, counting what is loaded, old and new. A model falls below min(replicas now, replicas planned) only
// where neither another order nor one detour of it over free memory avoids it; that unload is a kGap.
[[nodiscard]] std::vector<Step> order_steps(const Problem& problem, const std::vector<Replica>& planned);

}  // namespace aiv::placement
