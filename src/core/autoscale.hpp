// How many replicas of a deployment are wanted between its least and its most, from its demand
// (core/demand.hpp).
//
// SPECIFICATION
//
// - Utilisation = demand / (replicas * slots of one). Up when it is above up_percent (75) for up_after_ms (30
// s), to as
//   many as bring it to target_percent (60), at most double what is there. Rationale: doubling in steps finds
//   the size without an overshoot that a burst would cost; 60 leaves room below the threshold.
// - Down by one when with one replica less it would be below down_percent (50) for max(down_after_ms, 10 load
// times).
//   50 of n - 1 is well below 75 of n, so a move never calls for its own undoing: that is the hysteresis.
// - After a move nothing moves for max(cooldown_ms, 5 load times). Exempt: from zero to one, which somebody
// waits for.
// - A planned demand is kept while the demand stays within its band (15 %): noise moves nothing.
// - replicas_min = 0: the last replica goes when nothing ran or waited for the idle time, and one comes with
// the first
//   request (on demand). Idle time = ski rental: keep as long as keeping has cost no more than the load that
//   leaving may cost, load time * rental_factor, within [idle_min_ms, idle_max_ms] while somebody else lacks
//   memory; idle_ms (30 min; 0 = for ever) while nobody does, for then keeping costs nothing.
// - With a replica wanted, none there, and nobody waiting any more for abandon_ms: back to zero.
// - Only a fresh sample decides. A gateway that is silent changes nothing.
//
// Pure: the state of one deployment in, a decision with its reason out.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

#include "core/demand.hpp"

namespace aiv {

struct AutoscaleSettings {
  int up_percent = 75;
  int target_percent = 60;
  int down_percent = 50;
  int band_percent = 15;
  std::int64_t up_after_ms = 30'000;
  std::int64_t down_after_ms = 300'000;
  std::int64_t cooldown_ms = 60'000;
  std::int64_t idle_ms = 1'800'000;
  std::int64_t idle_min_ms = 60'000;
  std::int64_t idle_max_ms = 1'800'000;
  std::int64_t abandon_ms = 60'000;
  int rental_factor = 20;
  int load_factor_down = 10;
  int load_factor_cooldown = 5;
};

// What is remembered of a deployment between decisions.
struct ScaleMemory {
  int wanted = 0;
  std::int64_t planned_milli = 0;    // demand that the last decision was made for
  std::int64_t above_since_ms = -1;  // utilisation above up_percent
  std::int64_t below_since_ms = -1;  // one replica less would do
  std::int64_t moved_ms = -1;
  std::int64_t alone_since_ms = -1;  // wanted, none there, nobody waits
};

struct ScaleFacts {
  int min = 1;
  int max = 1;
  int placed = 0;                 // replicas that are there or coming
  int slots = 1;                  // of one replica
  std::int64_t load_ms = 10'000;  // what a load takes, learned
  bool memory_wanted = false;     // another deployment lacks memory
};

struct ScaleDecision {
  int wanted = 0;
  std::string reason;  // with numbers; empty when nothing changes
};

// Call after each sample. Changes `memory`; memory.wanted is the answer too. Always min <= wanted <= max.
[[nodiscard]] ScaleDecision decide_scale(const AutoscaleSettings& settings, const ScaleFacts& facts,
                                         const Demand& demand, std::int64_t now_ms, ScaleMemory& memory);

// How long an idle replica is kept now, in ms; 0 = for ever.
[[nodiscard]] std::int64_t keep_idle_ms(const AutoscaleSettings& settings, const ScaleFacts& facts);

}  // namespace aiv
