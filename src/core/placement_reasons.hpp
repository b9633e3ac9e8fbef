// Why a model has no replica, or too few, as data; and the nearest change that would give it one.
#pragma once
#include <vector>

#include "core/placement_deadline.hpp"
#include "core/placement_state.hpp"

namespace aiv::placement {

// The hint's names are left to the caller: indices only.
struct Diagnosis {
  Index model = kNone;
  UnplacedReason reason = UnplacedReason::kNoRoom;
  Bytes needs = 0;
  Bytes largest = 0;
  bool largest_is_device = false;
  HintKind hint = HintKind::kNone;
  Index variant = kNone;
  Index other_model = kNone;
  Index node = kNone;
  Index other_node = kNone;
  Bytes bytes = 0;
};

// One for each model without a replica or below its minimum, in the order of models. The state is changed and rolled
// back. Hints are looked for on a bounded number of nodes for a bounded number of models, until the deadline.
[[nodiscard]] std::vector<Diagnosis> diagnose(State& state, Deadline deadline = {});

}  // namespace aiv::placement
