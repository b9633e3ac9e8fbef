#include "wire/documents.hpp"

#include <fmt/format.h>

#include <charconv>
#include <limits>
#include <optional>

#include "base/hash.hpp"

namespace aiv::wire {
namespace {

constexpr std::int64_t kMax = std::int64_t{1} << 62;
// What a node reports is input: more than this is a fault of the node, not a big machine.
constexpr std::size_t kDevicesMax = 64;
constexpr std::size_t kReplicasMax = 1024;
constexpr std::size_t kModelsMax = 20000;
constexpr std::size_t kKeysMax = 100000;
constexpr std::int64_t kLimitMax = 1'000'000'000;

template <class Enum>
struct Word {
  Enum value;
  std::string_view text;
};

constexpr Word<ReplicaState> kStates[] = {{ReplicaState::kPending, "pending"},   {ReplicaState::kLoading, "loading"},
                                          {ReplicaState::kReady, "ready"},       {ReplicaState::kDraining, "draining"},
                                          {ReplicaState::kStopped, "stopped"},   {ReplicaState::kFailed, "failed"}};
constexpr Word<ModelKind> kKinds[] = {
    {ModelKind::kChat, "chat"}, {ModelKind::kEmbedding, "embedding"}, {ModelKind::kRerank, "rerank"}};
constexpr Word<EngineKind> kEngines[] = {{EngineKind::kLlama, "llama"}, {EngineKind::kFake, "fake"}};
constexpr Word<DeviceKind> kDeviceKinds[] = {{DeviceKind::kGpu, "gpu"}, {DeviceKind::kSoftware, "software"}};
constexpr Word<Role> kRoles[] = {{Role::kUser, "user"}, {Role::kOperator, "operator"}, {Role::kAdmin, "admin"}};

template <class Enum, std::size_t N>
std::string_view word_of(Enum value, const Word<Enum> (&words)[N]) {
  for (const auto& word : words) {
    if (word.value == value) return word.text;
  }
  return "unknown";
}

template <class Enum, std::size_t N>
std::optional<Enum> value_of(std::string_view text, const Word<Enum> (&words)[N]) {
  for (const auto& word : words) {
    if (word.text == text) return word.value;
  }
  return std::nullopt;
}

template <class Enum, std::size_t N>
Enum read_enum(JsonReader& reader, std::string_view key, const Word<Enum> (&words)[N], Enum fallback, bool required) {
  if (!required && !reader.has(key)) return fallback;
  const std::string text = reader.string(key, 64);
  if (!reader.ok()) return fallback;
  const auto value = value_of(text, words);
  if (!value) reader.fail_at(key, "has an unknown value");
  return value.value_or(fallback);
}

// Reads a list of objects through `read_one(JsonReader&)`, naming the element at fault.
template <class T, class ReadOne>
std::vector<T> read_list(JsonReader& reader, std::string_view key, std::size_t max, bool required, ReadOne read_one) {
  std::vector<T> out;
  const Json& list = reader.array(key, required);
  if (list.size() > max) {
    reader.fail_at(key, fmt::format("has more than {} entries", max));
    return out;
  }
  out.reserve(list.size());
  for (std::size_t i = 0; i < list.size() && reader.ok(); ++i) {
    JsonReader child(list[i], fmt::format("{}[{}]", reader.path_of(key), i));
    out.push_back(read_one(child));
    reader.absorb(child);
  }
  return out;
}

DeviceBytes read_device_bytes(JsonReader& r) {
  DeviceBytes out;
  out.device_id = r.string("id", 256);
  out.weights = r.integer_or("weights", 0, 0, kMax);
  out.kv = r.integer_or("kv", 0, 0, kMax);
  out.compute = r.integer_or("compute", 0, 0, kMax);
  out.overhead = r.integer_or("overhead", 0, 0, kMax);
  out.split = static_cast<int>(r.integer_or("split", 1, 1, 4096));
  return out;
}

Json version_json(const Version& version) { return {{"epoch", version.epoch}, {"rev", version.rev}}; }

Version read_version(JsonReader& r, std::string_view key, bool required) {
  Version version;
  if (!required && !r.has(key)) return version;
  JsonReader child(r.object(key), r.path_of(key));
  version.epoch = child.integer("epoch", 0, kMax);
  version.rev = child.integer("rev", 0, kMax);
  r.absorb(child);
  return version;
}

template <class List>
Json list_json(const List& list) {
  Json out = Json::array();
  for (const auto& item : list) out.push_back(to_json(item));
  return out;
}

Device read_device(JsonReader& r) {
  Device out;
  out.id = r.string("id", 256);
  out.uuid = r.string_or("uuid", "", 256);
  out.name = r.string("name", 256);
  out.backend = r.string("backend", 64);
  out.kind = read_enum(r, "kind", kDeviceKinds, DeviceKind::kGpu, true);
  constexpr std::int64_t kVramMax = std::int64_t{4} << 40;  // 4 TiB: no card, so a fault or a lie
  out.vram_bytes = r.integer("vram_bytes", 0, kVramMax);
  out.free_bytes = r.integer("free_bytes", 0, kVramMax);
  out.foreign_bytes = r.integer_or("foreign_bytes", 0, 0, kVramMax);
  out.overhead_bytes = r.integer_or("overhead_bytes", 0, 0, kVramMax);
  out.max_storage_buffer_range = r.integer_or("max_storage_buffer_range", 0, 0, kMax);
  out.alignment = r.integer_or("alignment", 128, 1, 1 << 20);
  out.bandwidth_bytes_per_s = r.integer_or("bandwidth_bytes_per_s", 0, 0, kMax);
  out.driver = r.string_or("driver", "", 256);
  out.refused = r.string_or("refused", "", 1024);
  return out;
}

ReplicaStatus read_replica_status(JsonReader& r) {
  ReplicaStatus out;
  out.id = r.string("id", 256);
  out.deployment = r.string_or("deployment", "", 256);
  out.model = r.string_or("model", "", 256);
  out.spec_hash = r.string_or("spec_hash", "", 128);
  out.state = read_enum(r, "state", kStates, ReplicaState::kPending, true);
  out.reason = r.string_or("reason", "", 4096);
  out.out_of_memory = r.boolean_or("out_of_memory", false);
  out.progress = r.number_or("progress", 0, 0, 1);
  out.pid = r.integer_or("pid", 0, 0, std::numeric_limits<std::int32_t>::max());
  out.started_at_ms = r.integer_or("started_at_ms", 0, 0, kMax);
  out.slots = static_cast<int>(r.integer_or("slots", 0, 0, 1024));
  out.slots_busy = static_cast<int>(r.integer_or("slots_busy", 0, 0, 1024));
  out.endpoint = r.string_or("endpoint", "", 4096);
  out.measured = read_list<DeviceBytes>(r, "measured", kDevicesMax, false, read_device_bytes);
  out.restarts = static_cast<int>(r.integer_or("restarts", 0, 0, 1'000'000));
  return out;
}

ReplicaSpec read_replica_spec(JsonReader& r) {
  ReplicaSpec out;
  out.id = r.string("id", 256);
  out.deployment = r.string("deployment", 256);
  out.model = r.string("model", 256);
  out.model_path = r.string_or("model_path", "", 4096);
  out.model_digest = r.string_or("model_digest", "", 256);
  out.kind = read_enum(r, "kind", kKinds, ModelKind::kChat, false);
  out.engine = read_enum(r, "engine", kEngines, EngineKind::kLlama, true);
  out.ctx = r.integer("ctx", 1, std::int64_t{1} << 40);
  out.slots = static_cast<int>(r.integer("slots", 1, 1024));
  out.ubatch = static_cast<int>(r.integer_or("ubatch", 512, 1, 65536));
  out.flash_attn = r.boolean_or("flash_attn", true);
  out.cache_type_k = r.string_or("cache_type_k", "f16", 16);
  out.cache_type_v = r.string_or("cache_type_v", "f16", 16);
  out.pooling = r.string_or("pooling", "", 16);
  out.kv_unified = r.boolean_or("kv_unified", false);
  out.token_embd_on_device = r.boolean_or("token_embd_on_device", false);
  out.tied_output = r.boolean_or("tied_output", false);
  out.host_weights = r.integer_or("host_weights", 0, 0, kMax);
  out.largest_tensor = r.integer_or("largest_tensor", 0, 0, kMax);
  out.devices = read_list<DeviceBytes>(r, "devices", kDevicesMax, true, read_device_bytes);
  out.draining = r.boolean_or("draining", false);
  return out;
}

RouteModel read_route_model(JsonReader& r) {
  RouteModel out;
  out.name = r.string("name", 256);
  for (const Json& alias : r.array("aliases", false)) {
    if (!alias.is_string() || alias.get_ref<const std::string&>().size() > 256) r.fail_at("aliases", "must hold names");
    if (r.ok()) out.aliases.push_back(alias.get<std::string>());
  }
  out.model = r.string_or("model", "", 256);
  out.kind = read_enum(r, "kind", kKinds, ModelKind::kChat, false);
  out.ctx_per_slot = r.integer_or("ctx_per_slot", 0, 0, kMax);
  out.created_ms = r.integer_or("created_ms", 0, 0, kMax);
  out.state = r.string_or("state", "", 64);
  out.reason = r.string_or("reason", "", 4096);
  if (r.has("load_percent")) out.load_percent = static_cast<int>(r.integer("load_percent", 0, 100));
  out.replicas = read_list<RouteReplica>(r, "replicas", kReplicasMax, true, [](JsonReader& c) {
    RouteReplica replica;
    replica.id = c.string("id", 256);
    replica.node = c.string("node", 256);
    replica.slots = static_cast<int>(c.integer("slots", 1, 1024));
    replica.relative_speed = c.number_or("relative_speed", 1.0, 0, 1e12);
    replica.suspect = c.boolean_or("suspect", false);
    replica.software = c.boolean_or("software", false);
    return replica;
  });
  return out;
}

KeyLimits read_key_limits(JsonReader& r, std::string_view key) {
  KeyLimits out;
  const Json& json = r.object(key, false);
  if (!json.is_object() || json.empty()) return out;
  JsonReader limits(json, r.path_of(key));
  out.requests_per_min = limits.integer_or("requests_per_min", 0, 0, kLimitMax);
  out.tokens_per_min = limits.integer_or("tokens_per_min", 0, 0, kLimitMax);
  out.concurrency = limits.integer_or("concurrency", 0, 0, kLimitMax);
  out.tokens_per_day = limits.integer_or("tokens_per_day", 0, 0, kLimitMax * 1000);
  r.absorb(limits);
  return out;
}

RouteKey read_route_key(JsonReader& r) {
  RouteKey out;
  out.id = r.string("id", 64);
  out.secret_sha256 = r.string("secret_sha256", 64);
  out.name = r.string_or("name", "", 256);
  out.role = read_enum(r, "role", kRoles, Role::kUser, true);
  out.expires_at_ms = r.integer_or("expires_at_ms", 0, 0, kMax);
  out.disabled = r.boolean_or("disabled", false);
  out.team = r.string_or("team", "", 128);
  out.limits = read_key_limits(r, "limits");
  out.team_limits = read_key_limits(r, "team_limits");
  for (const Json& model : r.array("models", false)) {
    if (!model.is_string() || model.get_ref<const std::string&>().size() > 256) r.fail_at("models", "must hold names");
    if (!r.ok()) break;
    out.models.push_back(model.get<std::string>());
  }
  return out;
}

template <class T>
Result<T> checked(const JsonReader& reader, T value) {
  if (!reader.ok()) return std::unexpected(reader.error());
  return value;
}

}  // namespace

Json to_json(const KeyLimits& limits) {
  return {{"requests_per_min", limits.requests_per_min},
          {"tokens_per_min", limits.tokens_per_min},
          {"concurrency", limits.concurrency},
          {"tokens_per_day", limits.tokens_per_day}};
}

KeyLimits key_limits_of(JsonReader& reader, std::string_view key) { return read_key_limits(reader, key); }

std::string_view to_string(ReplicaState state) { return word_of(state, kStates); }
std::string_view to_string(ModelKind kind) { return word_of(kind, kKinds); }
std::string_view to_string(EngineKind kind) { return word_of(kind, kEngines); }
std::string_view to_string(DeviceKind kind) { return word_of(kind, kDeviceKinds); }
std::string_view to_string(Role role) { return word_of(role, kRoles); }

Result<Role> role_from_string(std::string_view text) {
  if (const auto role = value_of(text, kRoles)) return *role;
  return fail(ErrorCode::kInvalidArgument, "the role must be user, operator or admin");
}

Result<ReplicaState> replica_state_from_string(std::string_view text) {
  if (const auto state = value_of(text, kStates)) return *state;
  return fail(ErrorCode::kInvalidArgument, "unknown replica state");
}

Json to_json(const DeviceBytes& bytes) {
  return {{"id", bytes.device_id},       {"weights", bytes.weights},   {"kv", bytes.kv},
          {"compute", bytes.compute},    {"overhead", bytes.overhead}, {"split", bytes.split},
          {"bytes", bytes.total()}};
}

Json to_json(const Device& d) {
  return {{"id", d.id},
          {"uuid", d.uuid},
          {"name", d.name},
          {"backend", d.backend},
          {"kind", to_string(d.kind)},
          {"vram_bytes", d.vram_bytes},
          {"free_bytes", d.free_bytes},
          {"foreign_bytes", d.foreign_bytes},
          {"overhead_bytes", d.overhead_bytes},
          {"max_storage_buffer_range", d.max_storage_buffer_range},
          {"alignment", d.alignment},
          {"bandwidth_bytes_per_s", d.bandwidth_bytes_per_s},
          {"driver", d.driver},
          {"refused", d.refused}};
}

Json to_json(const ReplicaSpec& s) {
  return {{"id", s.id},
          {"deployment", s.deployment},
          {"model", s.model},
          {"model_path", s.model_path},
          {"model_digest", s.model_digest},
          {"kind", to_string(s.kind)},
          {"engine", to_string(s.engine)},
          {"ctx", s.ctx},
          {"slots", s.slots},
          {"ubatch", s.ubatch},
          {"flash_attn", s.flash_attn},
          {"cache_type_k", s.cache_type_k},
          {"cache_type_v", s.cache_type_v},
          {"pooling", s.pooling},
          {"kv_unified", s.kv_unified},
          {"token_embd_on_device", s.token_embd_on_device},
          {"tied_output", s.tied_output},
          {"host_weights", s.host_weights},
          {"largest_tensor", s.largest_tensor},
          {"devices", list_json(s.devices)},
          {"draining", s.draining}};
}

Json to_json(const ReplicaStatus& s) {
  return {{"id", s.id},
          {"deployment", s.deployment},
          {"model", s.model},
          {"spec_hash", s.spec_hash},
          {"state", to_string(s.state)},
          {"reason", s.reason},
          {"out_of_memory", s.out_of_memory},
          {"progress", s.progress},
          {"pid", s.pid},
          {"started_at_ms", s.started_at_ms},
          {"slots", s.slots},
          {"slots_busy", s.slots_busy},
          {"endpoint", s.endpoint},
          {"measured", list_json(s.measured)},
          {"restarts", s.restarts}};
}

Json to_json(const NodeDesired& d) {
  return {{"node", d.node}, {"version", version_json(d.version)}, {"replicas", list_json(d.replicas)}};
}

Json to_json(const NodeObserved& o) {
  return {{"node", o.node},
          {"boot_id", o.boot_id},
          {"incarnation", fmt::format("{:016x}", o.incarnation)},  // 64 bits do not survive JSON numbers
          {"seq", o.seq},
          {"applied", version_json(o.applied)},
          {"agent_version", o.agent_version},
          {"engine", o.engine},
          {"devices", list_json(o.devices)},
          {"replicas", list_json(o.replicas)}};
}

Json to_json(const RouteTable& t) {
  Json models = Json::array();
  for (const RouteModel& m : t.models) {
    Json replicas = Json::array();
    for (const RouteReplica& r : m.replicas) {
      replicas.push_back({{"id", r.id},
                          {"node", r.node},
                          {"slots", r.slots},
                          {"relative_speed", r.relative_speed},
                          {"suspect", r.suspect},
                          {"software", r.software}});
    }
    models.push_back({{"name", m.name},
                      {"aliases", m.aliases},
                      {"model", m.model},
                      {"kind", to_string(m.kind)},
                      {"ctx_per_slot", m.ctx_per_slot},
                      {"created_ms", m.created_ms},
                      {"state", m.state},
                      {"reason", m.reason},
                      {"replicas", std::move(replicas)}});
    if (m.load_percent) models.back()["load_percent"] = *m.load_percent;
  }
  Json keys = Json::array();
  for (const RouteKey& k : t.keys) {
    keys.push_back({{"id", k.id},
                    {"secret_sha256", k.secret_sha256},
                    {"name", k.name},
                    {"role", to_string(k.role)},
                    {"models", k.models},
                    {"expires_at_ms", k.expires_at_ms},
                    {"disabled", k.disabled},
                    {"limits", to_json(k.limits)},
                    {"team", k.team},
                    {"team_limits", to_json(k.team_limits)}});
  }
  Json denied = Json::array();
  for (const DeniedNode& d : t.denied_nodes) denied.push_back({{"node", d.node}, {"issued_before_s", d.issued_before_s}});
  return {{"version", version_json(t.version)},
          {"auth_required", t.auth_required},
          {"denied_nodes", std::move(denied)},
          {"models", std::move(models)},
          {"keys", std::move(keys)}};
}

Result<ReplicaSpec> replica_spec_from_json(const Json& json, const std::string& path) {
  JsonReader reader(json, path);
  ReplicaSpec spec = read_replica_spec(reader);
  return checked(reader, std::move(spec));
}

Result<NodeDesired> node_desired_from_json(const Json& json) {
  JsonReader r(json, "");
  NodeDesired out;
  out.node = r.string("node", 256);
  out.version = read_version(r, "version", true);
  out.replicas = read_list<ReplicaSpec>(r, "replicas", kReplicasMax, true, read_replica_spec);
  return checked(r, std::move(out));
}

Result<NodeObserved> node_observed_from_json(const Json& json) {
  JsonReader r(json, "");
  NodeObserved out;
  out.node = r.string("node", 256);
  out.boot_id = r.string_or("boot_id", "", 64);
  const std::string incarnation = r.string("incarnation", 16);
  if (r.ok()) {
    const auto [end, error] =
        std::from_chars(incarnation.data(), incarnation.data() + incarnation.size(), out.incarnation, 16);
    if (error != std::errc{} || end != incarnation.data() + incarnation.size()) {
      r.fail_at("incarnation", "must be hexadecimal");
    }
  }
  out.seq = r.integer("seq", 0, kMax);
  out.applied = read_version(r, "applied", false);
  out.agent_version = r.string_or("agent_version", "", 64);
  out.engine = r.string_or("engine", "", 256);
  out.devices = read_list<Device>(r, "devices", kDevicesMax, true, read_device);
  out.replicas = read_list<ReplicaStatus>(r, "replicas", kReplicasMax, true, read_replica_status);
  return checked(r, std::move(out));
}

Result<RouteTable> route_table_from_json(const Json& json) {
  JsonReader r(json, "");
  RouteTable out;
  out.version = read_version(r, "version", true);
  out.auth_required = r.boolean("auth_required");
  out.denied_nodes = read_list<DeniedNode>(r, "denied_nodes", kKeysMax, false, [](JsonReader& c) {
    DeniedNode denied;
    denied.node = c.string("node", 256);
    denied.issued_before_s = c.integer("issued_before_s", 0, kMax);
    return denied;
  });
  out.models = read_list<RouteModel>(r, "models", kModelsMax, true, read_route_model);
  out.keys = read_list<RouteKey>(r, "keys", kKeysMax, true, read_route_key);
  return checked(r, std::move(out));
}

std::string spec_hash(const ReplicaSpec& spec) {
  ReplicaSpec same = spec;
  same.draining = false;
  return sha256_hex(dump_json(to_json(same))).substr(0, 32);
}

}  // namespace aiv::wire
