// Models: registering a GGUF that lies on disk, or one that the fake engine plays.
#include <sys/stat.h>

#include <algorithm>

#include "base/hash.hpp"
#include "base/log.hpp"
#include "base/units.hpp"
#include "controller/api.hpp"
#include "wire/model_file.hpp"

namespace aiv::controller {

namespace {

// "Qwen3-8B-Q4_K_M.gguf" -> "qwen3-8b-q4_k_m": lower case, what names may hold, at most 64 characters.
std::string id_from_path(const std::string& path) {
  std::string name = path.substr(path.rfind('/') + 1);
  if (name.ends_with(".gguf")) name.resize(name.size() - 5);
  if (const auto part = name.find("-00001-of-"); part != std::string::npos) name.resize(part);
  std::string id;
  for (const char c : name) {
    const bool upper = c >= 'A' && c <= 'Z';
    const bool plain = (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
    if (upper) {
      id.push_back(static_cast<char>(c - 'A' + 'a'));
    } else if (plain && !(c == '.' && id.ends_with('.'))) {
      id.push_back(c);
    } else {
      id.push_back('-');
    }
  }
  id.erase(0, std::min(id.find_first_not_of(".-_"), id.size()));
  id = id.substr(0, 64);
  return id.empty() ? "model" : id;
}

struct Opened {
  Result<ModelFacts> facts = ModelFacts{};
};

// Blocking; headers only.
Result<ModelRecord> open_model(const std::string& path, const std::string& id) {
  auto facts = read_model_file(path);
  if (!facts) return std::unexpected(facts.error());
  ModelRecord model;
  model.id = id;
  model.path = path;
  model.size_bytes = facts->file_bytes;
  model.kind = facts->kind;
  model.facts = std::make_shared<const ModelFacts>(*std::move(facts));
  return model;
}

// Blocking; the whole file, all parts of a split one: the digest of the parts' digests then.
Result<std::string> digest_of(const std::string& path) {
  auto parts = gguf_part_paths(path);
  if (!parts) return std::unexpected(parts.error());
  if (parts->size() == 1) {
    auto hex = sha256_file_hex(path);
    if (!hex) return std::unexpected(hex.error());
    return "sha256:" + *hex;
  }
  std::string all;
  for (const std::string& part : *parts) {
    auto hex = sha256_file_hex(part);
    if (!hex) return std::unexpected(hex.error());
    all += *hex + "\n";
  }
  return "sha256:" + sha256_hex(all);
}

// Off the loop, minutes for a large file; the model is usable meanwhile.
net::Task<> compute_digest(Cluster* cluster, std::string id, std::string path) {
  auto digest = std::make_shared<Result<std::string>>();
  std::function<void()> job = [digest, path] { *digest = digest_of(path); };
  co_await net::run_blocking(std::move(job));
  const auto found = cluster->state().models.find(id);
  if (found == cluster->state().models.end() || found->second.path != path) co_return;
  if (!*digest) {
    log_warn("model.digest_failed", {{"model", id}, {"reason", digest->error().message()}});
    co_return;
  }
  ModelRecord model = found->second;
  model.digest = **digest;
  Cluster::Change change = Cluster::Change::of("controller", "model.hashed", "model/" + id);
  change.txn.ops.push_back(Op::put(kModelPrefix + id, model_to_text(model)));
  change.events.emplace_back(event::ModelPut{model});
  auto stored = co_await cluster->change(std::move(change));
  if (!stored) log_warn("model.digest_not_stored", {{"model", id}, {"reason", stored.error().message()}});
}

net::Task<Result<ModelRecord>> store_model(ApiContext& context, ModelRecord model, std::string actor) {
  model.created_ms = Cluster::now().unix_ms;
  Cluster::Change change = Cluster::Change::of(std::move(actor), "model.registered", "model/" + model.id);
  const std::string key = kModelPrefix + model.id;
  change.txn.compares.push_back(Compare::absent(key));
  change.txn.ops.push_back(Op::put(key, model_to_text(model)));
  change.events.emplace_back(event::ModelPut{model});
  auto stored = co_await context.cluster.change(std::move(change));
  if (!stored) co_return std::unexpected(stored.error());
  if (model.engine == EngineKind::kLlama) {
    net::spawn(context.executor, compute_digest(&context.cluster, model.id, model.path), "digest of " + model.id);
  }
  co_return model;
}

const ModelRecord* find_by_path(const Cluster& cluster, const std::string& path) {
  for (const auto& [id, model] : cluster.state().models) {
    if (model.path == path) return &model;
  }
  return nullptr;
}

Error taken(const std::string& id, const ModelRecord& by) {
  return {ErrorCode::kConflict, "the name is taken by " + printable(by.path, 256), id};
}

}  // namespace

net::Task<Result<ModelRecord>> ensure_model(ApiContext& context, std::string wanted, std::string name,
                                            std::string actor, bool dry_run) {
  const auto& models = context.cluster.state().models;
  if (const auto known = models.find(wanted); known != models.end() && (name.empty() || name == wanted)) {
    co_return known->second;
  }
  const bool is_path = wanted.contains('/') || wanted.ends_with(".gguf");
  const bool is_fake = is_fake_model_path(wanted) ||
                       std::ranges::find(kFakeModelNames, wanted) != std::end(kFakeModelNames);
  if (!is_path && !is_fake) {
    co_return fail(ErrorCode::kNotFound, "there is no model of this name; give the path of a .gguf file to register it",
                   printable(wanted, 128));
  }
  ModelRecord model;
  if (is_fake) {
    auto fake = parse_fake_model(wanted);
    if (!fake) co_return std::unexpected(fake.error());
    model.path = wanted.starts_with("fake:") ? wanted : "fake:" + wanted;
    model.engine = EngineKind::kFake;
    model.kind = fake->kind;
    model.size_bytes = fake->weights_bytes + fake->host_bytes;
    model.digest = "sha256:" + sha256_hex(model.path);  // the settings are the whole model
    // The name alone for the plain ones; else the settings tell them apart.
    const bool plain = !model.path.contains('?');
    model.id = !name.empty() ? name : plain ? fake->name : fake->name + "-" + sha256_hex(model.path).substr(0, 6);
    model.fake = *std::move(fake);
  } else {
    if (!wanted.starts_with('/')) {
      co_return fail(ErrorCode::kInvalidArgument, "the path of a model file must be absolute", printable(wanted, 256));
    }
    model.path = wanted;
    model.id = !name.empty() ? name : id_from_path(wanted);
  }
  if (auto sound = check_name(model.id); !sound) {
    co_return fail(ErrorCode::kInvalidArgument, sound.error().reason, "name");
  }
  if (const ModelRecord* same = find_by_path(context.cluster, model.path);
      same != nullptr && (name.empty() || same->id == name)) {
    co_return *same;
  }
  if (const auto other = models.find(model.id); other != models.end()) {
    co_return std::unexpected(taken(model.id, other->second));
  }
  if (!is_fake) {
    auto opened = std::make_shared<Result<ModelRecord>>();
    std::function<void()> job = [opened, path = model.path, id = model.id] { *opened = open_model(path, id); };
    co_await net::run_blocking(std::move(job));
    if (!*opened) co_return std::unexpected(opened->error());
    model = **opened;
  }
  if (dry_run) co_return model;
  co_return co_await store_model(context, std::move(model), std::move(actor));
}

namespace handlers {

net::Task<ApiReply> post_model(ApiContext& context, ApiRequest request) {
  const auto json = read_object(request.body);
  if (!json) co_return reply_error(json.error());
  JsonReader reader(*json, "");
  const std::string path = reader.string("path", 4096);
  const std::string name = reader.string_or("name", "", 256);
  const bool dry_run = reader.boolean_or("dry_run", false);
  reader.refuse_unknown();
  if (!reader.ok()) co_return reply_error(reader.error());
  if (!name.empty()) {
    if (auto sound = check_name(name); !sound) {
      co_return reply_error({ErrorCode::kInvalidArgument, sound.error().reason, "name"});
    }
  }
  const bool known = find_by_path(context.cluster, path) != nullptr;
  auto model = co_await ensure_model(context, path, name, request.actor, dry_run);
  if (!model) co_return reply_error(model.error());
  co_return ApiReply{known || dry_run ? 200 : 201, view_model(context.cluster, *model)};
}

net::Task<ApiReply> delete_model(ApiContext& context, ApiRequest request) {
  const std::string id = request.arguments.front();
  const auto& state = context.cluster.state();
  if (!state.models.contains(id)) {
    co_return reply_error({ErrorCode::kNotFound, "there is no model of this name", printable(id, 128)});
  }
  for (const auto& [name, deployment] : state.deployments) {
    if (deployment.model == id) {
      co_return reply_error({ErrorCode::kConflict, "the deployment " + name + " uses it", id}, "in_use",
                            "aiv down " + name);
    }
  }
  Cluster::Change change = Cluster::Change::of(request.actor, "model.removed", "model/" + id);
  change.txn.compares.push_back(context.cluster.still_as_known(kModelPrefix + id));
  change.txn.ops.push_back(Op::erase(kModelPrefix + id));
  change.events.emplace_back(event::ModelErased{id});
  auto stored = co_await context.cluster.change(std::move(change));
  co_return reply_changed("id", id, stored);
}

}  // namespace handlers
}  // namespace aiv::controller
