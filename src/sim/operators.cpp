// What administrators do: deployments scaled, changed, deleted and made again, nodes drained.
#include "sim/world.hpp"

namespace aiv::sim {

void World::next_admin() {
  const auto wait = static_cast<std::int64_t>(random_.exponential(3'600'000.0 / scenario_.admin_per_hour));
  queue_.after(std::max<std::int64_t>(1000, wait), [this] {
    if (faults_over_) return;
    switch (random_.index(3)) {
      case 0:
        scale_deployment();
        break;
      case 1:
        change_deployment();
        break;
      default:
        recreate_deployment();
        break;
    }
    next_admin();
  });
}

void World::admin_change(const std::string& words, Store::Change change, std::vector<Event> events,
                         const std::string& key, const std::string& value) {
  Controller* acting = leader();
  if (acting == nullptr) return;
  ++admin_writes_;
  say("admin", words);
  if (!key.empty()) checks_.unsure(key);  // until it is acknowledged either may be true
  if (plant_ == Plant::kLoseWrite) change = [](StoredState&) {};
  acting->change(std::move(change), std::move(events), [this, words, key, value](Outcome outcome) {
    if (outcome == Outcome::kCommitted) {
      say("admin", words + ": acknowledged");
      if (!key.empty()) checks_.acknowledged(key, value);
    }
  });
}

void World::scale_deployment() {
  const auto& deployments = store_.state().deployments;
  if (deployments.empty()) return;
  auto it = deployments.begin();
  std::advance(it, static_cast<std::ptrdiff_t>(random_.index(deployments.size())));
  Deployment wanted = it->second;
  wanted.replicas_min = wanted.replicas_max =
      static_cast<int>(random_.between(1, std::min(3, scenario_.nodes)));
  admin_change(
      "scale " + wanted.name + " to " + std::to_string(wanted.replicas_min),
      [wanted](StoredState& state) { state.deployments[wanted.name] = wanted; },
      {event::DeploymentPut{wanted}}, wanted.name, row_of(wanted));
}

void World::change_deployment() {
  const auto& deployments = store_.state().deployments;
  if (deployments.empty()) return;
  auto it = deployments.begin();
  std::advance(it, static_cast<std::ptrdiff_t>(random_.index(deployments.size())));
  Deployment wanted = it->second;
  wanted.ctx = 1024 * random_.between(1, 6);
  wanted.generation = next_generation_++;
  admin_change(
      "change " + wanted.name + " to ctx " + std::to_string(wanted.ctx),
      [wanted](StoredState& state) { state.deployments[wanted.name] = wanted; },
      {event::DeploymentPut{wanted}}, wanted.name, row_of(wanted));
}

void World::recreate_deployment() {
  const auto& deployments = store_.state().deployments;
  if (deployments.size() < 2) return;
  auto it = deployments.begin();
  std::advance(it, static_cast<std::ptrdiff_t>(random_.index(deployments.size())));
  Deployment wanted = it->second;
  const std::string name = wanted.name;
  admin_change(
      "delete " + name, [name](StoredState& state) { state.deployments.erase(name); },
      {event::DeploymentErased{name}}, name, "");
  wanted.generation = next_generation_++;
  queue_.after(random_.between(100, 60'000), [this, wanted] {
    admin_change(
        "create " + wanted.name, [wanted](StoredState& state) { state.deployments[wanted.name] = wanted; },
        {event::DeploymentPut{wanted}}, wanted.name, row_of(wanted));
  });
}

void World::drain_node(Node& node, bool on) {
  const std::string id = node.id();
  const auto stored = store_.state().nodes.find(id);
  if ((stored != store_.state().nodes.end() && stored->second.draining) == on) return;
  admin_change((on ? "drain " : "undrain ") + id,
               [id, on](StoredState& state) { state.nodes[id].draining = on; }, {event::NodePut{id, {.draining = on}}},
               "", "");
  if (on) return;
  // An operator who is not answered tries again.
  queue_.after(5000, [this, id] {
    const auto again = store_.state().nodes.find(id);
    if (again != store_.state().nodes.end() && again->second.draining) drain_node(*find(id), false);
  });
}

}  // namespace aiv::sim
