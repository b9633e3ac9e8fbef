#include "controller/gateway_link.hpp"

#include <algorithm>
#include <set>

#include "base/log.hpp"
#include "base/units.hpp"
#include "controller/observed_check.hpp"
#include "wire/documents.hpp"

namespace aiv::controller {

namespace {

constexpr std::size_t kRefusalsToldMax = 20;  // of one link
constexpr std::size_t kLineBytesMax = 4 * 1024 * 1024;
constexpr std::size_t kAnswerBytesMax = 16 * 1024 * 1024;  // counters of a thousand replicas
constexpr auto kHeard = net::milliseconds(1000);
constexpr auto kLoadPeriod = net::milliseconds(1000);
constexpr auto kAnswerLimit = net::seconds(10);

// Takes whole lines off the front of `buffer`.
template <class OnLine>
void take_lines(std::string& buffer, OnLine&& on_line) {
  std::size_t from = 0;
  for (std::size_t at = buffer.find('\n'); at != std::string::npos; at = buffer.find('\n', from)) {
    if (at > from) on_line(buffer.substr(from, at - from));
    from = at + 1;
  }
  buffer.erase(0, from);
}

net::RequestHead head_of(std::string method, std::string path) {
  return {std::move(method), std::move(path), {}, {{"content-type", "application/json"}}};
}

}  // namespace

GatewayLink::GatewayLink(net::Executor executor, Cluster& cluster, std::string address)
    : executor_(executor), cluster_(cluster), address_(std::move(address)), routes_changed_(executor) {
  cluster_.on_desired = [this](const std::string& node) {
    const auto session = sessions_.find(node);
    if (session != sessions_.end()) session->second->changed.notify();
  };
  cluster_.on_node_erased = [this](const std::string& node) {
    // What it still says must not bring it back; the gateway cuts the link with the next route table.
    const auto session = sessions_.find(node);
    if (session == sessions_.end()) return;
    session->second->up = false;
    session->second->changed.notify();
    sessions_.erase(session);
  };
  cluster_.on_routes = [this] { routes_changed_.notify(); };
}

bool GatewayLink::gateway_heard() const {
  return connection_ != nullptr && net::Clock::now() - last_line_ < kHeard;
}

void GatewayLink::stop() {
  stopping_ = true;
  drop_sessions();
  if (connection_) connection_->close("the controller stops");
}

net::Task<> GatewayLink::run_connection(net::H2Ptr connection) {
  const Error ended = co_await connection->run();
  log_info("gateway.connection_ended", {{"reason", ended.message()}});
}

net::Task<> GatewayLink::run() {
  auto wait = net::milliseconds(50);
  while (!stopping_) {
    auto dialled = co_await net::dial(address_, nullptr, net::seconds(3));
    if (dialled) {
      net::H2Ptr connection = net::H2Connection::client(*std::move(dialled));
      connection_ = connection;
      net::spawn(executor_, run_connection(connection), "gateway connection");
      net::spawn(executor_, push_routes(connection), "route push");
      net::spawn(executor_, poll_load(connection), "load poll");
      const auto began = net::Clock::now();
      co_await serve(connection);
      connection->close("the links stream ended");
      connection_ = nullptr;
      routes_changed_.notify();
      drop_sessions();
      if (net::Clock::now() - began > net::seconds(5)) wait = net::milliseconds(50);
    }
    if (stopping_) co_return;
    co_await net::sleep_for(wait);
    wait = std::min(wait * 2, net::milliseconds(1000));
  }
}

net::Task<> GatewayLink::serve(net::H2Ptr connection) {
  auto opened = co_await connection->open(head_of("GET", "/internal/v1/links"), "");
  if (!opened) co_return;
  net::ClientExchangePtr exchange = std::move(*opened);
  auto head = co_await exchange->head(net::Clock::now() + kAnswerLimit);
  if (!head || head->status != 200) {
    log_warn("gateway.links_refused", {{"reason", head ? std::to_string(head->status) : head.error().message()}});
    co_return;
  }
  log_info("gateway.connected");
  last_line_ = net::Clock::now();
  std::string buffer;
  while (!stopping_) {
    // The gateway ticks four times a second; ten seconds without a byte is a dead one.
    auto more = co_await exchange->read_some(buffer, net::Clock::now() + net::seconds(10));
    if (!more || !*more || buffer.size() > kLineBytesMax) co_return;
    last_line_ = net::Clock::now();
    take_lines(buffer, [this](const std::string& line) { on_links_line(line); });
  }
}

void GatewayLink::on_links_line(const std::string& line) {
  const auto json = parse_json(line);
  if (!json || !json->is_object()) {
    log_warn("gateway.line_refused", {{"reason", json ? "is not an object" : json.error().message()}});
    return;
  }
  JsonReader reader(*json, "links");
  const std::string type = reader.string("type", 64);
  if (type == "tick") return;
  if (type == "up") {
    node_up(reader.string("node", 256));
  } else if (type == "down") {
    const std::string node = reader.string("node", 256);
    node_down(node, reader.string_or("reason", "", 1024));
  } else if (type == "refused") {
    const std::string node = reader.string("node", 256);
    cluster_.tell("node.link_refused", "node/" + printable(node, 128), printable(reader.string_or("reason", "", 1024), 512));
  } else if (type == "links") {
    std::set<std::string> up;
    for (const Json& entry : reader.array("nodes")) {
      if (entry.is_string()) up.insert(entry.get<std::string>());
      if (entry.is_object() && entry.contains("node") && entry["node"].is_string()) {
        up.insert(entry["node"].get<std::string>());
      }
    }
    for (const std::string& node : up) node_up(node);
  }
}

void GatewayLink::node_up(const std::string& node) {
  if (auto name = check_name(node); !name) {
    log_warn("node.name_refused", {{"reason", name.error().message()}});
    return;
  }
  if (const auto old = sessions_.find(node); old != sessions_.end()) {
    old->second->up = false;
    old->second->changed.notify();
  }
  auto session = std::make_shared<Session>(executor_);
  sessions_[node] = session;
  cluster_.take(event::LinkUp{node});
  net::spawn(executor_, observe(node, session), "observe " + node);
  net::spawn(executor_, push_desired(node, session), "desired " + node);
  if (sign) net::spawn(executor_, renew_certificates(node, session), "certificate " + node);
}

void GatewayLink::node_down(const std::string& node, const std::string& reason) {
  const auto it = sessions_.find(node);
  if (it == sessions_.end()) return;
  it->second->up = false;
  it->second->changed.notify();
  sessions_.erase(it);
  cluster_.take(event::LinkDown{node, reason == "goodbye"});
}

// The gateway is gone, not the nodes: the detector is not told.
void GatewayLink::drop_sessions() {
  for (auto& [node, session] : sessions_) {
    session->up = false;
    session->changed.notify();
  }
  sessions_.clear();
}

net::Task<> GatewayLink::observe(std::string node, SessionPtr session) {
  while (session->up && !stopping_) {
    co_await observe_once(node, session);
    if (session->up && !stopping_) co_await net::sleep_for(net::milliseconds(200));
  }
}

net::Task<> GatewayLink::observe_once(std::string node, SessionPtr session) {
  net::H2Ptr connection = connection_;
  if (!connection) co_return;
  auto opened = co_await connection->open(head_of("GET", "/internal/v1/nodes/" + node + "/node/v1/observe"), "");
  if (!opened) co_return;
  net::ClientExchangePtr exchange = std::move(*opened);
  auto head = co_await exchange->head(net::Clock::now() + kAnswerLimit);
  if (!head || head->status != 200) co_return;
  std::string buffer;
  while (session->up && !stopping_) {
    auto more = co_await exchange->read_some(buffer, net::Clock::now() + net::seconds(5));
    if (!session->up || !more || !*more) co_return;
    if (buffer.size() > kLineBytesMax) {
      log_warn("node.line_too_long", {{"node", node}});
      co_return;
    }
    take_lines(buffer, [this, &node](const std::string& line) { on_observe_line(node, line); });
  }
}

void GatewayLink::on_observe_line(const std::string& node, const std::string& line) {
  // Most lines are heartbeats: no tree is built for them.
  if (line.starts_with(R"({"type":"heartbeat")")) {
    cluster_.take(event::Heartbeat{node});
    return;
  }
  const auto json = parse_json(line);
  if (!json || !json->is_object()) {
    log_warn("node.line_refused", {{"node", node}, {"reason", json ? "is not an object" : json.error().message()}});
    return;
  }
  JsonReader reader(*json, "observe");
  const std::string type = reader.string("type", 64);
  if (type == "heartbeat") {
    cluster_.take(event::Heartbeat{node});
    return;
  }
  if (type != "observed") return;
  auto document = wire::node_observed_from_json(reader.object("document"));
  if (!document) return refuse_document(node, document.error().message());
  // Which node it is says the link's certificate, never the document.
  if (auto sound = check_observed(*document, node); !sound) return refuse_document(node, sound.error().message());
  cluster_.take(event::Observed{*std::move(document)});
}

// The same words once a link: a node that repeats them must not drive all else out of the events.
void GatewayLink::refuse_document(const std::string& node, const std::string& reason) {
  const auto session = sessions_.find(node);
  if (session == sessions_.end() || session->second->refusals.size() >= kRefusalsToldMax) return;
  if (!session->second->refusals.insert(reason).second) return;
  cluster_.tell("node.document_refused", "node/" + node, reason);
}

net::Task<> GatewayLink::push_desired(std::string node, SessionPtr session) {
  while (session->up && !stopping_) {
    const NodeDesired* newest = cluster_.desired_for(node);
    if (newest == nullptr || newest->version <= session->acknowledged) {
      co_await session->changed.wait();
      continue;
    }
    NodeDesired document = *newest;
    const bool settled = co_await push_once(node, std::move(document), session);
    if (!settled && session->up) co_await net::sleep_for(net::milliseconds(200));
  }
}

// True when the document needs no further try.
net::Task<bool> GatewayLink::push_once(std::string node, NodeDesired document, SessionPtr session) {
  net::H2Ptr connection = connection_;
  if (!connection) co_return false;
  auto opened = co_await connection->open(head_of("PUT", "/internal/v1/nodes/" + node + "/node/v1/desired"),
                                          dump_json(wire::to_json(document)));
  if (!opened) co_return false;
  net::ClientExchangePtr exchange = std::move(*opened);
  const auto deadline = net::Clock::now() + kAnswerLimit;
  auto head = co_await exchange->head(deadline);
  if (!head) co_return false;
  auto body = co_await exchange->read_body(64 * 1024, deadline);
  if (head->status == 200) {
    session->acknowledged = document.version;
    log_debug("desired.applied", {{"node", node}, {"epoch", document.version.epoch}, {"rev", document.version.rev}});
    co_return true;
  }
  if (head->status == 409) {
    const auto json = parse_json(body.value_or("{}"));
    std::int64_t epoch = 0;
    if (json && json->is_object() && json->contains("highest") && (*json)["highest"].is_object()) {
      epoch = (*json)["highest"].value("epoch", std::int64_t{0});
    }
    if (epoch > document.version.epoch) {
      cluster_.tell("node.newer_epoch", "node/" + node,
                    "it obeys epoch " + std::to_string(epoch) + ", this controller is " +
                        std::to_string(document.version.epoch) + ": another cluster's node, or an older state");
    }
    session->acknowledged = document.version;
    co_return true;
  }
  if (head->status == 422) {
    cluster_.tell("node.desired_refused", "node/" + node, printable(body.value_or(""), 512));
    session->acknowledged = document.version;
    co_return true;
  }
  co_return false;
}

net::Task<Result<Json>> GatewayLink::ask(net::H2Ptr connection, std::string method, std::string path, Json body) {
  std::string text = body.is_null() ? std::string() : dump_json(body);
  auto opened = co_await connection->open(head_of(std::move(method), std::move(path)), std::move(text));
  if (!opened) co_return std::unexpected(opened.error());
  net::ClientExchangePtr exchange = std::move(*opened);
  const auto deadline = net::Clock::now() + kAnswerLimit;
  auto head = co_await exchange->head(deadline);
  if (!head) co_return std::unexpected(head.error());
  auto answer = co_await exchange->read_body(kAnswerBytesMax, deadline);
  if (!answer) co_return std::unexpected(answer.error());
  if (head->status != 200) {
    co_return fail(ErrorCode::kUnavailable, "answered " + std::to_string(head->status) + " " + printable(*answer, 200));
  }
  co_return parse_json(*answer);
}

// The agent knows best when its certificate is due; a controller that was away asks at once when it is back.
net::Task<> GatewayLink::renew_certificates(std::string node, SessionPtr session) {
  while (session->up && !stopping_) {
    const auto wait = co_await renew_once(node, session);
    // In short steps, so that the end of the session is noticed soon.
    for (const auto until = net::Clock::now() + wait; session->up && !stopping_ && net::Clock::now() < until;) {
      co_await net::sleep_for(std::min<net::Clock::duration>(net::seconds(5), until - net::Clock::now()));
    }
  }
}

net::Task<net::Clock::duration> GatewayLink::renew_once(std::string node, SessionPtr session) {
  constexpr std::int64_t kLookAgainMaxS = 3600;
  const net::H2Ptr connection = connection_;
  if (!connection) co_return net::seconds(1);
  const std::string path = "/internal/v1/nodes/" + node + "/node/v1/certificate";
  const auto state = co_await ask(connection, "GET", path, Json());
  // An agent that cannot answer is an older one, or one whose certificate somebody else looks after.
  if (!state || !state->is_object()) co_return net::seconds(60);
  JsonReader reader(*state, "certificate");
  const std::int64_t due_in_s = reader.integer_or("due_in_s", kLookAgainMaxS, 0, 366LL * 86'400);
  const std::string request = reader.string_or("request", "", 8 * 1024);
  if (!reader.ok()) co_return net::seconds(60);
  if (due_in_s > 0) co_return net::seconds(std::min(due_in_s, kLookAgainMaxS));
  if (request.empty() || !session->up) co_return net::seconds(60);
  const auto issued = co_await sign(node, request);
  if (!issued) {
    log_warn("certificate.not_signed", {{"node", node}, {"reason", issued.error().message()}});
    co_return net::seconds(60);
  }
  Json body;
  body["certificate"] = issued->certificate;
  const auto taken = co_await ask(connection, "PUT", path, std::move(body));
  if (!taken) log_warn("certificate.not_taken", {{"node", node}, {"reason", taken.error().message()}});
  co_return net::seconds(taken ? 1 : 60);
}

namespace {

struct Counted {
  std::int64_t answers = 0;
  std::int64_t turned_away = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t output_tokens = 0;
};

// The gateway's counters as one sample each; `before` holds those of the last look.
std::vector<LoadSample> samples_of(const Json& stats, std::map<std::string, Counted>& before, std::int64_t interval_ms) {
  constexpr std::int64_t kMost = std::int64_t{1} << 53;
  std::vector<LoadSample> out;
  JsonReader reader(stats, "stats");
  for (const Json& model : reader.array("models")) {
    JsonReader each(model, "stats.models");
    LoadSample sample;
    sample.deployment = each.string("name", 256);
    sample.running = static_cast<int>(each.integer("running", 0, 1'000'000));
    sample.waiting = static_cast<int>(each.integer("waiting", 0, 1'000'000));
    const Counted now{each.integer_or("answers", 0, 0, kMost), each.integer_or("turned_away", 0, 0, kMost),
                      each.integer_or("prompt_tokens", 0, 0, kMost), each.integer_or("generation_tokens", 0, 0, kMost)};
    if (!each.ok()) continue;
    const auto [last, first] = before.try_emplace(sample.deployment, now);
    // A gateway that was restarted counts from nothing.
    sample.arrivals = std::max<std::int64_t>(0, now.answers - last->second.answers);
    sample.turned_away = std::max<std::int64_t>(0, now.turned_away - last->second.turned_away);
    sample.prompt_tokens = std::max<std::int64_t>(0, now.prompt_tokens - last->second.prompt_tokens);
    sample.output_tokens = std::max<std::int64_t>(0, now.output_tokens - last->second.output_tokens);
    last->second = now;
    sample.interval_ms = interval_ms;
    // Looked at once a second: what is there now stands for the interval.
    sample.running_ms = sample.running * interval_ms;
    sample.waiting_ms = sample.waiting * interval_ms;
    out.push_back(std::move(sample));
  }
  for (const Json& replica : reader.array("replicas")) {
    JsonReader each(replica, "stats.replicas");
    const std::string model = each.string("model", 256);
    ReplicaLoad load{each.string("id", 256), static_cast<int>(each.integer("busy", 0, 1'000'000))};
    if (!each.ok()) continue;
    const auto sample = std::ranges::find(out, model, &LoadSample::deployment);
    if (sample != out.end()) sample->replicas.push_back(std::move(load));
  }
  return out;
}

}  // namespace

net::Task<> GatewayLink::poll_load(net::H2Ptr connection) {
  std::map<std::string, Counted> before;
  auto last = net::Clock::now();
  while (connection == connection_ && !stopping_) {
    co_await net::sleep_for(kLoadPeriod);
    if (connection != connection_ || stopping_) co_return;
    const auto stats = co_await ask(connection, "GET", "/internal/v1/stats", Json());
    if (!stats || !stats->is_object()) continue;
    const auto now = net::Clock::now();
    const auto interval = std::chrono::duration_cast<net::milliseconds>(now - last).count();
    last = now;
    event::Load load{samples_of(*stats, before, interval)};
    if (!load.samples.empty()) cluster_.take(load);
  }
}

net::Task<> GatewayLink::push_routes(net::H2Ptr connection) {
  Version sent;
  while (connection == connection_ && !stopping_) {
    const RouteTable* newest = cluster_.routes();
    if (newest == nullptr || newest->version <= sent) {
      co_await routes_changed_.wait();
      continue;
    }
    const RouteTable table = *newest;
    auto opened = co_await connection->open(head_of("PUT", "/internal/v1/routes"), dump_json(wire::to_json(table)));
    if (!opened) co_return;
    net::ClientExchangePtr exchange = std::move(*opened);
    const auto deadline = net::Clock::now() + kAnswerLimit;
    auto head = co_await exchange->head(deadline);
    if (!head) co_return;
    auto body = co_await exchange->read_body(64 * 1024, deadline);
    if (head->status / 100 == 2 || head->status == 409) {
      if (head->status == 409) log_warn("routes.refused", {{"reason", printable(body.value_or(""), 256)}});
      sent = table.version;
    } else {
      log_warn("routes.push_failed", {{"status", head->status}, {"reason", printable(body.value_or(""), 256)}});
      co_await net::sleep_for(net::milliseconds(500));
    }
  }
}

}  // namespace aiv::controller
