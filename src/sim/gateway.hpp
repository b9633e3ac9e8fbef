// A simulated gateway around core/routing and core/admission: a table that it keeps, a queue per model,
// requests that are tried elsewhere before their first token and resumed with the text so far after it.
#pragma once
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/admission.hpp"
#include "core/demand.hpp"
#include "core/documents.hpp"
#include "core/routing.hpp"
#include "sim/quotas.hpp"

namespace aiv::sim {

class World;

struct RequestCounts {
  std::int64_t total = 0;
  std::int64_t good = 0;
  std::int64_t refused = 0;  // ended with an error before the first token
  std::int64_t broken = 0;   // ended with an error after it
  std::int64_t late = 0;     // complete, but the first token or a gap took too long
  std::int64_t resumed = 0;  // ended good after a resume
  std::int64_t limited = 0;  // refused by a quota: the client's own, not in the total
  [[nodiscard]] std::int64_t bad() const { return refused + broken + late; }
};

class Gateway {
 public:
  explicit Gateway(World& world) : world_(world), quotas_(world) {}

  [[nodiscard]] bool alive() const { return alive_; }
  void kill();
  void start();
  // False: an older table than the one it has.
  bool take_table(const RouteTable& table);
  void links_changed() { pump_all(); }

  // A client's request, at its intended send time.
  void request(const std::string& model, std::int64_t prompt, std::int64_t tokens);

  // From the nodes: it was accepted and will take so long; its stream stands still, goes on, or is over.
  void started(std::uint64_t request, std::int64_t prefill_ms, std::int64_t decode_ms);
  void frozen(const std::set<std::uint64_t>& requests);
  void thawed(const std::set<std::uint64_t>& requests);
  void broken(std::set<std::uint64_t> requests, const std::string& why);
  void node_link_lost(const std::string& node);

  [[nodiscard]] const RequestCounts& counts() const { return counts_; }
  [[nodiscard]] const std::optional<RouteTable>& table() const { return table_; }
  [[nodiscard]] bool routes_to_node(const std::string& node) const;
  [[nodiscard]] std::set<std::uint64_t> on_node(const std::string& node) const;
  // The counters of the product's gateway: `count` adds a gauge that held for `ms`, `take_samples` begins
  // anew.
  void count(std::int64_t ms);
  std::vector<LoadSample> take_samples(std::int64_t interval_ms);
  // Since when it runs requests, or has any; -1 = it does not.
  [[nodiscard]] std::int64_t busy_since(const std::string& replica) const;
  [[nodiscard]] std::int64_t active_since(const std::string& model) const;
  // Deadlines of the waiting, and L3.
  void tick();
  // I7, after every event.
  void check_quotas() { quotas_.check(); }
  // Worst share of good requests in a window of 10 s, 1 when there were none.
  [[nodiscard]] double worst_window() const;

 private:
  struct Replica {
    Replica(std::string i, std::string n, int slots) : id(std::move(i)), node(std::move(n)), ledger(slots) {}
    std::string id, node;
    SlotLedger ledger;
    SpeedEstimate speed;
    Ejection ejection;
    bool suspect = false;
  };
  using ReplicaPtr = std::shared_ptr<Replica>;
  struct Model {
    std::string name, state;
    std::vector<ReplicaPtr> replicas;
    AdmissionQueue queue;
    RunningMean output_tokens{200};
    RunningMean prompt_tokens{200};
  };
  struct Request {
    std::uint64_t id = 0;
    std::string model;
    std::int64_t prompt = 0, tokens = 0;
    std::int64_t arrived_ms = 0;
    std::int64_t delivered = 0;  // tokens the client has
    std::int64_t carried = 0;    // of them, what this attempt was sent with
    std::int64_t last_token_ms = -1;
    std::int64_t first_token_ms = -1;
    std::int64_t longest_gap_ms = 0;
    int attempts = 0;
    bool resumed = false, retrying = false;
    std::set<std::string> tried;
    ReplicaPtr replica;  // while it runs
    SlotLease slot;
    int batch = 1;
    std::uint64_t generation = 0;  // of its timers
    bool runs = false;             // the engine has it
    std::int64_t first_due_ms = 0, end_due_ms = 0;
    std::int64_t frozen_ms = -1;
  };

  void enqueue(Request& request, bool front);
  void pump(Model& model);
  void pump_all();
  RouteDecision choose(const Model& model, const Request& request);
  void dispatch(Request& request, const ReplicaPtr& replica, double finish_ms);
  void arrive(std::uint64_t id, std::uint64_t generation);
  void finish(std::uint64_t id, std::uint64_t generation);
  void stalled(std::uint64_t id, std::uint64_t generation);
  void broke(Request& request, const std::string& why, bool blame);
  void leave_replica(Request& request, bool ended);
  void note_progress(Request& request);
  enum class End { kGood, kRefused, kBroken };
  void end(std::uint64_t id, End how, const std::string& why);
  void count_window(std::int64_t at_ms, bool good);

  World& world_;
  Quotas quotas_;
  bool alive_ = true;
  std::optional<RouteTable> table_;
  std::map<std::string, Model> models_;
  std::map<std::uint64_t, Request> requests_;
  int retries_running_ = 0;
  RequestCounts counts_;
  std::map<std::int64_t, std::pair<std::int64_t, std::int64_t>> windows_;  // 10 s -> good, all
  std::map<std::string, LoadSample> samples_;
  std::map<std::string, std::int64_t> busy_since_, active_since_;
  std::vector<RouteOption> options_;
  std::vector<RouteTerms> terms_;
};

}  // namespace aiv::sim
