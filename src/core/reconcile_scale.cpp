// Step 6 of core/reconcile.hpp: how many replicas are wanted, and room for one that is waited for.
#include <algorithm>
#include <bit>

#include "base/units.hpp"
#include "core/eviction.hpp"
#include "core/footprint.hpp"
#include "core/placement.hpp"
#include "core/reconcile_parts.hpp"

namespace aiv {

namespace reconcile {
namespace {

constexpr std::int64_t kLoadTimeMaxMs = 3'600'000;

bool is_elastic(const Deployment& deployment) {
  return deployment.replicas_max > deployment.replicas_min;
}

int slots_of(const ControllerState& state, const Deployment& deployment) {
  for (const Placement* placement : state.placements.of_deployment(deployment.name)) {
    if (!placement->spec.draining) return placement->spec.slots;
  }
  return deployment.slots > 0 ? deployment.slots : kDefaultSlots;
}

// It must have one more replica and has no place for it.
bool lacks_room(const ControllerState& state, const Deployment& deployment, std::int64_t now_ms) {
  const int settled = settled_of(state, deployment.name);
  if (settled >= wanted_replicas(state, deployment)) return false;
  if (settled < deployment.replicas_min) return true;
  const auto scale = state.scale.find(deployment.name);
  return settled == 0 && scale != state.scale.end() && scale->second.demand.asked_for(now_ms);
}

bool memory_wanted_by_others(const ControllerState& state, const std::string& name, std::int64_t now_ms) {
  return std::ranges::any_of(state.deployments, [&](const auto& entry) {
    return entry.first != name && state.unplaced.contains(entry.first) &&
           lacks_room(state, entry.second, now_ms);
  });
}

bool is_fresh(const ControllerState& state, const ScaleState& scale, std::int64_t now_ms) {
  return scale.heard_ms >= 0 && now_ms - scale.heard_ms <= state.settings.load_fresh_ms;
}

// On a device for one replica at a time, each counts as so much more than it takes: with it one fits as without,
// and two never do. 0 on others.
Bytes exclusive_extra(const ControllerState& state, const Device& device) {
  const NodeRecord& node = state.nodes.at(node_of_device(device.id));
  return policy_of(node, device.id).exclusive ? budget_of(device) + 1 : 0;
}

// Nothing when the replica may not be unloaded for `asking`.
std::optional<EvictionCandidate> candidate_of(const ControllerState& state, const Placement& placement,
                                              const Deployment& asking, std::int64_t now_ms) {
  const auto deployment = state.deployments.find(placement.spec.deployment);
  const auto scale = state.scale.find(placement.spec.deployment);
  if (deployment == state.deployments.end() || scale == state.scale.end()) return std::nullopt;
  if (deployment->second.pinned || !is_fresh(state, scale->second, now_ms)) return std::nullopt;
  if (deployment->second.priority > asking.priority) return std::nullopt;
  if (is_leaving(state, placement) || !is_ready(state, placement)) return std::nullopt;
  const auto ready_since = state.ready_since_ms.find(placement.spec.id);
  if (ready_since == state.ready_since_ms.end()) return std::nullopt;
  if (now_ms - ready_since->second < state.settings.evict_ready_ms) return std::nullopt;
  const auto running = scale->second.running.find(placement.spec.id);
  if (running != scale->second.running.end() && running->second > 0) return std::nullopt;
  EvictionCandidate out;
  out.replica = placement.spec.id;
  out.deployment = placement.spec.deployment;
  out.weight = deployment->second.priority;
  for (const DeviceBytes& part : placement.spec.devices) {
    const Device* device = find_device(state, part.device_id);
    out.bytes[part.device_id] += part.total() + (device == nullptr ? 0 : exclusive_extra(state, *device));
  }
  out.idle_ms = scale->second.demand.idle_ms(now_ms);
  out.reuse_permille =
      scale->second.demand.gaps().reuse_permille(out.idle_ms, state.settings.evict_horizon_ms);
  out.reload_ms = scale->second.load_ms;
  return out;
}

// How many replicas it may lose: down to its floor, which is one at least while it is not idle.
int spare_of(const ControllerState& state, const Deployment& deployment, const ScaleState& scale,
             std::int64_t now_ms) {
  const bool idle = scale.demand.idle_ms(now_ms) >= state.settings.evict_idle_ms;
  const int floor = std::max(deployment.replicas_min, idle ? 0 : 1);
  return std::max(0, settled_of(state, deployment.name) - floor);
}

bool lies_on(const std::vector<DeviceBytes>& parts, const std::string& device) {
  return std::ranges::find(parts, device, &DeviceBytes::device_id) != parts.end();
}

// What is on a device and will stay there unless it is made to go.
struct Staying {
  Bytes bytes = 0;
  int replicas = 0;
};

Staying staying_on(const ControllerState& state, const Device& device) {
  Staying out{used_bytes(state, device.id), 0};
  const NodeRecord& node = state.nodes.at(node_of_device(device.id));
  for (const Placement* placement : state.placements.on_node(node.id)) {
    for (const DeviceBytes& part : placement->spec.devices) {
      if (part.device_id != device.id) continue;
      if (placement->spec.draining) out.bytes -= part.total();
      out.replicas += placement->spec.draining ? 0 : 1;
    }
  }
  for (const ReplicaStatus& status : node.observed->replicas) {
    if (state.placements.contains(status.id) || !holds_memory(status.state)) continue;
    out.replicas += lies_on(status.measured, device.id) ? 1 : 0;
  }
  return out;
}

// What is free on the device for a new replica, memory on its way back counted in; where replicas count as more
// than they take, so does what is free.
Bytes room_on(const ControllerState& state, const Device& device) {
  const Staying staying = staying_on(state, device);
  return budget_of(device) - staying.bytes + exclusive_extra(state, device) * (1 - staying.replicas);
}

// A hole that the planner did not take is none, unless it is still to come.
bool is_false_hole(const ControllerState& state, const std::vector<EvictionDevice>& place) {
  return std::ranges::all_of(place, [&](const EvictionDevice& device) {
    return device.free_bytes >= device.needed_bytes &&
           std::ranges::none_of(state.placements.on_node(device.node), [&](const Placement* placement) {
             return placement->spec.draining && lies_on(placement->spec.devices, device.id);
           });
  });
}

// Sets of the node's devices that a split could lie on: all of them for up to four devices, else the roomiest
// together.
std::vector<std::vector<const Device*>> device_sets(const NodeRecord& node, const ModelRecord& model) {
  constexpr std::size_t kAllSetsMax = 4;
  std::vector<const Device*> usable;
  for (const Device& device : node.observed->devices) {
    if (device.refused.empty() && can_run(model, device) && budget_of(device) > overhead_of(device)) {
      usable.push_back(&device);
    }
  }
  std::vector<std::vector<const Device*>> out;
  if (usable.size() > kAllSetsMax) {
    std::ranges::sort(usable, [](const Device* a, const Device* b) {
      const Bytes x = budget_of(*a);
      const Bytes y = budget_of(*b);
      return x != y ? x > y : a->id < b->id;
    });
    for (std::size_t count = 2; count <= std::min<std::size_t>(usable.size(), kMaxParts); ++count) {
      out.emplace_back(usable.begin(), usable.begin() + static_cast<std::ptrdiff_t>(count));
    }
    return out;
  }
  for (unsigned mask = 1; mask < (1U << usable.size()); ++mask) {
    if (std::popcount(mask) < 2) continue;
    auto& set = out.emplace_back();
    for (std::size_t i = 0; i < usable.size(); ++i) {
      if ((mask & (1U << i)) != 0) set.push_back(usable[i]);
    }
  }
  return out;
}

// The exact bytes of a split over these devices whose layers are shared out by what could be free on each
// once all that may go is gone; nothing where even that is too little.
std::optional<EvictionSplit> split_over(const ControllerState& state, const Deployment& deployment,
                                        const ModelRecord& model, const Variant& variant,
                                        const std::vector<const Device*>& devices,
                                        const EvictionInput& input) {
  std::vector<Bytes> parts;
  std::vector<Bytes> rooms;
  for (const Device* device : devices) {
    Bytes room = room_on(state, *device) - exclusive_extra(state, *device);
    for (const EvictionCandidate& candidate : input.candidates) {
      const auto spare = input.spare.find(candidate.deployment);
      const auto bytes = candidate.bytes.find(device->id);
      if (bytes != candidate.bytes.end() && spare != input.spare.end() && spare->second > 0)
        room += bytes->second;
    }
    rooms.push_back(room);
    parts.push_back(room - overhead_of(*device));
    if (parts.back() <= 0) return std::nullopt;
  }
  if (model.facts->n_layers + 1 < static_cast<std::int64_t>(devices.size())) return std::nullopt;
  const auto spec = spec_within(deployment, model, variant, devices, parts, rooms);
  if (!spec) return std::nullopt;
  EvictionSplit split;
  for (std::size_t i = 0; i < devices.size(); ++i) {
    split.push_back({devices[i]->id, node_of_device(devices[i]->id), room_on(state, *devices[i]),
                     spec->devices[i].total() + exclusive_extra(state, *devices[i])});
  }
  return split;
}

// Nodes where the deployment may get a replica now and has none.
std::vector<const NodeRecord*> open_nodes(const ControllerState& state, const Deployment& deployment,
                                          std::int64_t now_ms) {
  const auto excluded = excluded_nodes(state, deployment.name, stray_nodes(state), now_ms);
  std::vector<const NodeRecord*> out;
  for (const auto& [id, node] : state.nodes) {
    if (!node.observed || plan_state(state, node) != NodePlanState::kSchedulable || excluded.contains(id))
      continue;
    if (!admits(node, deployment)) continue;
    const bool there =
        std::ranges::any_of(state.placements.of_deployment(deployment.name),
                            [&, name = id](const Placement* placement) { return placement->node == name; });
    if (!there) out.push_back(&node);
  }
  return out;
}

// Who may go, and how many of each.
EvictionInput who_may_go(const ControllerState& state, const Deployment& asking, std::int64_t now_ms) {
  EvictionInput input;
  for (const auto& [id, placement] : state.placements) {
    if (auto candidate = candidate_of(state, placement, asking, now_ms))
      input.candidates.push_back(*std::move(candidate));
  }
  for (const auto& [name, scale] : state.scale) {
    const auto found = state.deployments.find(name);
    if (found != state.deployments.end()) input.spare[name] = spare_of(state, found->second, scale, now_ms);
  }
  input.spare.erase(asking.name);
  return input;
}

// Where a replica of this variant could be.
void add_places(const ControllerState& state, const Deployment& deployment, const ModelRecord& model,
                const Variant& variant, const std::vector<const NodeRecord*>& nodes, EvictionInput& input) {
  input.devices.clear();
  input.splits.clear();
  for (const NodeRecord* node : nodes) {
    for (const Device& device : node->observed->devices) {
      if (!device.refused.empty() || !can_run(model, device)) continue;
      const Device* one[] = {&device};
      const auto spec = make_spec(deployment, model, variant, one);
      if (!spec || spec->devices.front().total() > budget_of(device)) continue;
      const EvictionDevice place{device.id, node->id, room_on(state, device),
                                 spec->devices.front().total() + exclusive_extra(state, device)};
      if (!is_false_hole(state, {place})) input.devices.push_back(place);
    }
  }
  if (!model.facts || model.facts->n_layers == 0) return;  // it cannot be split
  for (const NodeRecord* node : nodes) {
    for (const auto& devices : device_sets(*node, model)) {
      auto split = split_over(state, deployment, model, variant, devices, input);
      if (split && !is_false_hole(state, *split)) input.splits.push_back(*std::move(split));
    }
  }
}

// The set whose loss is least over all variants that the deployment may run as, the best one first: a model with
// one slot is more than one that waits.
std::optional<Eviction> choose_over_variants(const ControllerState& state, const Deployment& deployment,
                                             const ModelRecord& model, EvictionInput& input,
                                             std::int64_t now_ms) {
  const auto nodes = open_nodes(state, deployment, now_ms);
  std::optional<Eviction> best;
  for (const Variant& variant : variants_of(deployment, model)) {
    if (variant.hint_only) continue;
    add_places(state, deployment, model, variant, nodes, input);
    auto eviction = choose_evictions(input);
    if (eviction && (!best || eviction->loss < best->loss)) best = std::move(eviction);
  }
  return best;
}

// Whether the deployment would get a replica more if these were gone.
bool would_place(const ControllerState& state, const Eviction& eviction, const std::string& deployment,
                 std::int64_t now_ms) {
  ControllerState trial = state;
  for (const std::string& id : eviction.replicas) {
    const Placement& gone = trial.placements.at(id);
    auto& observed = trial.nodes.at(gone.node).observed;
    std::erase_if(observed->replicas, [&](const ReplicaStatus& status) { return status.id == id; });
    // As evict() leaves it: nobody wants it back at once.
    const Deployment& loser = trial.deployments.at(gone.spec.deployment);
    trial.scale[loser.name].memory.wanted = std::max(loser.replicas_min, wanted_replicas(trial, loser) - 1);
    trial.placements.erase(id);
  }
  const Plan plan = trial_plan(trial, now_ms);
  return std::ranges::count(plan.placements, deployment, &PlanPlacement::model) >
         settled_of(state, deployment);
}

// "3.0 GiB on n1/0", of a split "3.0 GiB on n1/0 and 2.0 GiB on n1/1": what the replica holds there.
std::string bytes_on_each(const ReplicaSpec& spec, const std::vector<std::string>& devices) {
  std::string text;
  for (const DeviceBytes& part : spec.devices) {
    if (std::ranges::find(devices, part.device_id) == devices.end()) continue;
    text += (text.empty() ? "" : " and ") + format_bytes(part.total()) + " on " + part.device_id;
  }
  return text;
}

void evict(Work& work, const Eviction& eviction, const EvictionInput& input, const Deployment& beneficiary) {
  ControllerState& state = work.state;
  const auto asking = state.scale.find(beneficiary.name);
  const int waiting = asking == state.scale.end() ? 0 : asking->second.demand.waiting();
  for (const std::string& id : eviction.replicas) {
    Placement& placement = state.placements.at(id);
    const auto candidate = std::ranges::find(input.candidates, id, &EvictionCandidate::replica);
    ScaleState& scale = state.scale[placement.spec.deployment];
    const Deployment& loser = state.deployments.at(placement.spec.deployment);
    scale.memory.wanted = std::max(loser.replicas_min, wanted_replicas(state, loser) - 1);
    scale.memory.moved_ms = work.now.steady_ms;
    retire(work, placement, "replica.evicted",
           "idle for " + format_duration_ms(candidate->idle_ms) + ", asked for again within " +
               format_duration_ms(state.settings.evict_horizon_ms) + " with a chance of " +
               std::to_string(candidate->reuse_permille / 10) + " %, loads in " +
               format_duration_ms(candidate->reload_ms) + ": its " +
               bytes_on_each(placement.spec, eviction.devices) + " make room for " + beneficiary.name +
               (waiting > 0 ? ", which " + std::to_string(waiting) + " requests wait for"
                : settled_of(state, beneficiary.name) < beneficiary.replicas_min
                    ? ", which has too few replicas"
                    : ", which was asked for and has no replica"));
  }
}

}  // namespace

int settled_of(const ControllerState& state, const std::string& deployment) {
  return static_cast<int>(
      std::ranges::count_if(state.placements.of_deployment(deployment), [&](const Placement* placement) {
        return !placement->spec.draining && !is_leaving(state, *placement);
      }));
}

void begin_scale(ControllerState& state) {
  for (const auto& [name, deployment] : state.deployments) {
    if (is_elastic(deployment)) state.scale[name].memory.wanted = settled_of(state, name);
  }
}

void learn_load_time(ControllerState& state, const std::string& deployment, std::int64_t took_ms) {
  std::int64_t& load_ms = state.scale[deployment].load_ms;
  load_ms = (3 * load_ms + std::clamp<std::int64_t>(took_ms, 0, kLoadTimeMaxMs)) / 4;
}

void on_load(Work& work, const event::Load& load) {
  ControllerState& state = work.state;
  for (const LoadSample& sample : load.samples) {
    const auto deployment = state.deployments.find(sample.deployment);
    if (deployment == state.deployments.end()) continue;
    ScaleState& scale = state.scale[sample.deployment];
    // Of a deployment that is heard of for the first time: what is there is what was wanted.
    if (scale.heard_ms < 0 && scale.memory.moved_ms < 0 && !state.observing) {
      scale.memory.wanted =
          std::clamp(settled_of(state, sample.deployment), deployment->second.replicas_min,
                     std::max(deployment->second.replicas_min, deployment->second.replicas_max));
    }
    scale.demand.observe(sample, work.now.steady_ms);
    scale.heard_ms = work.now.steady_ms;
    scale.running.clear();
    for (const ReplicaLoad& replica : sample.replicas) scale.running[replica.replica] = replica.running;
    if (!is_elastic(deployment->second)) continue;
    // Until the window is over what is there is not known; without writes nothing can be done about it.
    if (state.observing || state.frozen_writes) continue;
    ScaleFacts facts;
    facts.placed = settled_of(state, sample.deployment);
    facts.min = deployment->second.replicas_min;
    if (deployment->second.pinned && facts.placed > 0) facts.min = std::max(1, facts.min);
    facts.max = deployment->second.replicas_max;
    facts.slots = slots_of(state, deployment->second);
    facts.load_ms = scale.load_ms;
    facts.memory_wanted = memory_wanted_by_others(state, sample.deployment, work.now.steady_ms);
    const ScaleDecision decision =
        decide_scale(state.settings.autoscale, facts, scale.demand, work.now.steady_ms, scale.memory);
    if (decision.reason.empty()) continue;
    work.tell("deployment.scaled", "deployment/" + sample.deployment, decision.reason);
    state.dirty = state.touched = true;
  }
  // Somebody waits for room: what was busy a second ago may be idle now.
  for (const auto& [name, deployment] : state.deployments) {
    if (state.unplaced.contains(name) && lacks_room(state, deployment, work.now.steady_ms)) state.touched = true;
  }
}

void make_room(Work& work) {
  ControllerState& state = work.state;
  std::vector<std::string> asking;
  for (const auto& [name, deployment] : state.deployments) {
    if (state.unplaced.contains(name) && lacks_room(state, deployment, work.now.steady_ms)) asking.push_back(name);
  }
  // One at a time: what is unloaded for the first may be what the second needs too.
  for (const std::string& name : asking) {
    const Deployment& deployment = state.deployments.at(name);
    const auto model = state.models.find(deployment.model);
    if (model == state.models.end() || !model->second.error.empty()) continue;
    // A variant that leaves room is less than a model that is gone.
    if (step_down_for(work, name)) return;
    EvictionInput input = who_may_go(state, deployment, work.now.steady_ms);
    const auto eviction = choose_over_variants(state, deployment, model->second, input, work.now.steady_ms);
    if (!eviction || eviction->replicas.empty()) continue;
    // Where a split lies is the planner's choice: nobody goes before it says that this would be enough.
    if (eviction->devices.size() > 1 && !would_place(state, *eviction, name, work.now.steady_ms)) continue;
    work.cause = "deployment.unplaced deployment/" + name;
    evict(work, *eviction, input, deployment);
    return;
  }
}

}  // namespace reconcile

int wanted_replicas(const ControllerState& state, const Deployment& deployment) {
  if (!reconcile::is_elastic(deployment)) return deployment.replicas_min;
  const auto scale = state.scale.find(deployment.name);
  const int wanted = scale == state.scale.end() ? 0 : scale->second.memory.wanted;
  return std::clamp(wanted, deployment.replicas_min, deployment.replicas_max);
}

}  // namespace aiv
