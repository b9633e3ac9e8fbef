// What the agent serves on its link (control.md's node protocol): hello, observe, desired, replicas.
//
//   GET  /node/v1/hello               NodeObserved
//   GET  /node/v1/observe             JSON lines for ever: heartbeats each 250 ms, NodeObserved on change and
//   each 5 s PUT  /node/v1/desired             200 {"applied":..} | 409 {"highest":..} | 422
//   {"field":..,"reason":..}
//   GET  /node/v1/certificate         {"due_in_s":..,"request":PEM if it is due};  PUT {"certificate":PEM}
//   POST /node/v1/farewell            {"reason":..}: the server is about to end this link for good
//   *    /node/v1/replicas/ID/PATH    relayed to the engine (node/relay.hpp)
//   GET  /node/v1/replicas/ID/log     the end of the engine's log
//
// The heartbeats are made by the loop that relays tokens, so a wedged loop cannot hide behind a healthy
// thread; each tells how late its timer was.
#pragma once
#include <functional>
#include <memory>
#include <string>

#include "core/documents.hpp"
#include "net/http.hpp"
#include "node/relay.hpp"
#include "node/supervisor.hpp"

namespace aiv::node {

struct ApplyOutcome {
  enum class Kind { kApplied, kOlder, kInvalid, kFailed } kind = Kind::kApplied;
  Version version;  // applied, or the highest seen
  std::string field;
  std::string reason;
};

// The agent, as its API sees it.
class NodeView {
 public:
  virtual ~NodeView() = default;
  [[nodiscard]] virtual NodeObserved observed() const = 0;
  // Counts up with every change of observed().
  [[nodiscard]] virtual std::int64_t observed_seq() const = 0;
  virtual net::Task<ApplyOutcome> apply(NodeDesired document) = 0;
  // When the certificate is due, and the request for the next one if it is now.
  struct CertificateState {
    std::int64_t due_in_s = 0;
    std::string request;
  };
  virtual Result<CertificateState> certificate() = 0;
  virtual net::Task<Result<>> take_certificate(std::string pem) = 0;
  // The server ends the link, and says why.
  virtual void farewell(std::string reason) = 0;
  [[nodiscard]] virtual SupervisorPtr replica(const std::string& id) const = 0;
};

struct NodeApiTimes {
  net::Clock::duration heartbeat = std::chrono::milliseconds(250);
  net::Clock::duration observed_whole = std::chrono::seconds(5);
  net::Clock::duration observed_gap = std::chrono::milliseconds(50);  // at most 20 documents a second
};

net::Handler node_api_handler(NodeView& node, RelayLimits relay_limits, NodeApiTimes times = {});

}  // namespace aiv::node
