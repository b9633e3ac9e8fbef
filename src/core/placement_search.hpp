// Large-neighbourhood search: ruin a small part of the plan, build it anew, keep what is better.
#pragma once
#include <cstdint>

#include "core/placement_greedy.hpp"

namespace aiv::placement {

struct SearchBudget {
  std::int64_t steps = 0;
  Score value_max = 0;        // stop where the value reaches this bound
  bool keep_current = false;  // current replicas are not displaced
  // What a byte of each device is worth to others, Score per byte (market_prices()); empty: not known.
  std::span<const double> prices{};
  Deadline deadline;
};

struct SearchResult {
  std::int64_t steps = 0;
  bool truncated = false;
};

// In clusters of more than kSmallCluster nodes no step may lower the number or the weight of the models that
// have a replica. Rationale: that comes first (the minimum before all other value); in a small cluster the
// scalar value is searched to its optimum, and that a model of little weight is left out for it is part of
// the answer.
//
// Leaves the best state found in `state`; it is never worse than the one at the start. The undo log is
// forgotten.
SearchResult improve(State& state, const SearchBudget& budget, Prng& prng);

}  // namespace aiv::placement
