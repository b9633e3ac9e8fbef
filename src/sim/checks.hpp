// The rules of a run, kept apart from what they judge: own books, filled by what really happened.
//
// Safety: I1 no receiver applies a version below the highest it persisted. I2 after a write of epoch e none
// of a lower epoch is accepted; one holder per epoch. I3 on every device, at every instant, the bytes that
// our engines hold stay within its capacity, and none is started where the others' memory is not back. I4
// routes name only what was seen Ready in the present incarnation. I5 an acknowledged admin write stays. I6 a
// request is not sent again after its first token unless with the text so far; it has one end. I7 a quota
// is not overdrawn by more than what is in flight (quotas.hpp). I8 a new leader drains nothing while it
// observes; no more than wanted + 1 replicas at work, no two on one node.
// Liveness: L1 desired == observed, L2 a leader, L3 no request waits for ever, L4 a node that is heard is
// Ready, L5 what fits is placed.
#pragma once
#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/controller_state.hpp"

namespace aiv::sim {

struct Violation {
  std::string rule;
  std::int64_t at_ms = 0;
  std::string detail;
};

class Checks {
 public:
  void violate(const std::string& rule, std::int64_t now_ms, std::string detail);
  [[nodiscard]] bool safety_broken() const { return safety_ > 0; }
  [[nodiscard]] bool liveness_broken() const { return liveness_ > 0; }
  [[nodiscard]] const std::vector<Violation>& violations() const { return violations_; }

  // I1
  void applied(const std::string& receiver, Version version, std::int64_t now_ms);
  // I2
  void epoch_taken(std::int64_t epoch, const std::string& holder, std::int64_t now_ms);
  void write_accepted(std::int64_t epoch, std::int64_t now_ms);
  // I4: what the controller of `epoch` has been told, and what it publishes.
  void heard(std::int64_t epoch, const NodeObserved& document);
  void routes_published(const RouteTable& table, const ControllerState& state, std::int64_t now_ms);
  // I5: acknowledged writes, and what the store holds.
  void acknowledged(const std::string& key, const std::string& value) { acknowledged_[key] = value; }
  void unsure(const std::string& key) { acknowledged_.erase(key); }
  void stored(const std::map<std::string, std::string>& rows, std::int64_t now_ms);
  // I3 as decided, I8.
  void decided(const ControllerState& state, const std::vector<Command>& commands, std::int64_t now_ms);

 private:
  struct Told {
    std::uint64_t incarnation = 0;
    std::set<std::uint64_t> past_lives;
    std::int64_t seq = -1;
    std::set<std::string> ready;
  };
  std::vector<Violation> violations_;
  int safety_ = 0;
  int liveness_ = 0;
  std::map<std::string, Version> applied_;
  std::map<std::int64_t, std::string> holders_;
  std::int64_t highest_write_ = 0;
  std::map<std::pair<std::int64_t, std::string>, Told> told_;  // (epoch, node)
  std::map<std::string, std::string> acknowledged_;
};

}  // namespace aiv::sim
