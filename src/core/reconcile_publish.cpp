// Step 5 of core/reconcile.hpp: documents for nodes and gateways, and what people are shown.
#include <algorithm>
#include <cmath>
#include <set>

#include "core/footprint.hpp"
#include "core/load_progress.hpp"
#include "core/reconcile_parts.hpp"

namespace aiv::reconcile {

namespace {

// During the observation window a document may only add: it must name all that the node runs and drain
// nothing.
bool may_publish_while_observing(const NodeRecord& node, const std::vector<ReplicaSpec>& replicas) {
  if (!node.observed) return false;
  for (const ReplicaSpec& spec : replicas) {
    if (spec.draining) return false;
  }
  return std::ranges::all_of(node.observed->replicas, [&](const ReplicaStatus& status) {
    return std::ranges::any_of(replicas, [&](const ReplicaSpec& spec) { return spec.id == status.id; });
  });
}

double speed_of(const ControllerState& state, const Placement& placement) {
  double slowest = 0;
  Bytes bytes = 0;
  for (const DeviceBytes& part : placement.spec.devices) {
    bytes += part.weights;
    const Device* device = find_device(state, part.device_id);
    if (device == nullptr) continue;
    if (device->bandwidth_bytes_per_s <= 0) return 0;
    const auto bandwidth = static_cast<double>(device->bandwidth_bytes_per_s);
    slowest = slowest == 0 ? bandwidth : std::min(slowest, bandwidth);
  }
  return bytes > 0 ? replica_speed(slowest, bytes) : 0;
}

bool on_software_gpu(const ControllerState& state, const Placement& placement) {
  if (placement.spec.engine != EngineKind::kLlama) return false;
  return std::ranges::any_of(placement.spec.devices, [&](const DeviceBytes& part) {
    const Device* device = find_device(state, part.device_id);
    return device != nullptr && device->kind == DeviceKind::kSoftware;
  });
}

// Relative to the fastest; 1 for all where one is unknown. Three digits: a figure that trembles is no news.
void seed_speeds(const ControllerState& state, RouteModel& model) {
  std::vector<double> speeds;
  for (const RouteReplica& replica : model.replicas)
    speeds.push_back(speed_of(state, state.placements.at(replica.id)));
  const double fastest = speeds.empty() ? 0 : *std::ranges::max_element(speeds);
  if (fastest <= 0 || *std::ranges::min_element(speeds) <= 0) return;
  for (std::size_t i = 0; i < speeds.size(); ++i) {
    model.replicas[i].relative_speed = std::max(0.001, std::round(speeds[i] / fastest * 1000) / 1000);
  }
}

// After a mass failure nobody knows whether the nodes or our ears are gone: what was routed to stays, as the last choice,
// and the gateway's own links decide.
bool kept_while_frozen(const ControllerState& state, const Placement& placement) {
  if (!state.detector.frozen() || placement.spec.draining || !state.routes) return false;
  if (state.detector.health(placement.node) != NodeHealth::kLost || !state.nodes.at(placement.node).observed) return false;
  return std::ranges::any_of(state.routes->models, [&](const RouteModel& model) {
    return model.name == placement.spec.deployment &&
           std::ranges::find(model.replicas, placement.spec.id, &RouteReplica::id) != model.replicas.end();
  });
}

RouteModel route_model(const ControllerState& state, const Deployment& deployment) {
  RouteModel model;
  model.name = deployment.name;
  model.model = deployment.model;
  model.created_ms = deployment.created_ms;
  model.aliases = deployment.aliases;
  const auto record = state.models.find(deployment.model);
  if (record != state.models.end()) model.kind = kind_of(deployment, record->second);
  for (const Placement* each : state.placements.of_deployment(deployment.name)) {
    const Placement& placement = *each;
    if (!is_ready(state, placement) && !kept_while_frozen(state, placement)) continue;
    RouteReplica replica;
    replica.id = placement.spec.id;
    replica.node = placement.node;
    replica.slots = placement.spec.slots;
    replica.suspect = state.detector.health(placement.node) != NodeHealth::kReady;
    replica.software = on_software_gpu(state, placement);
    model.kind = placement.spec.kind;
    const std::int64_t ctx = placement.spec.ctx / std::max(1, placement.spec.slots);
    model.ctx_per_slot = model.replicas.empty() ? ctx : std::min(model.ctx_per_slot, ctx);
    model.replicas.push_back(std::move(replica));
  }
  if (model.replicas.empty() && record != state.models.end()) {
    model.ctx_per_slot = variants_of(deployment, record->second).front().ctx_per_slot;
  }
  seed_speeds(state, model);
  const auto status = state.status.find(deployment.name);
  model.state = !model.replicas.empty()        ? "ready"
                : status == state.status.end() ? "pending"
                                               : status->second.state;
  if (model.replicas.empty() && model.state == "ready") model.state = "pending";
  if (model.replicas.empty() && status != state.status.end()) {
    model.reason = status->second.reason;
    model.load_percent = status->second.load_percent;
  }
  return model;
}

// Of the replica that is furthest: with it the deployment answers.
void describe_load(const ControllerState& state, const std::string& deployment, DeploymentStatus& status) {
  for (const Placement* placement : state.placements.of_deployment(deployment)) {
    if (placement->spec.draining || is_ready(state, *placement)) continue;
    const ReplicaStatus* seen = observed_replica(state, *placement);
    if (seen == nullptr) {
      if (status.reason.empty()) status.reason = "waiting for node " + placement->node;
      continue;
    }
    const int percent = load_percent(seen->progress);
    if (status.load_percent && *status.load_percent >= percent) continue;
    status.load_percent = percent;
    status.reason = load_reason(placement->node, percent);
  }
}

}  // namespace

void publish_desired(Work& work) {
  ControllerState& state = work.state;
  for (auto& [id, node] : state.nodes) {
    if (!node.observed) continue;
    std::vector<const ReplicaSpec*> wanted;
    for (const Placement* placement : std::as_const(state.placements).on_node(id)) wanted.push_back(&placement->spec);
    const auto same = [](const ReplicaSpec& sent, const ReplicaSpec* spec) { return sent == *spec; };
    if (node.sent && std::ranges::equal(node.sent->replicas, wanted, same)) continue;
    std::vector<ReplicaSpec> replicas;
    for (const ReplicaSpec* spec : wanted) replicas.push_back(*spec);
    if (state.observing && !may_publish_while_observing(node, replicas)) continue;
    node.sent = NodeDesired{id, {state.epoch, ++state.rev}, std::move(replicas)};
    work.out.emplace_back(command::PublishDesired{*node.sent});
  }
}

void publish_routes(Work& work) {
  ControllerState& state = work.state;
  RouteTable table;
  table.auth_required = state.settings.auth_required;
  table.keys = state.keys;
  table.denied_nodes = state.denied_nodes;
  for (const auto& [name, deployment] : state.deployments)
    table.models.push_back(route_model(state, deployment));
  if (state.routes) {
    table.version = state.routes->version;
    if (table == *state.routes) return;
  }
  table.version = {state.epoch, ++state.rev};
  state.routes = table;
  work.out.emplace_back(command::PublishRoutes{std::move(table)});
}

void update_status(Work& work) {
  ControllerState& state = work.state;
  for (const auto& [name, deployment] : state.deployments) {
    DeploymentStatus status;
    std::set<std::string> domains;
    for (const Placement* each : std::as_const(state.placements).of_deployment(name)) {
      const Placement& placement = *each;
      if (placement.spec.draining) continue;
      ++status.placed;
      if (!is_ready(state, placement)) continue;
      ++status.ready;
      const NodeRecord& node = state.nodes.at(placement.node);
      domains.insert(node.failure_domain.empty() ? node.id : node.failure_domain);
    }
    status.survives_node_loss = domains.size() >= 2;
    const auto unplaced = state.unplaced.find(name);
    const bool failed = std::ranges::any_of(
        backoff_of(state, name), [&](const auto& entry) { return entry.second.until_ms > work.now.steady_ms; });
    const int wanted = wanted_replicas(state, deployment);
    if (wanted == 0 && deployment.replicas_max > 0 && status.ready == 0) {
      status.state = "idle";
      status.reason = "no replica is loaded; the first request loads one";
    } else if (status.ready >= wanted) {
      status.state = "ready";
    } else if (status.placed > status.ready) {
      status.state = "loading";
      describe_load(state, name, status);
    } else {
      status.state = failed ? "failed" : "pending";
    }
    if (status.state != "ready" && status.state != "idle" && unplaced != state.unplaced.end() &&
        !unplaced->second.empty()) {
      status.reason = unplaced->second;
    }
    if (status.state == "pending" && status.reason.empty() && state.observing) {
      status.reason = "the controller has just started and waits for the nodes to report";
    }
    DeploymentStatus& before = state.status[name];
    if (before.state != status.state) {
      work.tell("deployment." + status.state, "deployment/" + name,
                std::to_string(status.ready) + " of " + std::to_string(wanted) + " replicas are ready" +
                    (status.reason.empty() ? "" : "; " + status.reason));
    }
    before = status;
  }
}

}  // namespace aiv::reconcile
