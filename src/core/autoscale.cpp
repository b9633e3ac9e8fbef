#include "core/autoscale.hpp"

#include <algorithm>

#include "base/units.hpp"

namespace aiv {

namespace {

std::int64_t capacity_milli(int replicas, int slots) {
  return std::int64_t{1000} * std::max(0, replicas) * std::max(1, slots);
}

// "5.4" of 5400.
std::string tenths(std::int64_t milli) {
  const std::int64_t tenth = (milli + 50) / 100;
  return std::to_string(tenth / 10) + "." + std::to_string(tenth % 10);
}

std::string usage(std::int64_t milli, int replicas, int slots) {
  const std::int64_t capacity = std::max<std::int64_t>(1, capacity_milli(replicas, slots));
  return tenths(milli) + " requests at once on " + std::to_string(capacity / 1000) + " slots, " +
         std::to_string(milli * 100 / capacity) + " %";
}

struct Decide {
  const AutoscaleSettings& settings;
  const ScaleFacts& facts;
  const Demand& demand;
  std::int64_t now_ms;
  ScaleMemory& memory;

  ScaleDecision move_to(int wanted, std::string reason) const {
    reason = std::to_string(memory.wanted) + " -> " + std::to_string(wanted) + " replicas: " + reason;
    memory.wanted = wanted;
    memory.moved_ms = now_ms;
    memory.planned_milli = demand.planning_milli();
    memory.above_since_ms = memory.below_since_ms = memory.alone_since_ms = -1;
    return {wanted, std::move(reason)};
  }
  ScaleDecision stay() const { return {memory.wanted, {}}; }

  // Nothing when the rules for zero say nothing.
  std::optional<ScaleDecision> at_zero() const {
    const int asking = demand.running() + demand.waiting() + demand.turned_away();
    if (memory.wanted == 0) {
      if (asking == 0) return stay();
      return move_to(1, std::to_string(asking) + " requests wait and no replica is loaded");
    }
    if (facts.min > 0) return std::nullopt;
    const std::int64_t idle = demand.idle_ms(now_ms);
    const std::int64_t keep = keep_idle_ms(settings, facts);
    if (facts.placed > 0 && keep > 0 && idle >= keep) {
      return move_to(
          0, "nothing was asked for " + format_duration_ms(idle) + "; kept for " + format_duration_ms(keep) +
                 (facts.memory_wanted
                      ? " while others lack memory (a load takes " + format_duration_ms(facts.load_ms) + ")"
                      : ""));
    }
    if (facts.placed > 0 || asking > 0 || demand.asked_for(now_ms)) {
      memory.alone_since_ms = -1;
      return std::nullopt;
    }
    if (memory.alone_since_ms < 0) memory.alone_since_ms = now_ms;
    if (now_ms - memory.alone_since_ms < settings.abandon_ms) return stay();
    return move_to(0, "no place was found and nobody waits any more for " +
                          format_duration_ms(now_ms - memory.alone_since_ms));
  }

  // Since when a condition holds; -1 while it does not.
  void follow(std::int64_t& since_ms, bool holds) const {
    if (!holds)
      since_ms = -1;
    else if (since_ms < 0)
      since_ms = now_ms;
  }

  ScaleDecision by_usage() const {
    const std::int64_t now_planning = demand.planning_milli();
    if (leaves_band(memory.planned_milli, now_planning, settings.band_percent))
      memory.planned_milli = now_planning;
    const std::int64_t planned = memory.planned_milli;
    const int wanted = memory.wanted;
    const int lowest = std::max(facts.min, 1);
    follow(memory.above_since_ms,
           wanted < facts.max && planned * 100 > settings.up_percent * capacity_milli(wanted, facts.slots));
    follow(
        memory.below_since_ms,
        wanted > lowest && planned * 100 < settings.down_percent * capacity_milli(wanted - 1, facts.slots));
    const std::int64_t cooldown =
        std::max(settings.cooldown_ms, settings.load_factor_cooldown * facts.load_ms);
    if (memory.moved_ms >= 0 && now_ms - memory.moved_ms < cooldown) return stay();
    // What is wanted already and not there yet would be counted twice.
    if (memory.above_since_ms >= 0 && now_ms - memory.above_since_ms >= settings.up_after_ms &&
        facts.placed >= wanted) {
      const std::int64_t per_replica = settings.target_percent * capacity_milli(1, facts.slots);
      const auto need = static_cast<int>(
          std::min<std::int64_t>(facts.max, (planned * 100 + per_replica - 1) / per_replica));
      const int to = std::clamp(need, wanted + 1, std::min(facts.max, 2 * wanted));
      return move_to(to, usage(planned, wanted, facts.slots) + ", above " +
                             std::to_string(settings.up_percent) + " % for " +
                             format_duration_ms(now_ms - memory.above_since_ms));
    }
    const std::int64_t patience = std::max(settings.down_after_ms, settings.load_factor_down * facts.load_ms);
    if (memory.below_since_ms >= 0 && now_ms - memory.below_since_ms >= patience) {
      return move_to(wanted - 1, "with one less " + usage(planned, wanted - 1, facts.slots) + ", below " +
                                     std::to_string(settings.down_percent) + " % for " +
                                     format_duration_ms(now_ms - memory.below_since_ms));
    }
    return stay();
  }
};

}  // namespace

std::int64_t keep_idle_ms(const AutoscaleSettings& settings, const ScaleFacts& facts) {
  if (!facts.memory_wanted) return settings.idle_ms;
  return std::clamp(facts.load_ms * settings.rental_factor, settings.idle_min_ms, settings.idle_max_ms);
}

ScaleDecision decide_scale(const AutoscaleSettings& settings, const ScaleFacts& given, const Demand& demand,
                           std::int64_t now_ms, ScaleMemory& memory) {
  ScaleFacts facts = given;
  facts.max = std::max(facts.min, facts.max);
  const Decide decide{settings, facts, demand, now_ms, memory};
  const int within = std::clamp(memory.wanted, facts.min, facts.max);
  if (within != memory.wanted) {
    return decide.move_to(within,
                          "the range is " + std::to_string(facts.min) + " to " + std::to_string(facts.max));
  }
  if (!demand.known() || facts.max == facts.min) return decide.stay();
  if (const auto decided = decide.at_zero()) return *decided;
  return decide.by_usage();
}

}  // namespace aiv
