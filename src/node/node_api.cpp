#include "node/node_api.hpp"

#include "base/json.hpp"
#include "base/units.hpp"
#include "node/desired_store.hpp"
#include "wire/documents.hpp"

namespace aiv::node {
namespace {

using net::Clock;

constexpr std::size_t kSmallBodyMax = 64 * 1024;
constexpr std::size_t kLogBytes = 64 * 1024;
constexpr std::string_view kReplicas = "/node/v1/replicas/";

Json version_json(const Version& version) {
  return {{"epoch", version.epoch}, {"rev", version.rev}};
}

net::Task<> respond_error(net::ExchangePtr exchange, int status, std::string message) {
  const Json json = {
      {"error",
       {{"message", message}, {"type", status == 404 ? "not_found_error" : "invalid_request_error"}}}};
  std::string text = dump_json(json);
  (void)co_await exchange->respond_json(status, std::move(text));
}

net::Task<> hello(net::ExchangePtr exchange, NodeView& node) {
  std::string text = dump_json(wire::to_json(node.observed()));
  (void)co_await exchange->respond_json(200, std::move(text));
}

net::Task<> observe(net::ExchangePtr exchange, NodeView& node, NodeApiTimes times) {
  net::ResponseHead head;
  head.headers.push_back({"content-type", "application/jsonl"});
  const auto started = co_await exchange->start(std::move(head));
  if (!started) co_return;
  std::int64_t told = -1;
  std::int64_t beat = 0;
  auto next_beat = Clock::now();
  Clock::time_point whole_at{};  // the next one is due at once
  Clock::time_point last_document{};
  while (!exchange->gone()) {
    std::string lines;
    const auto now = Clock::now();
    const bool changed = node.observed_seq() != told && now - last_document >= times.observed_gap;
    if (changed || now >= whole_at) {
      const NodeObserved document = node.observed();
      told = document.seq;
      whole_at = now + times.observed_whole;
      last_document = now;
      const Json json = {{"type", "observed"}, {"document", wire::to_json(document)}};
      lines += dump_json(json) + "\n";
    }
    if (now >= next_beat) {
      const double lag_ms = std::chrono::duration<double, std::milli>(now - next_beat).count();
      const Json json = {
          {"type", "heartbeat"}, {"seq", ++beat}, {"lag_ms", lag_ms}, {"observed_seq", node.observed_seq()}};
      lines += dump_json(json) + "\n";
      // From now, not from when it was due: a stalled loop must not send the missed ones in a burst.
      next_beat = now + times.heartbeat;
    }
    if (!lines.empty()) {
      const auto written = co_await exchange->write(lines);
      if (!written) co_return;
    }
    co_await net::sleep_until(std::min(next_beat, Clock::now() + times.observed_gap));
  }
}

net::Task<> desired(net::ExchangePtr exchange, NodeView& node) {
  auto body = co_await exchange->read_body(kDesiredBytesMax);
  if (!body) {
    co_await respond_error(exchange, 413, body.error().reason);
    co_return;
  }
  const auto json = parse_json(*body);
  if (!json) {
    co_await respond_error(exchange, 400, json.error().message());
    co_return;
  }
  auto document = wire::node_desired_from_json(*json);
  ApplyOutcome outcome;
  if (document) {
    outcome = co_await node.apply(std::move(*document));
  } else {
    outcome.kind = ApplyOutcome::Kind::kInvalid;
    outcome.field = document.error().where;
    outcome.reason = document.error().reason;
  }
  int status = 200;
  Json answer;
  switch (outcome.kind) {
    case ApplyOutcome::Kind::kApplied:
      answer["applied"] = version_json(outcome.version);
      break;
    case ApplyOutcome::Kind::kOlder:
      status = 409;
      answer["highest"] = version_json(outcome.version);
      break;
    case ApplyOutcome::Kind::kInvalid:
      status = 422;
      answer["field"] = outcome.field;
      answer["reason"] = outcome.reason;
      break;
    case ApplyOutcome::Kind::kFailed:
      status = 500;
      answer["error"]["message"] = outcome.reason;
      answer["error"]["type"] = "server_error";
      break;
  }
  std::string text = dump_json(answer);
  (void)co_await exchange->respond_json(status, std::move(text));
}

net::Task<> replica_log(net::ExchangePtr exchange, SupervisorPtr replica) {
  auto text = std::make_shared<std::string>();
  std::function<void()> work = [text, paths = replica->paths()] { *text = tail_of_log(paths, kLogBytes); };
  co_await net::run_blocking(work);
  net::ResponseHead head;
  head.headers.push_back({"content-type", "text/plain; charset=utf-8"});
  (void)co_await exchange->respond(std::move(head), std::move(*text));
}

net::Task<> replica_request(net::ExchangePtr exchange, NodeView& node, RelayLimits limits) {
  const std::string rest = exchange->request().path.substr(kReplicas.size());
  const std::size_t slash = rest.find('/');
  const std::string id = rest.substr(0, slash);
  const SupervisorPtr replica = node.replica(id);
  if (!replica || slash == std::string::npos) {
    co_await respond_error(exchange, 404, "this node has no replica " + id);
    co_return;
  }
  std::string path = rest.substr(slash);
  if (path == "/log" && exchange->request().method == "GET") {
    co_await replica_log(exchange, replica);
    co_return;
  }
  co_await relay(exchange, replica, std::move(path), limits);
}

net::Task<> certificate(net::ExchangePtr exchange, NodeView& node) {
  const auto state = node.certificate();
  if (!state) {
    co_await respond_error(exchange, 500, state.error().message());
    co_return;
  }
  Json json = {{"due_in_s", state->due_in_s}};
  if (!state->request.empty()) json["request"] = state->request;
  std::string text = dump_json(json);
  (void)co_await exchange->respond_json(200, std::move(text));
}

net::Task<> take_certificate(net::ExchangePtr exchange, NodeView& node) {
  const auto body = co_await exchange->read_body(kSmallBodyMax);
  if (!body) co_return;
  const auto json = parse_json(*body);
  if (!json || !json->is_object()) {
    co_await respond_error(exchange, 400, "the body must be a JSON object");
    co_return;
  }
  JsonReader reader(*json, "");
  std::string pem = reader.string("certificate", kSmallBodyMax);
  Result<> taken = reader.ok() ? Result<>{} : Result<>(std::unexpected(reader.error()));
  if (taken) taken = co_await node.take_certificate(std::move(pem));
  if (!taken) {
    co_await respond_error(exchange, 422, taken.error().message());
    co_return;
  }
  (void)co_await exchange->respond_json(200, "{}");
}

net::Task<> farewell(net::ExchangePtr exchange, NodeView& node) {
  const auto body = co_await exchange->read_body(kSmallBodyMax);
  if (!body) co_return;
  const auto json = parse_json(*body);
  std::string reason = json && json->is_object() ? json->value("reason", "") : "";
  node.farewell(printable(reason, 300));
  (void)co_await exchange->respond_json(200, "{}");
}

net::Task<> route(net::ExchangePtr exchange, NodeView* node, RelayLimits limits, NodeApiTimes times) {
  const net::RequestHead& request = exchange->request();
  if (request.method == "GET" && request.path == "/node/v1/hello")
    co_await hello(exchange, *node);
  else if (request.method == "GET" && request.path == "/node/v1/observe")
    co_await observe(exchange, *node, times);
  else if (request.method == "PUT" && request.path == "/node/v1/desired")
    co_await desired(exchange, *node);
  else if (request.method == "GET" && request.path == "/node/v1/certificate")
    co_await certificate(exchange, *node);
  else if (request.method == "PUT" && request.path == "/node/v1/certificate")
    co_await take_certificate(exchange, *node);
  else if (request.method == "POST" && request.path == "/node/v1/farewell")
    co_await farewell(exchange, *node);
  else if (request.path.starts_with(kReplicas))
    co_await replica_request(exchange, *node, limits);
  else
    co_await respond_error(exchange, 404, "the node API has no " + request.method + " " + request.path);
}

}  // namespace

net::Handler node_api_handler(NodeView& node, RelayLimits relay_limits, NodeApiTimes times) {
  return [&node, relay_limits, times](net::ExchangePtr exchange) {
    return route(std::move(exchange), &node, relay_limits, times);
  };
}

}  // namespace aiv::node
