#include "controller/api.hpp"

#include <array>

#include "base/log.hpp"
#include "base/units.hpp"
#include "wire/documents.hpp"

namespace aiv::controller {

namespace {

namespace h = handlers;

// Deny by default: what is not here does not exist. The exact paths stand before the patterns that would match them.
constexpr std::array kRoutes{
    ApiRoute{"GET", "/aiv/v1/version", Access::kPublic, h::get_version},
    ApiRoute{"GET", "/aiv/v1/openapi.json", Access::kPublic, h::get_openapi},
    ApiRoute{"GET", "/aiv/v1/status", Access::kOperator, h::get_status},
    ApiRoute{"GET", "/aiv/v1/nodes", Access::kOperator, h::list_nodes, Stream::kItems},
    ApiRoute{"GET", "/aiv/v1/nodes/{id}", Access::kOperator, h::get_node},
    ApiRoute{"PATCH", "/aiv/v1/nodes/{id}", Access::kOperator, h::patch_node},
    ApiRoute{"DELETE", "/aiv/v1/nodes/{id}", Access::kAdmin, h::delete_node},
    ApiRoute{"GET", "/aiv/v1/devices", Access::kOperator, h::list_devices, Stream::kItems},
    ApiRoute{"GET", "/aiv/v1/devices/{id*}", Access::kOperator, h::get_device},
    ApiRoute{"PATCH", "/aiv/v1/devices/{id*}", Access::kOperator, h::patch_device},
    ApiRoute{"GET", "/aiv/v1/replicas", Access::kOperator, h::list_replicas, Stream::kItems},
    ApiRoute{"GET", "/aiv/v1/replicas/{id}", Access::kOperator, h::get_replica},
    ApiRoute{"GET", "/aiv/v1/replicas/{id}/log", Access::kOperator, h::get_replica_log},
    ApiRoute{"GET", "/aiv/v1/models", Access::kOperator, h::list_models, Stream::kItems},
    ApiRoute{"POST", "/aiv/v1/models", Access::kOperator, h::post_model},
    ApiRoute{"GET", "/aiv/v1/models/{id*}", Access::kOperator, h::get_model},
    ApiRoute{"DELETE", "/aiv/v1/models/{id*}", Access::kOperator, h::delete_model},
    ApiRoute{"GET", "/aiv/v1/deployments", Access::kOperator, h::list_deployments, Stream::kItems},
    ApiRoute{"POST", "/aiv/v1/deployments", Access::kOperator, h::post_deployment},
    ApiRoute{"GET", "/aiv/v1/deployments/{name*}", Access::kOperator, h::get_deployment},
    ApiRoute{"PATCH", "/aiv/v1/deployments/{name*}", Access::kOperator, h::patch_deployment},
    ApiRoute{"DELETE", "/aiv/v1/deployments/{name*}", Access::kOperator, h::delete_deployment},
    ApiRoute{"GET", "/aiv/v1/keys", Access::kAdmin, h::list_keys, Stream::kItems},
    ApiRoute{"POST", "/aiv/v1/keys", Access::kAdmin, h::post_key},
    ApiRoute{"GET", "/aiv/v1/keys/{id}", Access::kAdmin, h::get_key},
    ApiRoute{"PATCH", "/aiv/v1/keys/{id}", Access::kAdmin, h::patch_key},
    ApiRoute{"DELETE", "/aiv/v1/keys/{id}", Access::kAdmin, h::delete_key},
    ApiRoute{"GET", "/aiv/v1/teams", Access::kAdmin, h::list_teams, Stream::kItems},
    ApiRoute{"POST", "/aiv/v1/teams", Access::kAdmin, h::post_team},
    ApiRoute{"GET", "/aiv/v1/teams/{name*}", Access::kAdmin, h::get_team},
    ApiRoute{"PATCH", "/aiv/v1/teams/{name*}", Access::kAdmin, h::patch_team},
    ApiRoute{"DELETE", "/aiv/v1/teams/{name*}", Access::kAdmin, h::delete_team},
    ApiRoute{"GET", "/aiv/v1/tokens", Access::kAdmin, h::list_tokens, Stream::kItems},
    ApiRoute{"POST", "/aiv/v1/tokens", Access::kAdmin, h::post_token},
    ApiRoute{"GET", "/aiv/v1/tokens/{id}", Access::kAdmin, h::get_token},
    ApiRoute{"DELETE", "/aiv/v1/tokens/{id}", Access::kAdmin, h::delete_token},
    ApiRoute{"GET", "/aiv/v1/plans", Access::kOperator, h::list_plans},
    ApiRoute{"POST", "/aiv/v1/plans", Access::kOperator, h::post_plan},
    ApiRoute{"GET", "/aiv/v1/audit", Access::kAdmin, h::list_audit},
    ApiRoute{"GET", "/aiv/v1/events", Access::kOperator, h::list_events, Stream::kEvents},
};

std::vector<std::string_view> segments_of(std::string_view path) {
  std::vector<std::string_view> out;
  while (!path.empty()) {
    path.remove_prefix(path.front() == '/' ? 1 : 0);
    const std::size_t end = std::min(path.find('/'), path.size());
    out.push_back(path.substr(0, end));
    path.remove_prefix(end);
  }
  return out;
}

bool matches(std::string_view pattern, std::string_view path, std::vector<std::string>& arguments) {
  arguments.clear();
  const auto want = segments_of(pattern);
  const auto have = segments_of(path);
  for (std::size_t i = 0; i < want.size(); ++i) {
    if (i >= have.size() || have[i].empty()) return false;
    if (want[i].starts_with('{') && want[i].ends_with("*}")) {
      const auto offset = static_cast<std::size_t>(have[i].data() - path.data());
      arguments.emplace_back(path.substr(offset));
      return true;
    }
    if (want[i].starts_with('{')) {
      arguments.emplace_back(have[i]);
    } else if (want[i] != have[i]) {
      return false;
    }
  }
  return want.size() == have.size();
}

// The caller's role as the gateway has it; nobody without one.
Access access_of(const net::Headers& headers) {
  const auto role = wire::role_from_string(net::header_or(headers, "x-aiv-role", ""));
  if (!role) return Access::kPublic;
  switch (*role) {
    case Role::kUser: return Access::kUser;
    case Role::kOperator: return Access::kOperator;
    case Role::kAdmin: return Access::kAdmin;
  }
  return Access::kPublic;
}

std::string_view code_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument: return "invalid_argument";
    case ErrorCode::kNotFound: return "not_found";
    case ErrorCode::kRefused: return "refused";
    case ErrorCode::kUnauthorized: return "unauthorized";
    case ErrorCode::kConflict: return "conflict";
    case ErrorCode::kUnavailable: return "unavailable";
    case ErrorCode::kTimeout: return "timeout";
    case ErrorCode::kCancelled: return "cancelled";
    case ErrorCode::kCorrupt: return "corrupt";
    case ErrorCode::kTooLarge: return "too_large";
    case ErrorCode::kIo: return "io";
    case ErrorCode::kInternal: return "internal";
  }
  return "internal";
}

