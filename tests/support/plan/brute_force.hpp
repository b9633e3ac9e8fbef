// The optimum of a tiny cluster by trying everything.
#pragma once
#include "core/cluster.hpp"

namespace aiv::test {

// Exact for whole-byte splits over at most two devices per node; a few nodes, devices and models only.
[[nodiscard]] double best_value(const PlanInput& input);

}  // namespace aiv::test
