#include "sim/checks.hpp"

#include <algorithm>

#include "base/units.hpp"
#include "core/reconcile.hpp"

namespace aiv::sim {

namespace {

constexpr std::size_t kViolationsKept = 50;

std::string text_of(Version version) {
  return "(" + std::to_string(version.epoch) + ", " + std::to_string(version.rev) + ")";
}

}  // namespace

void Checks::violate(const std::string& rule, std::int64_t now_ms, std::string detail) {
  ++(rule.starts_with("L") ? liveness_ : safety_);
  if (violations_.size() < kViolationsKept) violations_.push_back({rule, now_ms, std::move(detail)});
}

void Checks::applied(const std::string& receiver, Version version, std::int64_t now_ms) {
  Version& highest = applied_[receiver];
  if (version < highest) {
    violate("I1", now_ms, receiver + " applied " + text_of(version) + " after " + text_of(highest));
  }
  highest = std::max(highest, version);
}

void Checks::epoch_taken(std::int64_t epoch, const std::string& holder, std::int64_t now_ms) {
  const auto [it, fresh] = holders_.emplace(epoch, holder);
  if (!fresh)
    violate("I2", now_ms,
            "epoch " + std::to_string(epoch) + " has two holders: " + it->second + " and " + holder);
  highest_write_ = std::max(highest_write_, epoch);
}

void Checks::write_accepted(std::int64_t epoch, std::int64_t now_ms) {
  if (epoch < highest_write_) {
    violate("I2", now_ms,
            "a write of epoch " + std::to_string(epoch) + " was accepted after epoch " +
                std::to_string(highest_write_));
  }
  highest_write_ = std::max(highest_write_, epoch);
}

void Checks::heard(std::int64_t epoch, const NodeObserved& document) {
  Told& told = told_[{epoch, document.node}];
  if (told.past_lives.contains(document.incarnation)) return;
  if (told.incarnation == document.incarnation && document.seq < told.seq) return;
  if (told.incarnation != document.incarnation) told.past_lives.insert(told.incarnation);
  told.incarnation = document.incarnation;
  told.seq = document.seq;
  told.ready.clear();
  for (const ReplicaStatus& status : document.replicas) {
    if (status.state == ReplicaState::kReady) told.ready.insert(status.id);
  }
}

void Checks::routes_published(const RouteTable& table, const ControllerState& state, std::int64_t now_ms) {
  for (const RouteModel& model : table.models) {
    for (const RouteReplica& replica : model.replicas) {
      const auto told = told_.find({table.version.epoch, replica.node});
      if (told == told_.end() || !told->second.ready.contains(replica.id)) {
        violate("I4", now_ms,
                "a route to " + replica.id + " on " + replica.node + ", which has not said that it is ready");
      }
      // While a mass failure is frozen the last routes stay, as the last choice.
      if (state.detector.health(replica.node) == NodeHealth::kLost && !state.detector.frozen()) {
        violate("I4", now_ms, "a route to " + replica.id + " on " + replica.node + ", which is lost");
      }
    }
  }
}

void Checks::stored(const std::map<std::string, std::string>& rows, std::int64_t now_ms) {
  for (const auto& [key, value] : acknowledged_) {
    const auto row = rows.find(key);
    if (row == rows.end() ? !value.empty() : row->second != value) {
      violate("I5", now_ms, key + " was acknowledged and is not in the state");
    }
  }
}

void Checks::decided(const ControllerState& state, const std::vector<Command>& commands,
                     std::int64_t now_ms) {
  if (commands.empty()) return;
  for (const Command& command : commands) {
    const auto* save = std::get_if<command::SavePlacement>(&command);
    if (save == nullptr) continue;
    if (save->placement.spec.draining) {
      if (state.observing)
        violate("I8", now_ms, save->placement.spec.id + " is drained while the leader still observes");
      continue;
    }
    for (const DeviceBytes& part : save->placement.spec.devices) {
      const Bytes used = used_bytes(state, part.device_id);
      for (const auto& [id, node] : state.nodes) {
        if (!node.observed) continue;
        for (const Device& device : node.observed->devices) {
          if (device.id != part.device_id || used <= device.vram_bytes) continue;
          violate("I3", now_ms,
                  format_bytes(used) + " are promised on " + device.id + ", which has " +
                      format_bytes(device.vram_bytes));
        }
      }
    }
  }
  std::map<std::string, int> active;
  std::set<std::pair<std::string, std::string>> places;
  for (const auto& [id, placement] : state.placements) {
    if (placement.spec.draining) continue;
    ++active[placement.spec.deployment];
    if (!places.emplace(placement.spec.deployment, placement.node).second) {
      violate("I8", now_ms, "two replicas of " + placement.spec.deployment + " on " + placement.node);
    }
  }
  if (state.observing || state.frozen_writes) return;
  for (const auto& [name, count] : active) {
    const auto deployment = state.deployments.find(name);
    if (deployment == state.deployments.end()) continue;
    const int most = std::max({1, deployment->second.replicas_min, deployment->second.replicas_max}) + 1;
    if (count <= most) continue;
    violate("I8", now_ms,
            std::to_string(count) + " replicas of " + name + ", wanted " +
                std::to_string(wanted_replicas(state, deployment->second)));
  }
}

}  // namespace aiv::sim
