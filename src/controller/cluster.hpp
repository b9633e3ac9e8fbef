// The controller's state at work: takes events into the pure step and carries out what it commands.
//
// Rules:
//  - take() never blocks and never waits: heartbeats are not held up by a disk.
//  - Events are taken in at once; the decision about them is made at once too, unless the last one was long
//  and just made:
//    then one decision answers all that came meanwhile (controller/decision_pace.hpp), and names them as its
//    cause.
//  - Commands are carried out in the order in which they were decided, by one task. Writes of placements are
//  durable
//    before a document that names them can be sent; while the store takes no writes the queue stands still,
//    nothing new is decided, and everything that runs goes on.
//  - Every write compares /aiv/epoch: a controller that was replaced meanwhile cannot write, and stops.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "controller/decision_pace.hpp"
#include "controller/event_log.hpp"
#include "controller/records.hpp"
#include "controller/store.hpp"
#include "core/reconcile.hpp"
#include "net/async.hpp"

namespace aiv::controller {

struct ClusterOptions {
  std::string server_id = "srv-1";
  bool auth_required = true;
  DetectorSettings detector;
  ReconcileSettings reconcile;
};

class Cluster {
 public:
  Cluster(net::Executor executor, std::unique_ptr<Store> store, ClusterOptions options);

  // Takes the leadership (a new epoch) and reads the state. A store that is read-only is no error: the cluster is then
  // readable as far as it can be read, and publishes nothing. Errors: another server took the leadership meanwhile.
  net::Task<Result<>> load();
  // Carries out commands until stop(); run it once, as a task of its own.
  net::Task<> run();
  // Gives the leadership up, so that the next start takes it at once.
  net::Task<> resign();
  void stop();

  // Takes one event in now: state() has it when this returns. What follows from it may be decided a moment
  // later.
  void take(const Event& event);

  // An admin's change: `txn` with the fence and an audit record, then `event` if it was committed. One at a time, in the
  // order of the calls. kConflict: a compare failed. kUnavailable: not applied, or (where = "unknown") perhaps applied.
  struct Change {
    Txn txn;
    std::vector<Event> events;
    std::string actor;
    std::string action;  // "deployment.put"
    std::string object;  // "deployment/NAME"
    // Who does what to which object; what it writes is still to be said.
    static Change of(std::string actor, std::string action, std::string object) {
      return {{}, {}, std::move(actor), std::move(action), std::move(object)};
    }
  };
  net::Task<Result<std::int64_t>> change(Change change);

  // All audit records as stored, oldest first, and the head that names the newest.
  struct Audit {
    std::vector<std::string> records;
    std::string head;
  };
  net::Task<Result<Audit>> read_audit();

  [[nodiscard]] const ControllerState& state() const { return state_; }
  // Whether something was taken in that no decision has answered yet: what state() says of places and their
  // states may be about to change.
  [[nodiscard]] bool undecided() const { return pace_.wanted(); }
  [[nodiscard]] EventLog& events() { return events_; }
  // Revision of the newest change that we know of, and of one stored key (0 = not there).
  [[nodiscard]] std::int64_t revision() const { return revision_; }
  [[nodiscard]] std::int64_t revision_of(const std::string& key) const;
  // The stored key as we know it, absent where it is not there: else the change rests on what is no longer
  // so.
  [[nodiscard]] Compare still_as_known(const std::string& key) const;
  [[nodiscard]] const std::map<std::string, KeyRecord>& keys() const { return keys_; }
  [[nodiscard]] const std::map<std::string, TeamRecord>& teams() const { return teams_; }
  // Of a team as a whole: as its record says, or, where there is none, the smallest that its keys state.
  [[nodiscard]] KeyLimits team_limits(const std::string& team) const;
  [[nodiscard]] const std::map<std::string, TokenRecord>& tokens() const { return tokens_; }
  // What was said when a node of this name was removed, or nullptr.
  [[nodiscard]] const DeniedNode* denied(const std::string& node) const;
  // What is stored for a node; defaults for one that nobody set anything for.
  [[nodiscard]] NodeSettings settings_of(const std::string& node) const;
  // Why no writes are taken now; empty = they are.
  [[nodiscard]] std::string read_only_reason() const;
  // Runs beside run(): finds out when a store that took no changes (a full disk) takes them again.
  net::Task<> watch_store();
  [[nodiscard]] bool leads() const { return state_.epoch > 0 && !fenced_; }
  // Records that were refused at load, "KEY: reason".
  [[nodiscard]] const std::vector<std::string>& refused_records() const { return refused_; }

  // The newest documents to be sent, and a call for each change of them.
  [[nodiscard]] const NodeDesired* desired_for(const std::string& node) const;
  [[nodiscard]] const RouteTable* routes() const { return routes_ ? &*routes_ : nullptr; }
  std::function<void(const std::string& node)> on_desired;
  std::function<void()> on_routes;
  std::function<void(const std::string& reason)> on_fenced;
  std::function<void(const std::string& node)> on_node_erased;

  static Instant now();

  void tell(std::string kind, std::string subject, std::string reason, std::string cause = {});

 private:
  net::Task<Result<>> take_leadership();
  net::Task<> read_state();
  net::Task<TxnResult> run_txn(Txn txn);
  net::Task<bool> write_batch();
  void decide_now();
  void enqueue(std::vector<Command> commands);
  void perform(const Command& command);
  void note_committed(const Txn& txn, std::int64_t rev);
  void note_writable(const TxnResult& result);
  void follow_change(const Txn& txn);
  void publish_denied();
  net::Task<> read_audit_head();
  // Adds the record of `change` to its transaction; its hash.
  std::string add_audit_record(Change& change) const;
  void fenced(const std::string& reason);
  net::Task<RangeResult> read_prefix(std::string prefix);
  void read_keys(const RangeResult& rows);
  void read_teams(const RangeResult& rows);
  // The keys as gateways get them: each with its team's limits.
  [[nodiscard]] event::KeysPut keys_put() const;

  net::Executor executor_;
  std::shared_ptr<Store> store_;
  ClusterOptions options_;
  ControllerState state_;
  EventLog events_;
  std::map<std::string, KeyRecord> keys_;
  std::map<std::string, TeamRecord> teams_;
  std::map<std::string, TokenRecord> tokens_;
  std::map<std::string, DeniedNode> denied_;
  std::map<std::string, NodeSettings> node_settings_;
  std::map<std::string, std::int64_t> revisions_;  // of stored keys
  std::int64_t revision_ = 0;
  std::int64_t epoch_mod_rev_ = 0;
  std::int64_t audit_no_ = 0;
  std::string audit_hash_;   // of record audit_no_
  bool audit_known_ = true;  // false after a transaction whose outcome nobody knows
  std::vector<std::string> refused_;
  DecisionPace pace_;
  std::deque<Command> commands_;
  net::Signal work_;
  std::map<std::string, NodeDesired> desired_;
  std::optional<RouteTable> routes_;
  std::string read_only_;
  bool fenced_ = false;
  bool stopping_ = false;
  bool changing_ = false;
  net::Signal change_done_;
};

}  // namespace aiv::controller
