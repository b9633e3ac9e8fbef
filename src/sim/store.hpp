// The state store as the controller sees it: compare on the epoch, a delay, and outcomes that are not known.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "core/controller_state.hpp"

namespace aiv::sim {

class World;

struct StoredNode {
  bool draining = false;
};

struct StoredState {
  std::int64_t epoch = 0;
  std::map<std::string, ModelRecord> models;
  std::map<std::string, Deployment> deployments;
  std::map<std::string, Placement> placements;
  std::map<std::string, StoredNode> nodes;
  std::map<MarginKey, MarginHistory> margins;
};

enum class Outcome { kCommitted, kFenced, kUnknown, kUnavailable };

class Store {
 public:
  using Change = std::function<void(StoredState&)>;
  using Done = std::function<void(Outcome)>;
  explicit Store(World& world) : world_(world) {}

  // One transaction of a leader of `epoch`; `done` is called later.
  void txn(std::int64_t epoch, Change change, Done done);
  // The takeover: compare-and-swap of the epoch. `done(0)`: the store takes no writes now.
  void take_lead(const std::string& holder, std::function<void(std::int64_t epoch)> done);
  [[nodiscard]] const StoredState& state() const { return state_; }
  // Before the run: the catalogue.
  StoredState& setup() { return state_; }

  std::int64_t unknown_until = 0;
  std::int64_t refuses_until = 0;

 private:
  World& world_;
  StoredState state_;
};

// A deployment as the books of checks.hpp keep it.
std::string row_of(const Deployment& deployment);

}  // namespace aiv::sim
