#include "wire/plan_json.hpp"

#include <cmath>

namespace aiv::wire {
namespace {

constexpr std::int64_t kBytesMax = std::int64_t{1} << 62;

// The first fault wins; everything after it reads as a default.
class Reader {
 public:
  Result<PlanInput> run(const Json& json) {
    PlanInput input;
    if (!json.is_object()) {
      fault("", "must be an object");
    } else {
      read_list(json, "nodes", "nodes", kPlanNodesMax, true, input.nodes,
                [this](const Json& j, const std::string& at) { return node(j, at); });
      read_list(json, "models", "models", kPlanModelsMax, true, input.models,
                [this](const Json& j, const std::string& at) { return model(j, at); });
      read_list(json, "current", "current", kPlanCurrentMax, false, input.current,
                [this](const Json& j, const std::string& at) { return placement(j, at); });
      if (const Json* p = find(json, "policy", "policy", false); p != nullptr) input.policy = policy(*p);
    }
    if (failed_) return std::unexpected(error_);
    if (auto valid = validate(input); !valid) return std::unexpected(valid.error());
    return input;
  }

 private:
  void fault(const std::string& path, std::string reason) {
    if (failed_) return;
    failed_ = true;
    error_ = {ErrorCode::kInvalidArgument, std::move(reason), path};
  }

  const Json* find(const Json& object, const char* key, const std::string& path, bool required) {
    if (failed_) return nullptr;
    const auto it = object.find(key);
    if (it == object.end() || it->is_null()) {
      if (required) fault(path, "is missing");
      return nullptr;
    }
    return &*it;
  }

  template <class T, class Read>
  void read_list(const Json& object, const char* key, const std::string& path, std::size_t max, bool required,
                 std::vector<T>& out, Read&& read) {
    const Json* list = find(object, key, path, required);
    if (list == nullptr) return;
    if (!list->is_array()) return fault(path, "must be a list");
    if (list->size() > max) {
      return fault(path, std::to_string(list->size()) + " entries, at most " + std::to_string(max) + " are taken");
    }
    out.reserve(list->size());
    for (std::size_t i = 0; i < list->size() && !failed_; ++i) {
      const std::string at = path + "[" + std::to_string(i) + "]";
      const Json& entry = (*list)[i];
      out.push_back(read(entry, at));
    }
  }

  bool object_at(const Json& json, const std::string& at) {
    if (!json.is_object()) fault(at, "must be an object");
    return !failed_;
  }

  std::string text(const Json& object, const char* key, const std::string& at, bool required = true) {
    const std::string path = at + "." + key;
    const Json* value = find(object, key, path, required);
    if (value == nullptr) return {};
    if (!value->is_string()) return fault(path, "must be a string"), std::string{};
    const auto& string = value->get_ref<const std::string&>();
    if (string.size() > 1024) return fault(path, "is longer than 1024 bytes"), std::string{};
    return string;
  }

  // Whole numbers, also where a script wrote 8e9; never rounded.
  std::int64_t whole(const Json& object, const char* key, const std::string& at, std::int64_t min, std::int64_t max,
                     bool required = true, std::int64_t fallback = 0) {
    const std::string path = at + "." + key;
    const Json* value = find(object, key, path, required);
    if (value == nullptr) return fallback;
    std::int64_t number = 0;
    if (value->is_number_unsigned() && value->get<std::uint64_t>() > static_cast<std::uint64_t>(max)) {
      return fault(path, value->dump() + " is more than " + std::to_string(max)), fallback;
    }
    if (value->is_number_integer()) {
      number = value->get<std::int64_t>();
    } else if (value->is_number_float()) {
      const double d = value->get<double>();
      if (!(d == std::floor(d)) || std::abs(d) > 0x1p62) return fault(path, value->dump() + " is not a whole number in range"), fallback;
      number = static_cast<std::int64_t>(d);
    } else {
      return fault(path, "must be a whole number"), fallback;
    }
    if (number < min || number > max) {
      return fault(path, std::to_string(number) + " is not within " + std::to_string(min) + " to " + std::to_string(max)), fallback;
    }
    return number;
  }

  Bytes bytes(const Json& object, const char* key, const std::string& at, bool required = true) {
    return whole(object, key, at, 0, kBytesMax, required);
  }

  double number(const Json& object, const char* key, const std::string& at, bool required = true, double fallback = 0) {
    const std::string path = at + "." + key;
    const Json* value = find(object, key, path, required);
    if (value == nullptr) return fallback;
    if (!value->is_number()) return fault(path, "must be a number"), fallback;
    return value->get<double>();
  }

  bool flag(const Json& object, const char* key, const std::string& at, bool required, bool fallback) {
    const std::string path = at + "." + key;
    const Json* value = find(object, key, path, required);
    if (value == nullptr) return fallback;
    if (!value->is_boolean()) return fault(path, "must be true or false"), fallback;
    return value->get<bool>();
  }

