#include "gateway/public_api.hpp"

#include <fmt/format.h>

#include <charconv>
#include <utility>

#include "base/host.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "base/units.hpp"
#include "gateway/assets.hpp"
#include "gateway/pipe.hpp"
#include "wire/documents.hpp"

namespace aiv::gateway {
namespace {

constexpr std::size_t kDiscardable = std::size_t{64} << 10;

bool is_api_path(std::string_view path) {
  return path.starts_with("/v1/") || path == "/v1" || path.starts_with("/aiv/") || path == "/aiv" ||
         path.starts_with("/api/") || path == "/api" || path == "/health" || path == "/metrics";
}

std::string_view host_without_port(std::string_view host) {
  if (host.starts_with('[')) {
    const std::size_t end = host.find(']');
    return end == std::string_view::npos ? host : host.substr(0, end + 1);
  }
  return host.substr(0, host.rfind(':') == std::string_view::npos ? host.size() : host.rfind(':'));
}

}  // namespace

std::size_t announced_length(const net::Headers& headers) {
  const std::string* text = net::find_header(headers, "content-length");
  std::size_t length = 0;
  if (text != nullptr) std::from_chars(text->data(), text->data() + text->size(), length);
  return length;
}

bool host_is_local(std::string_view host) {
  const std::string_view name = host_without_port(host);
  if (name == "localhost" || name.ends_with(".localhost") || name.starts_with('[')) return true;
  // A literal IPv4 address cannot be rebound by a name server.
  return !name.empty() && name.find_first_not_of("0123456789.") == std::string_view::npos;
}

bool same_origin(const net::Headers& headers) {
  const std::string* origin = net::find_header(headers, "origin");
  if (origin == nullptr) return true;
  const std::string* host = net::find_header(headers, "host");
  if (host == nullptr) return false;
  const std::size_t scheme = origin->find("://");
  return scheme != std::string::npos && std::string_view(*origin).substr(scheme + 3) == *host;
}

std::string echoed_request_id(const net::Headers& headers) {
  const std::string* id = net::find_header(headers, "x-request-id");
  if (id == nullptr || id->empty() || id->size() > 128) return {};
  for (const char c : *id) {
    if (c < '!' || c > '~') return {};
  }
  return *id;
}

net::Task<> PublicApi::handle(net::ExchangePtr exchange) {
  const net::RequestHead& head = exchange->request();
  Context context{.exchange = exchange,
                  .caller = {},
                  .request_id = state_.next_request_id(),
                  .arrived = net::Clock::now(),
                  .headers = {},
                  .record = {},
                  .model = {},
                  .replica = {},
                  .end = {},
                  .family = family_of(head.path, head.headers)};
  context.headers.push_back({"x-request-id", context.request_id});
  if (std::string echoed = echoed_request_id(head.headers); !echoed.empty()) {
    context.headers.push_back({"x-client-request-id", std::move(echoed)});
  }
  // Anthropic's clients look for it under this name.
  if (context.family == ApiFamily::kAnthropic) context.headers.push_back({"request-id", context.request_id});
  state_.metrics.requests += 1;
  context.record.id = context.request_id;
  context.record.method = head.method;
  context.record.path = head.path;
  co_await serve(context);
  finish_record(context);
}

void PublicApi::finish_record(Context& context) {
  AccessRecord& record = context.record;
  state_.metrics.responses_by_status[record.status] += 1;
  if (!state_.options.access_log) return;
  record.unix_ms = unix_ms();
  record.model = context.model;
  record.replica = context.replica;
  record.end = context.end;
  record.key_id = context.caller.key_id;
  record.total_ms = std::chrono::duration<double, std::milli>(net::Clock::now() - context.arrived).count();
  state_.access_log.record(record);
}

// Not a coroutine, as dispatch(): each stream would keep a frame with room for every error that could have been told.
net::Task<> PublicApi::serve(Context& context) {
  const net::RequestHead& head = context.exchange->request();
  const bool cross_origin = state_.cors.allows(head);
  if (cross_origin) state_.cors.add_headers(head, context.headers);
  if (!cross_origin && !same_origin(head.headers)) {
    return refuse(context, forbidden("Requests from pages of another origin are not accepted."));
  }
  // Without keys the loopback address is all that protects: a page on the web must not reach it by a name of its own.
  if (!state_.options.auth && !host_is_local(net::header_or(head.headers, "host", ""))) {
    return refuse(context, forbidden("Without authentication the server is reached by address or 'localhost' only."));
  }
  // Asked by the browser itself, without a key.
  if (auto preflight = cross_origin ? Cors::preflight(head) : std::nullopt) {
    return answer_preflight(context, std::move(*preflight));
  }
  if (state_.draining && head.path != "/metrics") {
    ApiError error = overloaded("The server is shutting down.", "draining", 5);
    error.close = true;
    return refuse(context, std::move(error));
  }
  const ApiMatch match = match_api(head.method, head.path);
  if (match.rule == nullptr && !match.path_known && !is_api_path(head.path)) return page(context);
  auto caller = authenticate(head.headers, *state_.routes.current(), state_.options.auth, unix_ms());
  const bool is_public = match.rule != nullptr && match.rule->access == Access::kPublic;
  if (caller) {
    context.caller = std::move(*caller);
  } else if (!is_public) {
    return refuse(context, std::move(caller.error()));
  }
  if (!is_public && !context.caller.known) return refuse(context, unauthorized());
  if (match.rule == nullptr) {
    ApiError error = match.path_known ? method_not_allowed(head.method, head.path, match.allowed)
                                      : not_found(head.method, head.path);
    return refuse(context, std::move(error));
  }
  if (!allowed(match.rule->access, context.caller.known, context.caller.role)) {
    return refuse(context, forbidden("This key's role (" + std::string(wire::to_string(context.caller.role)) +
                                                 ") does not allow " + head.method + " " + printable(head.path, 120) + "."));
  }
  return dispatch(context, match.rule->route);
}

net::Task<> PublicApi::dispatch(Context& context, ApiRoute route) {
  switch (route) {
    case ApiRoute::kChat:
    case ApiRoute::kCompletions:
    case ApiRoute::kEmbeddings:
    case ApiRoute::kRerank:
    case ApiRoute::kResponses:
    case ApiRoute::kMessages:
    case ApiRoute::kOllamaChat:
    case ApiRoute::kOllamaGenerate:
    case ApiRoute::kOllamaEmbed:
    case ApiRoute::kOllamaEmbedOld: return inference(context, route);
    case ApiRoute::kCountTokens: return count_tokens(context);
    case ApiRoute::kOllamaTags: return ollama_tags(context, false);
    case ApiRoute::kOllamaPs: return ollama_tags(context, true);
    case ApiRoute::kOllamaShow: return ollama_show(context);
    case ApiRoute::kOllamaPull: return ollama_pull(context);
    case ApiRoute::kOllamaVersion: return answer(context, 200, "{\"version\":\"" AIV_VERSION "\"}");
    case ApiRoute::kModels: return list_models(context);
    case ApiRoute::kModel: return show_model(context);
    case ApiRoute::kHealth: return health(context);
    case ApiRoute::kMetrics: return metrics(context);
    case ApiRoute::kUsage: return usage(context);
    case ApiRoute::kController: break;
  }
  return relay_to_controller(context);
}

net::Task<> PublicApi::answer_preflight(Context& context, net::ResponseHead head) {
  context.record.status = head.status;
  for (const net::Header& header : context.headers) head.headers.push_back(header);
  const Result<> started = co_await context.exchange->start(std::move(head));
  if (!started) co_return;
  const Result<> ended = co_await context.exchange->finish();
  static_cast<void>(ended);
}

net::Task<> PublicApi::answer(Context& context, int status, std::string json) {
  context.record.status = status;
  net::ResponseHead head{status, context.headers};
  head.headers.push_back({"content-type", "application/json"});
  const Result<> sent = co_await context.exchange->respond(std::move(head), std::move(json));
  static_cast<void>(sent);
}

net::Task<> PublicApi::refuse(Context& context, ApiError error) {
  const int status = error_status(context.family, error);
  context.record.status = status;
  context.end = error.code;
  // A body that nobody will read: a large one is not worth keeping the connection for.
  if (announced_length(context.exchange->request().headers) > kDiscardable) error.close = true;
  net::ResponseHead head{status, context.headers};
  for (net::Header& header : error_headers(error)) head.headers.push_back(std::move(header));
  std::string body = error_body(context.family, error, context.request_id);
  const Result<> sent = co_await context.exchange->respond(std::move(head), std::move(body));
  static_cast<void>(sent);
}

net::Task<> PublicApi::health(Context& context) {
  // No detail: anybody may ask.
  std::string out = "{\"status\":\"ok\",\"stale\":";
  out += state_.controllers > 0 ? "false" : "true";
  out += state_.options.auth ? ",\"auth\":true}" : ",\"auth\":false}";
  co_await answer(context, 200, std::move(out));
}

net::Task<> PublicApi::metrics(Context& context) {
  const auto nodes = state_.links.nodes();
  const std::string text = metrics_text(state_.metrics, {.dispatcher = state_.dispatcher,
                                                         .connections = state_.connections(),
                                                         .nodes_up = nodes,
                                                         .stale = state_.controllers == 0});
  context.record.status = 200;
  net::ResponseHead head{200, context.headers};
  head.headers.push_back({"content-type", "text/plain; version=0.0.4; charset=utf-8"});
  const Result<> sent = co_await context.exchange->respond(std::move(head), text);
  static_cast<void>(sent);
}

net::Task<> PublicApi::usage(Context& context) {
  const auto asked = net::query_value(context.exchange->request().query, "days");
  int days = 1;
  if (asked) {
    const auto [end, error] = std::from_chars(asked->data(), asked->data() + asked->size(), days);
    if (error != std::errc{} || end != asked->data() + asked->size() || days < 1 || days > kUsageDaysMax) {
      co_return co_await refuse(context, bad_request("'days' must be a whole number from 1 to " + std::to_string(kUsageDaysMax) + ".", "days"));
    }
  }
  const auto by = net::query_value(context.exchange->request().query, "by");
  if (by && !is_usage_group(*by)) co_return co_await refuse(context, bad_request("'by' must be key, team, user or model.", "by"));
  const std::string only = context.caller.role == Role::kUser ? context.caller.key_id : std::string();
  Json items = state_.usage.rows_of_today(only);
  const std::string directory = state_.usage.directory();
  const std::int64_t now = unix_ms();
  std::function<void()> read = [&items, &directory, &only, now, days] {
    for (int back = 1; back < days; ++back) {
      for (Json& row : UsageBook::rows_of_day(directory, utc_day(now - back * std::int64_t{86'400'000}), only)) items.push_back(std::move(row));
    }
  };
  if (days > 1) co_await net::run_blocking(read);
  const RoutesPtr routes = state_.routes.current();
  for (Json& item : items) {
    const RouteKey* key = routes->find_key(item.value("key", ""));
    item["name"] = key != nullptr ? key->name : "";
    if (item["team"].is_null()) item["team"] = key != nullptr ? key->team : "";
  }
  if (by) items = sum_usage(items, *by);
  const Version version = routes->table().version;
  std::string json = dump_json(Json{{"items", std::move(items)}, {"revision", version.rev}});
  co_await answer(context, 200, std::move(json));
}

net::Task<> PublicApi::relay_to_controller(Context& context) {
  const net::RequestHead& head = context.exchange->request();
  // Only our own word on who is asking goes along; of the client's headers just what describes its body.
  net::RequestHead out{.method = head.method, .path = head.path, .query = head.query, .headers = {}};
  out.headers.push_back({"x-aiv-actor", context.caller.key_id.empty() ? "anonymous" : context.caller.key_id});
  out.headers.push_back({"x-aiv-role", context.caller.known ? std::string(wire::to_string(context.caller.role)) : "public"});
  out.headers.push_back({"x-request-id", context.request_id});
  for (const std::string_view passed : {"content-type", "accept", "if-none-match", "if-match", "last-event-id"}) {
    if (const std::string* value = net::find_header(head.headers, passed)) out.headers.push_back({std::string(passed), *value});
  }
  const bool events = head.path.starts_with("/aiv/v1/events");
  PipeOptions options{.body_bytes_max = state_.options.body_bytes_max,
                      .head_time_max = net::seconds(60),
                      .idle_forever = events,
                      .add_to_answer = context.headers};
  const PipeOutcome outcome = co_await pipe_exchange(context.exchange, state_.controller, std::move(out), std::move(options));
  context.record.status = outcome.status;
  if (outcome.status != 0) co_return;
  if (outcome.error.code == ErrorCode::kTooLarge) co_return co_await refuse(context, body_too_large(state_.options.body_bytes_max));
  if (context.exchange->gone()) co_return;
  co_await refuse(context, overloaded("The controller is not available; models keep answering. It is restarted by the server.",
                                      "controller_unavailable", 1));
}

net::Task<> PublicApi::page(Context& context) {
  const net::RequestHead& head = context.exchange->request();
  if (head.method != "GET" && head.method != "HEAD") {
    co_return co_await refuse(context, not_found(head.method, head.path));
  }
  const std::string coding = net::header_or(head.headers, "accept-encoding", "");
  const std::string have = net::header_or(head.headers, "if-none-match", "");
  const std::string accept = net::header_or(head.headers, "accept", "");
  const AssetWishes wishes{.accept_encoding = coding, .if_none_match = have, .accept = accept};
  auto reply = answer_asset(head.path, wishes);
  if (!reply) co_return co_await refuse(context, not_found(head.method, head.path));
  context.record.status = reply->head.status;
  for (const net::Header& header : context.headers) reply->head.headers.push_back(header);
  const Result<> sent = co_await context.exchange->respond(std::move(reply->head), std::string(reply->body));
  static_cast<void>(sent);
}

}  // namespace aiv::gateway
