#include "plan_checker.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

namespace aiv::test {
namespace {

__extension__ using Wide = __int128;

struct Known {
  std::map<std::string, const PlanNode*> nodes;
  std::map<std::string, const PlanDevice*> devices;
  std::map<std::string, std::string> node_of_device;
  std::map<std::string, const PlanModel*> models;

  explicit Known(const PlanInput& input) {
    for (const auto& node : input.nodes) {
      nodes[node.id] = &node;
      for (const auto& device : node.devices) {
        devices[device.id] = &device;
        node_of_device[device.id] = node.id;
      }
    }
    for (const auto& model : input.models) models[model.id] = &model;
  }

  const PlanVariant* variant(const PlanPlacement& p) const {
    const auto m = models.find(p.model);
    if (m == models.end()) return nullptr;
    for (const auto& v : m->second->variants) {
      if (v.id == p.variant) return &v;
    }
    return nullptr;
  }

  // True if every name in it means something: such entries of `current` hold memory, others are dropped.
  bool exists(const PlanPlacement& p) const {
    if (!nodes.contains(p.node) || variant(p) == nullptr) return false;
    return std::all_of(p.parts.begin(), p.parts.end(), [&](const PlanPart& x) { return devices.contains(x.device); });
  }
};

// Memory that a replica holds, by device.
std::map<std::string, Wide> held(const Known& known, const PlanPlacement& p) {
  std::map<std::string, Wide> bytes;
  const Bytes extra = p.parts.size() > 1 ? known.variant(p)->split_extra_bytes : 0;
  for (const auto& part : p.parts) {
    bytes[part.device] += Wide{part.bytes} + known.devices.at(part.device)->overhead_bytes + extra;
  }
  return bytes;
}

bool same_place(const PlanPlacement& a, const PlanPlacement& b) {
  const auto sorted = [](std::vector<PlanPart> parts) {
    std::sort(parts.begin(), parts.end(), [](const auto& x, const auto& y) { return x.device < y.device; });
    return parts;
  };
  return a.model == b.model && a.variant == b.variant && a.node == b.node && sorted(a.parts) == sorted(b.parts);
}

std::string name(const PlanPlacement& p) { return p.model + "/" + p.variant + " on " + p.node; }

bool listed(const std::vector<std::string>& list, const std::string& id) {
  return std::find(list.begin(), list.end(), id) != list.end();
}

void check_one(const Known& known, const PlanInput& input, const PlanPlacement& p, std::vector<std::string>& faults) {
  const auto fault = [&](const std::string& text) { faults.push_back(name(p) + ": " + text); };
  if (!known.nodes.contains(p.node)) return fault("unknown node");
  if (!known.models.contains(p.model)) return fault("unknown model");
  const PlanVariant* variant = known.variant(p);
  if (variant == nullptr) return fault("unknown variant");
  if (variant->hint_only) fault("hint_only variant placed");
  const PlanNode& node = *known.nodes.at(p.node);
  const PlanModel& model = *known.models.at(p.model);
  if (node.state == NodePlanState::kUnschedulable) fault("node is not schedulable");
  if (node.state == NodePlanState::kKeepOnly &&
      std::none_of(input.current.begin(), input.current.end(), [&](const auto& c) { return same_place(c, p); })) {
    fault("added to a node that only keeps");
  }
  if (!model.only_nodes.empty() && !listed(model.only_nodes, p.node)) fault("node is not among only_nodes");
  if (listed(model.excluded_nodes, p.node)) fault("node is excluded");
  if (p.parts.empty()) fault("no device");
  if (p.parts.size() > 1 && !variant->splittable) fault("split, but not splittable");
  std::set<std::string> devices;
  Wide sum = 0;
  for (const auto& part : p.parts) {
    if (!known.devices.contains(part.device)) {
      fault("unknown device " + part.device);
      continue;
    }
    const PlanDevice& device = *known.devices.at(part.device);
    if (known.node_of_device.at(part.device) != p.node) fault("device of another node: " + part.device);
    if (!devices.insert(part.device).second) fault("device twice: " + part.device);
    if (part.bytes <= 0) fault("a part of no bytes");
    if (!listed(variant->backends, device.backend)) fault("backend of " + part.device);
    if (device.largest_buffer_bytes > 0 && variant->largest_tensor_bytes > device.largest_buffer_bytes) {
      fault("largest tensor does not go into a buffer of " + part.device);
    }
    sum += part.bytes;
  }
  if (sum != variant->bytes) fault("parts do not add up to the variant");
}

}  // namespace

double value_of(const PlanInput& input, const std::vector<PlanPlacement>& placements) {
  const Known known(input);
  double value = 0;
  for (const auto& model : input.models) {
    std::set<std::string> domains;
    int replicas = 0;
    double speed = 0;
    for (const auto& p : placements) {
      if (p.model != model.id) continue;
      ++replicas;
      const PlanNode& node = *known.nodes.at(p.node);
      domains.insert(node.failure_domain.empty() ? "node " + node.id : node.failure_domain);
      double slowest = std::numeric_limits<double>::infinity();
      for (const auto& part : p.parts) {
        slowest = std::min(slowest, known.devices.at(part.device)->bandwidth_bytes_per_s);
      }
      speed += 0.6 * slowest / static_cast<double>(known.variant(p)->bytes);
    }
    if (replicas == 0) continue;
    double points = 100;
    if (domains.size() >= 2 && input.policy.survive_node_losses > 0) points += 30;
    points += model.demand_tokens_per_s > 0 ? 20 * std::min(1.0, speed / model.demand_tokens_per_s) : 20;
    value += model.weight * points;
  }
  return value;
}

std::vector<std::string> check_placements(const PlanInput& input, const std::vector<PlanPlacement>& placements) {
  std::vector<std::string> faults;
  const Known known(input);
  std::map<std::string, int> replicas;
  std::set<std::pair<std::string, std::string>> pairs;
  for (const auto& p : placements) {
    check_one(known, input, p, faults);
    ++replicas[p.model];
    if (!pairs.insert({p.model, p.node}).second) faults.push_back(name(p) + ": second replica on the node");
  }
  if (!faults.empty()) return faults;
  std::map<std::string, Wide> used;
  for (const auto& p : placements) {
    for (const auto& [device, bytes] : held(known, p)) used[device] += bytes;
  }
  for (const auto& [device, bytes] : used) {
    if (bytes > known.devices.at(device)->free_bytes) faults.push_back("device overfilled: " + device);
  }
  for (const auto& [model, count] : replicas) {
    if (count > known.models.at(model)->max_replicas) faults.push_back("more than max_replicas of " + model);
  }
  return faults;
}

namespace {

class Walk {
 public:
  Walk(const PlanInput& input, const Plan& plan) : known_(input), plan_(plan) {
    for (const auto& p : input.current) {
      if (!known_.exists(p)) continue;
      const auto again = [&](const auto& q) { return same_place(p, q); };
      if (std::any_of(loaded_.begin(), loaded_.end(), again)) continue;
      loaded_.push_back(p);
      for (const auto& [device, bytes] : held(known_, p)) used_[device] += bytes;
    }
    for (const auto& p : loaded_) ++now_[p.model];
    for (const auto& p : plan.placements) ++then_[p.model];
    count_ = now_;
  }