  std::vector<std::string> texts(const Json& object, const char* key, const std::string& at, bool required) {
    std::vector<std::string> list;
    read_list(object, key, at + "." + key, kPlanNodesMax, required, list, [this](const Json& j, const std::string& path) {
      if (!j.is_string()) fault(path, "must be a string");
      return failed_ ? std::string{} : j.get<std::string>();
    });
    return list;
  }

  PlanNode node(const Json& json, const std::string& at) {
    PlanNode node;
    if (!object_at(json, at)) return node;
    node.id = text(json, "id", at);
    node.failure_domain = text(json, "failure_domain", at);
    const bool schedulable = flag(json, "schedulable", at, true, true);
    const bool keep_only = flag(json, "keep_only", at, false, false);
    node.state = !schedulable ? NodePlanState::kUnschedulable
                              : (keep_only ? NodePlanState::kKeepOnly : NodePlanState::kSchedulable);
    read_list(json, "devices", at + ".devices", kPlanDevicesPerNodeMax, true, node.devices,
              [this](const Json& j, const std::string& path) { return device(j, path); });
    devices_ += node.devices.size();
    if (devices_ > kPlanDevicesMax) fault(at + ".devices", "more than " + std::to_string(kPlanDevicesMax) + " devices in all");
    return node;
  }

  PlanDevice device(const Json& json, const std::string& at) {
    PlanDevice device;
    if (!object_at(json, at)) return device;
    device.id = text(json, "id", at);
    device.vram_bytes = bytes(json, "vram_bytes", at);
    device.free_bytes = bytes(json, "free_bytes", at);
    device.overhead_bytes = bytes(json, "overhead_bytes", at);
    device.bandwidth_bytes_per_s = number(json, "bandwidth_bytes_per_s", at);
    device.backend = text(json, "backend", at);
    device.largest_buffer_bytes = bytes(json, "largest_buffer_bytes", at, false);
    return device;
  }

  PlanModel model(const Json& json, const std::string& at) {
    PlanModel model;
    if (!object_at(json, at)) return model;
    model.id = text(json, "id", at);
    model.weight = number(json, "weight", at);
    model.min_replicas = static_cast<int>(whole(json, "min_replicas", at, 0, 1'000'000));
    model.max_replicas = static_cast<int>(whole(json, "max_replicas", at, 0, 1'000'000));
    model.demand_tokens_per_s = number(json, "demand_tokens_per_s", at);
    read_list(json, "variants", at + ".variants", kPlanVariantsMax, true, model.variants,
              [this](const Json& j, const std::string& path) { return variant(j, path); });
    model.only_nodes = texts(json, "only_nodes", at, false);
    model.excluded_nodes = texts(json, "excluded_nodes", at, false);
    return model;
  }

  PlanVariant variant(const Json& json, const std::string& at) {
    PlanVariant variant;
    if (!object_at(json, at)) return variant;
    variant.id = text(json, "id", at);
    variant.bytes = bytes(json, "bytes", at);
    variant.splittable = flag(json, "splittable", at, true, false);
    variant.backends = texts(json, "backends", at, true);
    variant.quality = number(json, "quality", at);
    variant.split_extra_bytes = bytes(json, "split_extra_bytes", at, false);
    variant.split_unit_bytes = bytes(json, "split_unit_bytes", at, false);
    variant.largest_tensor_bytes = bytes(json, "largest_tensor_bytes", at, false);
    variant.hint_only = flag(json, "hint_only", at, false, false);
    return variant;
  }

  PlanPlacement placement(const Json& json, const std::string& at) {
    PlanPlacement placement;
    if (!object_at(json, at)) return placement;
    placement.model = text(json, "model", at);
    placement.variant = text(json, "variant", at);
    placement.node = text(json, "node", at);
    placement.pinned = flag(json, "pinned", at, false, false);
    read_list(json, "devices", at + ".devices", kPlanDevicesPerNodeMax, true, placement.parts,
              [this](const Json& j, const std::string& path) {
                PlanPart part;
                if (!object_at(j, path)) return part;
                part.device = text(j, "id", path);
                part.bytes = bytes(j, "bytes", path);
                return part;
              });
    return placement;
  }

  PlanPolicy policy(const Json& json) {
    PlanPolicy policy;
    if (!object_at(json, "policy")) return policy;
    policy.survive_node_losses = static_cast<int>(
        whole(json, "survive_node_losses", "policy", 0, 1'000'000, false, policy.survive_node_losses));
    policy.move_price = number(json, "move_price", "policy", false, policy.move_price);
    policy.move_price_per_gib = number(json, "move_price_per_gib", "policy", false, policy.move_price_per_gib);
    policy.min_gain = number(json, "min_gain", "policy", false, policy.min_gain);
    return policy;
  }

