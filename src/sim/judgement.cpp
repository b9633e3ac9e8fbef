// Liveness: what must become true once the faults are over, and the times of a loss.
#include <algorithm>

#include "base/units.hpp"
#include "core/footprint.hpp"
#include "sim/world.hpp"

namespace aiv::sim {

namespace {

constexpr std::int64_t kLeaderLimitMs = 9'000;  // three times to live
constexpr std::int64_t kHeardLimitMs = 5'000;

}  // namespace

Controller* World::leader() {
  Controller* newest = nullptr;
  for (const auto& controller : controllers_) {
    if (controller->leads() && (newest == nullptr || controller->state().epoch > newest->state().epoch))
      newest = controller.get();
  }
  return newest;
}

// A device that would take one more replica of a deployment that has too few: its name, or nothing.
std::string World::misses_a_place(const ControllerState& state) {
  for (const auto& [name, deployment] : state.deployments) {
    int settled = 0;
    bool pending = false;
    for (const auto& [id, placement] : state.placements) {
      if (placement.spec.deployment != name) continue;
      if (placement.spec.draining || placement.generation != deployment.generation)
        pending = true;
      else
        ++settled;
    }
    if (settled >= wanted_replicas(state, deployment) || pending) continue;
    const ModelRecord& model = state.models.at(deployment.model);
    const auto variants = variants_of(deployment, model);
    for (const auto& [id, node] : state.nodes) {
      if (!node.observed || node.draining || state.detector.health(id) != NodeHealth::kReady ||
          state.detector.quarantined(id))
        continue;
      const bool there = std::ranges::any_of(state.placements, [&](const auto& entry) {
        return entry.second.node == id && entry.second.spec.deployment == name;
      });
      const bool strange = std::ranges::any_of(
          node.observed->replicas, [&](const ReplicaStatus& status) { return status.deployment == name; });
      const auto backoff = state.backoff.find({name, id});
      const bool waits = backoff != state.backoff.end() && backoff->second.until_ms > now() - kHeardLimitMs;
      if (there || strange || waits) continue;
      for (const Device& device : node.observed->devices) {
        const Device* one[] = {&device};
        const auto spec = make_spec(deployment, model, variants.front(), one);
        if (spec && spec->devices.front().total() <= budget_of(device) - used_bytes(state, device.id)) {
          return "L5 " + name + " has " + std::to_string(settled) + " of " +
                 std::to_string(wanted_replicas(state, deployment)) + " replicas although one fits on " +
                 device.id;
        }
      }
    }
  }
  return {};
}

// "L1 why", or nothing when all is as it should be.
std::string World::not_converged() {
  const Controller* acting = leader();
  if (acting == nullptr) return "L2 nobody leads";
  const ControllerState& state = acting->state();
  if (state.observing) return "L2 the leader still observes";
  for (const auto& node : nodes_) {
    const auto record = state.nodes.find(node->id());
    if (record == state.nodes.end() || !record->second.observed) return "L4 " + node->id() + " is not known";
    if (state.detector.health(node->id()) != NodeHealth::kReady)
      return "L4 " + node->id() + " is heard and not ready";
    const std::optional<NodeDesired>& has = node->desired();
    if (record->second.sent && (!has || has->version != record->second.sent->version)) {
      return "L1 " + node->id() + " has another document than the one that was sent";
    }
    for (const ReplicaStatus& status : node->observed().replicas) {
      const auto placement = state.placements.find(status.id);
      if (placement == state.placements.end())
        return "L1 " + node->id() + " runs " + status.id + ", which nobody wants";
      if (status.state != ReplicaState::kReady)
        return "L1 " + status.id + " on " + node->id() + " is " + std::string(state_word(status.state)) +
               ": " + status.reason;
    }
  }
  for (const auto& [id, placement] : state.placements) {
    if (placement.spec.draining) return "L1 " + id + " is being unloaded";
    const auto node =
        std::ranges::find_if(nodes_, [&](const auto& each) { return each->id() == placement.node; });
    const NodeObserved seen = (*node)->observed();
    const bool there = std::ranges::any_of(
        seen.replicas, [&, name = id](const ReplicaStatus& status) { return status.id == name; });
    if (!there) return "L1 " + id + " is placed on " + placement.node + ", which does not run it";
  }
  return misses_a_place(state);
}

void World::judge_end() {
  const Controller* acting = leader();
  const bool may_lead = now() >= store_.refuses_until && now() >= store_.unknown_until;
  if (acting != nullptr || !may_lead)
    leaderless_since_ms_ = -1;
  else if (leaderless_since_ms_ < 0)
    leaderless_since_ms_ = now();
  else if (now() - leaderless_since_ms_ > kLeaderLimitMs) {
    checks_.violate("L2", now(), "nobody leads for " + format_duration_ms(now() - leaderless_since_ms_));
    leaderless_since_ms_ = now();
  }
  if (healed_ms_ < 0 || acting == nullptr) return;
  bool unheard = false;
  for (const auto& node : nodes_) {
    if (node->answers() && acting->state().detector.health(node->id()) != NodeHealth::kReady) unheard = true;
  }
  if (!unheard)
    unheard_since_ms_ = -1;
  else if (unheard_since_ms_ < 0)
    unheard_since_ms_ = now();
  else if (now() - unheard_since_ms_ > 2 * kHeardLimitMs) {
    checks_.violate("L4", now(),
                    "a node is heard and not ready for " + format_duration_ms(now() - unheard_since_ms_));
    unheard_since_ms_ = now();
  }
  if (converged_ms_ < 0 && not_converged().empty()) {
    converged_ms_ = now() - healed_ms_;
    say("judge", "all is as wanted " + format_duration_ms(converged_ms_) + " after the faults");
  }
}

bool World::all_ready() const {
  for (const auto& controller : controllers_) {
    if (!controller->leads()) continue;
    for (const auto& [name, deployment] : controller->state().deployments) {
      const auto status = controller->state().status.find(name);
      if (status == controller->state().status.end() || status->second.ready < deployment.replicas_min)
        return false;
    }
    return true;
  }
  return false;
}

void World::follow_losses() {
  for (auto it = losses_.begin(); it != losses_.end();) {
    const Node* node = find(it->node);
    const bool gone = !node->powered() || node->cut_up;
    if (!it->routes_gone && !gateway_.routes_to_node(it->node)) {
      it->routes_gone = true;
      times_.route_gone_ms.push_back(now() - it->at_ms);
    }
    if (it->routes_gone && gone && now() - it->at_ms > 3000 && all_ready()) {
      times_.replaced_ms.push_back(now() - it->at_ms);
      it = losses_.erase(it);
    } else if (!gone || now() - it->at_ms > 600'000) {
      it = losses_.erase(it);
    } else {
      ++it;
    }
  }
}

}  // namespace aiv::sim
