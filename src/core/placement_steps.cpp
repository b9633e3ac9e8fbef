#include "core/placement_steps.hpp"

#include <algorithm>

namespace aiv::placement {
namespace {

class Sequencer {
 public:
  Sequencer(const Problem& problem, const std::vector<Replica>& planned)
      : problem_(problem), planned_(planned), free_(problem.devices.size()), count_(problem.models.size(), 0),
        floor_(problem.models.size(), 0), spare_(problem.models.size()), detoured_(problem.models.size(), 0) {
    for (Index d = 0; d < problem.devices.size(); ++d) free_[d] = problem.devices[d].capacity;
    std::vector<char> stays(problem.current.size(), 0);
    for (Index i = 0; i < planned.size(); ++i) {
      ++floor_[planned[i].model];
      if (planned[i].current != kNone) {
        stays[planned[i].current] = 1;
      } else {
        loads_.push_back(i);
      }
    }
    for (Index c = 0; c < problem.current.size(); ++c) {
      for (const auto& [device, bytes] : problem.current[c].held) free_[device] -= bytes;
      ++count_[problem.current[c].model];
      if (stays[c] == 0) unloads_.push_back(c);
    }
    pending_.assign(problem.current.size(), 0);
    for (const Index c : unloads_) pending_[c] = 1;
    for (std::size_t m = 0; m < floor_.size(); ++m) floor_[m] = std::min(floor_[m], count_[m]);
    const auto weight = [&](Index model) { return problem.models[model].weight; };
    std::sort(loads_.begin(), loads_.end(), [&](Index a, Index b) {
      const Score x = weight(planned[a].model);
      const Score y = weight(planned[b].model);
      return x != y ? x > y : a < b;
    });
    std::sort(unloads_.begin(), unloads_.end(), [&](Index a, Index b) {
      const CurrentData& x = problem.current[a];
      const CurrentData& y = problem.current[b];
      if (weight(x.model) != weight(y.model)) return weight(x.model) < weight(y.model);
      const Bytes bx = problem.variants[x.variant].bytes;
      const Bytes by = problem.variants[y.variant].bytes;
      return bx != by ? bx < by : a < b;
    });
  }

  std::vector<Step> run() {
    for (;;) {
      if (load_what_fits() || unload_what_is_spare()) continue;
      if (loads_.empty() && unloads_.empty()) break;
      if (detour()) continue;
      if (unloads_.empty()) break;  // memory that nobody here holds is missing: cannot be with a legal plan
      gap();
    }
    for (Index m = 0; m < spare_.size(); ++m) {
      if (spare_[m].model != kNone) drop_spare(m);
    }
    return std::move(steps_);
  }

 private:
  Bytes cost(const Replica& replica, std::size_t i) const {
    const Bytes extra = replica.parts > 1 ? problem_.variants[replica.variant].split_extra : 0;
    return replica.bytes[i] + problem_.devices[replica.device[i]].overhead + extra;
  }

  bool fits(const Replica& replica) const {
    for (std::size_t i = 0; i < replica.parts; ++i) {
      if (free_[replica.device[i]] < cost(replica, i)) return false;
    }
    return true;
  }

  void occupy(const Replica& replica) {
    for (std::size_t i = 0; i < replica.parts; ++i) free_[replica.device[i]] -= cost(replica, i);
    ++count_[replica.model];
  }

  void vacate(const Replica& replica) {
    for (std::size_t i = 0; i < replica.parts; ++i) free_[replica.device[i]] += cost(replica, i);
    --count_[replica.model];
  }

  void vacate_current(Index c) {
    for (const auto& [device, bytes] : problem_.current[c].held) free_[device] += bytes;
    --count_[problem_.current[c].model];
    pending_[c] = 0;
  }

  StepReason reason_for(Index c) const {
    return problem_.current[c].keepable ? StepReason::kNone : StepReason::kForeign;
  }

  // The entry of `model` to unload with a load on `node`: one on another node if there is one.
  Index partner(Index model, Index node) const {
    Index found = kNone;
    for (const Index c : problem_.models[model].current) {
      if (pending_[c] == 0) continue;
      if (problem_.current[c].node != node) return c;
      if (found == kNone) found = c;
    }
    return found;
  }

  bool load_what_fits() {
    const std::size_t before = loads_.size();
    std::size_t kept = 0;
    for (const Index load : loads_) {
      if (fits(planned_[load])) {
        load_now(load);
      } else {
        loads_[kept++] = load;
      }
    }
    loads_.resize(kept);
    return kept < before;
  }

  void load_now(Index load) {
    const Replica& replica = planned_[load];
    occupy(replica);
    Step step;
    step.load = load;
    // After a gap the load fills it, and what it would have replaced stays until it is spare.
    const bool above = count_[replica.model] > floor_[replica.model];
    if (above && spare_[replica.model].model != kNone) {
      step.action = StepAction::kMove;
      step.from_spare = true;
      step.spare = spare_[replica.model];
      vacate(step.spare);
      spare_[replica.model] = Replica{};
    } else if (const Index c = above ? partner(replica.model, replica.node) : kNone; c != kNone) {
      step.action = StepAction::kMove;
      step.unload = c;
      step.reason = reason_for(c);
      vacate_current(c);
    }
    steps_.push_back(step);
  }

