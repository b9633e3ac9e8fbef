// Which replica runs where, and in which order to get there: a pure function of the cluster.
//
// SPECIFICATION
//
// A plan keeps these rules:
// - A replica uses devices of one node. Rationale: layers are passed between devices per token; a network is too slow.
// - On every device the sum over its replicas of (bytes there + the device's overhead) is at most `free_bytes`.
//   Rationale: there is no CPU fallback and no overcommit; a configuration is a full offload or it does not exist.
//   Integers decide, never floats.
// - The parts of a split add up to the variant's bytes; each part is > 0. At most kMaxParts devices.
// - At most one replica of a model per node. Rationale: a second one on the same node survives nothing that the first
//   does not, and the engine batches better than two processes do.
// - At most `max_replicas`; backends match on every device; the model's node lists are kept; nothing new on a node
//   that is not schedulable, nothing at all on one that is kUnschedulable.
//
// It maximises, in this order:
// - value = sum over models of weight * (100*[>= 1 replica] + 30*[>= 2 replicas on different failure domains] +
//   20*min(1, speed of its replicas / demand)), less the price of displacing current replicas (PlanPolicy);
// - weight * quality of each model's worst replica;
// - fewer bytes moved.
// In clusters of more than 24 nodes the search moreover never lowers the number or the weight of the models that have a
// replica. Rationale: where thousands compete, value can be gained by taking first replicas of a few, and must not be.
//
// Stability:
// - All of `current` that is legal is the start. Rationale: a plan that forgets what runs reloads it.
// - With no search (`steps` = 0) a legal current replica is displaced only where a model would otherwise miss its
//   min_replicas and gains more than the displaced one loses.
// - A plan that displaces is taken only if it gains PlanPolicy::min_gain over the one that does not.
//
// Steps are ordered so that no device is ever overfilled (old and new replicas both counted while both are loaded),
// and no model falls below min(replicas now, replicas then) unless there is no room to avoid it; such a step says kGap.
//
// Determinism: the answer is a function of (input, seed, steps). The budget counts search steps, not time; random
// numbers come from core/prng.hpp; scores are integers; ties go to the lower index.
//
// Complexity: first plan O((M + R) log D) in practice with small constants (R replicas placed, D devices), a search step
// O(1) in the size of the cluster, a re-plan after a loss O(replicas lost).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>

#include "core/cluster.hpp"

namespace aiv {

inline constexpr int kMaxParts = 8;  // devices of one split replica

struct PlanOptions {
  std::uint64_t seed = 1;
  std::int64_t steps = 0;  // budget of the search; 0 = first plan only
  // The caller's clock: the share of its time limit that is gone. Asked now and then; what is left is divided between
  // first plan, search, steps and bound so that all is done at about 1, and Plan::truncated says that it cut something.
  // Empty: nothing is cut, and the plan is a function of the input, the seed and the steps.
  std::function<double()> spent;
  bool with_bound = true;  // the bound costs about as much as the first plan, a tight one more
  bool with_steps = true;
};

// How many search steps fit into `limit_ms` for a cluster of this size, by a fixed table (see placement.cpp).
[[nodiscard]] std::int64_t steps_for_limit(const PlanInput& input, std::int64_t limit_ms);

// The input must have passed validate(); what it would refuse aborts here.
[[nodiscard]] Plan plan(const PlanInput& input, const PlanOptions& options = {});

// Why `model` has fewer replicas than it wants when it is not in `plan.unplaced`: empty. Else the sentence.
[[nodiscard]] std::string unplaced_reason(const Plan& plan, std::string_view model);

// What changed by one event; placements as in Plan.
struct PlanDelta {
  std::vector<PlanPlacement> removed;
  std::vector<PlanPlacement> added;
  std::vector<std::string> unplaced;  // models that lost a replica and now have fewer than min_replicas
};

// The planner kept between events, for re-plans in the time of a heartbeat. Not thread-safe; owns copies of all it needs.
class Planner {
 public:
  explicit Planner(const PlanInput& input);
  ~Planner();
  Planner(Planner&&) noexcept;
  Planner& operator=(Planner&&) noexcept;

  // Keeps what is legal of `current`, then places the rest.
  void first_plan(const PlanOptions& options = {});
  void improve(const PlanOptions& options);
  // The node is gone with all that ran there: its models, and only those, are placed anew into the holes that are
  // there, or over replicas worth less where a model would be left below its minimum. Unknown node: empty delta.
  PlanDelta lose_node(std::string_view node);
  // The node is back, empty and schedulable; nothing is placed (improve() may).
  void return_node(std::string_view node);

  [[nodiscard]] double value() const;
  [[nodiscard]] double upper_bound() const;
  [[nodiscard]] Plan result(const PlanOptions& options) const;
  // Aborts if a rule is broken or a running sum disagrees with a fresh count. For tests and fuzzers.
  void check_invariants() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace aiv
