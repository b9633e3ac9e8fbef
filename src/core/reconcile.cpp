#include "core/reconcile.hpp"

#include <algorithm>

#include "base/units.hpp"
#include "core/reconcile_parts.hpp"

namespace aiv {

namespace reconcile {

bool is_leaving(const ControllerState& state, const Placement& placement) {
  if (placement.spec.draining) return false;  // it is going already
  if (state.outgrown.contains(placement.spec.id)) return true;
  const auto deployment = state.deployments.find(placement.spec.deployment);
  if (deployment == state.deployments.end()) return true;
  if (deployment->second.generation != placement.generation) return true;
  const auto node = state.nodes.find(placement.node);
  if (node == state.nodes.end()) return false;
  if (node->second.draining) return true;
  return std::ranges::any_of(placement.spec.devices, [&](const DeviceBytes& bytes) {
    return is_off(node->second, bytes.device_id, state.week_minute);
  });
}

const DevicePolicy& policy_of(const NodeRecord& node, const std::string& device_id) {
  static const DevicePolicy kNone;
  const auto policy = node.devices.find(device_id);
  return policy != node.devices.end() ? policy->second : kNone;
}

bool is_off(const NodeRecord& node, const std::string& device_id, int week_minute) {
  const DevicePolicy& policy = policy_of(node, device_id);
  return policy.off || policy.off_hours.contain(week_minute);
}

bool is_ready(const ControllerState& state, const Placement& placement) {
  const ReplicaStatus* seen = observed_replica(state, placement);
  return seen != nullptr && seen->state == ReplicaState::kReady && !placement.spec.draining;
}

void apply_policy(NodeRecord& node, int week_minute) {
  if (!node.observed) return;
  for (Device& device : node.observed->devices) {
    device.switched_off = is_off(node, device.id, week_minute);
    device.set_aside_bytes = policy_of(node, device.id).reserve_bytes;
    const auto margin = node.margins.find(device.id);
    device.margin_bytes = margin != node.margins.end() ? margin->second : -1;
  }
}

void retire(Work& work, Placement& placement, const std::string& kind, const std::string& reason) {
  if (placement.spec.draining) return;
  placement.spec.draining = true;
  work.state.dirty = true;
  work.out.emplace_back(command::SavePlacement{placement});
  work.tell(kind, "replica/" + placement.spec.id, reason);
}

namespace {

void fail_replica(Work& work, Placement& placement, const std::string& reason) {
  ControllerState& state = work.state;
  Backoff& backoff = state.backoff[{placement.spec.deployment, placement.node}];
  const auto ready_since = state.ready_since_ms.find(placement.spec.id);
  const bool was_calm = ready_since != state.ready_since_ms.end() &&
                        work.now.steady_ms - ready_since->second >= state.settings.calm_ready_ms;
  backoff.failures = was_calm ? 1 : backoff.failures + 1;
  std::int64_t wait_ms = state.settings.backoff_first_ms;
  for (int i = 1; i < backoff.failures && wait_ms < state.settings.backoff_max_ms; ++i) wait_ms *= 2;
  wait_ms = std::min(wait_ms, state.settings.backoff_max_ms);
  backoff.until_ms = work.now.steady_ms + wait_ms;
  backoff.wait_ms = wait_ms;
  backoff.reason = printable(reason.empty() ? "the engine stopped without a reason" : reason, 512);
  retire(work, placement, "replica.failed",
         backoff.reason + " (failure " + std::to_string(backoff.failures) + " on " + placement.node +
             "; not tried there again for " + format_duration_ms(wait_ms) + ")");
}

// True when the node has acknowledged that nothing of the replica is left.
bool is_gone(const NodeRecord& node, const Placement& placement, const ReplicaStatus* seen) {
  if (seen != nullptr) return seen->state == ReplicaState::kStopped || seen->state == ReplicaState::kFailed;
  if (!node.sent || node.observed->applied < node.sent->version) return false;
  return std::ranges::any_of(node.sent->replicas, [&](const ReplicaSpec& spec) {
    return spec.id == placement.spec.id && spec.draining;
  });
}

// Step 2 of the specification.
void acknowledge(Work& work) {
  ControllerState& state = work.state;
  for (auto it = state.placements.begin(); it != state.placements.end();) {
    Placement& placement = it->second;
    const auto node = state.nodes.find(placement.node);
    const bool heard = node != state.nodes.end() && node->second.observed &&
                       state.detector.health(placement.node) != NodeHealth::kLost;
    if (!heard) {
      ++it;
      continue;
    }
    const ReplicaStatus* seen = observed_replica(state, placement);
    if (!placement.spec.draining && seen != nullptr && seen->state == ReplicaState::kFailed) {
      if (seen->out_of_memory) learn_out_of_memory(work, placement);
      fail_replica(work, placement, seen->reason);
    } else if (!placement.spec.draining && seen != nullptr && seen->state == ReplicaState::kStopped) {
      fail_replica(work, placement, seen->reason.empty() ? "the engine stopped" : seen->reason);
    }
    if (!placement.spec.draining || !is_gone(node->second, placement, seen)) {
      ++it;
      continue;
    }
    work.out.emplace_back(command::ErasePlacement{it->first});
    work.tell("replica.gone", "replica/" + it->first, "unloaded from " + placement.node);
    state.ready_since_ms.erase(it->first);
    state.last_seen.erase(it->first);
    state.unmeasured.erase(it->first);
    state.outgrown.erase(it->first);
    state.dirty = true;
    it = state.placements.erase(it);
  }
}

void follow_replicas(Work& work, const NodeObserved& document) {
  ControllerState& state = work.state;
  for (const ReplicaStatus& status : document.replicas) {
    const auto placement = state.placements.find(status.id);
    if (placement == state.placements.end() || placement->second.node != document.node) continue;
    const auto [last, first_seen] = state.last_seen.try_emplace(status.id, ReplicaState::kPending);
    if (!first_seen && last->second == status.state) continue;
    const ReplicaState before = last->second;
    last->second = status.state;
    state.touched = true;
    // What the plan goes by is where replicas are; whether one is ready counts for those that wait for it to go.
    const auto of_it = std::as_const(state.placements).of_deployment(placement->second.spec.deployment);
    const bool waited_for = std::ranges::any_of(of_it, [&](const Placement* each) { return is_leaving(state, *each); });
    state.dirty = state.dirty || waited_for;
    if (status.state == ReplicaState::kReady && before != ReplicaState::kReady) {
      state.ready_since_ms[status.id] = work.now.steady_ms;
      if (before != ReplicaState::kDraining) {
        learn_load_time(state, placement->second.spec.deployment,
                        work.now.unix_ms - placement->second.created_ms);
        learn_residual(work, placement->second, status);
      }
      work.tell(
          "replica.ready", "replica/" + status.id,
          "serving on " + document.node + " after " +
              format_duration_ms(std::max<std::int64_t>(0, work.now.unix_ms - placement->second.created_ms)));
    } else if (before == ReplicaState::kReady && status.state == ReplicaState::kLoading) {
      work.tell("replica.restarted", "replica/" + status.id,
                status.reason.empty() ? "the agent starts its engine again" : printable(status.reason, 512));
    }
  }
}

// A changed budget or a changed set of devices is a reason to plan; the driver's free figure alone is not.
bool devices_changed(const std::vector<Device>& before, const std::vector<Device>& after) {
  return !std::ranges::equal(before, after, [](const Device& a, const Device& b) {
    return a.id == b.id && a.backend == b.backend && a.vram_bytes == b.vram_bytes &&
           a.foreign_bytes == b.foreign_bytes && a.overhead_bytes == b.overhead_bytes &&
           a.refused == b.refused;
  });
}

void on_health(Work& work, const std::vector<HealthEvent>& events) {
  for (const HealthEvent& event : events) {
    work.state.dirty = work.state.touched = true;
    if (event.node.empty()) {
      work.tell("cluster." + std::string(to_string(event.change)), "cluster", event.reason);
      continue;
    }
    const std::string subject = "node/" + event.node;
    work.tell("node." + std::string(to_string(event.change)), subject, event.reason);
    if (event.change == HealthChange::kLost) {
      // What it says is old news now; a fresh report is needed before anything of it is routed to again.
      std::erase_if(work.state.last_seen, [&](const auto& entry) {
        const auto placement = work.state.placements.find(entry.first);
        return placement != work.state.placements.end() && placement->second.node == event.node;
      });
    }
    if (event.change != HealthChange::kReplaceable) continue;
    work.cause = "node.replaceable " + subject;
    for (Placement* placement : work.state.placements.on_node(event.node)) {
      retire(work, *placement, "replica.abandoned", event.reason);
    }
  }
}

// All but what moves without meaning anything: the count of reports and the driver's free bytes.
bool says_the_same(const NodeObserved& before, const NodeObserved& document) {
  return before.incarnation == document.incarnation && before.boot_id == document.boot_id &&
         before.applied == document.applied && before.replicas == document.replicas &&
         !devices_changed(before.devices, document.devices);
}

// What a node runs that no placement names: it takes room, and keeps its deployment off the node.
std::vector<const ReplicaStatus*> strays_in(const ControllerState& state, const NodeObserved& document) {
  std::vector<const ReplicaStatus*> out;
  for (const ReplicaStatus& status : document.replicas) {
    if (!state.placements.contains(status.id)) out.push_back(&status);
  }
  return out;
}

bool strays_changed(const ControllerState& state, const NodeObserved& before, const NodeObserved& document) {
  return !std::ranges::equal(strays_in(state, before), strays_in(state, document),
                             [](const ReplicaStatus* a, const ReplicaStatus* b) { return *a == *b; });
}

// False for news of a life of the agent that another one has followed: whatever repeats it, it is over.
bool begins_or_goes_on(NodeRecord& node, const NodeObserved& document) {
  constexpr std::size_t kLivesKept = 16;
  if (!node.observed || node.observed->incarnation == document.incarnation) return true;
  auto& past = node.past_lives;
  if (std::ranges::find(past, document.incarnation) != past.end()) return false;
  past.push_back(node.observed->incarnation);
  if (past.size() > kLivesKept) past.erase(past.begin());
  return true;
}

void on_observed(Work& work, const NodeObserved& document) {
  ControllerState& state = work.state;
  NodeRecord& node = state.nodes[document.node];
  node.id = document.node;
  // Late news within one life of the agent is dropped, and all news of a life before.
  if (node.observed && node.observed->incarnation == document.incarnation &&
      document.seq < node.observed->seq)
    return;
  if (!begins_or_goes_on(node, document)) return;
  const bool joined = !node.observed;
  if (joined || devices_changed(node.observed->devices, document.devices) ||
      strays_changed(state, *node.observed, document)) {
    state.dirty = true;
  }
  if (joined) {
    work.tell("node.joined", "node/" + document.node,
              std::to_string(document.devices.size()) + " devices, " +
                  std::to_string(document.replicas.size()) + " replicas");
  }
  if (joined || !says_the_same(*node.observed, document)) state.touched = true;
  node.observed = document;
  apply_policy(node, work.state.week_minute);
  node.reported_ms = work.now.steady_ms;
  on_health(work, state.detector.report(document.node, work.now.steady_ms));
  follow_replicas(work, document);
}

// Hours that began or ended since the last tick.
void follow_hours(Work& work, int week_minute) {
  ControllerState& state = work.state;
  if (week_minute < 0 || week_minute == state.week_minute) return;
  const int before = std::exchange(state.week_minute, week_minute);
  for (auto& [id, node] : state.nodes) {
    for (const auto& [device, policy] : node.devices) {
      const bool was = is_off(node, device, before);
      const bool is = is_off(node, device, week_minute);
      if (was == is) continue;
      work.tell(is ? "device.off_hours_began" : "device.off_hours_ended", "device/" + device,
                "off " + policy.off_hours.text());
      apply_policy(node, week_minute);
      state.dirty = state.touched = true;
    }
  }
}

void end_window_if_due(Work& work) {
  ControllerState& state = work.state;
  if (!state.observing || state.started_ms < 0) return;
  bool all_reported = true;
  for (const auto& [id, placement] : state.placements) {
    const auto node = state.nodes.find(placement.node);
    if (node != state.nodes.end() && !node->second.observed) all_reported = false;
  }
  if (!all_reported && work.now.steady_ms - state.started_ms < state.settings.observation_ms) return;
  state.observing = false;
  state.dirty = state.touched = true;
}

void erase_node(Work& work, const std::string& id) {
  ControllerState& state = work.state;
  std::vector<std::string> there;
  for (const Placement* placement : state.placements.on_node(id)) there.push_back(placement->spec.id);
  for (const std::string& replica : there) {
    work.out.emplace_back(command::ErasePlacement{replica});
    state.placements.erase(replica);
  }
  state.nodes.erase(id);
  state.detector.forget(id);
  state.dirty = true;
}

struct TakeIn {
  Work& work;
  ControllerState& state = work.state;