  StepWalk run() {
    for (std::size_t i = 0; i < plan_.steps.size(); ++i) {
      at_ = "step " + std::to_string(i) + " (" + plan_.steps[i].model + ")";
      one(plan_.steps[i]);
    }
    finish();
    return std::move(result_);
  }

 private:
  void fault(const std::string& text) { result_.faults.push_back(at_ + ": " + text); }

  void one(const PlanStep& step) {
    PlanPlacement to;
    to.model = step.model;
    to.variant = step.variant;
    to.node = step.node;
    to.parts = step.parts;
    Bytes sum = 0;
    for (const auto& part : step.parts) sum += part.bytes;
    if (sum != step.bytes) fault("bytes are not those of its parts");
    switch (step.action) {
      case StepAction::kLoad: load(to); break;
      case StepAction::kUnload: unload(to, step.reason); break;
      case StepAction::kMove: {
        load(to);
        PlanPlacement from = to;
        from.node = step.from_node;
        from.parts = step.from_parts;
        unload(from, step.reason);
        break;
      }
    }
  }

  void load(const PlanPlacement& p) {
    if (!known_.exists(p)) return fault("loads what does not exist");
    loaded_.push_back(p);
    ++count_[p.model];
    for (const auto& [device, bytes] : held(known_, p)) {
      used_[device] += bytes;
      if (used_[device] > known_.devices.at(device)->free_bytes) fault("overfills " + device);
    }
  }

