#include "gateway/node_links.hpp"

#include <utility>

#include "base/json.hpp"
#include "base/log.hpp"
#include "base/units.hpp"
#include "core/openai_request.hpp"
#include "net/pki.hpp"
#include "wire/documents.hpp"

namespace aiv::gateway {
namespace {

std::string node_line(std::string_view type, const std::string& node, const std::string& reason = {}) {
  Json json{{"type", type}, {"node", node}};
  if (!reason.empty()) json["reason"] = printable(reason, 200);
  return dump_json(json) + "\n";
}

}  // namespace

Result<std::string> node_of_identities(const std::vector<std::string>& identities, const std::string& cluster) {
  for (const std::string& uri : identities) {
    if (!cluster.empty() && !uri.starts_with("aiv://" + cluster + "/")) continue;
    std::string id = net::identity_of(uri, "node");
    if (valid_name(id)) return id;
  }
  std::string had;
  for (const std::string& uri : identities) had += (had.empty() ? "" : ", ") + printable(uri, 80);
  return fail(ErrorCode::kUnauthorized,
              "the certificate does not name a node of cluster '" + cluster + "'; it names: " + (had.empty() ? "nothing" : had));
}

bool NodeLinks::denied(const std::string& node, std::int64_t issued_at_s) const {
  const auto found = denied_.find(node);
  return found != denied_.end() && issued_at_s < found->second;
}

void NodeLinks::deny(const std::vector<DeniedNode>& nodes) {
  denied_.clear();
  for (const DeniedNode& entry : nodes) denied_[entry.node] = entry.issued_before_s;
  const auto links = links_;
  for (const auto& [node, link] : links) {
    if (!denied(node, link.issued_at_s)) continue;
    // Out of use at once; the words may take a moment.
    links_.erase(node);
    announce(node_line("down", node, "the node was removed from the cluster"));
    refuse(link.connection, node, "the node was removed from the cluster");
    if (on_change_) on_change_(node, false);
  }
}

void NodeLinks::refuse(const net::H2Ptr& link, const std::string& node, const std::string& reason) {
  log_warn("link.refused", {{"node", node}, {"peer", link->stream().peer()}, {"reason", reason}});
  announce(node_line("refused", node, reason + " (from " + link->stream().peer() + ")"));
  net::spawn(executor_, farewell(link, reason), "link.farewell");
}

net::Task<> NodeLinks::farewell(net::H2Ptr link, std::string reason) {
  net::RequestHead head{.method = "POST", .path = "/node/v1/farewell", .query = {}, .headers = {}};
  std::string body = dump_json(Json{{"reason", reason}});
  auto opened = co_await link->open(std::move(head), std::move(body));
  if (opened) {
    const net::ClientExchangePtr exchange = *opened;
    const auto answered = co_await exchange->head(net::Clock::now() + net::seconds(1));
    if (!answered) log_debug("link.farewell_unheard", {{"reason", answered.error().reason}});
  }
  link->close(reason);
}

net::Task<> NodeLinks::serve(net::StreamPtr stream) {
  auto node = node_of_identities(stream->peer_identities(), cluster_);
  if (!node) {
    log_warn("link.refused", {{"peer", stream->peer()}, {"reason", node.error().reason}});
    stream->close();
    co_return;
  }
  const std::int64_t issued_at_s = stream->peer_issued_at_s();
  co_await serve_as(std::move(stream), std::move(*node), issued_at_s);
}

net::Task<Result<std::uint64_t>> NodeLinks::greet(net::H2Ptr link, std::string node, net::Clock::duration limit) {
  const auto deadline = net::Clock::now() + limit;
  net::RequestHead hello{.method = "GET", .path = "/node/v1/hello", .query = {}, .headers = {}};
  auto opened = co_await link->open(std::move(hello), std::string());
  if (!opened) co_return std::unexpected(opened.error());
  const net::ClientExchangePtr exchange = *opened;
  const auto head = co_await exchange->head(deadline);
  if (!head) co_return std::unexpected(head.error());
  if (head->status != 200) {
    co_return fail(ErrorCode::kUnavailable, "hello was answered with status " + std::to_string(head->status));
  }
  const auto body = co_await exchange->read_body(kHelloBytesMax, deadline);
  if (!body) co_return std::unexpected(body.error());
  const auto json = parse_json(*body);
  if (!json) co_return std::unexpected(json.error());
  const auto observed = wire::node_observed_from_json(*json);
  if (!observed) co_return std::unexpected(observed.error());
  if (observed->node != node) {
    co_return fail(ErrorCode::kUnauthorized, "the certificate is of node '" + node + "', but the hello is of '" +
                                                 printable(observed->node, 64) + "'");
  }
  co_return observed->incarnation;
}

net::Task<> NodeLinks::admit(net::H2Ptr link, std::string node, std::int64_t issued_at_s) {
  const Result<std::uint64_t> greeted = co_await greet(link, node, kHelloLimit);
  if (!greeted) {
    refuse(link, node, "hello failed: " + greeted.error().reason);
    co_return;
  }
  if (const auto old = links_.find(node); old != links_.end() && old->second.incarnation != *greeted) {
    // Another process than the one we know: its successor, or a copy. Only a living first one makes it a copy.
    const Link first = old->second;
    const Result<std::uint64_t> answer = co_await greet(first.connection, node, kCloneProbeLimit);
    if (answer) {
      refuse(link, node, "another agent with this node's identity is connected: its data directory was copied; join "
                         "this machine under a name of its own");
      co_return;
    }
  }
  if (denied(node, issued_at_s)) {
    refuse(link, node, "the node was removed from the cluster");
    co_return;
  }
  if (const auto old = links_.find(node); old != links_.end()) {
    log_info("link.replaced", {{"node", node}});
    old->second.connection->close("replaced by a newer link of the same node");
  }
  links_[node] = {link, *greeted, issued_at_s};
  log_info("link.up", {{"node", node}, {"peer", link->stream().peer()}});
  announce(node_line("up", node));
  if (on_change_) on_change_(node, true);
}

net::Task<> NodeLinks::serve_as(net::StreamPtr stream, std::string node, std::int64_t issued_at_s) {
  const net::H2Ptr link = net::H2Connection::client(std::move(stream), net::kNodeLinkLimits);
  if (denied(node, issued_at_s)) {
    // Said over HTTP/2, so that the agent can say it too.
    refuse(link, node, "the node was removed from the cluster");
  } else {
    // The reader must run before the first answer can be awaited, so the greeting runs beside it.
    net::spawn(executor_, admit(link, node, issued_at_s), "link.admit");
  }
  const Error ended = co_await link->run();
  const auto mine = links_.find(node);
  if (mine == links_.end() || mine->second.connection != link) co_return;  // never came up, or was replaced
  links_.erase(mine);
  log_info("link.down", {{"node", node}, {"reason", ended.reason}});
  announce(node_line("down", node, ended.reason));
  if (on_change_) on_change_(node, false);
}

net::H2Ptr NodeLinks::find(const std::string& node) const {
  const auto found = links_.find(node);
  return found == links_.end() || !found->second.connection->open_for_requests() ? nullptr : found->second.connection;
}

bool NodeLinks::up(const std::string& node) const {
  const auto found = links_.find(node);
  return found != links_.end() && found->second.connection->open_for_requests();
}

bool NodeLinks::has_room(const std::string& node) const {
  const auto found = links_.find(node);
  return found != links_.end() && found->second.connection->room() > kStreamsKept;
}

std::vector<std::string> NodeLinks::nodes() const {
  std::vector<std::string> names;
  for (const auto& [node, link] : links_) names.push_back(node);
  return names;
}

LinkWatcherPtr NodeLinks::watch() {
  auto watcher = std::make_shared<LinkWatcher>(executor_);
  watcher->lines.push_back(dump_json(Json{{"type", "links"}, {"nodes", nodes()}}) + "\n");
  watchers_.push_back(watcher);
  return watcher;
}

void NodeLinks::unwatch(const LinkWatcherPtr& watcher) { watchers_.remove(watcher); }

void NodeLinks::announce(const std::string& line) {
  for (const LinkWatcherPtr& watcher : watchers_) {
    if (watcher->lines.size() >= kWatcherLinesMax) {
      watcher->overflowed = true;  // it must start over: half a history is worse than none
    } else {
      watcher->lines.push_back(line);
    }
    watcher->signal.notify();
  }
}

void NodeLinks::close_all(const std::string& reason) {
  const auto links = links_;
  for (const auto& [node, link] : links) link.connection->close(reason);
}

}  // namespace aiv::gateway
