// The same problem for a solver: one binary per (model, variant, node, set of devices), continuous parts per split.
#pragma once
#include <istream>
#include <string>

#include "core/cluster.hpp"

namespace aiv::bench {

// CPLEX LP format. Sizes in MiB, speed/demand capped at 1, one-sided rows only (no private infinities).
[[nodiscard]] std::string to_lp(const PlanInput& input);

// Placements from a solver's "name value" lines.
[[nodiscard]] std::vector<PlanPlacement> from_solution(const PlanInput& input, std::istream& lines);

}  // namespace aiv::bench
