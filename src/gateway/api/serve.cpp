// Requests that go to an engine: body, translation, checks, model, relay (public_api.hpp).
#include <charconv>
#include <utility>

#include "base/host.hpp"
#include "base/units.hpp"
#include "gateway/api/anthropic.hpp"
#include "gateway/api/embeddings.hpp"
#include "gateway/api/ollama.hpp"
#include "gateway/api/responses.hpp"
#include "gateway/openai_parse.hpp"
#include "gateway/public_api.hpp"
#include "gateway/relay.hpp"
#include "wire/documents.hpp"

namespace aiv::gateway {
namespace {

constexpr net::seconds kCountTokensLimit{15};
constexpr std::size_t kCountAnswerBytesMax = 64 * 1024;

bool is_json(const net::Headers& headers) {
  const std::string* type = net::find_header(headers, "content-type");
  if (type == nullptr) return true;  // curl without -H; what is not JSON is found when it is parsed
  return type->starts_with("application/json") || type->starts_with("application/x-www-form-urlencoded") ||
         type->starts_with("text/plain");
}

// OpenAI's own routes need no translation: their body is read where it lies.
std::optional<Endpoint> own_endpoint(ApiRoute route) {
  switch (route) {
    case ApiRoute::kChat:
      return Endpoint::kChat;
    case ApiRoute::kCompletions:
      return Endpoint::kCompletion;
    case ApiRoute::kEmbeddings:
      return Endpoint::kEmbedding;
    case ApiRoute::kRerank:
      return Endpoint::kRerank;
    default:
      return std::nullopt;
  }
}

Translation translate(ApiRoute route, const std::string& body, const TranslationContext& context) {
  switch (route) {
    case ApiRoute::kMessages:
    case ApiRoute::kCountTokens:
      return translate_anthropic(body, context);
    case ApiRoute::kResponses:
      return translate_responses(body, context);
    case ApiRoute::kOllamaChat:
      return translate_ollama_chat(body, context);
    case ApiRoute::kOllamaGenerate:
      return translate_ollama_generate(body, context);
    case ApiRoute::kOllamaEmbed:
      return translate_ollama_embed(body, context, false);
    case ApiRoute::kOllamaEmbedOld:
      return translate_ollama_embed(body, context, true);
    default:
      return std::unexpected(bad_request("This route takes no body."));
  }
}

struct Prepared {
  CheckedRequest request;
  std::shared_ptr<AnswerForm> form;
};

std::expected<Prepared, ApiError> prepare(ApiRoute route, std::string& body, const std::string& request_id) {
  if (const auto endpoint = own_endpoint(route)) {
    auto request = parse_openai_request(*endpoint, body);
    if (!request) return std::unexpected(std::move(request.error()));
    Prepared prepared{std::move(*request), nullptr};
    if (prepared.request.dimensions > 0) {
      prepared.form = std::make_shared<CutEmbeddingForm>(prepared.request.model, prepared.request.dimensions,
                                                         prepared.request.base64);
    }
    return prepared;
  }
  auto translated = translate(route, body, {.request_id = request_id, .unix_ms = unix_ms});
  if (!translated) return std::unexpected(std::move(translated.error()));
  auto request = parse_openai_request(translated->endpoint, translated->body);
  if (!request) return std::unexpected(std::move(request.error()));
  // A form says its family's usage whether or not it was asked for.
  request->include_usage = true;
  request->report_prompt = translated->want_progress;
  return Prepared{std::move(*request), std::move(translated->form)};
}

// What is reserved for an answer: as much as was asked for, else as much as the model can say.
std::int64_t longest_answer(const CheckedRequest& request, const Model& model) {
  if (request.endpoint == Endpoint::kEmbedding || request.endpoint == Endpoint::kRerank) return 0;
  return request.max_tokens > 0 ? request.max_tokens : model.ctx_per_slot;
}

std::string_view route_for(ModelKind kind) {
  switch (kind) {
    case ModelKind::kChat:
      return "/v1/chat/completions";
    case ModelKind::kEmbedding:
      return "/v1/embeddings";
    case ModelKind::kRerank:
      return "/v1/rerank";
  }
  return {};
}

ModelKind kind_for(Endpoint endpoint) {
  switch (endpoint) {
    case Endpoint::kChat:
    case Endpoint::kCompletion:
      break;
    case Endpoint::kEmbedding:
      return ModelKind::kEmbedding;
    case Endpoint::kRerank:
      return ModelKind::kRerank;
  }
  return ModelKind::kChat;
}

// A caller's trace, if it is one: version 00 of W3C Trace Context, "00-<32 hex>-<16 hex>-<2 hex>". Anything else is dropped.
std::string trace_of(const net::Headers& headers) {
  const std::string* trace = net::find_header(headers, "traceparent");
  if (trace == nullptr || trace->size() != 55 || !trace->starts_with("00-")) return {};
  for (std::size_t i = 3; i < trace->size(); ++i) {
    const bool dash = i == 35 || i == 52;
    if (dash != ((*trace)[i] == '-')) return {};
    if (!dash && std::string_view("0123456789abcdef").find((*trace)[i]) == std::string_view::npos) return {};
  }
  return *trace;
}

}  // namespace

net::Task<std::optional<std::string>> PublicApi::read_json_body(Context& context) {
  const net::RequestHead& head = context.exchange->request();
  const std::size_t limit = state_.options.body_bytes_max;
  if (net::find_header(head.headers, "content-encoding") != nullptr || !is_json(head.headers)) {
    ApiError coded{.status = 415,
                   .type = "invalid_request_error",
                   .code = "unsupported_media_type",
                   .message = "The body must be JSON (content-type: application/json), not compressed."};
    co_await refuse(context, std::move(coded));
    co_return std::nullopt;
  }
  if (announced_length(head.headers) > limit) {
    co_await refuse(context, body_too_large(limit));
    co_return std::nullopt;
  }
  auto body = co_await context.exchange->read_body(limit);
  if (body) co_return std::move(*body);
  ApiError error = bad_request("The body could not be read: " + body.error().reason + ".");
  if (body.error().code == ErrorCode::kTooLarge) error = body_too_large(limit);
  if (body.error().code == ErrorCode::kTimeout) {
    error = {.status = 408,
             .type = "invalid_request_error",
             .code = "request_timeout",
             .message = "The body did not arrive in time."};
    error.close = true;
  }
  co_await refuse(context, std::move(error));
  co_return std::nullopt;
}

std::expected<ModelPtr, ApiError> PublicApi::model_for(const Context& context, const std::string& name,
                                                       Endpoint endpoint) const {
  const RoutesPtr routes = state_.routes.current();
  const RouteModel* route = routes->find_model(name);
  const RouteKey* key = routes->find_key(context.caller.key_id);
  ModelPtr model =
      route != nullptr && key_allows(key, route->name) ? state_.dispatcher.find(route->name) : nullptr;
  if (!model) {
    std::vector<std::string> names;
    for (const RouteModel* each : models_of(context, *routes)) names.push_back(each->name);
    return std::unexpected(model_not_found(name, names));
  }
  if (route->kind != kind_for(endpoint)) {
    return std::unexpected(bad_request("The model '" + model->name + "' does not do this: it is of kind " +
                                           std::string(wire::to_string(route->kind)) + "; use " +
                                           std::string(route_for(route->kind)) + ".",
                                       "model"));
  }
  return model;
}

struct PublicApi::Inference {
  Inference(GatewayState& state, InferenceCall call) : relay(state, std::move(call)) {}
  QuotaBook::TicketPtr ticket;
  std::string user;
  std::string team;
  std::int64_t prompt_estimate = 0;  // tokens
  ModelPtr model;
  Relay relay;
};

// The body and whatever else only the beginning needs is gone while the answer streams: nothing here but the job waits
// with it.
net::Task<> PublicApi::inference(Context& context, ApiRoute route) {
  std::unique_ptr<Inference> job;
  {
    auto body = co_await read_json_body(context);
    if (!body) co_return;
    job = take_in(context, route, std::move(*body));
  }
  if (!job) co_return co_await not_taken_in(context);
  co_await job->relay.run();
  note_result(context, *job);
}

net::Task<> PublicApi::not_taken_in(Context& context) {
  if (context.refusal) return refuse(context, std::move(*context.refusal));
  return answer(context, 200, std::move(context.ready_answer));
}

// nullptr: the context says why not, or has the answer already.
std::unique_ptr<PublicApi::Inference> PublicApi::take_in(Context& context, ApiRoute route, std::string body) {
  const auto refused = [&context](ApiError error) {
    context.refusal = std::make_unique<ApiError>(std::move(error));
    return nullptr;
  };
  if (route == ApiRoute::kOllamaChat || route == ApiRoute::kOllamaGenerate) {
    context.ready_answer = ollama_load_answer(body, route == ApiRoute::kOllamaChat, unix_ms());
    if (!context.ready_answer.empty()) {
      const auto said = parse_json(context.ready_answer);
      const std::string name = said ? said->value("model", "") : std::string();
      const RoutesPtr routes = state_.routes.current();
      const RouteModel* known = routes->find_model(name);
      if (known != nullptr && key_allows(routes->find_key(context.caller.key_id), known->name)) return nullptr;
      auto missing = model_for(context, name, Endpoint::kChat);
      if (!missing) return refused(std::move(missing.error()));
    }
  }
  auto prepared = prepare(route, body, context.request_id);
  if (!prepared) return refused(std::move(prepared.error()));
  CheckedRequest& request = prepared->request;
  auto model = model_for(context, request.model, request.endpoint);
  if (!model) return refused(std::move(model.error()));
  if (const auto fits = check_against_context(request, (*model)->ctx_per_slot); !fits) {
    return refused(bad_request("'" + fits.error().where + "' " + fits.error().reason + ".", fits.error().where));
  }
  const net::Headers& sent = context.exchange->request().headers;
  std::string user = net::header_or(sent, "x-openwebui-user-id", request.user);
  const double estimate = static_cast<double>(request.prompt_bytes) * (*model)->tokens_per_byte.value();
  const auto prompt_estimate = static_cast<std::int64_t>(estimate) + 1;
  const RoutesPtr routes = state_.routes.current();
  const RouteKey* key = routes->find_key(context.caller.key_id);
  auto ticket = state_.quotas.admit(key, *routes, prompt_estimate + longest_answer(request, **model), quota_now());
  for (net::Header& header : state_.quotas.headers(key, quota_now())) context.headers.push_back(std::move(header));
  if (!ticket) {
    state_.metrics.model((*model)->name).failures_by_code["rate_limit_exceeded"] += 1;
    return refused(quota_exceeded(ticket.error()));
  }
  if (request.stream) request.body.shrink_to_fit();  // kept until the stream's end, for a continuation
  const std::string* debug = net::find_header(sent, "x-aiv-debug");
  auto job = std::make_unique<Inference>(
      state_, InferenceCall{.exchange = context.exchange,
                            .key_id = context.caller.key_id,
                            .tenant = context.caller.tenant,
                            .request = std::move(request),
                            .model = *model,
                            .request_id = context.request_id,
                            .trace = trace_of(sent),
                            .arrived = context.arrived,
                            .headers = std::move(context.headers),
                            .debug = debug != nullptr && *debug == "1" && context.caller.role == Role::kAdmin,
                            .form = std::move(prepared->form)});
  job->ticket = std::move(*ticket);
  job->user = std::move(user);
  if (key != nullptr) job->team = key->team;
  job->prompt_estimate = prompt_estimate;
  job->model = std::move(*model);
  return job;
}

void PublicApi::note_result(Context& context, Inference& job) {
  const RelayResult& result = job.relay.result();
  AccessRecord& record = context.record;
  record.status = result.status;
  record.attempts = result.attempts;
  record.queue_ms = result.queue_ms;
  record.first_token_ms = result.first_token_ms;
  record.prompt_tokens = result.usage.prompt_tokens + result.usage.cached_tokens;
  record.generated_tokens = result.usage.generated_tokens;
  context.model = job.model->name;
  context.replica = result.replica;
  context.end = result.end;
  record.resumes = result.resumes;
  // Of an answer that never came to its end the engine has not said how long the prompt was.
  const bool worked = result.usage.generated_tokens > 0 || record.prompt_tokens > 0;
  const std::int64_t prompt_tokens = record.prompt_tokens > 0 || !worked ? record.prompt_tokens : job.prompt_estimate;
  job.ticket->used(prompt_tokens + record.generated_tokens);
  state_.usage.add({context.caller.key_id, std::move(job.user), context.model, std::move(job.team)},
                   {.requests = 1, .prompt_tokens = prompt_tokens, .generated_tokens = record.generated_tokens}, unix_ms());
}

// How many tokens a prompt has is asked of any replica, besides its slots: nothing is generated.
net::Task<> PublicApi::count_tokens(Context& context) {
  auto body = co_await read_json_body(context);
  if (!body) co_return;
  auto prepared = prepare(ApiRoute::kCountTokens, *body, context.request_id);
  if (!prepared) co_return co_await refuse(context, std::move(prepared.error()));
  auto model = model_for(context, prepared->request.model, Endpoint::kChat);
  if (!model) co_return co_await refuse(context, std::move(model.error()));
  prepared->request.stream = false;
  const std::string question = engine_body(prepared->request, -1, true);
  const std::vector<ReplicaPtr> replicas = (*model)->replicas;
  std::string why = "no replica is ready yet";
  for (const ReplicaPtr& replica : replicas) {
    const net::H2Ptr link = state_.links.find(replica->node);
    if (!link) continue;
    net::RequestHead head{
        .method = "POST",
        .path = "/node/v1/replicas/" + replica->id + "/v1/chat/completions/input_tokens",
        .query = {},
        .headers = {{"content-type", "application/json"}, {"x-request-id", context.request_id}}};
    const auto deadline = net::Clock::now() + kCountTokensLimit;
    std::string text = question;
    auto opened = co_await link->open(std::move(head), std::move(text));
    if (!opened) continue;
    auto answered = co_await (*opened)->head(deadline);
    if (!answered) continue;
    const auto said = co_await (*opened)->read_body(kCountAnswerBytesMax, deadline);
    if (!said) continue;
    if (answered->status != 200) {
      ApiError error = from_engine_error(answered->status, *said);
      if (error.status >= 400 && error.status < 500) co_return co_await refuse(context, std::move(error));
      why = "the replica could not say it";
      continue;
    }
    const auto tokens = find_json_number(*said, "input_tokens");
    if (!tokens) continue;
    context.model = (*model)->name;
    context.replica = replica->id;
    std::string json = "{\"input_tokens\":" + std::to_string(static_cast<std::int64_t>(*tokens)) + "}";
    co_return co_await answer(context, 200, std::move(json));
  }
  co_await refuse(context,
                  overloaded("The tokens of this prompt cannot be counted now: " + why + ".", "loading", 5));
}

}  // namespace aiv::gateway
