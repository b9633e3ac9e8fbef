// Nodes and devices: what an admin changes of them.
#include <algorithm>

#include "base/units.hpp"
#include "controller/api.hpp"

namespace aiv::controller {

namespace {

constexpr std::size_t kTaintsMax = 16;

ApiReply no_node(const std::string& id) {
  return reply_error({ErrorCode::kNotFound, "there is no node of this name", printable(id, 128)});
}

ApiReply no_device(const std::string& id) {
  return reply_error({ErrorCode::kNotFound, "there is no device of this name", printable(id, 128)});
}

// The fields of a PATCH that are there, over what is set now.
Result<NodePolicy> read_policy(const Json& json, NodePolicy policy) {
  JsonReader reader(json, "");
  policy.draining = reader.boolean_or("draining", policy.draining);
  policy.failure_domain = reader.string_or("failure_domain", policy.failure_domain, 128);
  if (reader.has("labels")) policy.labels = read_labels(reader, "labels");
  if (reader.has("taints")) {
    policy.taints.clear();
    for (const Json& taint : reader.array("taints")) {
      if (!taint.is_string() || !check_name(taint.get<std::string>()) || policy.taints.size() >= kTaintsMax) {
        reader.fail_at("taints", "is a list of at most 16 names");
        break;
      }
      policy.taints.insert(taint.get<std::string>());
    }
  }
  reader.refuse_unknown();
  if (!reader.ok()) return std::unexpected(reader.error());
  if (!policy.failure_domain.empty()) {
    if (auto sound = check_name(policy.failure_domain); !sound) {
      return fail(ErrorCode::kInvalidArgument, sound.error().reason, "failure_domain");
    }
  }
  return policy;
}

// Stores `policy` for a node that exists.
net::Task<Result<std::int64_t>> put_policy(Cluster& cluster, std::string id, NodePolicy policy, std::string actor,
                                           std::string object) {
  NodeSettings settings = cluster.settings_of(id);
  settings.policy = std::move(policy);
  const char* const action = object.starts_with("device/") ? "device.changed" : "node.changed";
  Cluster::Change change = Cluster::Change::of(std::move(actor), action, std::move(object));
  // What is not said of the policy stays as it was read: nobody else's change may come between.
  change.txn.compares.push_back(cluster.still_as_known(kNodePrefix + id));
  change.txn.ops.push_back(Op::put(kNodePrefix + id, node_to_text(settings)));
  change.events.emplace_back(event::NodePut{id, settings.policy});
  co_return co_await cluster.change(std::move(change));
}

struct FoundDevice {
  std::string node;
  Device device;
};

std::optional<FoundDevice> find_device(const Cluster& cluster, const std::string& id) {
  for (const auto& [node_id, node] : cluster.state().nodes) {
    if (!node.observed) continue;
    for (const Device& device : node.observed->devices) {
      if (device.id == id) return FoundDevice{node_id, device};
    }
  }
  return std::nullopt;
}

std::size_t replicas_on(const Cluster& cluster, const std::string& node) {
  const auto& placements = cluster.state().placements;
  return static_cast<std::size_t>(
      std::ranges::count_if(placements, [&](const auto& entry) { return entry.second.node == node; }));
}

}  // namespace

namespace handlers {

net::Task<ApiReply> patch_node(ApiContext& context, ApiRequest request) {
  Cluster& cluster = context.cluster;
  const std::string id = request.arguments.front();
  const auto json = read_object(request.body);
  if (!json) co_return reply_error(json.error());
  const auto& nodes = cluster.state().nodes;
  const auto found = nodes.find(id);
  if (found == nodes.end()) co_return no_node(id);
  auto policy = read_policy(*json, found->second);
  if (!policy) co_return reply_error(policy.error());
  auto stored = co_await put_policy(cluster, id, *std::move(policy), request.actor, "node/" + id);
  if (!stored) co_return reply_error(stored.error());
  const auto now = nodes.find(id);
  if (now == nodes.end()) co_return reply_error({ErrorCode::kConflict, "it was removed meanwhile", id});
  co_return ApiReply{200, view_node(cluster, now->second)};
}

// Takes a node out for good: its certificate is worth nothing from now on, its link ends, and what was placed there is
// placed elsewhere. The name can join again, with a new token.
net::Task<ApiReply> delete_node(ApiContext& context, ApiRequest request) {
  Cluster& cluster = context.cluster;
  const std::string id = request.arguments.front();
  if (!cluster.state().nodes.contains(id)) co_return no_node(id);
  const bool force = net::query_value(request.query, "force").value_or("") == "1";
  const std::size_t replicas = replicas_on(cluster, id);
  if (!force && replicas > 0 && cluster.state().detector.health(id) != NodeHealth::kLost) {
    co_return reply_error({ErrorCode::kConflict, "it is connected and runs " + std::to_string(replicas) + " replicas", id},
                          "in_use", "aiv node drain " + id + " --wait, or aiv node rm " + id + " --force");
  }
  Cluster::Change change = Cluster::Change::of(request.actor, "node.removed", "node/" + id);
  change.txn.ops.push_back(Op::erase(kNodePrefix + id));
  const DeniedNode denied{id, Cluster::now().unix_ms / 1000 + 1};
  change.txn.ops.push_back(Op::put(kDeniedPrefix + id, denied_to_text(denied)));
  change.events.emplace_back(event::NodeErased{id});
  auto stored = co_await cluster.change(std::move(change));
  co_return reply_changed("id", id, stored);
}

net::Task<ApiReply> patch_device(ApiContext& context, ApiRequest request) {
  Cluster& cluster = context.cluster;
  const std::string id = request.arguments.front();
  const auto json = read_object(request.body);
  if (!json) co_return reply_error(json.error());
  const auto found = find_device(cluster, id);
  if (!found) co_return no_device(id);
  NodePolicy policy = cluster.state().nodes.at(found->node);
  DevicePolicy& device = policy.devices[id];
  JsonReader reader(*json, "");
  device.off = reader.boolean_or("off", device.off);
  device.reserve_bytes = reader.integer_or("reserve_bytes", device.reserve_bytes, 0, found->device.vram_bytes);
  device.exclusive = reader.boolean_or("exclusive", device.exclusive);
  auto hours = WeeklyHours::parse(reader.string_or("off_hours", device.off_hours.text(), 256));
  if (!hours) reader.fail_at("off_hours", hours.error().reason);
  reader.refuse_unknown();
  if (!reader.ok()) co_return reply_error(reader.error());
  device.off_hours = *std::move(hours);
  if (device == DevicePolicy{}) policy.devices.erase(id);
  auto stored = co_await put_policy(cluster, found->node, std::move(policy), request.actor, "device/" + id);
  if (!stored) co_return reply_error(stored.error());
  const auto again = find_device(cluster, id);
  if (!again) co_return no_device(id);
  co_return ApiReply{200, view_device(cluster, cluster.state().nodes.at(again->node), again->device)};
}

}  // namespace handlers
}  // namespace aiv::controller
