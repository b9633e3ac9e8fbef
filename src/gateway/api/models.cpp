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

Json ollama_details(const RouteModel& model) {
  return {{"parent_model", ""},
          {"format", "gguf"},
          {"family", model.kind == ModelKind::kChat ? "chat" : std::string(wire::to_string(model.kind))},
          {"families", nullptr},
          {"parameter_size", ""},
          {"quantization_level", ""}};
}

Json ollama_model(const RouteModel& model) {
  const std::string name = tagged(model.name);
  return {{"name", name},
          {"model", name},
          {"modified_at", rfc3339(model.created_ms)},
          {"size", 0},
          // Clients cut it to twelve digits without looking; ours is of the name, for the file's is the
          // controller's affair.
          {"digest", sha256_hex(model.name)},
          {"details", ollama_details(model)}};
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
  const RoutesPtr routes = state_.routes.current();
  Json list = Json::array();
  for (const RouteModel* model : models_of(context, *routes)) {
    if (running && model->replicas.empty()) continue;
    Json entry = ollama_model(*model);
    if (running) {
      entry["expires_at"] = rfc3339(unix_ms() + kYearMs);
      entry["size_vram"] = 0;
      entry["context_length"] = model->ctx_per_slot;
    }
    list.push_back(std::move(entry));
  }
  Json out;
  out["models"] = std::move(list);
  std::string text = dump_json(out);
  co_await answer(context, 200, std::move(text));
}

net::Task<> PublicApi::ollama_show(Context& context) {
  const auto body = co_await read_json_body(context);
  if (!body) co_return;
  const auto json = read_object(*body);
  if (!json) co_return co_await refuse(context, json.error());
  const std::string name = name_in(*json);
  const RoutesPtr routes = state_.routes.current();
  const RouteModel* model = routes->find_model(name);
  if (model == nullptr || !key_allows(routes->find_key(context.caller.key_id), model->name)) {
    co_return co_await refuse(context, model_not_found(name, {}));
  }
  Json capabilities = Json::array();
  capabilities.push_back(model->kind == ModelKind::kChat ? "completion"
                                                         : std::string(wire::to_string(model->kind)));
  if (model->kind == ModelKind::kChat) capabilities.push_back("tools");
  Json out{{"modelfile", "FROM " + model->name},
           {"parameters", ""},
           {"template", ""},
           {"details", ollama_details(*model)},
           {"model_info", {{"general.architecture", "aiv"}, {"aiv.context_length", model->ctx_per_slot}}},
           {"capabilities", std::move(capabilities)},
           {"modified_at", rfc3339(model->created_ms)}};
  std::string text = dump_json(out);
  co_await answer(context, 200, std::move(text));
}

// What is deployed is there; placing something new is an operator's decision and not a client's request.
net::Task<> PublicApi::ollama_pull(Context& context) {
  const auto body = co_await read_json_body(context);
  if (!body) co_return;
  const auto json = read_object(*body);
  if (!json) co_return co_await refuse(context, json.error());
  const std::string name = name_in(*json);
  const RoutesPtr routes = state_.routes.current();
  const RouteModel* model = routes->find_model(name);
  if (model == nullptr || !key_allows(routes->find_key(context.caller.key_id), model->name)) {
    ApiError error = model_not_found(name, {});
    error.message = "pull model manifest: file does not exist: '" + printable(name, 128) +
                    "' is not deployed here; an operator deploys models with 'aiv up'.";
    co_return co_await refuse(context, std::move(error));
  }
  const bool stream =
      !json->contains("stream") || !(*json)["stream"].is_boolean() || (*json)["stream"].get<bool>();
  if (!stream) co_return co_await answer(context, 200, "{\"status\":\"success\"}");
  context.record.status = 200;
  net::ResponseHead head{200, context.headers};
  head.headers.push_back({"content-type", "application/x-ndjson"});
  const Result<> sent = co_await context.exchange->respond(
      std::move(head), "{\"status\":\"pulling manifest\"}\n{\"status\":\"success\"}\n");
  static_cast<void>(sent);
}

}  // namespace aiv::gateway
