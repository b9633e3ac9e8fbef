#include "node/relay.hpp"

#include <algorithm>
#include <array>

#include "base/json.hpp"
#include "net/http1.hpp"

namespace aiv::node {
namespace {

using net::Clock;

struct Allowed {
  std::string_view method;
  std::string_view path;
  EnginePath kind;
};
// llama-server v0.5.0, tools/server/server.cpp. What changes the process (POST /props, /slots/N,
// /lora-adapters, /models/load) is not here.
constexpr std::array<Allowed, 16> kAllowed = {{{"POST", "/v1/chat/completions", EnginePath::kGenerates},
                                               {"POST", "/v1/completions", EnginePath::kGenerates},
                                               {"POST", "/completion", EnginePath::kGenerates},
                                               {"POST", "/infill", EnginePath::kGenerates},
                                               {"POST", "/v1/embeddings", EnginePath::kGenerates},
                                               {"POST", "/embeddings", EnginePath::kGenerates},
                                               {"POST", "/v1/rerank", EnginePath::kGenerates},
                                               {"POST", "/apply-template", EnginePath::kQuick},
                                               {"POST", "/v1/chat/completions/input_tokens", EnginePath::kQuick},
                                               {"POST", "/tokenize", EnginePath::kQuick},
                                               {"POST", "/detokenize", EnginePath::kQuick},
                                               {"GET", "/health", EnginePath::kQuick},
                                               {"GET", "/props", EnginePath::kQuick},
                                               {"GET", "/metrics", EnginePath::kQuick},
                                               {"GET", "/slots", EnginePath::kQuick},
                                               {"GET", "/v1/models", EnginePath::kQuick}}};

constexpr auto kExitKnown = net::milliseconds(300);  // from a broken socket to the shim's word about it

std::string error_json(std::string_view message) {
  return dump_json({{"error", {{"message", std::string(message)}, {"type", "unavailable_error"}}}});
}

net::RequestHead upstream_head(const net::RequestHead& from, const std::string& path,
                               const std::string& api_key) {
  net::RequestHead head{.method = from.method, .path = path, .query = {}, .headers = {}};
  for (const char* name : {"content-type", "accept", "traceparent"})
    if (const std::string* value = net::find_header(from.headers, name))
      head.headers.push_back({name, *value});
  head.headers.push_back({"authorization", "Bearer " + api_key});
  return head;
}

std::string exit_word(std::string status) {
  std::ranges::replace(status, ' ', '-');
  return "engine-exit;status=" + status;
}

// What the trailer says about an answer that broke.
net::Task<std::string> broken_end(SupervisorPtr replica, Error error) {
  if (error.code == ErrorCode::kTimeout) co_return "stalled";
  const std::string status = co_await replica->exit_within(kExitKnown);
  co_return exit_word(status.empty() ? "connection lost" : status);
}

net::Task<> answer_failure(net::ExchangePtr exchange, SupervisorPtr replica, Error error) {
  const std::string end = co_await broken_end(replica, error);
  if (exchange->gone()) co_return;
  net::ResponseHead head;
  head.status = 502;
  head.headers.push_back({"content-type", "application/json"});
  const auto started = co_await exchange->start(std::move(head));
  if (!started) co_return;
  const std::string body = error_json("the engine gave no answer: " + error.reason);
  (void)co_await exchange->write(body);
  net::Headers trailers;
  trailers.push_back({"aiv-end", end});
  (void)co_await exchange->finish(std::move(trailers));
}

}  // namespace

EnginePath classify_engine_path(std::string_view method, std::string_view path) {
  for (const Allowed& entry : kAllowed)
    if (entry.method == method && entry.path == path) return entry.kind;
  return EnginePath::kUnknown;
}

net::Task<> relay(net::ExchangePtr exchange, SupervisorPtr replica, std::string path, RelayLimits limits) {
  const EnginePath kind = classify_engine_path(exchange->request().method, path);
  if (kind == EnginePath::kUnknown) {
    (void)co_await exchange->respond_json(404, error_json("the engine has no such path for others"));
    co_return;
  }
  auto body = co_await exchange->read_body(limits.body_bytes_max);
  if (!body) {
    if (body.error().code == ErrorCode::kTooLarge)
      (void)co_await exchange->respond_json(413, error_json(body.error().reason));
    co_return;
  }
  const ReplicaState state = replica->status().state;
  if (state != ReplicaState::kReady && state != ReplicaState::kDraining) {
    (void)co_await exchange->respond_json(503, error_json("the replica is not ready"));
    co_return;
  }
  if (!replica->accepts_requests() || (kind == EnginePath::kGenerates && !replica->has_slot())) {
    // Before its head an aborted stream is REFUSED_STREAM: the peer knows that nothing was done and tries
    // elsewhere.
    exchange->abort();
    co_return;
  }

  // Set before the first wait, so that the cap counts this request and a leaving client cancels it at any
  // time.
  struct Link {
    net::ClientExchangePtr upstream;
    bool cancelled = false;
  };
  auto link = std::make_shared<Link>();
  std::function<void()> cancel = [link] {
    link->cancelled = true;
    if (link->upstream) link->upstream->cancel();
  };
  const Supervisor::Lease lease(replica, kind == EnginePath::kGenerates, cancel);
  exchange->on_gone(cancel);

  const auto client = replica->engine_client();
  auto opened =
      co_await client->open(upstream_head(exchange->request(), path, replica->api_key()), std::move(*body));
  if (!opened) {
    co_await answer_failure(exchange, replica, opened.error());
    co_return;
  }
  link->upstream = *opened;
  if (link->cancelled) {
    link->upstream->cancel();
    co_return;
  }
  const auto head = co_await link->upstream->head(Clock::now() + limits.head_max);
  if (!head) {
    co_await answer_failure(exchange, replica, head.error());
    co_return;
  }
  net::ResponseHead answer{.status = head->status, .headers = {}};
  if (const std::string* type = net::find_header(head->headers, "content-type"))
    answer.headers.push_back({"content-type", *type});
  const auto started = co_await exchange->start(std::move(answer));
  if (!started) {
    link->upstream->cancel();
    co_return;
  }
  std::string end = "complete";
  std::string bytes;
  while (true) {
    bytes.clear();
    const auto more = co_await link->upstream->read_some(bytes, Clock::now() + limits.stall_max);
    if (!more) {
      if (exchange->gone())
        end = "cancelled";
      else
        end = co_await broken_end(replica, more.error());
      break;
    }
    if (!bytes.empty()) {
      const auto written = co_await exchange->write(bytes);
      if (!written) {
        end = "cancelled";
        break;
      }
    }
    if (!*more) break;
  }
  if (end != "complete") link->upstream->cancel();
  net::Headers trailers;
  trailers.push_back({"aiv-end", end});
  (void)co_await exchange->finish(std::move(trailers));
}

}  // namespace aiv::node
