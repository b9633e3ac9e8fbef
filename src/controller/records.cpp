#include "controller/records.hpp"

#include <algorithm>

#include "base/hash.hpp"
#include "wire/documents.hpp"

namespace aiv::controller {

namespace {

Result<ModelKind> kind_from(JsonReader& reader) {
  const std::string text = reader.string("kind");
  for (const ModelKind kind : {ModelKind::kChat, ModelKind::kEmbedding, ModelKind::kRerank}) {
    if (wire::to_string(kind) == text) return kind;
  }
  reader.fail_at("kind", "is not a kind of model that this version knows");
  return ModelKind::kChat;
}

Result<EngineKind> engine_from(JsonReader& reader) {
  const std::string text = reader.string("engine");
  for (const EngineKind kind : {EngineKind::kLlama, EngineKind::kFake}) {
    if (wire::to_string(kind) == text) return kind;
  }
  reader.fail_at("engine", "is not an engine that this version knows");
  return EngineKind::kLlama;
}

constexpr std::int64_t kNumberMax = std::int64_t{1} << 62;

template <class T>
Result<T> finished(const JsonReader& reader, T value) {
  if (!reader.ok()) return fail(ErrorCode::kCorrupt, reader.error().reason, reader.error().where);
  return value;
}

}  // namespace

std::string model_to_text(const ModelRecord& model) {
  Json json;
  json["id"] = model.id;
  json["path"] = model.path;
  json["digest"] = model.digest;
  json["size_bytes"] = model.size_bytes;
  json["engine"] = wire::to_string(model.engine);
  json["kind"] = wire::to_string(model.kind);
  json["created_ms"] = model.created_ms;
  return dump_json(json);
}

Result<ModelRecord> model_from_text(const std::string& text) {
  auto json = parse_json(text);
  if (!json) return std::unexpected(json.error());
  JsonReader reader(*json, "model");
  ModelRecord model;
  model.id = reader.string("id");
  model.path = reader.string("path");
  model.digest = reader.string_or("digest", "");
  model.size_bytes = reader.integer("size_bytes", 0, kNumberMax);
  model.engine = *engine_from(reader);
  model.kind = *kind_from(reader);
  model.created_ms = reader.integer_or("created_ms", 0, 0, kNumberMax);
  if (reader.ok() && model.engine == EngineKind::kFake) {
    auto fake = parse_fake_model(model.path);
    if (!fake) return fail(ErrorCode::kCorrupt, fake.error().reason, "model.path");
    model.fake = *fake;
  }
  return finished(reader, std::move(model));
}

std::string deployment_to_text(const Deployment& d) {
  Json json;
  json["name"] = d.name;
  json["model"] = d.model;
  json["replicas_min"] = d.replicas_min;
  json["replicas_max"] = d.replicas_max;
  json["ctx"] = d.ctx;
  json["slots"] = d.slots;
  json["ubatch"] = d.ubatch;
  json["flash_attn"] = d.flash_attn;
  json["cache_type_k"] = d.cache_type_k;
  json["cache_type_v"] = d.cache_type_v;
  if (d.kind) json["kind"] = wire::to_string(*d.kind);
  json["pooling"] = d.pooling;
  json["aliases"] = d.aliases;
  json["priority"] = d.priority;
  json["pinned"] = d.pinned;
  json["on"] = d.on;
  json["tolerates"] = d.tolerates;
  json["generation"] = d.generation;
  json["created_ms"] = d.created_ms;
  return dump_json(json);
}

Result<Deployment> deployment_from_text(const std::string& text) {
  auto json = parse_json(text);
  if (!json) return std::unexpected(json.error());
  JsonReader reader(*json, "deployment");
  Deployment d;
  d.name = reader.string("name");
  d.model = reader.string("model");
  d.replicas_min = static_cast<int>(reader.integer("replicas_min", 0, 10'000));
  d.replicas_max = static_cast<int>(reader.integer("replicas_max", 0, 10'000));
  d.ctx = reader.integer_or("ctx", 0, 0, kNumberMax);
  d.slots = static_cast<int>(reader.integer_or("slots", 0, 0, 1'000));
  d.ubatch = static_cast<int>(reader.integer_or("ubatch", d.ubatch, 1, 65'536));
  d.flash_attn = reader.boolean_or("flash_attn", true);
  d.cache_type_k = reader.string_or("cache_type_k", "f16", 16);
  d.cache_type_v = reader.string_or("cache_type_v", "f16", 16);
  if (reader.has("kind")) d.kind = *kind_from(reader);
  d.pooling = reader.string_or("pooling", "", 16);
  d.pinned = reader.boolean_or("pinned", false);
  d.priority = static_cast<int>(reader.integer_or("priority", 10, 1, 100));
  d.on = read_labels(reader, "on");
  for (const Json& taint : reader.array("tolerates", false)) {
    if (taint.is_string()) d.tolerates.insert(taint.get<std::string>());
  }
  if (reader.has("aliases")) {
    for (const Json& alias : reader.array("aliases")) {
      if (alias.is_string()) d.aliases.push_back(alias.get<std::string>());
    }
  }
  d.generation = reader.integer_or("generation", 1, 1, kNumberMax);
  d.created_ms = reader.integer_or("created_ms", 0, 0, kNumberMax);
  return finished(reader, std::move(d));
}

std::string placement_to_text(const Placement& placement) {
  Json json;
  json["node"] = placement.node;
  json["spec"] = wire::to_json(placement.spec);
  json["variant"] = placement.variant;
  json["generation"] = placement.generation;
  json["created_ms"] = placement.created_ms;
  json["why"] = placement.why;
  return dump_json(json);
}

Result<Placement> placement_from_text(const std::string& text) {
  auto json = parse_json(text);
  if (!json) return std::unexpected(json.error());
  JsonReader reader(*json, "placement");
  Placement placement;
  placement.node = reader.string("node");
  placement.variant = reader.string("variant");
  placement.generation = reader.integer("generation", 0, kNumberMax);
  placement.created_ms = reader.integer_or("created_ms", 0, 0, kNumberMax);
  placement.why = reader.string_or("why", "", 65'536);
  auto spec = wire::replica_spec_from_json(reader.object("spec"), "placement.spec");
  if (!reader.ok()) return finished(reader, std::move(placement));
  if (!spec) return std::unexpected(spec.error());
  placement.spec = *std::move(spec);
  return placement;
}

std::string key_to_text(const KeyRecord& record) {
  Json json;
  json["id"] = record.key.id;
  json["secret_sha256"] = record.key.secret_sha256;
  json["name"] = record.key.name;
  json["role"] = wire::to_string(record.key.role);
  json["models"] = record.key.models;
  json["expires_at_ms"] = record.key.expires_at_ms;
  json["disabled"] = record.key.disabled;
  json["limits"] = wire::to_json(record.key.limits);
  json["team"] = record.key.team;
  json["team_limits"] = wire::to_json(record.key.team_limits);
  json["created_ms"] = record.created_ms;
  return dump_json(json);
}

Result<KeyRecord> key_from_text(const std::string& text) {
  auto json = parse_json(text);
  if (!json) return std::unexpected(json.error());
  JsonReader reader(*json, "key");
  KeyRecord record;
  record.key.id = reader.string("id");
  record.key.secret_sha256 = reader.string("secret_sha256");
  record.key.name = reader.string_or("name", "");
  const auto role = wire::role_from_string(reader.string("role"));
  if (!role) reader.fail_at("role", "is not a role that this version knows");
  record.key.role = role.value_or(Role::kUser);
  for (const Json& model : reader.array("models", false)) {
    if (model.is_string()) record.key.models.push_back(model.get<std::string>());
  }
  record.key.expires_at_ms = reader.integer_or("expires_at_ms", 0, 0, kNumberMax);
  record.key.disabled = reader.boolean_or("disabled", false);
  record.key.limits = wire::key_limits_of(reader, "limits");
  record.key.team = reader.string_or("team", "", 128);
  record.key.team_limits = wire::key_limits_of(reader, "team_limits");
  record.created_ms = reader.integer_or("created_ms", 0, 0, kNumberMax);
  return finished(reader, std::move(record));
}

std::string team_to_text(const TeamRecord& team) {
  Json json;
  json["name"] = team.name;
  json["limits"] = wire::to_json(team.limits);
  json["created_ms"] = team.created_ms;
  return dump_json(json);
}

Result<TeamRecord> team_from_text(const std::string& text) {
  auto json = parse_json(text);
  if (!json) return std::unexpected(json.error());
  JsonReader reader(*json, "team");
  TeamRecord team;
  team.name = reader.string("name", 128);
  team.limits = wire::key_limits_of(reader, "limits");
  team.created_ms = reader.integer_or("created_ms", 0, 0, kNumberMax);
  return finished(reader, std::move(team));
}

std::map<std::string, std::string> read_labels(JsonReader& reader, std::string_view key) {
  constexpr std::size_t kLabelsMax = 32;
  constexpr std::size_t kLabelBytesMax = 64;
  std::map<std::string, std::string> out;
  for (const auto& [name, value] : reader.object(key, false).items()) {
    const bool sound = value.is_string() && name.size() <= kLabelBytesMax && check_name(name) &&
                       value.get_ref<const std::string&>().size() <= kLabelBytesMax &&
                       check_name(value.get_ref<const std::string&>());
    if (!sound || out.size() >= kLabelsMax) {
      reader.fail_at(key, "holds at most 32 pairs of names, each of at most 64 letters, digits and . _ : / -");
      return {};
    }
    out[name] = value.get<std::string>();
  }
  return out;
}

std::string node_to_text(const NodeSettings& node) {
  Json json;
  json["id"] = node.id;
  json["draining"] = node.policy.draining;
  json["failure_domain"] = node.policy.failure_domain;
  json["labels"] = node.policy.labels;
  json["taints"] = node.policy.taints;
  Json devices = Json::object();
  for (const auto& [id, policy] : node.policy.devices) {
    devices[id] = {{"off", policy.off},
                   {"reserve_bytes", policy.reserve_bytes},
                   {"exclusive", policy.exclusive},
                   {"off_hours", policy.off_hours.text()}};
  }
  json["devices"] = std::move(devices);
  json["key_pin"] = node.key_pin;
  json["joined_token"] = node.joined_token;
  json["joined_ms"] = node.joined_ms;
  return dump_json(json);
}

Result<NodeSettings> node_from_text(const std::string& text) {
  auto json = parse_json(text);
  if (!json) return std::unexpected(json.error());
  JsonReader reader(*json, "node");
  NodeSettings node;
  node.id = reader.string("id");
  node.policy.draining = reader.boolean_or("draining", false);
  node.policy.failure_domain = reader.string_or("failure_domain", "");
  node.policy.labels = read_labels(reader, "labels");
  for (const Json& taint : reader.array("taints", false)) {
    if (taint.is_string()) node.policy.taints.insert(taint.get<std::string>());
  }
  for (const auto& [id, policy] : reader.object("devices", false).items()) {
    JsonReader child(policy, "node.devices." + id);
    DevicePolicy& device = node.policy.devices[id];
    device.off = child.boolean_or("off", false);
    device.reserve_bytes = child.integer_or("reserve_bytes", 0, 0, kNumberMax);
    device.exclusive = child.boolean_or("exclusive", false);
    if (auto hours = WeeklyHours::parse(child.string_or("off_hours", "", 256))) {
      device.off_hours = *std::move(hours);
    } else {
      child.fail_at("off_hours", hours.error().reason);
    }
    reader.absorb(child);
  }
  node.key_pin = reader.string_or("key_pin", "");
  node.joined_token = reader.string_or("joined_token", "");
  node.joined_ms = reader.integer_or("joined_ms", 0, 0, kNumberMax);
  return finished(reader, std::move(node));
}

std::string token_to_text(const TokenRecord& token) {
  Json json;
  json["id"] = token.id;
  json["secret_sha256"] = token.secret_sha256;
  json["uses"] = token.uses;
  json["uses_left"] = token.uses_left;
  json["node"] = token.node;
  json["labels"] = token.labels;
  json["expires_at_ms"] = token.expires_at_ms;
  json["created_ms"] = token.created_ms;
  return dump_json(json);
}

Result<TokenRecord> token_from_text(const std::string& text) {
  auto json = parse_json(text);
  if (!json) return std::unexpected(json.error());
  JsonReader reader(*json, "token");
  TokenRecord token;
  token.id = reader.string("id", 64);
  token.secret_sha256 = reader.string("secret_sha256", 64);
  token.uses = static_cast<int>(reader.integer("uses", 1, 100'000));
  token.uses_left = static_cast<int>(reader.integer("uses_left", 0, 100'000));
  token.node = reader.string_or("node", "", 256);
  token.labels = read_labels(reader, "labels");
  token.expires_at_ms = reader.integer("expires_at_ms", 0, kNumberMax);
  token.created_ms = reader.integer_or("created_ms", 0, 0, kNumberMax);
  return finished(reader, std::move(token));
}

std::string denied_to_text(const DeniedNode& denied) {
  Json json;
  json["node"] = denied.node;
  json["issued_before_s"] = denied.issued_before_s;
  return dump_json(json);
}

Result<DeniedNode> denied_from_text(const std::string& text) {
  auto json = parse_json(text);
  if (!json) return std::unexpected(json.error());
  JsonReader reader(*json, "denied");
  DeniedNode denied;
  denied.node = reader.string("node", 256);
  denied.issued_before_s = reader.integer("issued_before_s", 0, kNumberMax);
  return finished(reader, std::move(denied));
}

std::string margin_key(const MarginKey& key) {
  return kMarginPrefix + sha256_hex(key.backend + '\n' + key.driver + '\n' + key.card + '\n' + key.architecture).substr(0, 32);
}

std::string margin_to_text(const MarginKey& key, const MarginHistory& history) {
  Json json;
  json["backend"] = key.backend;
  json["driver"] = key.driver;
  json["card"] = key.card;
  json["architecture"] = key.architecture;
  json["residuals"] = history.residuals;
  json["out_of_memory"] = history.out_of_memory;
  return dump_json(json);
}

Result<std::pair<MarginKey, MarginHistory>> margin_from_text(const std::string& text) {
  auto json = parse_json(text);
  if (!json) return std::unexpected(json.error());
  JsonReader reader(*json, "margin");
  MarginKey key{reader.string("backend", 256), reader.string("driver", 256), reader.string("card", 256),
                reader.string("architecture", 256)};
  MarginHistory history;
  const Json& residuals = reader.array("residuals", true);
  for (const Json& residual : residuals) {
    const bool sound = residual.is_number_integer() && history.residuals.size() < kResidualsMax;
    if (!sound) {
      reader.fail_at("residuals", "is not a list of at most " + std::to_string(kResidualsMax) + " whole numbers");
      break;
    }
    history.residuals.push_back(residual.get<Bytes>());
  }
  history.out_of_memory = reader.boolean_or("out_of_memory", false);
  return finished(reader, std::pair(std::move(key), std::move(history)));
}

Result<> check_name(std::string_view name) {
  const auto letter_or_digit = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  if (name.empty()) return fail(ErrorCode::kInvalidArgument, "is empty");
  if (name.size() > 128) return fail(ErrorCode::kInvalidArgument, "has more than 128 characters");
  if (!letter_or_digit(name.front())) return fail(ErrorCode::kInvalidArgument, "must begin with a letter or a digit");
  const bool allowed = std::ranges::all_of(
      name, [&](char c) { return letter_or_digit(c) || c == '.' || c == '_' || c == ':' || c == '/' || c == '-'; });
  if (!allowed) return fail(ErrorCode::kInvalidArgument, "may hold letters, digits and . _ : / - only");
  if (name.contains("..") || name.contains("//") || name.back() == '/') {
    return fail(ErrorCode::kInvalidArgument, "may not hold \"..\" or \"//\", nor end with \"/\"");
  }
  return {};
}

Result<> check_node_name(std::string_view name) {
  if (auto sound = check_name(name); !sound) return sound;
  if (name.size() > 63) return fail(ErrorCode::kInvalidArgument, "has more than 63 characters");
  if (name.find_first_of("/:") != std::string_view::npos) {
    return fail(ErrorCode::kInvalidArgument, "may hold letters, digits and . _ - only");
  }
  return {};
}

}  // namespace aiv::controller
