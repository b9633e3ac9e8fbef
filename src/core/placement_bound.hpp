// A value that no legal placement exceeds.
#pragma once
#include "core/placement_state.hpp"

namespace aiv::placement {

// Always valid: fractional knapsack over all free bytes. O(M log M).
[[nodiscard]] double simple_bound(const Problem& problem);

}  // namespace aiv::placement
