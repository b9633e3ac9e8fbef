// Building a plan replica by replica: the first plan in phases, and the repair of a part of it.
#pragma once
#include <span>
#include <vector>

#include "core/placement_candidates.hpp"
#include "core/placement_deadline.hpp"

namespace aiv::placement {

// The most value that one replica more of `model` could add now, wherever it went; 0 if none may be added.
[[nodiscard]] Score potential(const State& state, Index model);

// Value that would be lost without the replica.
[[nodiscard]] Score loss(const State& state, Slot slot);

// Keeps of `current` what is legal together: pinned first, then by weight; where memory has become too small, the
// smaller ones of a weight first.
void keep_current(State& state);

// Adds replicas where there is room, never removes one.
//   by_phase: first replicas by class of weight, big ones first within a class; then second failure domains; then what
//   demand still wants, by value per byte. Rationale: in a large full cluster, second replicas of small models would
//   eat the holes of big first ones (9 % of the models were left out in a trial with 10,000).
//   by_density: all by value per byte. Wins in small clusters.
// Where the deadline ends one, what is placed by then is a legal plan.
void fill_by_phase(State& state, Taste taste, Prng* prng, Deadline& deadline);
void fill_by_density(State& state, Taste taste, Prng* prng, Deadline& deadline);

// Adds replicas of `models` by value per byte, each model's density disturbed by `noise` (0 = none, 0.3 = +-30 %).
struct Refill {
  Search search;
  bool random_taste = false;  // draw the taste anew for each replica
  double noise = 0;
};
void refill(State& state, std::span<const Index> models, const Refill& how);

}  // namespace aiv::placement
