// The JSON of each resource, and the routes that only read.
#include <algorithm>

#include "base/units.hpp"
#include "controller/api_records.hpp"
#include "core/footprint.hpp"
#include "wire/documents.hpp"

namespace aiv::controller {

namespace {

std::string time_or_empty(std::int64_t unix_ms) { return unix_ms > 0 ? rfc3339(unix_ms) : std::string(); }

Json view_version(const Version& version) {
  Json json;
  json["epoch"] = version.epoch;
  json["rev"] = version.rev;
  return json;
}

std::string state_of(const Placement& placement, const ReplicaStatus* seen) {
  if (seen == nullptr) return placement.spec.draining ? "draining" : "pending";
  const bool ended = seen->state == ReplicaState::kStopped || seen->state == ReplicaState::kFailed;
  if (placement.spec.draining && !ended) return "draining";
  return std::string(wire::to_string(seen->state));
}

// Bytes as measured on the node once the engine's log was read, as planned before.
Json view_device_bytes(const DeviceBytes& planned, const ReplicaStatus* seen) {
  const DeviceBytes* bytes = &planned;
  bool measured = false;
  if (seen != nullptr) {
    for (const DeviceBytes& entry : seen->measured) {
      if (entry.device_id != planned.device_id || entry.total() <= 0) continue;
      bytes = &entry;
      measured = true;
    }
  }
  Json json;
  json["id"] = planned.device_id;
  json["bytes"] = bytes->total();
  json["weights_bytes"] = bytes->weights;
  json["kv_bytes"] = bytes->kv;
  json["compute_bytes"] = bytes->compute;
  json["overhead_bytes"] = bytes->overhead;
  json["origin"] = measured ? "measured" : "estimated";
  json["planned_bytes"] = planned.total();
  return json;
}

}  // namespace

Json view_device(const Cluster& cluster, const NodeRecord& node, const Device& device) {
  const ControllerState& state = cluster.state();
  Json json;
  json["id"] = device.id;
  json["node"] = node.id;
  json["name"] = printable(device.name, 256);
  json["backend"] = device.backend;
  json["kind"] = wire::to_string(device.kind);
  json["uuid"] = printable(device.uuid, 128);
  json["vram_bytes"] = device.vram_bytes;
  json["free_bytes"] = device.free_bytes;
  json["foreign_bytes"] = device.foreign_bytes;
  json["reserved_bytes"] = used_bytes(state, device.id);
  json["budget_bytes"] = budget_of(device);
  const auto policy = node.devices.find(device.id);
  json["off"] = policy != node.devices.end() && policy->second.off;
  json["off_now"] = device.switched_off;
  json["reserve_bytes"] = policy != node.devices.end() ? policy->second.reserve_bytes : 0;
  json["exclusive"] = policy != node.devices.end() && policy->second.exclusive;
  json["off_hours"] = policy != node.devices.end() ? policy->second.off_hours.text() : "";
  json["margin_bytes"] = margin_of(device);
  json["overhead_bytes"] = overhead_of(device);
  json["bandwidth_bytes_per_s"] =
      device.bandwidth_bytes_per_s > 0 ? Json(device.bandwidth_bytes_per_s) : Json(nullptr);
  json["driver"] = printable(device.driver, 256);
  json["state"] = !device.refused.empty() ? "refused" : node_state(state, node);
  json["refused"] = printable(device.refused, 1024);
  Json replicas = Json::array();
  for (const Placement* placement : state.placements.on_node(node.id)) {
    for (const DeviceBytes& bytes : placement->spec.devices) {
      if (bytes.device_id == device.id) replicas.push_back(placement->spec.id);
    }
  }
  json["replicas"] = std::move(replicas);
  return json;
}

Json view_node(const Cluster& cluster, const NodeRecord& node) {
  const ControllerState& state = cluster.state();
  Json json;
  json["id"] = node.id;
  json["state"] = node_state(state, node);
  json["failure_domain"] = node.failure_domain.empty() ? node.id : node.failure_domain;
  json["draining"] = node.draining;
  json["labels"] = node.labels;
  json["taints"] = node.taints;
  json["silent_ms"] = state.detector.silent_ms(node.id, Cluster::now().steady_ms);
  Json devices = Json::array();
  if (node.observed) {
    json["agent_version"] = printable(node.observed->agent_version, 128);
    json["engine"] = printable(node.observed->engine, 256);
    json["boot_id"] = printable(node.observed->boot_id, 128);
    json["incarnation"] = std::to_string(node.observed->incarnation);
    json["applied"] = view_version(node.observed->applied);
    for (const Device& device : node.observed->devices) devices.push_back(view_device(cluster, node, device));
  }
  if (const NodeDesired* desired = cluster.desired_for(node.id)) json["desired"] = view_version(desired->version);
  json["devices"] = std::move(devices);
  json["revision"] = cluster.revision_of(kNodePrefix + node.id);
  return json;
}

Json view_model(const Cluster& cluster, const ModelRecord& model) {
  Json json;
  json["id"] = model.id;
  json["digest"] = model.digest;
  json["size_bytes"] = model.size_bytes;
  json["architecture"] = printable(model.architecture(), 64);
  json["path"] = model.path;
  json["kind"] = wire::to_string(model.kind);
  json["engine"] = wire::to_string(model.engine);
  json["train_ctx"] = model.train_ctx();
  if (model.facts) {
    json["name"] = printable(model.facts->name, 128);
    json["quantisation"] = model.facts->quantisation;
    json["parameters"] = model.facts->parameters;
    json["has_chat_template"] = model.facts->has_chat_template;
    json["estimate"] = model.facts->known ? "formula" : "generic";
  }
  json["state"] = !model.error.empty() ? "failed" : model.digest.empty() ? "hashing" : "ready";
  json["reason"] = model.error;
  json["created_at"] = time_or_empty(model.created_ms);
  json["revision"] = cluster.revision_of(kModelPrefix + model.id);
  return json;
}

Json view_deployment(const Cluster& cluster, const Deployment& deployment) {
  const ControllerState& state = cluster.state();
  DeploymentStatus status;
  if (const auto it = state.status.find(deployment.name); it != state.status.end()) {
    status = it->second;
  } else {
    status.reason = "it was put just now; its place is being decided";
  }
  // What was decided last may be of before a change that was taken in since.
  const auto outdated = [&](const Placement* each) { return each->generation != deployment.generation; };
  if (cluster.undecided() && status.state == "ready" &&
      (status.ready < deployment.replicas_min ||
       std::ranges::any_of(state.placements.of_deployment(deployment.name), outdated))) {
    status.state = "pending";
    status.reason = "a change of it is being decided";
  }
  Json json;
  json["name"] = deployment.name;
  json["model"] = deployment.model;
  json["replicas"]["min"] = deployment.replicas_min;
  json["replicas"]["max"] = deployment.replicas_max;
  json["replicas"]["ready"] = status.ready;
  json["replicas"]["placed"] = status.placed;
  std::int64_t ctx = deployment.ctx;
  int slots = deployment.slots;
  const auto replicas = state.placements.of_deployment(deployment.name);
  for (const Placement* each : replicas) {
    const Placement& placement = *each;
    if (placement.spec.draining || placement.generation != deployment.generation) continue;
    slots = placement.spec.slots;
    ctx = placement.spec.ctx / std::max(1, slots);
    break;
  }
  if (const auto model = state.models.find(deployment.model); model != state.models.end() && (ctx == 0 || slots == 0)) {
    const Variant best = variants_of(deployment, model->second).front();
    if (ctx == 0) ctx = best.ctx_per_slot;
    if (slots == 0) slots = best.slots;
  }
  json["ctx"] = ctx;
  json["slots"] = slots;
  json["cache_type_k"] = deployment.cache_type_k;
  json["cache_type_v"] = deployment.cache_type_v;
  json["flash_attn"] = deployment.flash_attn;
  json["ubatch"] = deployment.ubatch;
  const auto record = state.models.find(deployment.model);
  if (record != state.models.end()) json["kind"] = wire::to_string(kind_of(deployment, record->second));
  json["pooling"] = deployment.pooling;
  json["aliases"] = deployment.aliases;
  json["priority"] = deployment.priority;
  json["pinned"] = deployment.pinned;
  json["on"] = deployment.on;
  json["tolerates"] = deployment.tolerates;
  Json why = Json::array();
  for (const Placement* placement : replicas) {
    const ReplicaStatus* seen = observed_replica(state, *placement);
    why.push_back({{"replica", placement->spec.id},
                   {"node", placement->node},
                   {"state", state_of(*placement, seen)},
                   {"why", placement->why}});
  }
  json["why"] = std::move(why);
  json["state"] = status.state;
  json["reason"] = status.reason;
  json["survives_node_loss"] = status.survives_node_loss;
  json["generation"] = deployment.generation;
  json["created_at"] = time_or_empty(deployment.created_ms);
  json["revision"] = cluster.revision_of(kDeploymentPrefix + deployment.name);
  return json;
}

Json view_replica(const Cluster& cluster, const Placement& placement) {
  const ReplicaStatus* seen = observed_replica(cluster.state(), placement);
  Json json;
  json["id"] = placement.spec.id;
  json["deployment"] = placement.spec.deployment;
  json["model"] = placement.spec.model;
  json["node"] = placement.node;
  Json devices = Json::array();
  for (const DeviceBytes& bytes : placement.spec.devices) devices.push_back(view_device_bytes(bytes, seen));
  json["devices"] = std::move(devices);
  json["state"] = state_of(placement, seen);
  json["reason"] = seen != nullptr ? printable(seen->reason, 1024) : "";
  json["progress"] = seen != nullptr ? seen->progress : 0.0;
  json["pid"] = seen != nullptr ? seen->pid : 0;
  json["started_at"] = seen != nullptr ? time_or_empty(seen->started_at_ms) : "";
  json["ctx"] = placement.spec.ctx / std::max(1, placement.spec.slots);
  json["slots"] = placement.spec.slots;
  json["slots_busy"] = seen != nullptr ? seen->slots_busy : 0;
  json["endpoint"] = seen != nullptr ? printable(seen->endpoint, 512) : "";
  json["restarts"] = seen != nullptr ? seen->restarts : 0;
  json["why"] = placement.why;
  json["generation"] = placement.generation;
  json["created_at"] = time_or_empty(placement.created_ms);
  return json;
}

Json view_key(const Cluster& cluster, const KeyRecord& record) {
  Json json;
  json["id"] = record.key.id;
  json["name"] = record.key.name;
  json["role"] = wire::to_string(record.key.role);
  json["models"] = record.key.models;
  json["expires_at"] = record.key.expires_at_ms > 0 ? Json(rfc3339(record.key.expires_at_ms)) : Json(nullptr);
  json["disabled"] = record.key.disabled;
  json["limits"] = wire::to_json(record.key.limits);
  json["team"] = record.key.team;
  json["team_limits"] = wire::to_json(record.key.team.empty() ? KeyLimits{} : cluster.team_limits(record.key.team));
  json["created_at"] = time_or_empty(record.created_ms);
  json["revision"] = cluster.revision_of(kKeyPrefix + record.key.id);
  return json;
}

Json view_team(const Cluster& cluster, const std::string& name) {
  Json json;
  const auto record = cluster.teams().find(name);
  json["name"] = name;
  json["limits"] = wire::to_json(cluster.team_limits(name));
  json["keys"] = std::ranges::count_if(cluster.keys(), [&](const auto& entry) { return entry.second.key.team == name; });
  json["created_at"] = time_or_empty(record == cluster.teams().end() ? 0 : record->second.created_ms);
  json["revision"] = cluster.revision_of(kTeamPrefix + name);
  return json;
}

Json view_event(const EventEntry& event) {
  Json json;
  json["seq"] = event.seq;
  json["time"] = rfc3339(event.unix_ms);
  json["kind"] = event.kind;
  json["subject"] = event.subject;
  json["reason"] = event.reason;
  json["cause"] = event.cause;
  return json;
}

namespace handlers {

net::Task<ApiReply> list_nodes(ApiContext& context, ApiRequest) {
  co_return reply_all(context, context.cluster.state().nodes, view_node);
}

net::Task<ApiReply> get_node(ApiContext& context, ApiRequest request) {
  co_return reply_one(context, context.cluster.state().nodes, request.arguments.front(), "node", view_node);
}

net::Task<ApiReply> list_devices(ApiContext& context, ApiRequest) {
  Json items = Json::array();
  for (const auto& [id, node] : context.cluster.state().nodes) {
    if (!node.observed) continue;
    for (const Device& device : node.observed->devices) items.push_back(view_device(context.cluster, node, device));
  }
  co_return reply_list(context, std::move(items));
}

net::Task<ApiReply> get_device(ApiContext& context, ApiRequest request) {
  for (const auto& [id, node] : context.cluster.state().nodes) {
    if (!node.observed) continue;
    for (const Device& device : node.observed->devices) {
      if (device.id == request.arguments.front()) co_return ApiReply{200, view_device(context.cluster, node, device)};
    }
  }
  co_return reply_not_found("device", request.arguments.front());
}

net::Task<ApiReply> list_replicas(ApiContext& context, ApiRequest request) {
  const std::string deployment = net::query_value(request.query, "deployment").value_or("");
  const std::string node = net::query_value(request.query, "node").value_or("");
  Json items = Json::array();
  for (const auto& [id, placement] : context.cluster.state().placements) {
    if (!deployment.empty() && placement.spec.deployment != deployment) continue;
    if (!node.empty() && placement.node != node) continue;
    items.push_back(view_replica(context.cluster, placement));
  }
  co_return reply_list(context, std::move(items));
}

net::Task<ApiReply> get_replica(ApiContext& context, ApiRequest request) {
  co_return reply_one(context, context.cluster.state().placements, request.arguments.front(), "replica",
                      view_replica);
}

net::Task<ApiReply> get_replica_log(ApiContext& context, ApiRequest request) {
  const auto& placements = context.cluster.state().placements;
  const auto placement = placements.find(request.arguments.front());
  if (placement == placements.end()) co_return reply_not_found("replica", request.arguments.front());
  const std::string id = placement->first;
  const std::string node = placement->second.node;
  auto log = co_await context.ask_node(node, "/node/v1/replicas/" + id + "/log", 256 * 1024);
  if (!log) co_return reply_error(log.error());
  Json json;
  json["replica"] = id;
  json["log"] = *log;
  co_return ApiReply{200, std::move(json)};
}

net::Task<ApiReply> list_models(ApiContext& context, ApiRequest) {
  co_return reply_all(context, context.cluster.state().models, view_model);
}

net::Task<ApiReply> get_model(ApiContext& context, ApiRequest request) {
  co_return reply_one(context, context.cluster.state().models, request.arguments.front(), "model",
                      view_model);
}

net::Task<ApiReply> list_deployments(ApiContext& context, ApiRequest) {
  co_return reply_all(context, context.cluster.state().deployments, view_deployment);
}

net::Task<ApiReply> get_deployment(ApiContext& context, ApiRequest request) {
  co_return reply_one(context, context.cluster.state().deployments, request.arguments.front(), "deployment",
                      view_deployment);
}

net::Task<ApiReply> list_events(ApiContext& context, ApiRequest request) {
  const std::string since = net::query_value(request.query, "since").value_or("0");
  if (since.empty() || since.size() > 18 || since.find_first_not_of("0123456789") != std::string::npos) {
    co_return reply_error({ErrorCode::kInvalidArgument, "is not the seq of an event", "since"});
  }
  Json items = Json::array();
  for (const EventEntry& event : context.cluster.events().since(std::stoll(since), 1000)) {
    items.push_back(view_event(event));
  }
  co_return reply_list(context, std::move(items));
}

net::Task<ApiReply> get_status(ApiContext& context, ApiRequest) {
  const Cluster& cluster = context.cluster;
  Json json;
  json["epoch"] = cluster.state().epoch;
  json["revision"] = cluster.revision();
  json["observing"] = cluster.state().observing;
  const std::string reason = cluster.read_only_reason();
  json["health"] = reason.empty() ? "ok" : "degraded";
  json["reason"] = reason;
  json["auth"] = cluster.state().settings.auth_required;
  json["refused_records"] = cluster.refused_records();
  co_return ApiReply{200, std::move(json)};
}

net::Task<ApiReply> get_version(ApiContext&, ApiRequest) {
  Json json;
  json["version"] = AIV_VERSION;
  json["api"] = "v1";
  co_return ApiReply{200, std::move(json)};
}

net::Task<ApiReply> get_openapi(ApiContext&, ApiRequest) { co_return ApiReply{200, openapi_document()}; }

}  // namespace handlers
}  // namespace aiv::controller
