// Large-neighbourhood search: ruin a small part of the plan, build it anew, keep what is better.
#pragma once
#include <cstdint>
#include <functional>

#include "core/placement_greedy.hpp"

namespace aiv::placement {

struct SearchBudget {
  std::int64_t steps = 0;
  Score value_max = 0;        // stop where the value reaches this bound
  bool keep_current = false;  // current replicas are not displaced
  const std::function<bool()>* stop = nullptr;
};

struct SearchResult {
  std::int64_t steps = 0;
  bool truncated = false;
};

// Leaves the best state found in `state`; it is never worse than the one at the start. The undo log is forgotten.
SearchResult improve(State& state, const SearchBudget& budget, Prng& prng);

}  // namespace aiv::placement
