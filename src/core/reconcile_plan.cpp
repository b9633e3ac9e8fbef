// Step 3 and 4 of core/reconcile.hpp: what the planner is asked, and what is made of its answer.
#include <algorithm>
#include <limits>
#include <set>

#include "base/units.hpp"
#include "core/footprint.hpp"
#include "core/placement.hpp"
#include "core/prng.hpp"
#include "core/reconcile_parts.hpp"

namespace aiv {

namespace reconcile {
namespace {

constexpr double kUnknownBandwidth = 100e9;  // an old card's; only ranks places, never decides about fit

bool is_lost(const ControllerState& state, const std::string& node) {
  return !state.nodes.contains(node) || state.detector.replaceable(node);
}

struct Counts {
  int settled = 0;  // as wanted, where it is
  int settled_ready = 0;
  int leaving = 0;
  int draining = 0;  // on nodes that can still answer
};

Counts count_of(const ControllerState& state, const std::string& deployment) {
  Counts counts;
  for (const Placement* placement : state.placements.of_deployment(deployment)) {
    if (placement->spec.draining) {
      if (!is_lost(state, placement->node)) ++counts.draining;
    } else if (is_leaving(state, *placement)) {
      ++counts.leaving;
    } else {
      ++counts.settled;
      if (is_ready(state, *placement)) ++counts.settled_ready;
    }
  }
  return counts;
}

// Never more than wanted + 1 processes: the extra one lets a successor load before the other unloads.
int planned_replicas(int wanted, const Counts& counts) {
  if (counts.settled >= wanted) return wanted;
  const int room = wanted + 1 - counts.settled - counts.leaving - counts.draining;
  return counts.settled + std::clamp(room, 0, wanted - counts.settled);
}

}  // namespace

bool holds_memory(ReplicaState state) {
  switch (state) {
    case ReplicaState::kPending:
    case ReplicaState::kLoading:
    case ReplicaState::kReady:
    case ReplicaState::kDraining:
      return true;
    case ReplicaState::kStopped:
    case ReplicaState::kFailed:
      return false;
  }
  return true;
}

std::string node_of_device(const std::string& id) {
  return id.substr(0, id.find('/'));
}

NodePlanState plan_state(const ControllerState& state, const NodeRecord& node) {
  if (is_lost(state, node.id)) return NodePlanState::kUnschedulable;
  if (node.draining) return NodePlanState::kUnschedulable;
  if (!node.observed || state.detector.health(node.id) != NodeHealth::kReady) return NodePlanState::kKeepOnly;
  if (state.detector.quarantined(node.id)) return NodePlanState::kKeepOnly;
  return NodePlanState::kSchedulable;
}

namespace {

struct DeviceUse {
  Bytes kept = 0;   // settled replicas: the planner sees them as `current`
  Bytes other = 0;  // leaving, draining, unknown ones
};

std::map<std::string, DeviceUse> device_uses(const ControllerState& state) {
  std::map<std::string, DeviceUse> uses;
  for (const auto& [id, placement] : state.placements) {
    const bool kept = !placement.spec.draining && !is_leaving(state, placement);
    for (const DeviceBytes& bytes : placement.spec.devices) {
      (kept ? uses[bytes.device_id].kept : uses[bytes.device_id].other) += bytes.total();
    }
  }
  for (const auto& [node_id, node] : state.nodes) {
    if (!node.observed) continue;
    for (const ReplicaStatus& status : node.observed->replicas) {
      if (state.placements.contains(status.id) || !holds_memory(status.state)) continue;
      for (const DeviceBytes& bytes : status.measured) uses[bytes.device_id].other += bytes.total();
    }
  }
  return uses;
}

// The planner knows bytes alone: where each process takes `more` bytes more of a device that has `more` bytes
// more, and `more` is above what is free, one fits as before and two never do.
void make_exclusive(PlanDevice& device, bool taken) {
  if (taken) device.free_bytes = 0;  // by one that is on its way out
  const Bytes more = device.free_bytes + 1;
  device.free_bytes += more;
  device.overhead_bytes += more;
}

PlanNode plan_node(const ControllerState& state, const NodeRecord& node,
                   const std::map<std::string, DeviceUse>& uses) {
  PlanNode out;
  out.id = node.id;
  out.failure_domain = node.failure_domain;
  out.state = plan_state(state, node);
  std::map<std::string, PlanDevice> unseen;  // of a node that has not reported yet: what its placements name
  if (!node.observed) {
    for (const Placement* placement : state.placements.on_node(node.id)) {
      for (const DeviceBytes& bytes : placement->spec.devices) {
        PlanDevice& device = unseen[bytes.device_id];
        device.id = bytes.device_id;
        device.free_bytes += bytes.total();
        device.vram_bytes = device.free_bytes;
        device.bandwidth_bytes_per_s = kUnknownBandwidth;
        device.backend = placement->spec.engine == EngineKind::kFake ? "fake" : "vulkan";
      }
    }
    for (auto& [id, device] : unseen) out.devices.push_back(device);
    return out;
  }
  for (const Device& device : node.observed->devices) {
    if (!device.refused.empty() || device.switched_off) continue;
    const auto use = uses.find(device.id);
    const DeviceUse used = use == uses.end() ? DeviceUse{} : use->second;
    Bytes free_bytes = budget_of(device) - used.other;
    // The margin keeps new replicas out; it does not evict one that is there. Others' share does.
    const Bytes hard = device.vram_bytes - others_share(device) - used.other;
    if (free_bytes < used.kept && used.kept <= hard) free_bytes = used.kept;
    PlanDevice plan;
    plan.id = device.id;
    plan.vram_bytes = device.vram_bytes;
    plan.free_bytes = std::max<Bytes>(0, free_bytes);
    plan.overhead_bytes = overhead_of(device);
    plan.bandwidth_bytes_per_s = device.bandwidth_bytes_per_s > 0
                                     ? static_cast<double>(device.bandwidth_bytes_per_s)
                                     : kUnknownBandwidth;
    plan.backend = device.backend;
    plan.largest_buffer_bytes = device.max_storage_buffer_range;
    if (policy_of(node, device.id).exclusive) make_exclusive(plan, used.other > 0);
    out.devices.push_back(std::move(plan));
  }
  return out;
}

// The first device of each sort that plan_model_of() tells apart.
std::vector<const Device*> sorts_of_devices(const ControllerState& state) {
  std::vector<const Device*> out;
  for (const auto& [id, node] : state.nodes) {
    if (!node.observed) continue;
    for (const Device& device : node.observed->devices) {
      const bool known = std::ranges::any_of(out, [&](const Device* other) {
        return other->alignment == device.alignment && other->backend == device.backend &&
               other->refused.empty() == device.refused.empty();
      });
      if (!known) out.push_back(&device);
    }
  }
  return out;
}

}  // namespace

StrayNodes stray_nodes(const ControllerState& state) {
  StrayNodes out;
  for (const auto& [id, node] : state.nodes) {
    if (!node.observed) continue;
    for (const ReplicaStatus& status : node.observed->replicas) {
      if (!state.placements.contains(status.id) && holds_memory(status.state))
        out[status.deployment].insert(id);
    }
  }
  return out;
}

std::set<std::string> excluded_nodes(const ControllerState& state, const std::string& deployment,
                                     const StrayNodes& strays, std::int64_t now_ms) {
  std::set<std::string> out;
  for (const Placement* placement : state.placements.of_deployment(deployment)) {
    if (placement->spec.draining || is_leaving(state, *placement)) out.insert(placement->node);
  }
  for (const auto& [where, backoff] : backoff_of(state, deployment)) {
    if (backoff.until_ms > now_ms) out.insert(where.second);
  }
  if (const auto stray = strays.find(deployment); stray != strays.end()) {
    out.insert(stray->second.begin(), stray->second.end());
  }
  return out;
}

bool admits(const NodeRecord& node, const Deployment& deployment) {
  const bool labelled = std::ranges::all_of(deployment.on, [&](const auto& wanted) {
    const auto label = node.labels.find(wanted.first);
    return label != node.labels.end() && label->second == wanted.second;
  });
  return labelled && std::ranges::all_of(node.taints, [&](const std::string& taint) {
           return deployment.tolerates.contains(taint);
         });
}

namespace {

std::string new_id(ControllerState& state, const std::string& deployment) {
  constexpr std::string_view kDigits = "0123456789abcdefghijklmnopqrstuv";
  while (true) {
    // Unique within an epoch by the counter, between epochs by the epoch; mixed so that ids do not look like
    // counts.
    Prng prng(static_cast<std::uint64_t>(state.epoch) << 32U | static_cast<std::uint64_t>(state.next_id++));
    std::string id = deployment + "-";
    for (int i = 0; i < 6; ++i) id.push_back(kDigits[prng.below(32)]);
    std::ranges::replace(id, '/', '-');  // it becomes the name of a directory on the node
    std::ranges::replace(id, ':', '-');
    if (!state.placements.contains(id)) return id;
  }
}

std::string placed_because(const ControllerState& state, const ReplicaSpec& spec,
                           const std::vector<const Device*>& devices) {
  std::string text;
  for (std::size_t i = 0; i < spec.devices.size(); ++i) {
    const DeviceBytes& bytes = spec.devices[i];
    if (!text.empty()) text += "; ";
    text += bytes.device_id + ": " + format_bytes(bytes.total()) + " (weights " +
            format_bytes(bytes.weights) + ", KV " + format_bytes(bytes.kv) + ", compute " +
            format_bytes(bytes.compute) + ", context " + format_bytes(bytes.overhead) + ") into " +
            format_bytes(budget_of(*devices[i]) - used_bytes(state, bytes.device_id)) + " of room";
  }
  return text;
}

Result<ReplicaSpec> exact_spec(const ControllerState& state, const PlanPlacement& placement,
                               const Deployment& deployment, const ModelRecord& model, const Variant& variant,
                               const std::vector<const Device*>& devices) {
  std::vector<Bytes> parts;
  std::vector<Bytes> rooms;
  for (const PlanPart& part : placement.parts) parts.push_back(part.bytes);
  for (const Device* device : devices) {
    const Bytes used = used_bytes(state, device->id);
    const bool taken =
        used > 0 && policy_of(state.nodes.at(node_of_device(device->id)), device->id).exclusive;
    rooms.push_back(taken ? 0 : budget_of(*device) - used);
  }
  return spec_within(deployment, model, variant, devices, parts, rooms);
}

// Step 4: carried out only where it fits beside everything that is still counted.
bool place(Work& work, const PlanPlacement& planned) {
  ControllerState& state = work.state;
  const Deployment& deployment = state.deployments.at(planned.model);
  const ModelRecord& model = state.models.at(deployment.model);
  const auto variants = variants_of(deployment, model);
  const auto variant = std::ranges::find(variants, planned.variant, &Variant::id);
  AIV_ASSERT(variant != variants.end());
  std::vector<const Device*> devices;
  for (const PlanPart& part : planned.parts) {
    devices.push_back(find_device(state, part.device));
    if (devices.back() == nullptr) return false;
  }
  auto spec = exact_spec(state, planned, deployment, model, *variant, devices);
  if (!spec) {
    state.unplaced[deployment.name] = spec.error().reason;
    return false;
  }
  spec->id = new_id(state, deployment.name);
  Placement placement{planned.node,          *std::move(spec), planned.variant,
                      deployment.generation, work.now.unix_ms, {}};
  placement.why = placed_because(state, placement.spec, devices);
  work.tell("replica.placed", "replica/" + placement.spec.id, placement.why);
  work.out.emplace_back(command::SavePlacement{placement});
  state.unmeasured.insert(placement.spec.id);
  state.placements.put(std::move(placement));
  return true;
}

// The planner's value knows a first replica, a second domain and unmet demand. A wish for N replicas is a
// demand of N times the fastest that one can be: then each of them has a value of its own.
void want_each_replica(PlanModel& model, double fastest_bandwidth) {
  Bytes smallest = 0;
  for (const PlanVariant& variant : model.variants) {
    if (variant.bytes > 0 && (smallest == 0 || variant.bytes < smallest)) smallest = variant.bytes;
  }
  if (smallest > 0)
    model.demand_tokens_per_s = replica_speed(fastest_bandwidth, smallest) * model.max_replicas;
}

// What runs was placed with exact bytes; the planner compares with its variant's, so the parts must add up to
// them. The difference goes where most room is left, so that no device looks fuller or emptier than it is by
// much.
void settle_parts(const ControllerState& state, PlanPlacement& current, Bytes variant_bytes) {
  Bytes sum = 0;
  PlanPart* roomiest = &current.parts.front();
  Bytes most = std::numeric_limits<Bytes>::min();
  for (const PlanPart& part : current.parts) sum += part.bytes;
  if (sum == variant_bytes) return;
  for (PlanPart& part : current.parts) {
    const Device* device = find_device(state, part.device);
    const Bytes room = device == nullptr ? 0 : budget_of(*device) - used_bytes(state, part.device);
    if (room <= most) continue;
    most = room;
    roomiest = &part;
  }
  roomiest->bytes += variant_bytes - sum;
}

struct Planned {
  Plan plan;
  PlanInput input;
  std::map<std::string, Error> impossible;
};

Plan run_planner(const PlanInput& input) {
  PlanOptions options;
  options.with_bound = false;
  options.with_steps = false;
  return aiv::plan(input, options);
}

// How many replicas a plan gives to each deployment.
std::map<std::string_view, std::ptrdiff_t> planned_counts(const Plan& plan) {
  std::map<std::string_view, std::ptrdiff_t> out;
  for (const PlanPlacement& placement : plan.placements) ++out[placement.model];
  return out;
}

std::ptrdiff_t count_in(const std::map<std::string_view, std::ptrdiff_t>& counts, const std::string& name) {
  return counts.contains(name) ? counts.at(name) : 0;
}

// First with the best variant of each deployment; those that miss a replica then may take a lesser one.
// Offered both at once the planner would take the smaller for its speed.
Planned make_plan(const ControllerState& state, std::int64_t now_ms, const Refused& refused) {
  Planned out;
  out.input = plan_input(state, now_ms, {}, refused, &out.impossible);
  out.plan = run_planner(out.input);
  const auto got = planned_counts(out.plan);
  std::set<std::string> lesser;
  for (const PlanModel& model : out.input.models) {
    if (count_in(got, model.id) < model.max_replicas && model.variants.size() > 1) lesser.insert(model.id);
  }
  // Only those that a lesser variant gives a replica more keep it: others lack a node, not bytes.
  for (int pass = 0; pass < 3 && !lesser.empty(); ++pass) {
    Planned second;
    second.input = plan_input(state, now_ms, lesser, refused, &second.impossible);
    second.plan = run_planner(second.input);
    const std::size_t before = lesser.size();
    const auto gets = planned_counts(second.plan);
    std::erase_if(lesser,
                  [&](const std::string& name) { return count_in(gets, name) <= count_in(got, name); });
    if (lesser.size() == before) return second;
  }
  return out;
}

// Whether the plan has the replica on other devices of its node because one of its own is too full: others took of
// its memory, or an operator keeps more of it free. It has to go before its successor comes: one replica of a
// deployment per node.
bool has_to_change_device(const ControllerState& state, const Placement& placement, const PlanPlacement& planned) {
  const auto planned_there = [&](const DeviceBytes& bytes) {
    return std::ranges::find(planned.parts, bytes.device_id, &PlanPart::device) != planned.parts.end();
  };
  return std::ranges::any_of(placement.spec.devices, [&](const DeviceBytes& bytes) {
    const Device* device = find_device(state, bytes.device_id);
    return device != nullptr && !planned_there(bytes) && used_bytes(state, bytes.device_id) > budget_of(*device);
  });
}

void retire_unplanned(Work& work, const Plan& plan) {
  ControllerState& state = work.state;
  std::map<std::pair<std::string_view, std::string_view>, const PlanPlacement*> stays;
  for (const PlanPlacement& placement : plan.placements) stays[{placement.model, placement.node}] = &placement;
  for (auto& [id, placement] : state.placements) {
    if (placement.spec.draining) continue;
    const auto deployment = state.deployments.find(placement.spec.deployment);
    if (deployment == state.deployments.end()) {
      retire(work, placement, "replica.retired", "its deployment was deleted");
      continue;
    }
    if (is_leaving(state, placement)) continue;
    const auto planned = stays.find({deployment->first, placement.node});
    if (planned != stays.end() && !has_to_change_device(state, placement, *planned->second)) continue;
    if (!state.models.contains(deployment->second.model)) continue;  // nothing was planned for it
    if (count_of(state, deployment->first).settled > wanted_replicas(state, deployment->second)) {
      retire(work, placement, "replica.retired",
             "fewer replicas are wanted now (" + std::to_string(wanted_replicas(state, deployment->second)) +
                 ")");
    } else {
      const bool crowded = std::ranges::any_of(placement.spec.devices, [&](const DeviceBytes& bytes) {
        const auto node = state.nodes.find(placement.node);
        return node != state.nodes.end() && policy_of(node->second, bytes.device_id).exclusive &&
               used_bytes(state, bytes.device_id) > bytes.total();
      });
      retire(work, placement, "replica.yielded",
             crowded
                 ? "its device on " + placement.node + " is for one replica at a time"
                 : "its memory on " + placement.node + " is taken by other programs or kept free for them, or the device is gone");
    }
  }
}

// Leaving replicas go one by one: when a successor is ready, or when there is no other way.
void retire_leaving(Work& work, const std::string& name, bool placed_now) {
  ControllerState& state = work.state;
  const auto deployment = state.deployments.find(name);
  for (int guard = 0; guard < 1024; ++guard) {
    const Counts counts = count_of(state, name);
    if (counts.leaving == 0) return;
    const int wanted = wanted_replicas(state, deployment->second);
    const bool surplus = counts.settled_ready + counts.leaving > wanted;
    const bool stuck = !placed_now && counts.draining == 0 && counts.settled == counts.settled_ready;
    if (!surplus && !stuck) return;
    Placement* chosen = nullptr;
    for (Placement* placement : state.placements.of_deployment(name)) {
      if (!is_leaving(state, *placement)) continue;
      if (chosen == nullptr || (is_ready(state, *chosen) && !is_ready(state, *placement))) chosen = placement;
    }
    if (!surplus && state.outgrown.erase(chosen->spec.id) > 0) return;  // its successor found no place after all
    const auto node = state.nodes.find(chosen->node);
    const bool drained = node != state.nodes.end() && node->second.draining;
    const bool off = node != state.nodes.end() && std::ranges::any_of(chosen->spec.devices, [&](const DeviceBytes& bytes) {
      return is_off(node->second, bytes.device_id, state.week_minute);
    });
    const bool outgrown = state.outgrown.contains(chosen->spec.id);
    const std::string why = outgrown  ? "there is room for a better variant"
                            : drained ? "its node is being drained"
                            : off     ? "its GPU is switched off" : "the deployment was changed";
    retire(work, *chosen, "replica.retired",
           surplus ? why + "; its successor serves" : why + "; no room to load first");
  }
}

void note_unplaced(Work& work, const Plan& plan, const std::map<std::string, Error>& impossible) {
  ControllerState& state = work.state;
  std::map<std::string, std::string> unplaced;
  for (const auto& [name, error] : impossible) unplaced[name] = error.message();
  for (const auto& [name, deployment] : state.deployments) {
    if (unplaced.contains(name)) continue;
    const Counts counts = count_of(state, name);
    if (counts.settled >= wanted_replicas(state, deployment)) continue;
    // No countdown in it: a reason that changes with every tick would make every document change.
    std::string reason;
    for (const auto& [where, backoff] : backoff_of(state, name)) {
      if (backoff.until_ms <= work.now.steady_ms) continue;
      reason += "failed on " + where.second + ": " + backoff.reason + " (tried there again after " +
                format_duration_ms(backoff.wait_ms) + "); ";
    }
    const std::string planner = unplaced_reason(plan, name);
    if (!reason.empty()) reason.resize(reason.size() - 2);
    if (reason.empty()) reason = planner;
    if (reason.empty()) {
      const auto exact = state.unplaced.find(name);
      if (exact != state.unplaced.end()) reason = exact->second;
    }
    unplaced[name] = reason;
  }
  for (const auto& [name, reason] : unplaced) {
    if (reason.empty()) continue;
    const auto before = state.unplaced.find(name);
    // Figures move all the time; only a reason that begins otherwise is news.
    const auto head = [](const std::string& text) {
      return text.substr(0, text.find_first_of("0123456789"));
    };
    if (before == state.unplaced.end() || head(before->second) != head(reason)) {
      work.tell("deployment.unplaced", "deployment/" + name, reason);
    }
  }
  state.unplaced = std::move(unplaced);
}

}  // namespace

const Device* find_device(const ControllerState& state, const std::string& id) {
  const auto node = state.nodes.find(node_of_device(id));
  if (node == state.nodes.end() || !node->second.observed) return nullptr;
  const auto& devices = node->second.observed->devices;
  const auto found = std::ranges::find(devices, id, &Device::id);
  return found == devices.end() ? nullptr : &*found;
}

PlanInput plan_input(const ControllerState& state, std::int64_t now_ms, const std::set<std::string>& lesser,
                     const Refused& refused, std::map<std::string, Error>* impossible) {
  PlanInput input;
  const auto uses = device_uses(state);
  for (const auto& [id, node] : state.nodes) input.nodes.push_back(plan_node(state, node, uses));
  const auto devices = sorts_of_devices(state);
  const StrayNodes strays = stray_nodes(state);
  std::vector<const NodeRecord*> all_nodes;
  std::vector<const NodeRecord*> tainted;
  for (const auto& [id, node] : state.nodes) {
    all_nodes.push_back(&node);
    if (!node.taints.empty()) tainted.push_back(&node);
  }
  double fastest = kUnknownBandwidth;
  for (const PlanNode& node : input.nodes) {
    for (const PlanDevice& device : node.devices) fastest = std::max(fastest, device.bandwidth_bytes_per_s);
  }
  for (const auto& [name, deployment] : state.deployments) {
    const auto model = state.models.find(deployment.model);
    if (model == state.models.end() || !model->second.error.empty()) {
      const std::string why = model == state.models.end() ? "is not registered" : model->second.error;
      if (impossible != nullptr) {
        impossible->insert_or_assign(name, Error{ErrorCode::kNotFound, why, "model " + deployment.model});
      }
      continue;
    }
    auto planned = plan_model_of(deployment, model->second, devices);
    if (!planned) {
      if (impossible != nullptr) impossible->insert_or_assign(name, planned.error());
      continue;
    }
    planned->max_replicas = planned_replicas(wanted_replicas(state, deployment), count_of(state, name));
    planned->min_replicas = planned->max_replicas;
    constexpr double kOrdinaryPriority = 10;
    planned->weight = deployment.priority / kOrdinaryPriority;
    auto excluded = excluded_nodes(state, name, strays, now_ms);
    for (const NodeRecord* node : deployment.on.empty() ? tainted : all_nodes) {
      if (!admits(*node, deployment)) excluded.insert(node->id);
    }
    for (const auto& [deployment_name, node] : refused) {
      if (deployment_name == name) excluded.insert(node);
    }
    planned->excluded_nodes.assign(excluded.begin(), excluded.end());
    if (planned->max_replicas == 0) continue;
    want_each_replica(*planned, fastest);
    std::set<std::string> running;
    std::vector<const Placement*> settled;
    for (const Placement* placement : state.placements.of_deployment(name)) {
      if (placement->spec.draining || is_leaving(state, *placement)) continue;
      settled.push_back(placement);
      running.insert(placement->variant);
    }
    const bool held = state.held_down.contains(name);
    for (std::size_t i = 1; i < planned->variants.size(); ++i) {
      PlanVariant& variant = planned->variants[i];
      variant.hint_only =
          variant.hint_only || (!lesser.contains(name) && !held && !running.contains(variant.id));
    }
    // Others need the room of the best: a lesser one it is, if there is one.
    if (held && !running.contains(planned->variants.front().id) &&
        std::ranges::count(planned->variants, false, &PlanVariant::hint_only) > 1) {
      planned->variants.front().hint_only = true;
    }
    for (const Placement* each : settled) {
      const Placement& placement = *each;
      PlanPlacement current{name, placement.variant, placement.node, {}, false, true};
      const auto variant = std::ranges::find(planned->variants, placement.variant, &PlanVariant::id);
      const bool known = variant != planned->variants.end();
      // The planner adds what each device of a split takes for itself.
      const Bytes extra = known && placement.spec.devices.size() > 1 ? variant->split_extra_bytes : 0;
      for (const DeviceBytes& bytes : placement.spec.devices) {
        current.parts.push_back(
            {bytes.device_id, std::max<Bytes>(1, bytes.total() - bytes.overhead - extra)});
      }
      if (known) settle_parts(state, current, variant->bytes);
      std::erase(planned->excluded_nodes, placement.node);  // a wait after a failure is for new ones
      input.current.push_back(std::move(current));
    }
    input.models.push_back(*std::move(planned));
  }
  return input;
}

Plan trial_plan(const ControllerState& state, std::int64_t now_ms) {
  return make_plan(state, now_ms, {}).plan;
}

void plan_round(Work& work) {
  ControllerState& state = work.state;
  // Nodes that the planner chose but where the exact bytes do not fit: another is looked for in the same
  // step. Without it the planner would choose the same one for ever (simulator, one_way_cut, seed 7).
  Refused refused;
  bool again = state.dirty;
  if (again) refresh_margins(state);
  // A change made here (an unload decided) may open the way for another: a bounded number of rounds settles
  // it.
  for (int round = 0; round < 4 && again; ++round) {
    state.dirty = false;
    again = false;
    const Planned made = make_plan(state, work.now.steady_ms, refused);
    const Plan& plan = made.plan;
    retire_unplanned(work, plan);
    std::set<std::string> placed;
    for (const PlanPlacement& planned : plan.placements) {
      const bool there =
          std::ranges::any_of(std::as_const(state.placements).of_deployment(planned.model),
                              [&](const Placement* placement) { return placement->node == planned.node; });
      if (there) continue;
      const bool done = place(work, planned);
      if (done) placed.insert(planned.model);
      if (!done) again = refused.emplace(planned.model, planned.node).second || again;
    }
    for (const auto& [name, deployment] : state.deployments)
      retire_leaving(work, name, placed.contains(name));
    note_unplaced(work, plan, made.impossible);
    again = again || state.dirty;
  }
}

}  // namespace reconcile

Bytes used_bytes(const ControllerState& state, const std::string& device_id) {
  const std::string node_id = reconcile::node_of_device(device_id);
  Bytes used = 0;
  for (const Placement* placement : state.placements.on_node(node_id)) {
    for (const DeviceBytes& bytes : placement->spec.devices) {
      if (bytes.device_id == device_id) used += bytes.total();
    }
  }
  const auto node = state.nodes.find(node_id);
  if (node == state.nodes.end() || !node->second.observed) return used;
  for (const ReplicaStatus& status : node->second.observed->replicas) {
    if (state.placements.contains(status.id) || !reconcile::holds_memory(status.state)) continue;
    for (const DeviceBytes& bytes : status.measured) {
      if (bytes.device_id == device_id) used += bytes.total();
    }
  }
  return used;
}

Result<WhatIf> what_if(const ControllerState& state, const Deployment& deployment, std::int64_t now_ms) {
  ControllerState copy = state;
  Deployment wanted = deployment;
  const auto present = copy.deployments.find(deployment.name);
  // Changed in place: its replicas may be replaced where they stand, so their memory counts as free for the
  // question.
  if (present != copy.deployments.end() && present->second.generation != wanted.generation) {
    erase_if(copy.placements, [&](const auto& entry) { return entry.second.spec.deployment == wanted.name; });
    for (auto& [id, node] : copy.nodes) {
      if (!node.observed) continue;
      std::erase_if(node.observed->replicas,
                    [&](const ReplicaStatus& r) { return r.deployment == wanted.name; });
    }
  }
  std::erase_if(copy.backoff, [&](const auto& entry) { return entry.first.first == wanted.name; });
  copy.deployments[wanted.name] = wanted;
  const reconcile::Planned made = reconcile::make_plan(copy, now_ms, {});
  if (const auto error = made.impossible.find(wanted.name); error != made.impossible.end()) {
    return std::unexpected(error->second);
  }
  WhatIf answer;
  for (const PlanPlacement& placement : made.plan.placements) {
    if (placement.model == wanted.name) answer.placements.push_back(placement);
  }
  answer.placed = !answer.placements.empty() || wanted.replicas_min == 0;
  answer.reason = unplaced_reason(made.plan, wanted.name);
  for (const PlanModel& model : made.input.models) {
    if (model.id == wanted.name && !model.variants.empty())
      answer.bytes_per_replica = model.variants.front().bytes;
  }
  return answer;
}

}  // namespace aiv