int status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kCorrupt: return 400;
    case ErrorCode::kNotFound: return 404;
    case ErrorCode::kRefused: return 422;
    case ErrorCode::kUnauthorized: return 401;
    case ErrorCode::kConflict: return 409;
    case ErrorCode::kUnavailable: return 503;
    case ErrorCode::kTimeout: return 504;
    case ErrorCode::kTooLarge: return 413;
    case ErrorCode::kCancelled:
    case ErrorCode::kIo:
    case ErrorCode::kInternal: return 500;
  }
  return 500;
}

ApiReply reply_of(int status, std::string_view code, std::string message, std::string try_this = {}) {
  ApiReply reply;
  reply.status = status;
  reply.body["error"]["code"] = code;
  reply.body["error"]["message"] = std::move(message);
  if (!try_this.empty()) reply.body["error"]["try"] = std::move(try_this);
  return reply;
}

bool wants_stream(const net::RequestHead& head) {
  return net::header_or(head.headers, "accept", "").contains("text/event-stream") ||
         net::query_value(head.query, "stream").value_or("") == "1";
}

net::Task<> send(net::ExchangePtr exchange, ApiReply reply) {
  net::Headers extra{{"cache-control", "no-store"}};
  if (reply.status == 503) extra.push_back({"retry-after", "1"});
  const auto sent = co_await exchange->respond_json(reply.status, dump_json(reply.body), std::move(extra));
  if (!sent) log_debug("api.caller_gone", {{"reason", sent.error().message()}});
}

}  // namespace

std::span<const ApiRoute> api_routes() { return kRoutes; }

std::string_view to_string(Access access) {
  switch (access) {
    case Access::kPublic: return "public";
    case Access::kUser: return "user";
    case Access::kOperator: return "operator";
    case Access::kAdmin: return "admin";
  }
  return "admin";
}

ApiReply reply_error(const Error& error, std::string_view code, std::string_view try_this) {
  ApiReply reply = reply_of(status_of(error.code), code.empty() ? code_of(error.code) : code, error.message(),
                            std::string(try_this));
  // Whether the change was made: "none" or, when the disk did not say, "unknown".
  if (error.code == ErrorCode::kUnavailable && (error.where == "none" || error.where == "unknown")) {
    reply.body["error"]["message"] = error.reason;
    reply.body["error"]["outcome"] = error.where;
  }
  return reply;
}

Result<Json> read_object(const std::string& body) {
  auto json = parse_json(body);
  if (json && !json->is_object()) return fail(ErrorCode::kInvalidArgument, "the body must be a JSON object");
  return json;
}

