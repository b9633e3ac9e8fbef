// The planner's working state: what is placed, what is free, what it is worth; with an undo log.
//
// Every change goes through add() and remove(). Both write the log, so a rejected step is rolled back and the state is
// never copied per step. After a rollback it is equal in every bit: lists are kept sorted, slots are reused last in
// first out, and the indices have no history.
#pragma once
#include <cstdint>
#include <vector>

#include "core/placement_index.hpp"
#include "core/placement_problem.hpp"

namespace aiv::placement {

using Slot = std::uint32_t;

// Clusters of at most this many nodes look at every node for each replica and keep no indices; larger ones ask them.
inline constexpr std::size_t kSmallCluster = 24;

struct ModelTally {
  std::int64_t share = 0;  // sum over replicas, not capped
  int replicas = 0;
  int domains = 0;  // different failure domains, counted up to 2
  Score value = 0;
  std::int64_t quality = 0;
  friend bool operator==(const ModelTally&, const ModelTally&) = default;
};

// Compared in this order: value plus the price of what was not displaced, then quality, then fewer bytes moved.
struct Objective {
  Score net = 0;
  std::int64_t quality = 0;
  Bytes minus_moved = 0;
  friend auto operator<=>(const Objective&, const Objective&) = default;
};

class State {
 public:
  explicit State(const Problem& problem);

  [[nodiscard]] const Problem& problem() const { return *problem_; }
  [[nodiscard]] Bytes free(Index device) const { return free_[device]; }
  [[nodiscard]] Bytes node_free(Index node) const { return node_free_[node]; }  // of its devices together
  [[nodiscard]] const Replica& replica(Slot slot) const { return replicas_[slot]; }
  [[nodiscard]] const std::vector<Slot>& on_node(Index node) const { return by_node_[node]; }      // by model
  [[nodiscard]] const std::vector<Slot>& of_model(Index model) const { return by_model_[model]; }  // by node
  [[nodiscard]] const ModelTally& tally(Index model) const { return tally_[model]; }
  [[nodiscard]] bool open(Index node) const { return open_[node] != 0; }
  [[nodiscard]] bool has(Index model, Index node) const;
  [[nodiscard]] bool is_placed(Slot slot) const { return replicas_[slot].model != kNone; }
  [[nodiscard]] bool current_present(Index current) const { return present_[current] != 0; }
  // Pinned by the caller, or on a node that keeps all it has.
  [[nodiscard]] bool fixed(Slot slot) const;
  [[nodiscard]] Score value() const { return value_; }
  // Models that have a replica: how many, and their weight.
  [[nodiscard]] std::size_t covered() const { return covered_; }
  [[nodiscard]] Score covered_weight() const { return covered_weight_; }
  [[nodiscard]] Score kept() const { return kept_; }
  [[nodiscard]] Objective objective() const { return {value_ + kept_, quality_, -moved_}; }
  [[nodiscard]] const FitIndex& device_index() const { return device_index_; }
  [[nodiscard]] const FitIndex& node_index() const { return node_index_; }
  [[nodiscard]] std::size_t slots() const { return replicas_.size(); }
  [[nodiscard]] std::size_t placed() const { return placed_; }

  // Value gained by one replica more with this share on this domain; the price of moves is not in it.
  [[nodiscard]] Score gain(Index model, Index domain, std::int64_t share) const;
  // All rules that depend on what else is placed, and those of the replica itself that cost nothing to check.
  [[nodiscard]] bool can_add(const Replica& replica) const;
  // Preconditions: can_add(), and Problem::complete() was applied.
  Slot add(const Replica& replica);
  void remove(Slot slot);

  // The undo log: rollback(mark()) undoes what came between. forget() drops the log (marks become 0).
  [[nodiscard]] std::size_t mark() const { return log_.size(); }
  void rollback(std::size_t mark);
  void forget() { log_.clear(); }
  // What the log says was added and still stands, or was removed and was not added back, since the last forget().
  [[nodiscard]] std::vector<Replica> changes(bool added) const;
  // True if the slot's replica was added after the mark.
  [[nodiscard]] bool added_since(std::size_t mark, Slot slot) const;

  // The node may no longer take anything (lost), or may again. Not logged.
  void set_open(Index node, bool open);

  // Everything placed, by slot.
  [[nodiscard]] std::vector<Replica> snapshot() const;
  // Replaces what is placed. Forgets the log.
  void restore(const std::vector<Replica>& replicas);

  // Aborts if a rule is broken or a running sum is not what a fresh count gives.
  void check() const;

  friend bool operator==(const State& a, const State& b);

 private:
  struct Change {
    bool added = false;
    bool new_slot = false;  // the slot did not exist before
    Slot slot = 0;
    Replica replica;  // of a removal
    friend bool operator==(const Change&, const Change&) = default;
  };

  void place(Slot slot, const Replica& replica);
  void take(Slot slot);
  void retally(Index model);
  void set_free(Index device, Bytes bytes);
  [[nodiscard]] Score value_of(const ModelData& model, const ModelTally& tally) const;

  const Problem* problem_;
  bool indexed_;
  std::vector<Bytes> free_;
  std::vector<Bytes> node_free_;
  std::vector<char> open_;
  std::vector<Replica> replicas_;
  std::vector<Slot> unused_;
  std::vector<std::vector<Slot>> by_node_;
  std::vector<std::vector<Slot>> by_model_;
  std::vector<ModelTally> tally_;
  std::vector<char> present_;
  FitIndex device_index_;
  FitIndex node_index_;
  std::size_t placed_ = 0;
  std::size_t covered_ = 0;
  Score covered_weight_ = 0;
  Score value_ = 0;
  Score kept_ = 0;  // prices of the current replicas that are placed as they were
  std::int64_t quality_ = 0;
  Bytes moved_ = 0;
  std::vector<Change> log_;
};

}  // namespace aiv::placement
