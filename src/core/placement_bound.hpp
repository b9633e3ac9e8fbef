// A value that no legal placement exceeds.
#pragma once
#include <functional>
#include <vector>

#include "core/placement_state.hpp"

namespace aiv::placement {

// Always valid: fractional knapsack over all free bytes. O(M log M).
[[nodiscard]] double simple_bound(const Problem& problem);

// Lagrangian bound: models' wishes priced, each node filled at those prices by a knapsack of its own, the
// prices moved by subgradient steps (Held, Wolfe and Crowder 1974; the step of Polyak) towards the least
// total. Valid at any prices; never above simple_bound(). `value` is the best known value, which the steps
// aim at. Gives simple_bound() where the cluster is too large for it.
[[nodiscard]] double lagrangian_bound(const Problem& problem, double value,
                                      const std::function<bool()>& stop = {});

// Prices per byte for each kind of device, at which every model buys what pays best; valid at any prices. For
// clusters of any size. `work` is how many (model, kind) pairs may be looked at over all rounds, a few
// nanoseconds each. `stop` ends the rounds of both; what was found until then is valid.
[[nodiscard]] double market_bound(const Problem& problem, double value, double work,
                                  const std::function<bool()>& stop = {});

// What a byte of each device is worth when memory is short, by the same search for prices: in points of
// Score, 0 for devices that are not used. For choosing places, where it says what a replica keeps others
// from. Never more than `rounds`.
[[nodiscard]] std::vector<double> market_prices(const Problem& problem, int rounds,
                                                const std::function<bool()>& stop = {});

}  // namespace aiv::placement