  void operator()(const event::Start&) const {
    state.started_ms = work.now.steady_ms;
    state.observing = true;
    for (const auto& [id, node] : state.nodes) state.detector.expect(id, work.now.steady_ms);
    for (const auto& [id, placement] : state.placements) {
      NodeRecord& node = state.nodes[placement.node];
      node.id = placement.node;
      state.detector.expect(placement.node, work.now.steady_ms);
    }
    begin_scale(state);
  }
  void operator()(const event::Tick& tick) const {
    on_health(work, state.detector.tick(tick.gateway_heard, work.now.steady_ms));
    follow_hours(work, tick.week_minute);
    // A wait that is over is a reason to plan again, once: what then has no place waits for another change.
    for (const auto& [where, backoff] : state.backoff) {
      const bool ends_now = backoff.until_ms <= work.now.steady_ms && backoff.until_ms > state.ticked_ms;
      if (ends_now) state.touched = true;  // the status shows it
      if (ends_now && state.unplaced.contains(where.first)) state.dirty = true;
    }
    if (work.now.steady_ms - state.variants_checked_ms >= state.settings.step_check_ms && has_lesser_variant(state)) {
      state.touched = true;
    }
    state.ticked_ms = work.now.steady_ms;
  }
  void operator()(const event::LinkUp& up) const {
    NodeRecord& node = state.nodes[up.node];
    node.id = up.node;
    on_health(work, state.detector.link_up(up.node, work.now.steady_ms));
  }
  void operator()(const event::LinkDown& down) const {
    on_health(work, state.detector.link_down(down.node, down.goodbye, work.now.steady_ms));
  }
  void operator()(const event::Heartbeat& beat) const {
    state.detector.heartbeat(beat.node, work.now.steady_ms);
  }
  void operator()(const event::Observed& observed) const { on_observed(work, observed.document); }
  void operator()(const event::ModelPut& put) const {
    state.models[put.model.id] = put.model;
    state.dirty = true;
  }
  void operator()(const event::ModelErased& erased) const {
    state.models.erase(erased.id);
    state.dirty = true;
  }
  void operator()(const event::DeploymentPut& put) const {
    work.cause = "deployment.put deployment/" + put.deployment.name;
    const auto before = state.deployments.find(put.deployment.name);
    // Another generation deserves a new try everywhere.
    if (before != state.deployments.end() && before->second.generation != put.deployment.generation) {
      std::erase_if(state.backoff,
                    [&](const auto& entry) { return entry.first.first == put.deployment.name; });
    }
    state.deployments[put.deployment.name] = put.deployment;
    state.dirty = true;
  }
  void operator()(const event::DeploymentErased& erased) const {
    work.cause = "deployment.deleted deployment/" + erased.name;
    state.deployments.erase(erased.name);
    state.unplaced.erase(erased.name);
    state.status.erase(erased.name);
    state.scale.erase(erased.name);
    state.held_down.erase(erased.name);
    state.room_since_ms.erase(erased.name);
    std::erase_if(state.backoff, [&](const auto& entry) { return entry.first.first == erased.name; });
    state.dirty = true;
  }
  void operator()(const event::NodePut& put) const {
    NodeRecord& node = state.nodes[put.id];
    node.id = put.id;
    if (node.draining != put.policy.draining) {
      work.tell(put.policy.draining ? "node.drained" : "node.undrained", "node/" + put.id, "asked for by an operator");
    }
    static_cast<NodePolicy&>(node) = put.policy;
    apply_policy(node, work.state.week_minute);
    state.dirty = state.touched = true;
  }
  void operator()(const event::NodeErased& erased) const { erase_node(work, erased.id); }
  void operator()(const event::Load& load) const { on_load(work, load); }
  void operator()(const event::KeysPut& put) const { state.keys = put.keys; }
  void operator()(const event::DeniedPut& put) const { state.denied_nodes = put.nodes; }
};

}  // namespace
}  // namespace reconcile

const ReplicaStatus* observed_replica(const ControllerState& state, const Placement& placement) {
  const auto node = state.nodes.find(placement.node);
  if (node == state.nodes.end() || !node->second.observed) return nullptr;
  if (state.detector.health(placement.node) == NodeHealth::kLost) return nullptr;
  for (const ReplicaStatus& status : node->second.observed->replicas) {
    if (status.id == placement.spec.id) return &status;
  }
  return nullptr;
}

std::string node_state(const ControllerState& state, const NodeRecord& node) {
  const NodeHealth health = state.detector.health(node.id);
  if (health != NodeHealth::kReady) return std::string(to_string(health));
  if (state.detector.quarantined(node.id)) return "quarantined";
  return node.draining ? "draining" : "ready";
}

TakenIn take_in(ControllerState& state, const Event& event, Instant now) {
  TakenIn taken;
  reconcile::Work work{state, now, taken.commands, {}};
  const bool may_be_idle = std::holds_alternative<event::Tick>(event) ||
                           std::holds_alternative<event::Observed>(event) ||
                           std::holds_alternative<event::Load>(event);
  std::visit(reconcile::TakeIn{work}, event);
  if (std::holds_alternative<event::Heartbeat>(event)) return taken;
  reconcile::end_window_if_due(work);
  taken.cause = std::move(work.cause);
  // Most events say what is known already; then every document would come out as it is.
  taken.decide = !may_be_idle || state.touched || state.dirty;
  return taken;
}

std::vector<Command> decide(ControllerState& state, std::string cause, Instant now) {
  std::vector<Command> out;
  reconcile::Work work{state, now, out, std::move(cause)};
  if (!state.frozen_writes) {
    if (!state.observing) {
      reconcile::acknowledge(work);
      reconcile::plan_round(work);
      reconcile::make_room(work);
      if (now.steady_ms - state.variants_checked_ms >= state.settings.step_check_ms) {
        reconcile::step_up_where_idle(work);
      }
    }
    reconcile::publish_desired(work);
  }
  reconcile::update_status(work);
  if (!state.observing) reconcile::publish_routes(work);
  state.touched = state.frozen_writes || state.observing;
  return out;
}

std::vector<Command> step(ControllerState& state, const Event& event, Instant now) {
  TakenIn taken = take_in(state, event, now);
  if (!taken.decide) return std::move(taken.commands);
  std::vector<Command> decided = decide(state, std::move(taken.cause), now);
  std::ranges::move(decided, std::back_inserter(taken.commands));
  return std::move(taken.commands);
}

}  // namespace aiv
