// Binds requests to replicas: the shell around core/routing.hpp and core/admission.hpp. It keeps, per model, the
// queue and what was learned, and per replica the slots in use, the measured speeds and the back-off.
//
// One thread (the gateway's loop) uses it. A lease frees its slot when it is destroyed, whatever happened, and that is
// an event at which the waiting ones are asked again.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/admission.hpp"
#include "core/documents.hpp"
#include "core/load_progress.hpp"
#include "core/routing.hpp"
#include "gateway/api_error.hpp"
#include "gateway/routes.hpp"
#include "net/async.hpp"

namespace aiv::gateway {

inline constexpr double kSeedDecodePerS = 30;     // of a replica with relative speed 1, until measured
inline constexpr double kSeedPrefillPerS = 600;
inline constexpr double kSeedOutputTokens = 200;  // mean answer of a model, until measured
inline constexpr double kSeedPromptTokens = 200;
inline constexpr double kSeedTokensPerByte = 0.25;
// Before that many answers no request is refused for a predicted wait: the seeds may be wrong by a factor of ten.
inline constexpr std::uint64_t kAnswersToPredict = 16;

struct Replica {
  Replica(std::string replica_id, std::string node_id, int slots) : id(std::move(replica_id)), node(std::move(node_id)), ledger(slots) {}
  const std::string id;
  const std::string node;
  SlotLedger ledger;
  SpeedEstimate speed;
  Ejection ejection;
  bool suspect = false;
  bool software = false;               // it compiles kernels at their first use
  bool hung = false;                   // it answers nothing, and is asked until it does (pulse.hpp)
  net::Clock::time_point heard_at{};   // the last sign of life that any request had from it
  bool routed = true;  // in the present table; else it only ends what it runs
  std::uint64_t requests = 0;
  std::uint64_t failures = 0;
};
using ReplicaPtr = std::shared_ptr<Replica>;

struct Model {
  std::string name;
  std::string state;
  std::string reason;
  std::int64_t ctx_per_slot = 0;
  LoadWatch load;  // while it loads and has no replica
  std::vector<ReplicaPtr> replicas;
  AdmissionQueue queue;
  RunningMean output_tokens{kSeedOutputTokens};
  RunningMean prompt_tokens{kSeedPromptTokens};
  RunningMean tokens_per_byte{kSeedTokensPerByte, 0.1};
  std::uint64_t answers = 0;  // learned from
  std::uint64_t turned_away = 0;  // told to come back, because there was no replica
  int running = 0;
};
using ModelPtr = std::shared_ptr<Model>;

// What a client is told of a model that has nobody to answer: its state, the reason, and when to come back. Where there
// is no replica at all it is counted, for it is loaded for those who come back too, not only for those who wait.
[[nodiscard]] ApiError not_ready(Model& model, std::int64_t now_ms, std::uint64_t random);

// What a request asks for.
struct Demand {
  ModelPtr model;
  std::string key_id{};
  std::uint64_t tenant = 0;
  std::size_t prompt_bytes = 0;
  std::int64_t max_tokens = 0;
  bool front = false;                        // a stream to be resumed
  std::vector<const Replica*> excluded{};    // tried already
};

class Dispatcher;

// A slot of a replica, held until destroyed.
class Lease {
 public:
  Lease(Dispatcher& dispatcher, ModelPtr model, ReplicaPtr replica, SlotLease slot, RouteTerms terms);
  ~Lease();
  Lease(const Lease&) = delete;
  Lease& operator=(const Lease&) = delete;
  [[nodiscard]] Replica& replica() const { return *replica_; }
  [[nodiscard]] ReplicaPtr shared_replica() const { return replica_; }
  [[nodiscard]] const SlotLease& slot() const { return slot_; }
  [[nodiscard]] const RouteTerms& terms() const { return terms_; }  // as predicted when it was bound

 private:
  Dispatcher& dispatcher_;
  std::weak_ptr<const bool> alive_;  // of the dispatcher: at the end of the process a lease may outlive it
  ModelPtr model_;
  ReplicaPtr replica_;
  SlotLease slot_;
  RouteTerms terms_;
};
using LeasePtr = std::unique_ptr<Lease>;

// A place in the queue. Ends with `lease` or `error` set, after a notify of `signal`.
struct Waiter {
  explicit Waiter(net::Executor executor) : signal(executor) {}
  std::uint64_t ticket = 0;
  Demand demand;
  LeasePtr lease;
  std::optional<ApiError> error;
  net::Signal signal;
};
using WaiterPtr = std::shared_ptr<Waiter>;

class Dispatcher {
 public:
  using Reachable = std::function<bool(const std::string& node)>;
  // `has_room`: whether the node's link takes one more request; a replica behind a full one counts as busy.
  Dispatcher(net::Executor executor, Reachable reachable, Reachable has_room = {});

  // Takes over a new table: what is gone serves out, what is new starts with its seed.
  void apply(const RouteTable& table);
  [[nodiscard]] ModelPtr find(const std::string& name) const;
  [[nodiscard]] const std::map<std::string, ModelPtr>& models() const { return models_; }

  // A slot at once, or nothing when it must wait (others wait already, or none is free).
  LeasePtr try_bind(const Demand& demand);
  // A place in the queue, or why not (full, with the predicted wait; nothing left to try).
  std::expected<WaiterPtr, ApiError> enqueue(Demand demand);
  // The waiter's client has left.
  void cancel(const WaiterPtr& waiter);
  // A link came up or went down, a table changed, time passed: asks the waiting ones again.
  void pump_all();
  // Runs for ever: deadlines of the waiting.
  net::Task<> run();

  // Whether another usable replica than `than` could take the request (then a stall is worth a change).
  [[nodiscard]] bool has_alternative(const Demand& demand, const Replica& than) const;
  [[nodiscard]] double predicted_wait_ms(const Model& model) const;
  [[nodiscard]] bool may_retry() const { return retry_within_budget(*retries_running_, requests_running_); }
  // Counts as a retry while it is held; it may outlive the dispatcher.
  using RetryToken = std::shared_ptr<const void>;
  [[nodiscard]] RetryToken retry_token() const;
  [[nodiscard]] int requests_running() const { return requests_running_; }
  // Differs from call to call: spreads those who are told to come back.
  std::uint64_t draw() { return random_ += 1; }

 private:
  friend class Lease;
  struct Choice {
    RouteOutcome outcome = RouteOutcome::kNone;
    int index = -1;
    bool only_unreachable = false;
  };
  Choice choose(const Demand& demand);
  LeasePtr bind(const Demand& demand, int index);
  void pump(Model& model);
  void released(const ModelPtr& model, Replica& replica, std::uint64_t ticket);
  void settle(Model& model, std::uint64_t ticket, LeasePtr lease, std::optional<ApiError> error);
  void update_model(const RouteModel& route);

  net::Executor executor_;
  Reachable reachable_;
  Reachable has_room_;
  std::map<std::string, ModelPtr> models_;
  std::map<std::uint64_t, WaiterPtr> waiters_;
  std::uint64_t next_ticket_ = 1;
  std::uint64_t random_;
  int requests_running_ = 0;
  std::shared_ptr<int> retries_running_ = std::make_shared<int>(0);
  // Kept between calls so that choosing allocates nothing.
  std::vector<RouteOption> options_;
  std::vector<RouteTerms> terms_;
  net::Signal someone_waits_;
  std::shared_ptr<const bool> alive_ = std::make_shared<const bool>(true);
};

// Milliseconds on the monotonic clock.
std::int64_t monotonic_ms();

}  // namespace aiv::gateway