ApiReply reply_changed(const char* key, const std::string& value, const Result<std::int64_t>& revision) {
  if (!revision) return reply_error(revision.error());
  Json body;
  body[key] = value;
  body["revision"] = *revision;
  return ApiReply{200, std::move(body)};
}

ApiReply reply_list(const ApiContext& context, Json items) {
  ApiReply reply;
  reply.body["items"] = std::move(items);
  reply.body["revision"] = context.cluster.revision();
  return reply;
}

net::Task<> Api::handle(net::ExchangePtr exchange) {
  const net::RequestHead& head = exchange->request();
  const Access caller = access_of(head.headers);
  const ApiRoute* found = nullptr;
  bool path_exists = false;
  ApiRequest request;
  for (const ApiRoute& route : kRoutes) {
    std::vector<std::string> arguments;
    if (!matches(route.pattern, head.path, arguments)) continue;
    path_exists = true;
    if (route.method != head.method) continue;
    found = &route;
    request.arguments = std::move(arguments);
    break;
  }
  // A caller without a role learns nothing about which paths there are.
  if (caller == Access::kPublic && (found == nullptr || found->access != Access::kPublic)) {
    co_await send(exchange, reply_of(401, "unauthorized", "an API key is needed", "aiv key create NAME --role operator"));
    co_return;
  }
  if (found == nullptr) {
    if (path_exists) {
      co_await send(exchange, reply_of(405, "method_not_allowed", head.method + " is not possible here"));
    } else {
      co_await send(exchange, reply_of(404, "not_found", "there is no such path", "GET /aiv/v1/openapi.json lists them"));
    }
    co_return;
  }
  if (caller < found->access) {
    const std::string needed(to_string(found->access));
    co_await send(exchange, reply_of(403, "forbidden", "this needs a key with the role " + needed));
    co_return;
  }
  request.method = head.method;
  request.path = head.path;
  request.query = head.query;
  request.actor = net::header_or(head.headers, "x-aiv-actor", "");
  if (found->stream != Stream::kNone && wants_stream(head)) {
    if (found->stream == Stream::kEvents) {
      co_await stream_events(exchange);
    } else {
      co_await watch_list(exchange, found, std::move(request));
    }
    co_return;
  }
  if (head.method != "GET") {
    auto body = co_await exchange->read_body(kApiBodyBytesMax);
    if (!body) {
      co_await send(exchange, reply_error(body.error()));
      co_return;
    }
    request.body = *std::move(body);
  }
  ApiReply reply = co_await found->handler(context_, std::move(request));
  co_await send(exchange, std::move(reply));
}

net::Task<bool> begin_stream(net::ExchangePtr exchange) {
  net::ResponseHead answer;  // built outside of the co_await: g++ 12 cannot hold an initialiser list across it
  answer.headers.push_back({"content-type", "text/event-stream"});
  answer.headers.push_back({"cache-control", "no-store"});
  auto started = co_await exchange->start(std::move(answer));
  co_return started.has_value();
}

net::Task<> end_stream(net::ExchangePtr exchange) {
  exchange->on_gone({});
  if (!exchange->gone()) {
    const auto ended = co_await exchange->finish();
    if (!ended) log_debug("api.caller_gone", {{"reason", ended.error().message()}});
  }
}

// Server-sent events: everything after ?since= or Last-Event-ID, then as it happens; a comment each 15 s of silence.
net::Task<> Api::stream_events(net::ExchangePtr exchange) {
  const net::RequestHead& head = exchange->request();
  std::string from = net::query_value(head.query, "since").value_or("");
  if (from.empty()) from = net::header_or(head.headers, "last-event-id", "");
  std::int64_t seq = context_.cluster.events().last_seq();
  if (!from.empty() && from.size() < 19 && from.find_first_not_of("0123456789") == std::string::npos) {
    seq = std::stoll(from);
  }
  const bool begun = co_await begin_stream(exchange);
  if (!begun) co_return;
  EventLog::Subscription subscription(context_.cluster.events(), context_.executor);
  exchange->on_gone([&subscription] { subscription.signal().notify(); });
  auto hello = co_await exchange->write(": events follow\n\n");
  if (!hello) co_return;
  while (!exchange->gone() && !context_.stopping) {
    std::string text;
    for (const EventEntry& event : context_.cluster.events().since(seq, 500)) {
      text += "id: " + std::to_string(event.seq) + "\nevent: " + event.kind +
              "\ndata: " + dump_json(view_event(event)) + "\n\n";
      seq = event.seq;
    }
    if (!text.empty()) {
      auto sent = co_await exchange->write(text);
      if (!sent) break;
      continue;
    }
    const bool woken = co_await subscription.signal().wait_until(net::Clock::now() + net::seconds(15));
    if (woken || exchange->gone()) continue;
    auto sent = co_await exchange->write(": still here\n\n");
    if (!sent) break;
  }
  co_await end_stream(exchange);
}

}  // namespace aiv::controller
