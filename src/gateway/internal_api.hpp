// The socket between gateway and controller (DIR/run/gateway.sock, HTTP/2, 0600): what the controller needs of us.
//   GET  /internal/v1/links             endless JSON lines: links first, then up/down, a tick each 250 ms
//   ANY  /internal/v1/nodes/ID/node/... passed on to that node's link
//   PUT  /internal/v1/routes            the route table: 200, 409 for an older one, 422 for one that is malformed
//   GET  /internal/v1/stats             counters per model and replica
#pragma once
#include "gateway/state.hpp"

namespace aiv::gateway {

inline constexpr net::milliseconds kLinksTick{250};

class InternalApi {
 public:
  explicit InternalApi(GatewayState& state) : state_(state) {}
  net::Task<> handle(net::ExchangePtr exchange);

 private:
  net::Task<> links(net::ExchangePtr exchange);
  net::Task<> routes(net::ExchangePtr exchange);
  net::Task<> node(net::ExchangePtr exchange);
  [[nodiscard]] std::string stats() const;
  GatewayState& state_;
};

}  // namespace aiv::gateway
