// Whether an engine that says nothing still lives. A stopped process keeps its sockets and its kernel goes on
// accepting connections, so nothing but an unanswered question tells.
#pragma once
#include <string>

#include "gateway/dispatcher.hpp"
#include "gateway/node_links.hpp"

namespace aiv::gateway {

enum class Pulse {
  kAlive,   // it answered, whatever it said, or the link broke, which speaks for itself
  kSilent,  // nothing came in time, though we were there to hear it
  kUnheard  // nothing came, but our own loop was late too: no evidence
};

// How late our own timer may be before a missing answer is no evidence (the guard of the failure detector,
// too).
inline constexpr net::milliseconds kOwnDelayMax{50};

// Asks the engine of `replica` for its health over its node's link and waits at most `limit`.
net::Task<Pulse> feel_pulse(net::H2Ptr link, ReplicaPtr replica, net::Clock::duration limit);

// Marks a silent replica as hung and asks it until it answers: no request finds out the hard way meanwhile.
// Ends when it answers, is no longer routed, or loses its link (a new link means a new start). A replica is
// watched once.
void watch_hung(net::Executor executor, const NodeLinks& links, ReplicaPtr replica);

}  // namespace aiv::gateway
