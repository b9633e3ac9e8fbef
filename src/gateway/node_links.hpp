// The ends of the node links: an agent dials and is then the HTTP/2 server; we hold the client's end and send it
// requests. One link per node; a newer one of the same node replaces the older (its agent was restarted, or the old
// connection is half open and nobody has noticed yet). But while the older one still answers, and from another agent
// process, the newer is a copy of the node's identity: it is refused, and the first is left alone.
//
// A node is who its certificate says (URI SAN aiv://CLUSTER/node/ID), never who a body says. A link counts as up only
// after its hello, which must name the same node.
#pragma once
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/documents.hpp"
#include "net/h2.hpp"
#include "net/stream.hpp"

namespace aiv::gateway {

inline constexpr net::seconds kHelloLimit{5};
inline constexpr net::seconds kCloneProbeLimit{2};  // an agent that is only slow answers within this
inline constexpr std::size_t kHelloBytesMax = std::size_t{1} << 20;
inline constexpr std::size_t kWatcherLinesMax = 1024;
inline constexpr std::size_t kStreamsKept = 8;  // of a link, for the controller, however many clients ask

// The node's id from the identities of a certificate; kUnauthorized with what they were instead. An empty `cluster`
// accepts any (the authority that signed it has been checked by TLS).
Result<std::string> node_of_identities(const std::vector<std::string>& identities, const std::string& cluster);

// Somebody who is told of links that come and go, as JSON lines; bounded, a slow one is dropped.
struct LinkWatcher {
  explicit LinkWatcher(net::Executor executor) : signal(executor) {}
  std::deque<std::string> lines;
  bool overflowed = false;
  net::Signal signal;
};
using LinkWatcherPtr = std::shared_ptr<LinkWatcher>;

class NodeLinks {
 public:
  NodeLinks(net::Executor executor, std::string cluster) : executor_(executor), cluster_(std::move(cluster)) {}

  // Called with true/false when a node's link comes up or goes down.
  void on_change(std::function<void(const std::string& node, bool up)> callback) { on_change_ = std::move(callback); }
  // One accepted connection, for its whole life.
  net::Task<> serve(net::StreamPtr stream);
  // The same for a connection whose peer is known by other means (tests); `issued_at_s` is of its certificate.
  net::Task<> serve_as(net::StreamPtr stream, std::string node, std::int64_t issued_at_s = 0);
  // Removed nodes: their links end now, and no new one with a certificate issued before the time named is taken.
  void deny(const std::vector<DeniedNode>& nodes);

  [[nodiscard]] net::H2Ptr find(const std::string& node) const;
  [[nodiscard]] bool up(const std::string& node) const;
  // Whether its link takes another request of a client.
  [[nodiscard]] bool has_room(const std::string& node) const;
  [[nodiscard]] std::vector<std::string> nodes() const;

  // Begins with a "links" line; removed by unwatch().
  LinkWatcherPtr watch();
  void unwatch(const LinkWatcherPtr& watcher);
  // GOAWAY on every link, then close.
  void close_all(const std::string& reason);

 private:
  struct Link {
    net::H2Ptr connection;
    std::uint64_t incarnation = 0;
    std::int64_t issued_at_s = 0;
  };
  [[nodiscard]] bool denied(const std::string& node, std::int64_t issued_at_s) const;
  net::Task<> admit(net::H2Ptr link, std::string node, std::int64_t issued_at_s);
  // The incarnation of the agent at the other end, once it has said who it is.
  static net::Task<Result<std::uint64_t>> greet(net::H2Ptr link, std::string node, net::Clock::duration limit);
  // Says why to whom it concerns, then closes.
  void refuse(const net::H2Ptr& link, const std::string& node, const std::string& reason);
  static net::Task<> farewell(net::H2Ptr link, std::string reason);
  void announce(const std::string& line);

  net::Executor executor_;
  std::string cluster_;
  std::function<void(const std::string&, bool)> on_change_;
  std::map<std::string, Link> links_;
  std::map<std::string, std::int64_t> denied_;
  std::list<LinkWatcherPtr> watchers_;
};

}  // namespace aiv::gateway
