// Changes that need others to make room: a replica forced onto a node, minimums repaired, quality raised.
#pragma once
#include <optional>
#include <vector>

#include "core/placement_greedy.hpp"

namespace aiv::placement {

// Puts a replica of `model` on `node` by removing others there, those first whose loss per byte is least, and places
// the removed ones anew where there is room. The models it removed are appended to `touched`. False, and the state as
// it was, where nothing can be removed that would help. The caller judges the objective and may roll back. Fixed
// replicas stay.
[[nodiscard]] bool force_on_node(State& state, Index model, Index node, const Search& search,
                                 std::vector<Index>& touched);

// For each of `models` below its minimum, in their order: force_on_node() on the best of a bounded number of nodes,
// kept where it gains.
void force_minimums(State& state, const std::vector<Index>& models, Prng& prng, Deadline& deadline);

// Models below their minimum, heaviest first.
[[nodiscard]] std::vector<Index> below_minimum(const State& state);

// Gives replicas that have to be loaded anyway a better variant in place where no value is lost by it.
void raise_quality(State& state, Deadline& deadline);

}  // namespace aiv::placement
