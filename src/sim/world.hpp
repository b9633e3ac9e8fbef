// A whole cluster under a virtual clock: nodes, network, store, controllers, a gateway, clients, operators,
// and faults, all drawn from one seed. The same scenario, seed and version give the same run, event by event.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "sim/checks.hpp"
#include "sim/controller.hpp"
#include "sim/event_log.hpp"
#include "sim/event_queue.hpp"
#include "sim/gateway.hpp"
#include "sim/node.hpp"
#include "sim/random.hpp"
#include "sim/scenario.hpp"
#include "sim/store.hpp"

namespace aiv::sim {

// Bugs put in on purpose, to see that the checks find them (tests alone).
enum class Plant {
  kNone,
  kAgentIgnoresVersions,    // I1
  kGatewayIgnoresVersions,  // I1
  kStoreWithoutFence,       // I2
  kOverfillUnchecked,       // I3: more is told to a node than fits, and the agent does not look
  kOverfill,                // L1: more is told to a node than fits; the agent refuses
  kRouteUnready,            // I4
  kLoseWrite,               // I5
  kResendFromStart,         // I6
  kLoseRequest,             // L3
  kAgentForgets,            // L1, L5
  kControllerMute,          // L1, L5
  kEvictBusy,               // I9: the gateway's counts of running requests do not arrive
  kScaleDeaf,               // L6: no counts arrive at all
  kScaleNervous,            // L6: an autoscaler without hysteresis
  kDrainWhileObserving,     // I8: a new leader unloads before it has heard the nodes
  kQuotaChargedAfter,       // I7: nothing is reserved, a request is charged when it ends
  kQuotaSettledTwice,       // I7: some requests give their reservation back twice
  kQuotaForgetsTeam,        // I7: only the key's own account is asked and charged
  kQuotaForgetsDay          // I7: a gateway that starts anew begins the day anew
};

struct Times {
  std::vector<std::int64_t> route_gone_ms;  // from a node's loss to the table that leaves it out
  std::vector<std::int64_t> replaced_ms;  // from a node's loss until every deployment has what it wants again
};

struct RunResult {
  std::int64_t simulated_ms = 0;
  std::int64_t events = 0;
  std::int64_t faults = 0;
  std::int64_t admin_writes = 0;
  std::int64_t decisions = 0;
  std::int64_t moves = 0, scaled = 0,
               evicted = 0;  // replicas placed, autoscaler's decisions, evictions after the first loads
  RequestCounts requests;
  double worst_window = 1;
  std::vector<Violation> violations;
  bool safety_broken = false;
  bool liveness_broken = false;
  std::int64_t converged_ms = -1;  // after the faults stopped; -1 = never
  Times times;
  std::string log_hash;
};

class World {
 public:
  World(Scenario scenario, std::uint64_t seed, EventLog::Sink sink = {}, Plant plant = Plant::kNone);
  // The run may end before its time is over, once all has been as wanted for `ms` after the faults stopped.
  void end_when_calm_for(std::int64_t ms) { calm_ms_ = ms; }
  // Errors: a scenario whose devices or trace cannot be read.
  Result<RunResult> run();

  // ---- for the parts
  [[nodiscard]] std::int64_t now() const { return queue_.now_ms(); }
  EventQueue& queue() { return queue_; }
  Random& random() { return random_; }
  Checks& checks() { return checks_; }
  Gateway& gateway() { return gateway_; }
  Store& store() { return store_; }
  [[nodiscard]] const Scenario& scenario() const { return scenario_; }
  [[nodiscard]] Plant plant() const { return plant_; }
  [[nodiscard]] const std::vector<std::unique_ptr<Node>>& nodes() const { return nodes_; }
  Node* find(const std::string& node);
  std::uint64_t next_no() { return next_no_++; }
  void say(const std::string& who, const std::string& what) { log_.line(now(), who, what); }
  void told(const Controller& controller, const command::Tell& words);
  [[nodiscard]] bool elastic() const { return scenario_.replicas_max > scenario_.replicas_min; }
  [[nodiscard]] std::int64_t gateway_back_ms() const { return gateway_back_ms_; }

  // ---- network
  void connect(Node& node);     // the agent dials until it has a link
  void link_reset(Node& node);  // its end is closed: told at once
  void send_up(Node& node, std::function<void(Controller&)> message);
  void send_down(const std::string& node, std::function<void()> message);
  void send_document(const Controller& from, const NodeDesired& document, const Node::Answer& answer);
  [[nodiscard]] bool link_seen(const std::string& node);

 private:
  Result<> build();
  Result<> read_trace();
  void start_clients();
  struct Rate {
    double rps = 0;
    std::uint64_t generation = 0;
    std::int64_t minute = -1;
    double noise = 1;
  };
  void next_request(int model, std::uint64_t generation);
  void request_for(const std::string& name);
  std::string draw_model(int model);
  double noise_now(Rate& rate);
  void count_load(int turn);
  void evicted(const std::string& replica);
  void judge_expectations();
  void housekeeping();
  // ---- faults.cpp
  void schedule_faults();
  void next_fault();
  void inject(const ScheduledFault& fault);
  void inject_on_node(const ScheduledFault& fault, Node& node, std::int64_t for_ms);
  void inject_on_server(const ScheduledFault& fault, std::int64_t for_ms);
  void cut(Node& node, bool up, bool down, std::int64_t for_ms);
  void heal(Node& node);
  void break_link(Node& node, const std::string& why);
  void kill_controller();
  void split_controller();
  void kill_gateway();
  void replay_documents();
  void heal_all();
  // ---- operators.cpp
  void next_admin();
  void admin_change(const std::string& words, Store::Change change, std::vector<Event> events,
                    const std::string& key, const std::string& value);
  void scale_deployment();
  void change_deployment();
  void recreate_deployment();
  void drain_node(Node& node, bool on);
  // ---- judgement.cpp
  Controller* leader();
  [[nodiscard]] bool all_ready() const;
  std::string not_converged();
  std::string misses_a_place(const ControllerState& state);
  void judge_end();
  void follow_losses();

  Scenario scenario_;
  EventLog log_;
  Plant plant_;
  EventQueue queue_;
  Random random_;
  Checks checks_;
  Store store_;
  Gateway gateway_;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<std::unique_ptr<Controller>> controllers_;
  int controller_no_ = 0;
  std::uint64_t next_no_ = 1;
  std::int64_t gateway_back_ms_ = 0;
  std::int64_t faults_ = 0;
  std::int64_t admin_writes_ = 0;
  std::int64_t decisions_ = 0;
  bool faults_over_ = false;
  std::int64_t busy_until_ms_ = 0;  // with faults that may not overlap
  std::int64_t leaderless_since_ms_ = -1;
  std::int64_t unheard_since_ms_ = -1;
  std::int64_t healed_ms_ = -1;
  std::int64_t converged_ms_ = -1;
  std::int64_t calm_ms_ = 0;  // 0: the whole time
  std::int64_t next_generation_ = 2;
  std::vector<std::pair<std::int64_t, std::int64_t>> lengths_;  // prompt, answer: from a trace
  std::size_t next_length_ = 0;
  std::map<int, Rate> rates_;                          // by model, of the phases
  std::int64_t moves_ = 0, scaled_ = 0, evicted_ = 0;  // since the clients started
  std::vector<NodeDesired> old_documents_;
  std::vector<RouteTable> old_tables_;
  struct Loss {
    std::string node;
    std::int64_t at_ms = 0;
    bool routes_gone = false;
  };
  std::vector<Loss> losses_;
  Times times_;
};

std::string_view state_word(ReplicaState state);

}  // namespace aiv::sim
