// All replicas that were decided on, by id, and which of them belong to a deployment or a node.
//
// Rationale: a step looks at the replicas of each deployment and of each node many times over; with a
// thousand of them a look through all of them each time is what a step would consist of. Invariant: the
// deployment and the node of a placement do not change while it is here (both lists are by them).
#pragma once
#include <algorithm>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "core/documents.hpp"

namespace aiv {

// One replica that was decided on.
struct Placement {
  std::string node;
  ReplicaSpec spec;  // spec.draining: it is being unloaded
  std::string variant;
  std::int64_t generation = 1;  // of the deployment
  std::int64_t created_ms = 0;
  std::string why;  // placed here because
  friend bool operator==(const Placement&, const Placement&) = default;
};

class PlacedReplicas {
 public:
  using Map = std::map<std::string, Placement>;
  using iterator = Map::iterator;
  using const_iterator = Map::const_iterator;

  PlacedReplicas() = default;
  explicit PlacedReplicas(Map placements);
  PlacedReplicas(const PlacedReplicas& other) : PlacedReplicas(other.by_id_) {}
  PlacedReplicas(PlacedReplicas&&) = default;
  PlacedReplicas& operator=(const PlacedReplicas& other);
  PlacedReplicas& operator=(PlacedReplicas&&) = default;
  ~PlacedReplicas() = default;

  [[nodiscard]] iterator begin() { return by_id_.begin(); }
  [[nodiscard]] iterator end() { return by_id_.end(); }
  [[nodiscard]] const_iterator begin() const { return by_id_.begin(); }
  [[nodiscard]] const_iterator end() const { return by_id_.end(); }
  [[nodiscard]] std::size_t size() const { return by_id_.size(); }
  [[nodiscard]] bool empty() const { return by_id_.empty(); }
  [[nodiscard]] bool contains(const std::string& id) const { return by_id_.contains(id); }
  [[nodiscard]] iterator find(const std::string& id) { return by_id_.find(id); }
  [[nodiscard]] const_iterator find(const std::string& id) const { return by_id_.find(id); }
  [[nodiscard]] Placement& at(const std::string& id) { return by_id_.at(id); }
  [[nodiscard]] const Placement& at(const std::string& id) const { return by_id_.at(id); }

  // In the order of their ids; valid until one is put or erased.
  [[nodiscard]] std::span<Placement* const> of_deployment(const std::string& name) {
    return listed(by_deployment_, name);
  }
  [[nodiscard]] std::span<const Placement* const> of_deployment(const std::string& name) const {
    return listed(by_deployment_, name);
  }
  [[nodiscard]] std::span<Placement* const> on_node(const std::string& name) {
    return listed(by_node_, name);
  }
  [[nodiscard]] std::span<const Placement* const> on_node(const std::string& name) const {
    return listed(by_node_, name);
  }

  // Replaces the one of the same id.
  void put(Placement placement);
  iterator erase(iterator at);
  std::size_t erase(const std::string& id);

  friend bool operator==(const PlacedReplicas& a, const PlacedReplicas& b) { return a.by_id_ == b.by_id_; }

 private:
  using List = std::vector<Placement*>;  // into by_id_, whose nodes do not move; ascending by id
  using Lists = std::map<std::string, List>;

  static std::span<Placement* const> listed(const Lists& lists, const std::string& name);
  static void enlist(List& list, Placement& placement);
  static void strike(Lists& lists, const std::string& name, const Placement& placement);

  Map by_id_;
  Lists by_deployment_;
  Lists by_node_;
};

inline PlacedReplicas::PlacedReplicas(Map placements) : by_id_(std::move(placements)) {
  for (auto& [id, placement] : by_id_) {
    by_deployment_[placement.spec.deployment].push_back(&placement);
    by_node_[placement.node].push_back(&placement);
  }
}

inline PlacedReplicas& PlacedReplicas::operator=(const PlacedReplicas& other) {
  if (this != &other) *this = PlacedReplicas(other);
  return *this;
}

inline std::span<Placement* const> PlacedReplicas::listed(const Lists& lists, const std::string& name) {
  const auto found = lists.find(name);
  return found == lists.end() ? std::span<Placement* const>{} : std::span<Placement* const>(found->second);
}

inline void PlacedReplicas::enlist(List& list, Placement& placement) {
  const auto id_of = [](const Placement* each) -> const std::string& { return each->spec.id; };
  list.insert(std::ranges::lower_bound(list, placement.spec.id, {}, id_of), &placement);
}

inline void PlacedReplicas::strike(Lists& lists, const std::string& name, const Placement& placement) {
  const auto found = lists.find(name);
  std::erase(found->second, &placement);
  if (found->second.empty()) lists.erase(found);
}

inline void PlacedReplicas::put(Placement placement) {
  erase(placement.spec.id);
  std::string id = placement.spec.id;
  Placement& kept = by_id_.emplace(std::move(id), std::move(placement)).first->second;
  enlist(by_deployment_[kept.spec.deployment], kept);
  enlist(by_node_[kept.node], kept);
}

inline PlacedReplicas::iterator PlacedReplicas::erase(iterator at) {
  strike(by_deployment_, at->second.spec.deployment, at->second);
  strike(by_node_, at->second.node, at->second);
  return by_id_.erase(at);
}

inline std::size_t PlacedReplicas::erase(const std::string& id) {
  const auto found = by_id_.find(id);
  if (found == by_id_.end()) return 0;
  erase(found);
  return 1;
}

template <class Predicate>
std::size_t erase_if(PlacedReplicas& placements, Predicate&& predicate) {
  std::size_t erased = 0;
  for (auto it = placements.begin(); it != placements.end();) {
    if (!predicate(*it)) {
      ++it;
      continue;
    }
    it = placements.erase(it);
    ++erased;
  }
  return erased;
}

}  // namespace aiv