  // A move may change the variant: its source is known by model and place.
  void unload(const PlanPlacement& p, StepReason reason) {
    const auto it = std::find_if(loaded_.begin(), loaded_.end(), [&](const auto& q) {
      PlanPlacement same = q;
      same.variant = p.variant;
      return same_place(same, p);
    });
    if (it == loaded_.end()) return fault("unloads what is not there");
    for (const auto& [device, bytes] : held(known_, *it)) used_[device] -= bytes;
    loaded_.erase(it);
    const int floor = std::min(now_[p.model], then_[p.model]);
    if (--count_[p.model] >= floor) return;
    if (reason == StepReason::kNone) fault("falls below its floor");
    ++result_.gaps;
  }

  void finish() {
    at_ = "end";
    for (const auto& p : plan_.placements) {
      const auto it = std::find_if(loaded_.begin(), loaded_.end(), [&](const auto& q) { return same_place(p, q); });
      if (it == loaded_.end()) {
        fault(name(p) + " is planned but not loaded");
      } else {
        loaded_.erase(it);
      }
    }
    for (const auto& p : loaded_) fault(name(p) + " is loaded but not planned");
  }

  Known known_;
  const Plan& plan_;
  StepWalk result_;
  std::string at_;
  std::vector<PlanPlacement> loaded_;
  std::map<std::string, Wide> used_;
  std::map<std::string, int> now_;
  std::map<std::string, int> then_;
  std::map<std::string, int> count_;
};

}  // namespace

StepWalk walk_steps(const PlanInput& input, const Plan& plan) { return Walk(input, plan).run(); }

std::vector<std::string> check_plan(const PlanInput& input, const Plan& plan) {
  std::vector<std::string> faults = check_placements(input, plan.placements);
  if (!faults.empty()) return faults;
  const double value = value_of(input, plan.placements);
  if (std::abs(value - plan.value) > 1e-6 * std::max(1.0, value)) faults.push_back("value is not that of the placements");
  if (plan.upper_bound < value * (1 - 1e-9)) faults.push_back("upper bound below the value");
  Bytes moved = 0;
  const Known known(input);
  std::map<std::string, int> replicas;
  for (const auto& p : plan.placements) {
    ++replicas[p.model];
    const bool stands = std::any_of(input.current.begin(), input.current.end(),
                                    [&](const auto& c) { return same_place(c, p); });
    if (stands != p.keep) faults.push_back(name(p) + ": keep is wrong");
    if (!p.keep) moved += known.variant(p)->bytes;
  }
  if (moved != plan.bytes_moved) faults.push_back("bytes_moved is not the sum of what is not kept");
  std::set<std::string> unplaced;
  for (const auto& u : plan.unplaced) {
    if (!unplaced.insert(u.model).second) faults.push_back(u.model + " is unplaced twice");
    if (describe(u).empty()) faults.push_back(u.model + " is unplaced without a reason");
  }
  for (const auto& model : input.models) {
    const int has = replicas[model.id];
    if ((has == 0 || has < model.min_replicas) != unplaced.contains(model.id)) {
      faults.push_back(model.id + ": unplaced does not agree with its replicas");
    }
  }
  const StepWalk walk = walk_steps(input, plan);
  faults.insert(faults.end(), walk.faults.begin(), walk.faults.end());
  return faults;
}

}  // namespace aiv::test
