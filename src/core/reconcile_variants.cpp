// Step 7 of core/reconcile.hpp: lesser variants where VRAM is short, better ones where it is idle.
//
// Both ask the planner what would become of everything if one replica were gone, and do only what leaves
// every other where it is. Down at once, for somebody who has no room; up only when there was room for the
// better variant all the while for step_up_after_ms and nobody lacks any: a cluster at its brim does not
// swing.
#include <algorithm>

#include "base/units.hpp"
#include "core/footprint.hpp"
#include "core/reconcile_parts.hpp"

namespace aiv::reconcile {
namespace {

constexpr int kTrialsMax = 8;      // replicas tried in one look for room
constexpr std::size_t kUpMax = 2;  // and of those that could step up: nobody waits for it

// Those that may be placed, best first.
std::vector<Variant> own_variants(const ControllerState& state, const Deployment& deployment) {
  const auto model = state.models.find(deployment.model);
  if (model == state.models.end() || !model->second.error.empty()) return {};
  std::vector<Variant> list = variants_of(deployment, model->second);
  std::erase_if(list, [](const Variant& variant) { return variant.hint_only; });
  return list;
}

std::ptrdiff_t rank_of(const std::vector<Variant>& variants, const std::string& id) {
  return std::ranges::find(variants, id, &Variant::id) - variants.begin();
}

bool settled(const ControllerState& state, const Placement& placement) {
  return !placement.spec.draining && !is_leaving(state, placement);
}

// Nobody uses it now, nor did for so long; unknown counts as used.
bool idle_for(const ControllerState& state, const Placement& placement, std::int64_t now_ms,
              std::int64_t idle_ms) {
  const auto scale = state.scale.find(placement.spec.deployment);
  if (scale == state.scale.end() || scale->second.heard_ms < 0) return false;
  if (now_ms - scale->second.heard_ms > state.settings.load_fresh_ms) return false;
  const auto ready = state.ready_since_ms.find(placement.spec.id);
  if (ready == state.ready_since_ms.end() || now_ms - ready->second < state.settings.evict_ready_ms)
    return false;
  return scale->second.demand.running() + scale->second.demand.waiting() == 0 &&
         scale->second.demand.idle_ms(now_ms) >= idle_ms;
}

void forget_replica(ControllerState& state, const std::string& id) {
  state.placements.erase(id);
  for (auto& [name, node] : state.nodes) {
    if (node.observed)
      std::erase_if(node.observed->replicas, [&](const ReplicaStatus& r) { return r.id == id; });
  }
}

// What the planner would do with `trial`; nothing when somebody who settled would have to go.
std::vector<PlanPlacement> harmless_plan(const ControllerState& trial, std::int64_t now_ms) {
  Plan plan = trial_plan(trial, now_ms);
  const auto stay = std::ranges::count(plan.placements, true, &PlanPlacement::keep);
  const auto there = std::ranges::count_if(
      trial.placements, [&](const auto& entry) { return settled(trial, entry.second); });
  if (stay != there) return {};
  return std::move(plan.placements);
}

// Replicas that a plan gives `deployment`, of variants of at least this rank.
int count_of(const std::vector<PlanPlacement>& plan, const std::string& deployment,
             const std::vector<Variant>& variants, std::ptrdiff_t rank) {
  return static_cast<int>(std::ranges::count_if(plan, [&](const PlanPlacement& placement) {
    return placement.model == deployment && rank_of(variants, placement.variant) <= rank;
  }));
}

// With the replica gone and its deployment content with less, `asking` has one more and the deployment as
// many as now.
bool makes_room(const ControllerState& state, const Placement& placement, const std::string& asking,
                std::int64_t now_ms) {
  const std::string& name = placement.spec.deployment;
  const auto own = own_variants(state, state.deployments.at(name));
  const auto others = own_variants(state, state.deployments.at(asking));
  ControllerState trial = state;
  forget_replica(trial, placement.spec.id);
  trial.held_down.insert(name);
  const auto any = [](const std::vector<Variant>& variants) { return std::ssize(variants); };
  const std::vector<PlanPlacement> plan = harmless_plan(trial, now_ms);
  return count_of(plan, name, own, any(own)) >= settled_of(state, name) &&
         count_of(plan, asking, others, any(others)) > settled_of(state, asking);
}

enum class Way { kNone, kElsewhere, kInPlace };

Way way_up(const ControllerState& state, const Placement& placement, const std::vector<Variant>& variants,
           std::ptrdiff_t rank, std::int64_t now_ms) {
  const std::string& name = placement.spec.deployment;
  const int better_now =
      static_cast<int>(std::ranges::count_if(state.placements.of_deployment(name), [&](const Placement* each) {
        return settled(state, *each) && rank_of(variants, each->variant) < rank;
      }));
  ControllerState trial = state;
  trial.held_down.erase(name);
  trial.outgrown.insert(placement.spec.id);
  const auto better_in = [&] { return count_of(harmless_plan(trial, now_ms), name, variants, rank - 1); };
  if (better_in() > better_now) return Way::kElsewhere;
  // Its model would be away for as long as a load takes: only where nobody would notice.
  if (!idle_for(state, placement, now_ms, state.settings.step_idle_ms)) return Way::kNone;
  trial.outgrown.erase(placement.spec.id);
  forget_replica(trial, placement.spec.id);
  return better_in() > better_now ? Way::kInPlace : Way::kNone;
}

void step_up(Work& work, Placement& placement, Way way, const Variant& better) {
  ControllerState& state = work.state;
  const std::string reason = "there was room for " + better.id + " instead of " + placement.variant +
                             " for " + format_duration_ms(state.settings.step_up_after_ms);
  state.room_since_ms.erase(placement.spec.deployment);
  state.held_down.erase(placement.spec.deployment);
  state.dirty = true;
  if (way == Way::kInPlace)
    return retire(work, placement, "replica.stepped_up", reason + "; nobody uses it now");
  state.outgrown.insert(placement.spec.id);
  work.tell("replica.stepped_up", "replica/" + placement.spec.id,
            reason + "; it goes when its successor serves");
}

}  // namespace

bool step_down_for(Work& work, const std::string& asking) {
  ControllerState& state = work.state;
  const std::int64_t now = work.now.steady_ms;
  int trials = kTrialsMax;
  for (auto& [id, placement] : state.placements) {
    const std::string& name = placement.spec.deployment;
    const auto deployment = state.deployments.find(name);
    if (name == asking || deployment == state.deployments.end() || deployment->second.pinned) continue;
    if (!settled(state, placement) || !is_ready(state, placement) || settled_of(state, name) != 1)
      continue;
    if (!idle_for(state, placement, now, state.settings.evict_idle_ms)) continue;
    const auto variants = own_variants(state, deployment->second);
    const std::ptrdiff_t rank = rank_of(variants, placement.variant);
    if (rank + 1 >= static_cast<std::ptrdiff_t>(variants.size())) continue;
    if (--trials < 0) return false;
    if (!makes_room(state, placement, asking, now)) continue;
    state.held_down.insert(name);
    state.room_since_ms.erase(name);
    retire(work, placement, "replica.stepped_down",
           "idle for " + format_duration_ms(state.scale.at(name).demand.idle_ms(now)) + ": loaded again as " +
               variants[static_cast<std::size_t>(rank) + 1].id + ", which leaves room for " + asking);
    return true;
  }
  return false;
}

void step_up_where_idle(Work& work) {
  ControllerState& state = work.state;
  const std::int64_t now = work.now.steady_ms;
  if (state.dirty || !state.unplaced.empty()) {
    if (!state.unplaced.empty()) state.room_since_ms.clear();
    return;
  }
  state.variants_checked_ms = now;
  std::vector<Placement*> lesser;
  for (auto& [id, placement] : state.placements) {
    const auto deployment = state.deployments.find(placement.spec.deployment);
    if (deployment == state.deployments.end() || !settled(state, placement) || !is_ready(state, placement))
      continue;
    const auto variants = own_variants(state, deployment->second);
    const std::ptrdiff_t rank = rank_of(variants, placement.variant);
    if (rank > 0 && rank < static_cast<std::ptrdiff_t>(variants.size())) lesser.push_back(&placement);
  }
  // All in turn, a few with each look.
  const auto look = static_cast<std::size_t>(now / std::max<std::int64_t>(1, state.settings.step_check_ms));
  for (std::size_t i = 0; i < std::min(kUpMax, lesser.size()); ++i) {
    Placement& placement = *lesser[(look * kUpMax + i) % lesser.size()];
    const auto deployment = state.deployments.find(placement.spec.deployment);
    const auto variants = own_variants(state, deployment->second);
    const std::ptrdiff_t rank = rank_of(variants, placement.variant);
    const Way way = way_up(state, placement, variants, rank, now);
    if (way == Way::kNone) {
      state.room_since_ms.erase(deployment->first);
      continue;
    }
    const std::int64_t since = state.room_since_ms.try_emplace(deployment->first, now).first->second;
    if (now - since < state.settings.step_up_after_ms) continue;
    return step_up(work, placement, way, variants[static_cast<std::size_t>(rank) - 1]);
  }
}

bool has_lesser_variant(const ControllerState& state) {
  return std::ranges::any_of(state.placements, [&](const auto& entry) {
    const auto deployment = state.deployments.find(entry.second.spec.deployment);
    if (deployment == state.deployments.end() || deployment->second.slots > 0) return false;
    const auto variants = own_variants(state, deployment->second);
    return rank_of(variants, entry.second.variant) > 0;
  });
}

}  // namespace aiv::reconcile
