// Who is alive: a node's life at three speeds, from heartbeats and link news alone.
//
// SPECIFICATION
//
// - No heartbeat for suspect_ms: Suspect. For lost_ms: Lost. Replaceable (its replicas may be placed elsewhere)
//   replace_ms after the last sign of life, replace_closed_ms if its kernel closed the link, at once after a goodbye.
//   Rationale: a false Lost costs a second of routing, a false replacement costs a load.
// - A closed link makes a node Suspect at once; Lost still waits for silence. Rationale: an agent that restarts is back
//   within a second.
// - A node that was silent is Ready again only with a fresh document (report()), not by a heartbeat alone. Rationale:
//   what it runs may have changed.
// - Own stall: what a tick is late beyond tick_allowance_ms is taken off every silence. Rationale: a controller that
//   was stopped for 5 s heard nobody, and nobody was lost (Lifeguard, arXiv 1707.00788).
// - Own blindness: while the gateway that holds the links is not heard, no silence counts.
// - Mass failure: mass_nodes_min or more nodes, and at least half of those that were alive, silent within
//   mass_window_ms: nobody is Replaceable for freeze_ms. Rationale: more likely our network than all of them.
// - Flapping: flap_count times Lost within flap_window_ms: quarantined, for quarantine_ms, doubled each further time,
//   until calm_ms without a loss. A quarantined node keeps what it has and gets nothing new.
//
// All times are milliseconds of one monotonic clock that the caller passes in. tick() is due every tick_ms.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace aiv {

struct DetectorSettings {
  std::int64_t tick_ms = 250;
  std::int64_t tick_allowance_ms = 50;
  std::int64_t suspect_ms = 1'500;
  std::int64_t lost_ms = 2'500;
  std::int64_t replace_ms = 10'000;
  std::int64_t replace_closed_ms = 5'000;
  std::int64_t mass_window_ms = 2'000;
  int mass_nodes_min = 2;
  std::int64_t freeze_ms = 30'000;
  int flap_count = 3;
  std::int64_t flap_window_ms = 300'000;
  std::int64_t quarantine_ms = 60'000;
  std::int64_t quarantine_max_ms = 3'600'000;
  std::int64_t calm_ms = 600'000;
};

enum class NodeHealth { kReady, kSuspect, kLost };

enum class HealthChange {
  kReady,
  kSuspect,
  kLost,
  kReplaceable,
  kQuarantined,
  kReleased,   // quarantine is over
  kFrozen,     // mass failure; `node` is empty
  kUnfrozen
};

struct HealthEvent {
  HealthChange change = HealthChange::kReady;
  std::string node;
  std::int64_t silent_ms = 0;  // since the last sign of life, own stalls taken off
  std::string reason;
  friend bool operator==(const HealthEvent&, const HealthEvent&) = default;
};

class FailureDetector {
 public:
  explicit FailureDetector(DetectorSettings settings = {}) : settings_(settings) {}

  // A node that the state knows, not heard yet: Suspect, its silence begins now.
  void expect(const std::string& node, std::int64_t now_ms);
  void forget(const std::string& node);
  std::vector<HealthEvent> link_up(const std::string& node, std::int64_t now_ms);
  // `goodbye`: the agent said that it stops.
  std::vector<HealthEvent> link_down(const std::string& node, bool goodbye, std::int64_t now_ms);
  void heartbeat(const std::string& node, std::int64_t now_ms);
  // A NodeObserved of this node arrived.
  std::vector<HealthEvent> report(const std::string& node, std::int64_t now_ms);
  std::vector<HealthEvent> tick(bool gateway_heard, std::int64_t now_ms);

  [[nodiscard]] NodeHealth health(std::string_view node) const;  // kLost for a stranger
  [[nodiscard]] bool replaceable(std::string_view node) const;
  [[nodiscard]] bool quarantined(std::string_view node) const;
  [[nodiscard]] bool frozen() const { return frozen_until_ms_ > 0; }
  [[nodiscard]] std::int64_t silent_ms(std::string_view node, std::int64_t now_ms) const;
  [[nodiscard]] const DetectorSettings& settings() const { return settings_; }

 private:
  struct Node {
    NodeHealth health = NodeHealth::kSuspect;
    std::int64_t heard_ms = 0;       // moved forward by own stalls
    std::int64_t silent_since_ms = -1;  // when it became Suspect or Lost; -1 = it is not
    bool link = false;
    bool closed = false;  // its kernel closed the link
    bool goodbye = false;
    bool replaceable = false;
    std::vector<std::int64_t> lost_ms;  // within the flap window
    std::int64_t quarantined_until_ms = 0;
    int quarantines = 0;
  };

  void became_silent(Node& node, std::int64_t now_ms, std::vector<HealthEvent>& out);
  void look_for_mass_failure(std::int64_t now_ms, std::vector<HealthEvent>& out);
  void lose(const std::string& id, Node& node, std::int64_t now_ms, std::vector<HealthEvent>& out);
  void age(const std::string& id, Node& node, std::int64_t now_ms, std::vector<HealthEvent>& out);

  DetectorSettings settings_;
  std::map<std::string, Node, std::less<>> nodes_;
  std::int64_t last_tick_ms_ = -1;
  std::int64_t frozen_until_ms_ = 0;
};

[[nodiscard]] std::string_view to_string(HealthChange change);
[[nodiscard]] std::string_view to_string(NodeHealth health);

}  // namespace aiv
