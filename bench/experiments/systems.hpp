// What the experiments compare: random labs, and the systems that place models on them. Baselines place up to two replicas
// of a model by weight and know no splits; all use the same bytes per model.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "core/placement.hpp"

namespace aiv::experiments {

// One to three cards a node, models of 1 to 32 billion parameters until two replicas of each take `load` times the memory.
[[nodiscard]] PlanInput make_lab(std::uint64_t seed, int nodes, double load);

struct System {
  const char* name;
  std::function<std::vector<PlanPlacement>(const PlanInput&)> place;
};

// B1 one a node, B2 one a GPU, B4 spread, B5 most allocated, first fit; ours and its ablations.
[[nodiscard]] const std::vector<System>& systems();

// Ours with a search of `limit_ms`; 0: the first plan. `bound` may be null.
[[nodiscard]] std::vector<PlanPlacement> ours(PlanInput input, bool splits, std::int64_t limit_ms, int replicas, double* bound);

}  // namespace aiv::experiments