  bool failed_ = false;
  Error error_;
  std::size_t devices_ = 0;
};

Json parts_to_json(const std::vector<PlanPart>& parts) {
  Json list = Json::array();
  for (const PlanPart& part : parts) list.push_back({{"id", part.device}, {"bytes", part.bytes}});
  return list;
}

Json device_ids(const std::vector<PlanPart>& parts) {
  Json list = Json::array();
  for (const PlanPart& part : parts) list.push_back(part.device);
  return list;
}

Json step_to_json(const PlanStep& step) {
  Json json{{"action", to_string(step.action)}, {"model", step.model}, {"variant", step.variant}, {"node", step.node}};
  json["devices"] = device_ids(step.parts);
  json["bytes"] = step.bytes;
  if (step.action == StepAction::kMove) {
    json["from_node"] = step.from_node;
    json["from_devices"] = device_ids(step.from_parts);
  }
  if (step.reason != StepReason::kNone) json["reason"] = describe(step.reason);
  return json;
}

}  // namespace

Result<PlanInput> plan_input_from_json(const Json& json) { return Reader().run(json); }

Json to_json(const PlanInput& input) {
  Json json{{"nodes", Json::array()}, {"models", Json::array()}, {"current", Json::array()}};
  for (const PlanNode& node : input.nodes) {
    Json n{{"id", node.id},
           {"failure_domain", node.failure_domain.empty() ? node.id : node.failure_domain},
           {"schedulable", node.state != NodePlanState::kUnschedulable}};
    if (node.state == NodePlanState::kKeepOnly) n["keep_only"] = true;
    n["devices"] = Json::array();
    for (const PlanDevice& d : node.devices) {
      Json device{{"id", d.id},
                  {"vram_bytes", d.vram_bytes},
                  {"free_bytes", d.free_bytes},
                  {"overhead_bytes", d.overhead_bytes},
                  {"bandwidth_bytes_per_s", d.bandwidth_bytes_per_s},
                  {"backend", d.backend}};
      if (d.largest_buffer_bytes > 0) device["largest_buffer_bytes"] = d.largest_buffer_bytes;
      n["devices"].push_back(std::move(device));
    }
    json["nodes"].push_back(std::move(n));
  }
  for (const PlanModel& model : input.models) {
    Json m{{"id", model.id},
           {"weight", model.weight},
           {"min_replicas", model.min_replicas},
           {"max_replicas", model.max_replicas},
           {"demand_tokens_per_s", model.demand_tokens_per_s},
           {"variants", Json::array()}};
    for (const PlanVariant& v : model.variants) {
      Json variant{{"id", v.id},
                   {"bytes", v.bytes},
                   {"splittable", v.splittable},
                   {"backends", v.backends},
                   {"quality", v.quality}};
      if (v.split_extra_bytes > 0) variant["split_extra_bytes"] = v.split_extra_bytes;
      if (v.split_unit_bytes > 0) variant["split_unit_bytes"] = v.split_unit_bytes;
      if (v.largest_tensor_bytes > 0) variant["largest_tensor_bytes"] = v.largest_tensor_bytes;
      if (v.hint_only) variant["hint_only"] = true;
      m["variants"].push_back(std::move(variant));
    }
    if (!model.only_nodes.empty()) m["only_nodes"] = model.only_nodes;
    if (!model.excluded_nodes.empty()) m["excluded_nodes"] = model.excluded_nodes;
    json["models"].push_back(std::move(m));
  }
  for (const PlanPlacement& p : input.current) {
    Json c{{"model", p.model}, {"variant", p.variant}, {"node", p.node}, {"devices", parts_to_json(p.parts)}};
    if (p.pinned) c["pinned"] = true;
    json["current"].push_back(std::move(c));
  }
  json["policy"] = {{"survive_node_losses", input.policy.survive_node_losses},
                    {"move_price", input.policy.move_price},
                    {"move_price_per_gib", input.policy.move_price_per_gib},
                    {"min_gain", input.policy.min_gain}};
  return json;
}

Json to_json(const Plan& plan) {
  Json json{{"placements", Json::array()}, {"unplaced", Json::array()}, {"steps", Json::array()}};
  for (const PlanPlacement& p : plan.placements) {
    json["placements"].push_back({{"model", p.model},
                                  {"variant", p.variant},
                                  {"node", p.node},
                                  {"devices", parts_to_json(p.parts)},
                                  {"keep", p.keep}});
  }
  for (const Unplaced& u : plan.unplaced) {
    json["unplaced"].push_back({{"model", u.model},
                                {"reason", describe(u)},
                                {"code", to_string(u.reason)},
                                {"replicas", u.replicas},
                                {"wanted", u.wanted}});
  }
  for (const PlanStep& step : plan.steps) json["steps"].push_back(step_to_json(step));
  json["value"] = plan.value;
  json["upper_bound"] = plan.upper_bound;
  json["quality"] = plan.quality;
  json["bytes_moved"] = plan.bytes_moved;
  json["search_steps"] = plan.search_steps;
  if (plan.truncated) json["truncated"] = true;
  return json;
}

}  // namespace aiv::wire
