// What-if, what the controller's own planner would do; and the audit records.
#include "base/units.hpp"
#include "controller/api.hpp"
#include "core/what_if_drop.hpp"

namespace aiv::controller {

namespace {

constexpr std::size_t kStandingNodesMax = 32;  // each costs a round of the planner

Json view_drop(const DropAnswer& answer) {
  Json json;
  json["drop"] = answer.node;
  json["survives"] = answer.survives;
  json["restored"] = answer.restored;
  Json hit = Json::array();
  for (const DropAnswer::Hit& each : answer.hit) {
    hit.push_back({{"deployment", each.deployment},
                   {"ready_before", each.ready_before},
                   {"ready_left", each.ready_left},
                   {"wanted", each.wanted},
                   {"after", each.after},
                   {"reason", each.reason}});
  }
  json["deployments"] = std::move(hit);
  Json loads = Json::array();
  for (const DropAnswer::Replacement& each : answer.replacements) {
    Json devices = Json::array();
    for (const DeviceBytes& bytes : each.devices) {
      devices.push_back({{"id", bytes.device_id}, {"bytes", bytes.total()}});
    }
    Json load;
    load["deployment"] = each.deployment;
    load["node"] = each.node;
    load["devices"] = std::move(devices);
    load["why"] = each.why;
    loads.push_back(std::move(load));
  }
  json["loads"] = std::move(loads);
  return json;
}

}  // namespace

namespace handlers {

// The standing answer: each node that runs something, as if it died now.
net::Task<ApiReply> list_plans(ApiContext& context, ApiRequest) {
  const ControllerState& state = context.cluster.state();
  std::set<std::string> nodes;
  for (const auto& [id, placement] : state.placements) {
    if (state.nodes.contains(placement.node) && nodes.size() < kStandingNodesMax) nodes.insert(placement.node);
  }
  Json items = Json::array();
  for (const std::string& node : nodes) {
    const auto answer = what_if_dropped(state, node, Cluster::now());
    if (!answer && answer.error().code == ErrorCode::kNotFound) continue;  // it went meanwhile
    if (!answer) co_return reply_error(answer.error());
    items.push_back(view_drop(*answer));
    // Between two rounds of the planner heartbeats and others have their turn.
    co_await net::sleep_for(net::milliseconds(1));
  }
  co_return reply_list(context, std::move(items));
}

net::Task<ApiReply> post_plan(ApiContext& context, ApiRequest request) {
  const auto json = read_object(request.body);
  if (!json) co_return reply_error(json.error());
  JsonReader reader(*json, "");
  const std::string node = reader.string("drop", 128);
  reader.refuse_unknown();
  if (!reader.ok()) co_return reply_error(reader.error());
  const auto answer = what_if_dropped(context.cluster.state(), node, Cluster::now());
  if (!answer) co_return reply_error(answer.error());
  co_return ApiReply{200, view_drop(*answer)};
}

net::Task<ApiReply> list_audit(ApiContext& context, ApiRequest) {
  const auto audit = co_await context.cluster.read_audit();
  if (!audit) co_return reply_error(audit.error());
  Json items = Json::array();
  for (const std::string& text : audit->records) {
    const auto json = parse_json(text);
    Json item = json && json->is_object() ? *json : Json::object();
    item["record"] = text;
    items.push_back(std::move(item));
  }
  ApiReply reply = reply_list(context, std::move(items));
  reply.body["head"] = audit->head;
  co_return reply;
}

}  // namespace handlers
}  // namespace aiv::controller
