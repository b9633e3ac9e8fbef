// The gateway's listeners and loops put together. run_gateway() is this on a loop of its own with signals; tests run
// it in process.
#pragma once
#include <memory>

#include "gateway/internal_api.hpp"
#include "gateway/join_door.hpp"
#include "gateway/public_api.hpp"
#include "gateway/state.hpp"
#include "net/h2.hpp"
#include "net/http_server.hpp"

namespace aiv::gateway {

class GatewayServer {
 public:
  GatewayServer(net::Executor executor, GatewayOptions options);
  ~GatewayServer();
  GatewayServer(const GatewayServer&) = delete;
  GatewayServer& operator=(const GatewayServer&) = delete;

  // Loads the table and opens all listeners; the error names the address or file.
  Result<> start();
  // No new requests; those that run get `grace`, then they end with an error event.
  net::Task<> drain(net::Clock::duration grace);

  [[nodiscard]] GatewayState& state() { return state_; }
  [[nodiscard]] int public_port() const { return public_server_->port(); }
  [[nodiscard]] int link_port() const { return link_listener_->port(); }

  // The parts of start(), for tests that bring their own links.
  Result<> prepare();
  Result<> listen_rest(net::TlsContextPtr public_tls);

 private:
  Result<> listen();
  [[nodiscard]] Result<net::TlsContextPtr> link_tls() const;
  void accept_link(net::StreamPtr stream);
  void accept_internal(net::StreamPtr stream);
  static net::Task<> serve_internal(net::H2Ptr connection);

  GatewayState state_;
  PublicApi public_api_;
  InternalApi internal_api_;
  JoinDoor join_door_;
  std::unique_ptr<net::Listener> link_listener_;
  std::unique_ptr<net::Listener> internal_listener_;
  std::unique_ptr<net::HttpServer> public_server_;
};

}  // namespace aiv::gateway
