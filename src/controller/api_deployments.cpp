// Deployments: what the admin wants to be served. A request is planned before it is stored; what fits nowhere is refused
// with the shortfall and the nearest change that would work.
#include <algorithm>

#include "base/units.hpp"
#include "controller/api.hpp"
#include "core/footprint.hpp"
#include "core/openai_request.hpp"
#include "wire/documents.hpp"

namespace aiv::controller {

namespace {

constexpr int kReplicasMax = 1000;
constexpr std::size_t kAliasesMax = 16;
constexpr auto kWaitMax = net::seconds(600);

struct Wish {
  std::string name;
  std::string model;
  std::optional<int> replicas_min;
  std::optional<int> replicas_max;
  std::optional<std::int64_t> ctx;
  std::optional<int> slots;
  std::optional<int> ubatch;
  std::optional<bool> flash_attn;
  std::optional<std::string> cache_type_k;
  std::optional<std::string> cache_type_v;
  std::optional<ModelKind> kind;
  std::optional<std::string> pooling;
  std::optional<std::vector<std::string>> aliases;
  std::optional<int> priority;
  std::optional<bool> pinned;
  std::optional<std::map<std::string, std::string>> on;
  std::optional<std::set<std::string>> tolerates;
  std::optional<std::int64_t> revision;
  bool dry_run = false;
  bool pending = false;
  bool wait = false;
};

void read_replicas(JsonReader& reader, const Json& json, Wish& wish) {
  if (!reader.has("replicas")) return;
  const Json& value = json["replicas"];
  if (value.is_object()) {
    JsonReader range(reader.object("replicas"), reader.path_of("replicas"));
    wish.replicas_min = static_cast<int>(range.integer("min", 0, kReplicasMax));
    wish.replicas_max = static_cast<int>(range.integer_or("max", *wish.replicas_min, 0, kReplicasMax));
    range.refuse_unknown();
    reader.absorb(range);
    if (range.ok() && *wish.replicas_max < *wish.replicas_min) reader.fail_at("replicas", "max is below min");
    return;
  }
  wish.replicas_min = static_cast<int>(reader.integer("replicas", 0, kReplicasMax));
  wish.replicas_max = wish.replicas_min;
}

void read_kind(JsonReader& reader, Wish& wish) {
  if (reader.has("kind")) {
    const std::string text = reader.string("kind", 16);
    for (const ModelKind kind : {ModelKind::kChat, ModelKind::kEmbedding, ModelKind::kRerank}) {
      if (wire::to_string(kind) == text) wish.kind = kind;
    }
    if (!wish.kind) reader.fail_at("kind", "must be chat, embedding or rerank");
  }
  if (!reader.has("pooling")) return;
  wish.pooling = reader.string("pooling", 16);
  const bool known = wish.pooling->empty() || std::ranges::find(kPoolings, *wish.pooling) != kPoolings.end();
  if (!known) reader.fail_at("pooling", "must be mean, cls or last");
}

void read_aliases(JsonReader& reader, Wish& wish) {
  if (!reader.has("aliases")) return;
  wish.aliases.emplace();
  for (const Json& alias : reader.array("aliases")) {
    if (!alias.is_string() || !valid_name(alias.get<std::string>())) {
      return reader.fail_at("aliases", "must be names: letters, digits and . _ : / - only");
    }
    wish.aliases->push_back(alias.get<std::string>());
  }
  if (wish.aliases->size() > kAliasesMax) reader.fail_at("aliases", "are at most 16");
}

// Where it may go, and before whom.
void read_placing(JsonReader& reader, Wish& wish) {
  if (reader.has("priority")) wish.priority = static_cast<int>(reader.integer("priority", 1, 100));
  if (reader.has("pinned")) wish.pinned = reader.boolean("pinned");
  if (reader.has("on")) wish.on = read_labels(reader, "on");
  if (!reader.has("tolerates")) return;
  wish.tolerates.emplace();
  for (const Json& taint : reader.array("tolerates")) {
    if (!taint.is_string() || !check_name(taint.get<std::string>()) || wish.tolerates->size() >= 16) {
      return reader.fail_at("tolerates", "is a list of at most 16 names");
    }
    wish.tolerates->insert(taint.get<std::string>());
  }
}

Result<Wish> read_wish(const std::string& body, bool patch) {
  const auto json = read_object(body);
  if (!json) return std::unexpected(json.error());
  JsonReader reader(*json, "");
  Wish wish;
  if (!patch) {
    wish.model = reader.string("model", 4096);
    wish.name = reader.string_or("name", "", 256);
    wish.dry_run = reader.boolean_or("dry_run", false);
    wish.pending = reader.boolean_or("pending", false);
  } else {
    wish.model = reader.string_or("model", "", 4096);
    wish.dry_run = reader.boolean_or("dry_run", false);
    wish.pending = reader.boolean_or("pending", false);
  }
  wish.wait = reader.boolean_or("wait", false);
  read_replicas(reader, *json, wish);
  if (reader.has("ctx")) wish.ctx = reader.integer("ctx", kCtxMin, kCtxMax);
  if (reader.has("slots")) wish.slots = static_cast<int>(reader.integer("slots", 1, kSlotsMax));
  if (reader.has("ubatch")) wish.ubatch = static_cast<int>(reader.integer("ubatch", 16, 8192));
  if (reader.has("flash_attn")) wish.flash_attn = reader.boolean("flash_attn");
  if (reader.has("cache_type_k")) wish.cache_type_k = reader.string("cache_type_k", 16);
  if (reader.has("cache_type_v")) wish.cache_type_v = reader.string("cache_type_v", 16);
  read_kind(reader, wish);
  read_aliases(reader, wish);
  read_placing(reader, wish);
  if (reader.has("revision")) wish.revision = reader.integer("revision", 0, std::int64_t{1} << 62);
  reader.refuse_unknown();
  if (!reader.ok()) return std::unexpected(reader.error());
  return wish;
}

void merge(Deployment& deployment, const Wish& wish) {
  if (wish.replicas_min) deployment.replicas_min = *wish.replicas_min;
  if (wish.replicas_max) deployment.replicas_max = *wish.replicas_max;
  if (wish.ctx) deployment.ctx = *wish.ctx;
  if (wish.slots) deployment.slots = *wish.slots;
  if (wish.ubatch) deployment.ubatch = *wish.ubatch;
  if (wish.flash_attn) deployment.flash_attn = *wish.flash_attn;
  if (wish.cache_type_k) deployment.cache_type_k = *wish.cache_type_k;
  if (wish.cache_type_v) deployment.cache_type_v = *wish.cache_type_v;
  if (wish.kind) deployment.kind = *wish.kind;
  if (wish.pooling) deployment.pooling = *wish.pooling;
  if (wish.aliases) deployment.aliases = *wish.aliases;
  if (wish.priority) deployment.priority = *wish.priority;
  if (wish.pinned) deployment.pinned = *wish.pinned;
  if (wish.on) deployment.on = *wish.on;
  if (wish.tolerates) deployment.tolerates = *wish.tolerates;
}

// What changes an engine's command line needs new processes; the number of replicas does not.
bool same_process(Deployment a, const Deployment& b) {
  a.replicas_min = b.replicas_min;
  a.replicas_max = b.replicas_max;
  a.generation = b.generation;
  a.aliases = b.aliases;
  a.priority = b.priority;
  a.pinned = b.pinned;
  a.on = b.on;
  a.tolerates = b.tolerates;
  a.created_ms = b.created_ms;
  return a == b;
}

Json view_plan(const WhatIf& answer) {
  Json placements = Json::array();
  for (const PlanPlacement& placement : answer.placements) {
    Json json;
    json["node"] = placement.node;
    json["variant"] = placement.variant;
    Json devices = Json::array();
    for (const PlanPart& part : placement.parts) {
      Json device;
      device["id"] = part.device;
      device["bytes"] = part.bytes;
      devices.push_back(std::move(device));
    }
    json["devices"] = std::move(devices);
    json["keep"] = placement.keep;
    placements.push_back(std::move(json));
  }
  Json json;
  json["placed"] = answer.placed;
  json["reason"] = answer.reason;
  json["bytes_per_replica"] = answer.bytes_per_replica;
  json["placements"] = std::move(placements);
  return json;
}

ApiReply does_not_fit(const std::string& name, const WhatIf& answer) {
  ApiReply reply = reply_error({ErrorCode::kRefused, answer.reason.empty() ? "it fits nowhere" : answer.reason, name},
                               "does_not_fit", "keep it waiting for room with --pending");
  reply.body["plan"] = view_plan(answer);
  return reply;
}

// Until the deployment is as wanted, has failed, or the time is up: the caller sees its state either way.
net::Task<> wait_until_settled(ApiContext& context, std::string name) {
  EventLog::Subscription subscription(context.cluster.events(), context.executor);
  const auto deadline = net::Clock::now() + kWaitMax;
  while (!context.stopping && net::Clock::now() < deadline) {
    const auto& status = context.cluster.state().status;
    const auto it = status.find(name);
    const bool decided = !context.cluster.undecided();
    if (decided && it != status.end() && (it->second.state == "ready" || it->second.state == "failed"))
      co_return;
    const auto look_again = decided ? net::milliseconds(500) : net::milliseconds(20);
    co_await subscription.signal().wait_until(std::min(deadline, net::Clock::now() + look_again));
  }
}

ApiReply conflict_of(const Cluster& cluster, const std::string& name, const std::string& message) {
  ApiReply reply = reply_error({ErrorCode::kConflict, message, name});
  const auto now = cluster.state().deployments.find(name);
  reply.body["current"] = now == cluster.state().deployments.end() ? Json(nullptr) : view_deployment(cluster, now->second);
  return reply;
}

// One copy of the models map with a not yet registered model, for a question only.
Result<WhatIf> ask(const Cluster& cluster, const Deployment& deployment, const ModelRecord& model) {
  if (cluster.state().models.contains(model.id)) {
    return what_if(cluster.state(), deployment, Cluster::now().steady_ms);
  }
  ControllerState copy = cluster.state();
  copy.models[model.id] = model;
  return what_if(copy, deployment, Cluster::now().steady_ms);
}

Result<> check_ctx(const Deployment& deployment, const ModelRecord& model) {
  if (model.train_ctx() > 0 && deployment.ctx > model.train_ctx()) {
    return fail(ErrorCode::kInvalidArgument,
                "is above the " + std::to_string(model.train_ctx()) + " tokens this model was trained with", "ctx");
  }
  return {};
}

// A chat model can be asked for embeddings; a score needs a classifier in the file, and text needs an output layer.
Result<> check_kind(const Deployment& deployment, const ModelRecord& model) {
  const ModelKind wanted = kind_of(deployment, model);
  if (wanted == model.kind || (wanted == ModelKind::kEmbedding && model.kind == ModelKind::kChat)) return {};
  if (model.engine == EngineKind::kFake) return fail(ErrorCode::kInvalidArgument, "a fake model's kind is in its settings", "kind");
  return fail(ErrorCode::kInvalidArgument,
              "must be " + std::string(wire::to_string(model.kind)) + " for this model: its file has no other output", "kind");
}

// One name, one thing: an alias may be neither another deployment's name nor its alias.
Result<> check_aliases(const Deployment& wanted, const ControllerState& state) {
  for (const auto& [name, other] : state.deployments) {
    if (name == wanted.name) continue;
    for (const std::string& alias : wanted.aliases) {
      if (alias == name || std::ranges::find(other.aliases, alias) != other.aliases.end()) {
        return fail(ErrorCode::kInvalidArgument, "'" + alias + "' is a name of the deployment " + name, "aliases");
      }
    }
    if (std::ranges::find(other.aliases, wanted.name) != other.aliases.end()) {
      return fail(ErrorCode::kInvalidArgument, "is an alias of the deployment " + name, "name");
    }
  }
  return {};
}

// The common way of POST and PATCH: plan, store, answer. `before` is what was there.
net::Task<ApiReply> put(ApiContext& context, ApiRequest request, Wish wish, Deployment wanted,
                        std::optional<Deployment> before, ModelRecord model) {
  Cluster& cluster = context.cluster;
  const std::string key = kDeploymentPrefix + wanted.name;
  const std::int64_t seen = cluster.revision_of(key);
  if (wish.revision && *wish.revision != seen) {
    co_return conflict_of(cluster, wanted.name, "revision " + std::to_string(*wish.revision) + " is not the present one");
  }
  if (auto sound = check_ctx(wanted, model); !sound) co_return reply_error(sound.error());
  if (auto sound = check_kind(wanted, model); !sound) co_return reply_error(sound.error());
  if (auto sound = check_aliases(wanted, cluster.state()); !sound) co_return reply_error(sound.error());
  if (before && !same_process(wanted, *before)) ++wanted.generation;
  auto answer = ask(cluster, wanted, model);
  if (!answer) {
    const bool refused = answer.error().code == ErrorCode::kRefused;
    co_return reply_error(answer.error(), refused ? "does_not_fit" : "");
  }
  if (!answer->placed && !wish.pending && !cluster.state().observing) co_return does_not_fit(wanted.name, *answer);
  if (wish.dry_run) {
    Json body;
    body["dry_run"] = true;
    body["plan"] = view_plan(*answer);
    co_return ApiReply{200, std::move(body)};
  }
  auto registered = co_await ensure_model(context, wish.model.empty() ? wanted.model : wish.model, "", request.actor, false);
  if (!registered) co_return reply_error(registered.error());
  if (!before || wanted != *before) {
    const char* const action = before ? "deployment.changed" : "deployment.created";
    Cluster::Change change = Cluster::Change::of(request.actor, action, "deployment/" + wanted.name);
    change.txn.compares.push_back(before ? Compare::mod_rev_is(key, seen) : Compare::absent(key));
    change.txn.ops.push_back(Op::put(key, deployment_to_text(wanted)));
    change.events.emplace_back(event::DeploymentPut{wanted});
    auto stored = co_await cluster.change(std::move(change));
    if (!stored && stored.error().code == ErrorCode::kConflict) {
      co_return conflict_of(cluster, wanted.name, stored.error().reason);
    }
    if (!stored) co_return reply_error(stored.error());
  }
  if (wish.wait) co_await wait_until_settled(context, wanted.name);
  const auto now = cluster.state().deployments.find(wanted.name);
  if (now == cluster.state().deployments.end()) {
    co_return reply_error({ErrorCode::kConflict, "it was deleted meanwhile", wanted.name});
  }
  co_return ApiReply{before ? 200 : 201, view_deployment(cluster, now->second)};
}

}  // namespace

namespace handlers {

net::Task<ApiReply> post_deployment(ApiContext& context, ApiRequest request) {
  auto wish = read_wish(request.body, false);
  if (!wish) co_return reply_error(wish.error());
  if (!wish->name.empty()) {
    if (auto sound = check_name(wish->name); !sound) {
      co_return reply_error({ErrorCode::kInvalidArgument, sound.error().reason, "name"});
    }
  }
  // Read and estimated without being registered: a refused request leaves nothing behind.
  auto model = co_await ensure_model(context, wish->model, "", request.actor, true);
  if (!model) co_return reply_error(model.error());
  if (wish->name.empty()) wish->name = model->id;
  const auto& deployments = context.cluster.state().deployments;
  const auto present = deployments.find(wish->name);
  std::optional<Deployment> before;
  Deployment wanted;
  if (present != deployments.end()) {
    before = present->second;
    wanted = present->second;
  } else {
    wanted.name = wish->name;
    wanted.created_ms = Cluster::now().unix_ms;
  }
  wanted.model = model->id;
  merge(wanted, *wish);
  co_return co_await put(context, std::move(request), *wish, std::move(wanted), std::move(before), *model);
}

net::Task<ApiReply> patch_deployment(ApiContext& context, ApiRequest request) {
  auto wish = read_wish(request.body, true);
  if (!wish) co_return reply_error(wish.error());
  const auto& deployments = context.cluster.state().deployments;
  const std::string name = request.arguments.front();
  if (!deployments.contains(name)) {
    co_return reply_error({ErrorCode::kNotFound, "there is no deployment of this name", printable(name, 128)});
  }
  const std::string model_name = wish->model.empty() ? deployments.at(name).model : wish->model;
  auto model = co_await ensure_model(context, model_name, "", request.actor, true);
  if (!model) co_return reply_error(model.error());
  const auto present = deployments.find(name);
  if (present == deployments.end()) {
    co_return reply_error({ErrorCode::kNotFound, "there is no deployment of this name", printable(name, 128)});
  }
  std::optional<Deployment> before = present->second;
  Deployment wanted = present->second;
  wanted.model = model->id;
  merge(wanted, *wish);
  co_return co_await put(context, std::move(request), *wish, std::move(wanted), std::move(before), *model);
}

net::Task<ApiReply> delete_deployment(ApiContext& context, ApiRequest request) {
  Cluster& cluster = context.cluster;
  const std::string name = request.arguments.front();
  const std::string key = kDeploymentPrefix + name;
  if (!cluster.state().deployments.contains(name)) {
    co_return reply_error({ErrorCode::kNotFound, "there is no deployment of this name", printable(name, 128)});
  }
  Cluster::Change change = Cluster::Change::of(request.actor, "deployment.deleted", "deployment/" + name);
  change.txn.compares.push_back(cluster.still_as_known(key));
  change.txn.ops.push_back(Op::erase(key));
  change.events.emplace_back(event::DeploymentErased{name});
  auto stored = co_await cluster.change(std::move(change));
  if (!stored && stored.error().code == ErrorCode::kConflict) {
    co_return conflict_of(cluster, name, stored.error().reason);
  }
  co_return reply_changed("name", name, stored);
}

}  // namespace handlers
}  // namespace aiv::controller
