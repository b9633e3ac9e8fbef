#include "gateway/internal_api.hpp"

#include <utility>

#include "base/json.hpp"
#include "base/log.hpp"
#include "gateway/pipe.hpp"
#include "wire/documents.hpp"

namespace aiv::gateway {
namespace {

constexpr std::string_view kNodesPrefix = "/internal/v1/nodes/";

std::string error_json(std::string_view code, const Error& error) {
  return dump_json(Json{{"error", {{"code", code}, {"message", error.reason}, {"where", error.where}}}});
}

int status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kNotFound: return 404;
    case ErrorCode::kTooLarge: return 413;
    case ErrorCode::kTimeout: return 504;
    default: return 503;
  }
}

}  // namespace

net::Task<> InternalApi::handle(net::ExchangePtr exchange) {
  const std::string& path = exchange->request().path;
  const std::string& method = exchange->request().method;
  if (path == "/internal/v1/links" && method == "GET") co_return co_await links(exchange);
  if (path == "/internal/v1/routes" && method == "PUT") co_return co_await routes(exchange);
  if (path.starts_with(kNodesPrefix)) co_return co_await node(exchange);
  Result<> sent;
  if (path == "/internal/v1/stats" && method == "GET") {
    sent = co_await exchange->respond_json(200, stats());
  } else {
    std::string error = error_json("not_found", {ErrorCode::kNotFound, "no such route", path});
    sent = co_await exchange->respond_json(404, std::move(error));
  }
}

net::Task<> InternalApi::links(net::ExchangePtr exchange) {
  const LinkWatcherPtr watcher = state_.links.watch();
  state_.controllers += 1;
  log_info("controller.up", {});
  exchange->on_gone([watcher] { watcher->signal.notify(); });
  net::ResponseHead head{.status = 200, .headers = {}};
  head.headers.push_back({"content-type", "application/x-ndjson"});
  Result<> sent = co_await exchange->start(std::move(head));
  auto next_tick = net::Clock::now() + kLinksTick;
  std::string out;
  while (sent && !exchange->gone() && !watcher->overflowed) {
    out.clear();
    while (!watcher->lines.empty()) {
      out += watcher->lines.front();
      watcher->lines.pop_front();
    }
    if (net::Clock::now() >= next_tick) {
      out += "{\"type\":\"tick\"}\n";
      next_tick = net::Clock::now() + kLinksTick;
    }
    if (!out.empty()) {
      sent = co_await exchange->write(out);
      continue;
    }
    co_await watcher->signal.wait_until(next_tick);
  }
  exchange->on_gone(nullptr);
  state_.links.unwatch(watcher);
  state_.controllers -= 1;
  log_info("controller.down", {});
  if (!exchange->gone()) exchange->abort();
}

net::Task<> InternalApi::routes(net::ExchangePtr exchange) {
  const auto body = co_await exchange->read_body(kTableBytesMax);
  Result<> sent;
  if (!body) co_return;
  const auto json = parse_json(*body);
  auto table = json ? wire::route_table_from_json(*json) : Result<RouteTable>(std::unexpected(json.error()));
  if (!table) {
    sent = co_await exchange->respond_json(422, error_json("malformed", table.error()));
    co_return;
  }
  const Version version = table->version;
  const Result<> taken = co_await state_.routes.offer(std::move(*table));
  if (!taken) {
    const bool older = taken.error().code == ErrorCode::kConflict;
    log_warn("routes.refused", {{"reason", taken.error().message()}});
    if (older) {
      const Version highest = state_.routes.current()->table().version;
      Json out{{"highest", {{"epoch", highest.epoch}, {"rev", highest.rev}}}};
      sent = co_await exchange->respond_json(409, dump_json(out));
    } else {
      sent = co_await exchange->respond_json(500, error_json("not_persisted", taken.error()));
    }
    co_return;
  }
  state_.dispatcher.apply(state_.routes.current()->table());
  state_.links.deny(state_.routes.current()->table().denied_nodes);
  log_info("routes.applied", {{"epoch", version.epoch},
                              {"rev", version.rev},
                              {"models", state_.routes.current()->table().models.size()}});
  const Json out{{"applied", {{"epoch", version.epoch}, {"rev", version.rev}}}};
  sent = co_await exchange->respond_json(200, dump_json(out));
}

net::Task<> InternalApi::node(net::ExchangePtr exchange) {
  const net::RequestHead& head = exchange->request();
  const std::string rest = head.path.substr(kNodesPrefix.size());
  const std::size_t slash = rest.find('/');
  const std::string id = rest.substr(0, slash);
  const std::string path = slash == std::string::npos ? "/" : rest.substr(slash);
  Result<> sent;
  if (!path.starts_with("/node/v1/")) {
    std::string error = error_json("not_found", {ErrorCode::kNotFound, "only /node/v1/ is passed on", path});
    sent = co_await exchange->respond_json(404, std::move(error));
    co_return;
  }
  const net::H2Ptr link = state_.links.find(id);
  if (!link) {
    std::string error = error_json("no_link", {ErrorCode::kUnavailable, "no link to this node", id});
    sent = co_await exchange->respond_json(503, std::move(error));
    co_return;
  }
  net::RequestHead out{.method = head.method, .path = path, .query = head.query, .headers = {}};
  if (const std::string* type = net::find_header(head.headers, "content-type")) out.headers.push_back({"content-type", *type});
  out.endless = path == "/node/v1/observe";
  PipeOptions options{.body_bytes_max = std::size_t{16} << 20,
                      .head_time_max = net::seconds(60),
                      .idle_forever = out.endless,
                      .add_to_answer = {}};
  const PipeOutcome outcome = co_await pipe_exchange(exchange, *link, std::move(out), std::move(options));
  if (outcome.status != 0 || exchange->gone()) co_return;
  sent = co_await exchange->respond_json(status_of(outcome.error.code), error_json("node_failed", outcome.error));
}

std::string InternalApi::stats() const {
  Json models = Json::array();
  Json replicas = Json::array();
  const std::int64_t now = monotonic_ms();
  for (const auto& [name, model] : state_.dispatcher.models()) {
    Json entry{{"name", name}, {"running", model->running}, {"waiting", model->queue.size()}, {"answers", model->answers},
               {"turned_away", model->turned_away},
               {"output_tokens_mean", model->output_tokens.value()}};
    if (const auto found = state_.metrics.models.find(name); found != state_.metrics.models.end()) {
      entry["prompt_tokens"] = found->second.prompt_tokens;
      entry["generation_tokens"] = found->second.generation_tokens;
      entry["cancelled"] = found->second.cancelled;
      entry["streams_broken"] = found->second.streams_broken;
    }
    models.push_back(std::move(entry));
    for (const ReplicaPtr& replica : model->replicas) {
      const std::int64_t out_ms = replica->ejection.until_ms() - now;
      replicas.push_back({{"id", replica->id},
                          {"model", name},
                          {"node", replica->node},
                          {"slots", replica->ledger.slots()},
                          {"busy", replica->ledger.busy()},
                          {"decode_tokens_per_s", replica->speed.decode_per_s()},
                          {"prefill_tokens_per_s", replica->speed.prefill_per_s()},
                          {"requests", replica->requests},
                          {"failures", replica->failures},
                          {"ejected_ms", out_ms > 0 ? out_ms : 0},
                          {"reachable", state_.links.up(replica->node)}});
    }
  }
  return dump_json(Json{{"models", std::move(models)}, {"replicas", std::move(replicas)}});
}

}  // namespace aiv::gateway