  bool unload_what_is_spare() {
    bool any = false;
    drop_done();
    for (const Index c : unloads_) {
      if (count_[problem_.current[c].model] <= floor_[problem_.current[c].model]) continue;
      unload(c, reason_for(c));
      any = true;
    }
    drop_done();
    return any;
  }

  void drop_done() {
    std::erase_if(unloads_, [this](Index c) { return pending_[c] == 0; });
  }

  void unload(Index c, StepReason reason) {
    Step step;
    step.action = StepAction::kUnload;
    step.unload = c;
    step.reason = reason;
    vacate_current(c);
    steps_.push_back(step);
  }

  // Marks the devices on which a waiting load lacks room.
  void find_blocked() {
    blocked_.assign(problem_.devices.size(), 0);
    for (const Index load : loads_) {
      const Replica& replica = planned_[load];
      for (std::size_t i = 0; i < replica.parts; ++i) {
        if (free_[replica.device[i]] < cost(replica, i)) blocked_[replica.device[i]] = 1;
      }
    }
  }

  // True if some load that waits would find room by unloading the entry, alone or with others.
  bool helps(Index c) const {
    const auto& held = problem_.current[c].held;
    return std::any_of(held.begin(), held.end(), [this](const auto& part) { return blocked_[part.first] != 0; });
  }

  // Moves a replica that blocks a load to free memory for a while. Once per model, so that it ends.
  bool detour() {
    find_blocked();
    for (const Index c : unloads_) {
      const CurrentData& entry = problem_.current[c];
      if (detoured_[entry.model] != 0 || !entry.keepable || !helps(c)) continue;
      Replica spare;
      if (!find_spare(entry, spare)) continue;
      detoured_[entry.model] = 1;
      occupy(spare);
      vacate_current(c);
      spare_[entry.model] = spare;
      Step step;
      step.action = StepAction::kMove;
      step.unload = c;
      step.spare = spare;
      steps_.push_back(step);
      drop_done();
      return true;
    }
    return false;
  }

  // A single device with room now, on a node where the model neither runs nor shall run; bounded look.
  bool find_spare(const CurrentData& entry, Replica& out) const {
    const VariantData& variant = problem_.variants[entry.variant];
    for (Index d = 0; d < problem_.devices.size() && d < kDetourDevicesMax; ++d) {
      const DeviceData& device = problem_.devices[d];
      if (problem_.nodes[device.node].state != NodePlanState::kSchedulable || device.node == entry.node) continue;
      if (free_[d] < problem_.device_need(variant, device) || !problem_.device_allows(variant, device)) continue;
      if (!problem_.node_allows(problem_.models[entry.model], device.node) || on_node(entry.model, device.node)) {
        continue;
      }
      out = Replica{};
      out.model = entry.model;
      out.variant = entry.variant;
      out.node = device.node;
      out.parts = 1;
      out.device[0] = d;
      out.bytes[0] = variant.bytes;
      return true;
    }
    return false;
  }

  bool on_node(Index model, Index node) const {
    for (const Index c : problem_.models[model].current) {
      if (problem_.current[c].node == node) return true;
    }
    return std::any_of(planned_.begin(), planned_.end(),
                       [&](const Replica& r) { return r.model == model && r.node == node; });
  }

  // No order keeps every floor: the cheapest replica that is in the way goes first.
  void gap() {
    Index chosen = unloads_.front();
    for (const Index c : unloads_) {
      if (!helps(c)) continue;
      chosen = c;
      break;
    }
    unload(chosen, problem_.current[chosen].keepable ? StepReason::kGap : StepReason::kForeign);
    drop_done();
  }

  void drop_spare(Index model) {
    Step step;
    step.action = StepAction::kUnload;
    step.from_spare = true;
    step.spare = spare_[model];
    vacate(step.spare);
    spare_[model] = Replica{};
    steps_.push_back(step);
  }

  static constexpr Index kDetourDevicesMax = 4096;

  const Problem& problem_;
  const std::vector<Replica>& planned_;
  std::vector<Bytes> free_;
  std::vector<int> count_;
  std::vector<int> floor_;
  std::vector<Replica> spare_;
  std::vector<char> detoured_;
  std::vector<char> pending_;  // by current: shall be unloaded, is not yet
  std::vector<char> blocked_;  // by device, see find_blocked()
  std::vector<Index> loads_;
  std::vector<Index> unloads_;
  std::vector<Step> steps_;
};

}  // namespace

std::vector<Step> order_steps(const Problem& problem, const std::vector<Replica>& planned) {
  return Sequencer(problem, planned).run();
}

}  // namespace aiv::placement
