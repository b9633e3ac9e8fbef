// What the parts of the gateway share: one thread, one of each.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "base/hash.hpp"
#include "gateway/access_log.hpp"
#include "gateway/controller_client.hpp"
#include "gateway/cors.hpp"
#include "gateway/dispatcher.hpp"
#include "gateway/gateway.hpp"
#include "gateway/metrics.hpp"
#include "gateway/node_links.hpp"
#include "gateway/quota_book.hpp"
#include "gateway/routes.hpp"
#include "gateway/usage_book.hpp"

namespace aiv::gateway {

struct GatewayState {
  GatewayState(net::Executor loop, GatewayOptions settings);
  GatewayState(const GatewayState&) = delete;
  GatewayState& operator=(const GatewayState&) = delete;

  net::Executor executor;
  GatewayOptions options;
  RouteStore routes;
  NodeLinks links;
  Dispatcher dispatcher;
  ControllerClient controller;
  Metrics metrics;
  AccessLog access_log;
  QuotaBook quotas;
  UsageBook usage;
  Cors cors;
  bool draining = false;
  // How many controllers listen to the links just now; none: the table may be stale, and is served from all the same.
  int controllers = 0;
  std::uint64_t request_seed = random_u64();
  std::uint64_t request_count = 0;
  std::function<std::size_t()> connections = [] { return std::size_t{0}; };

  // "req-" and 16 hexadecimal digits: never twice within a process, and not guessable from one another.
  std::string next_request_id();
};

}  // namespace aiv::gateway
