// What there is to talk to, in each family's words (public_api.hpp).
#include <fmt/format.h>

#include "base/hash.hpp"
#include "base/host.hpp"
#include "base/json.hpp"
#include "base/units.hpp"
#include "gateway/api/ollama.hpp"
#include "gateway/public_api.hpp"
#include "wire/documents.hpp"

namespace aiv::gateway {
namespace {

constexpr std::int64_t kYearMs = std::int64_t{365} * 24 * 3600 * 1000;

std::string model_json(const RouteModel& model, std::string_view name) {
  std::string out = "{\"id\":";
  append_json_string(out, name);
  out += fmt::format(",\"object\":\"model\",\"created\":{},\"owned_by\":\"aivailable\",\"aiv\":{{\"state\":",
                     model.created_ms / 1000);
  append_json_string(out, model.state);
  out += ",\"kind\":";
  append_json_string(out, wire::to_string(model.kind));
  out += fmt::format(",\"replicas\":{},\"ctx\":{}}}}}", model.replicas.size(), model.ctx_per_slot);
  return out;
}

Json anthropic_model(const RouteModel& model) {
  return {{"type", "model"},
          {"id", model.name},
          {"display_name", model.name},
          {"created_at", rfc3339(model.created_ms)}};
}

// Ollama's names have a tag.
std::string tagged(const std::string& name) {
  return name.contains(':') ? name : name + ":latest";
}

// What the family is told of a file; zeros and empty words where nobody knows (no controller since the start).
struct FileFacts {
  ModelFacts file;
  std::int64_t vram_bytes = 0;  // of one replica
};

FileFacts facts_of(const ModelBook::Page& page, const RouteModel& model) {
  FileFacts out;
  if (const auto found = page.facts.find(model.model); found != page.facts.end()) out.file = found->second;
  if (const auto found = page.vram.find(model.name); found != page.vram.end()) out.vram_bytes = found->second;
  // Clients cut it to twelve digits without looking, so there must be one: until the file's is known, that of the name.
  if (out.file.digest.empty()) out.file.digest = sha256_hex(model.name);
  if (out.file.architecture.empty()) out.file.architecture = wire::to_string(model.kind);
  return out;
}

Json ollama_details(const FileFacts& facts) {
  return {{"parent_model", ""},
          {"format", "gguf"},
          {"family", facts.file.architecture},
          {"families", Json::array({facts.file.architecture})},
          {"parameter_size", parameter_size(facts.file.parameters)},
          {"quantization_level", facts.file.quantisation}};
}

Json ollama_model(const RouteModel& model, const FileFacts& facts) {
  const std::string name = tagged(model.name);
  return {{"name", name},
          {"model", name},
          {"modified_at", rfc3339(model.created_ms)},
          {"size", facts.file.size_bytes},
          {"digest", facts.file.digest},
          {"details", ollama_details(facts)}};
}

std::string name_in(const Json& body) {
  for (const char* key : {"model", "name"}) {
    if (body.contains(key) && body[key].is_string()) return body[key].get<std::string>();
  }
  return {};
}

}  // namespace

PublicApi::ModelList PublicApi::models_of(const Context& context, const Routes& routes) const {
  const RouteKey* key = routes.find_key(context.caller.key_id);
  ModelList out;
  for (const RouteModel& model : routes.table().models) {
    if (key_allows(key, model.name)) out.push_back(&model);
  }
  return out;
}

net::Task<> PublicApi::list_models(Context& context) {
  const RoutesPtr routes = state_.routes.current();
  const ModelList models = models_of(context, *routes);
  if (context.family == ApiFamily::kAnthropic) {
    Json data = Json::array();
    for (const RouteModel* model : models) data.push_back(anthropic_model(*model));
    Json out{{"data", data}, {"has_more", false}};
    out["first_id"] = models.empty() ? Json(nullptr) : Json(models.front()->name);
    out["last_id"] = models.empty() ? Json(nullptr) : Json(models.back()->name);
    std::string text = dump_json(out);
    co_return co_await answer(context, 200, std::move(text));
  }
  std::string out = "{\"object\":\"list\",\"data\":[";
  for (const RouteModel* model : models) {
    if (out.back() != '[') out += ',';
    out += model_json(*model, model->name);
  }
  out += "]}";
  co_await answer(context, 200, std::move(out));
}

net::Task<> PublicApi::show_model(Context& context) {
  const RoutesPtr routes = state_.routes.current();
  const RouteKey* key = routes->find_key(context.caller.key_id);
  const std::string name = context.exchange->request().path.substr(std::string_view("/v1/models/").size());
  const RouteModel* model = routes->find_model(name);
  if (model == nullptr || !key_allows(key, model->name))
    co_return co_await refuse(context, model_not_found(name, {}));
  std::string text = model_json(*model, name);
  if (context.family == ApiFamily::kAnthropic) text = dump_json(anthropic_model(*model));
  co_await answer(context, 200, std::move(text));
}

// /api/tags: all; /api/ps: those that answer now. Nothing is unloaded for idleness, so "expires" is a year
// away.
net::Task<> PublicApi::ollama_tags(Context& context, bool running) {
  const auto known = co_await models_.read(state_.controller);
  const RoutesPtr routes = state_.routes.current();
  Json list = Json::array();
  for (const RouteModel* model : models_of(context, *routes)) {
    if (running && model->replicas.empty()) continue;
    const FileFacts facts = facts_of(*known, *model);
    Json entry = ollama_model(*model, facts);
    if (running) {
      entry["expires_at"] = rfc3339(unix_ms() + kYearMs);
      entry["size_vram"] = facts.vram_bytes;
      entry["context_length"] = model->ctx_per_slot;
    }
    list.push_back(std::move(entry));
  }
  Json out;
  out["models"] = std::move(list);
  std::string text = dump_json(out);
  co_await answer(context, 200, std::move(text));
}

// Nothing where the body was no JSON object and the client has been told.
net::Task<std::optional<PublicApi::NamedModel>> PublicApi::read_named_model(Context& context) {
  const auto body = co_await read_json_body(context);
  if (!body) co_return std::nullopt;
  auto json = read_object(*body);
  if (!json) {
    co_await refuse(context, json.error());
    co_return std::nullopt;
  }
  NamedModel asked;
  asked.body = std::move(*json);
  asked.name = name_in(asked.body);
  asked.routes = state_.routes.current();
  asked.model = asked.routes->find_model(asked.name);
  if (asked.model != nullptr && !key_allows(asked.routes->find_key(context.caller.key_id), asked.model->name)) asked.model = nullptr;
  co_return std::move(asked);
}

net::Task<> PublicApi::ollama_show(Context& context) {
  const std::optional<NamedModel> asked = co_await read_named_model(context);
  if (!asked) co_return;
  const RouteModel* model = asked->model;
  if (model == nullptr) co_return co_await refuse(context, model_not_found(asked->name, {}));
  const auto known = co_await models_.read(state_.controller);
  const FileFacts facts = facts_of(*known, *model);
  const std::string& architecture = facts.file.architecture;
  Json info{{"general.architecture", architecture},
            {"general.parameter_count", facts.file.parameters},
            {architecture + ".context_length", model->ctx_per_slot}};
  Json capabilities = Json::array();
  capabilities.push_back(model->kind == ModelKind::kChat ? "completion"
                                                         : std::string(wire::to_string(model->kind)));
  if (model->kind == ModelKind::kChat) capabilities.push_back("tools");
  Json out{{"modelfile", "FROM " + model->name},
           {"parameters", ""},
           {"template", ""},
           {"details", ollama_details(facts)},
           {"model_info", std::move(info)},
           {"capabilities", std::move(capabilities)},
           {"modified_at", rfc3339(model->created_ms)}};
  std::string text = dump_json(out);
  co_await answer(context, 200, std::move(text));
}

// What is deployed is there; placing something new is an operator's decision and not a client's request.
net::Task<> PublicApi::ollama_pull(Context& context) {
  const std::optional<NamedModel> asked = co_await read_named_model(context);
  if (!asked) co_return;
  if (asked->model == nullptr) {
    ApiError error = model_not_found(asked->name, {});
    error.message = "pull model manifest: file does not exist: '" + printable(asked->name, 128) +
                    "' is not deployed here; an operator deploys models with 'aiv up'.";
    co_return co_await refuse(context, std::move(error));
  }
  const Json& wanted = field(asked->body, "stream");
  const bool stream = !wanted.is_boolean() || wanted.get<bool>();
  if (!stream) co_return co_await answer(context, 200, "{\"status\":\"success\"}");
  context.record.status = 200;
  net::ResponseHead head{200, context.headers};
  head.headers.push_back({"content-type", "application/x-ndjson"});
  const Result<> sent = co_await context.exchange->respond(
      std::move(head), "{\"status\":\"pulling manifest\"}\n{\"status\":\"success\"}\n");
  static_cast<void>(sent);
}

}  // namespace aiv::gateway
