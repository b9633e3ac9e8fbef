#include "core/what_if_drop.hpp"

#include <algorithm>

namespace aiv {

namespace {

struct Held {
  int ready = 0;
  int all = 0;
};

Held held_by(const ControllerState& state, const std::string& deployment, const std::string& without_node) {
  Held held;
  for (const Placement* each : state.placements.of_deployment(deployment)) {
    const Placement& placement = *each;
    if (placement.spec.draining || placement.node == without_node) continue;
    ++held.all;
    const ReplicaStatus* seen = observed_replica(state, placement);
    if (seen != nullptr && seen->state == ReplicaState::kReady) ++held.ready;
  }
  return held;
}

}  // namespace

Result<DropAnswer> what_if_dropped(const ControllerState& state, const std::string& node, Instant now) {
  if (!state.nodes.contains(node)) return fail(ErrorCode::kNotFound, "there is no node of this name", node);
  if (state.observing || state.frozen_writes) {
    return fail(ErrorCode::kUnavailable, "nothing is planned just now: the controller has just started, or takes no writes");
  }
  DropAnswer answer;
  answer.node = node;
  ControllerState copy = state;
  // As if the wait were over: the node and all it held are gone, and everything else is as it is.
  const std::vector<Command> commands = step(copy, event::NodeErased{node}, now);
  for (const Command& command : commands) {
    const auto* saved = std::get_if<command::SavePlacement>(&command);
    if (saved == nullptr || saved->placement.spec.draining || state.placements.contains(saved->placement.spec.id)) continue;
    const Placement& placement = saved->placement;
    answer.replacements.push_back(
        {placement.spec.deployment, placement.node, placement.spec.devices, placement.why});
  }
  for (const auto& [name, deployment] : state.deployments) {
    const Held before = held_by(state, name, "");
    const Held left = held_by(state, name, node);
    if (before.all == left.all) continue;
    DropAnswer::Hit hit;
    hit.deployment = name;
    hit.ready_before = before.ready;
    hit.ready_left = left.ready;
    hit.wanted = deployment.replicas_min;
    hit.after = held_by(copy, name, "").all;
    if (const auto why = copy.unplaced.find(name); why != copy.unplaced.end() && hit.after < hit.wanted) {
      hit.reason = why->second;
    }
    if (hit.ready_before > 0 && hit.ready_left == 0) answer.survives = false;
    if (hit.after < std::min(before.all, hit.wanted)) answer.restored = false;
    answer.hit.push_back(std::move(hit));
  }
  return answer;
}

}  // namespace aiv
