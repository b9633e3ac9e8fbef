// Carries one request from the node link to an engine's Unix socket and its answer back, as it comes.
//
// Rules:
//  - An allow-list of engine paths, and of the client's headers only content-type and accept. Rationale: with
//    X-Conversation-Id the engine goes on generating after the disconnect, and /v1/stream* belongs to that.
//  - Connections to the engine are kept between requests; leaving a request before its end closes its connection.
//    Rationale: that is what frees the engine's slot, within a millisecond at the next token.
//  - No more requests than slots. Rationale: the engine queues the rest without a limit.
//  - The answer ends with the trailer `aiv-end`: "complete", "engine-exit;status=...", "stalled" or
//  "cancelled". An
//    end without it is a broken stream, so nothing that was cut can look whole.
#pragma once
#include <string_view>

#include "net/http.hpp"
#include "node/supervisor.hpp"

namespace aiv::node {

struct RelayLimits {
  std::size_t body_bytes_max = 32 * 1024 * 1024;
  net::Clock::duration head_max =
      std::chrono::minutes(10);  // a long prompt may take minutes before its first byte
  net::Clock::duration stall_max = std::chrono::seconds(100);  // the engine pings an idle stream each 30 s
};

enum class EnginePath { kUnknown, kGenerates, kQuick };

// Whether `method` `path` may be relayed, and whether it takes a slot.
EnginePath classify_engine_path(std::string_view method, std::string_view path);

net::Task<> relay(net::ExchangePtr exchange, SupervisorPtr replica, std::string path, RelayLimits limits);

}  // namespace aiv::node
