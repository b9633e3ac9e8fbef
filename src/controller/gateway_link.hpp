// The controller's way to the nodes: one HTTP/2 connection to the gateway, which holds the ends of the node links.
//
// Over it go: the stream of which links are up, one observe stream per node that is up, the documents that nodes and
// the gateway are to have (pushed until they are acknowledged), and requests relayed to a node.
// When the gateway is gone, no node's silence counts and nothing is decided from it; the connection is tried again
// after 50 ms, 100 ms ... 1 s.
#pragma once
#include <map>
#include <memory>
#include <set>
#include <string>

#include "controller/cluster.hpp"
#include "net/h2.hpp"
#include "net/pki.hpp"

namespace aiv::controller {

class GatewayLink {
 public:
  // `address`: "unix:DIR/run/gateway.sock". The cluster must outlive it.
  GatewayLink(net::Executor executor, Cluster& cluster, std::string address);

  // Runs until stop().
  net::Task<> run();
  void stop();

  // Signs a node's request for its next certificate; unset: none is renewed.
  std::function<net::Task<Result<net::Issued>>(std::string node, std::string request)> sign;
  // Whether the gateway was heard within the last second: what the failure detector asks each tick.
  [[nodiscard]] bool gateway_heard() const;
  // An open connection, or nullptr.
  [[nodiscard]] std::shared_ptr<net::HttpClient> client() const { return connection_; }

 private:
  // One life of a node's link. Tasks hold it and stop when it is over.
  struct Session {
    explicit Session(net::Executor executor) : changed(executor) {}
    bool up = true;
    Version acknowledged;
    std::set<std::string> refusals;  // why reports were refused, as far as it was told
    net::Signal changed;  // a newer document, or the end
  };
  using SessionPtr = std::shared_ptr<Session>;

  net::Task<> serve(net::H2Ptr connection);
  void on_links_line(const std::string& line);
  void node_up(const std::string& node);
  void node_down(const std::string& node, const std::string& reason);
  void drop_sessions();
  net::Task<> observe(std::string node, SessionPtr session);
  net::Task<> observe_once(std::string node, SessionPtr session);
  void on_observe_line(const std::string& node, const std::string& line);
  void refuse_document(const std::string& node, const std::string& reason);
  net::Task<> push_desired(std::string node, SessionPtr session);
  net::Task<bool> push_once(std::string node, NodeDesired document, SessionPtr session);
  net::Task<> renew_certificates(std::string node, SessionPtr session);
  // One look; when to look again.
  net::Task<net::Clock::duration> renew_once(std::string node, SessionPtr session);
  net::Task<Result<Json>> ask(net::H2Ptr connection, std::string method, std::string path, Json body);
  // Once a second: what the gateway counted, for the step to scale by.
  net::Task<> poll_load(net::H2Ptr connection);
  net::Task<> push_routes(net::H2Ptr connection);
  net::Task<> run_connection(net::H2Ptr connection);

  net::Executor executor_;
  Cluster& cluster_;
  const std::string address_;
  net::H2Ptr connection_;
  net::Clock::time_point last_line_{};
  std::map<std::string, SessionPtr> sessions_;
  net::Signal routes_changed_;
  bool stopping_ = false;
};

}  // namespace aiv::controller
