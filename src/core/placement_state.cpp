#include "core/placement_state.hpp"

#include <algorithm>

namespace aiv::placement {
namespace {

template <class Key>
void insert_sorted(std::vector<Slot>& list, Slot slot, Key key) {
  auto at = list.end();
  while (at != list.begin() && key(*(at - 1)) > key(slot)) --at;
  list.insert(at, slot);
}

void erase_from(std::vector<Slot>& list, Slot slot) {
  const auto at = std::find(list.begin(), list.end(), slot);
  AIV_ASSERT(at != list.end());
  list.erase(at);
}

Bytes bytes_of(const Problem& problem, const Replica& replica) { return problem.variants[replica.variant].bytes; }

// What a part costs on its device.
Bytes part_cost(const Problem& problem, const Replica& replica, std::size_t i) {
  const Bytes extra = replica.parts > 1 ? problem.variants[replica.variant].split_extra : 0;
  return replica.bytes[i] + problem.devices[replica.device[i]].overhead + extra;
}

}  // namespace

State::State(const Problem& problem)
    : problem_(&problem),
      indexed_(problem.nodes.size() > kSmallCluster),
      free_(problem.devices.size()),
      node_free_(problem.nodes.size(), 0),
      open_(problem.nodes.size(), 0),
      by_node_(problem.nodes.size()),
      by_model_(problem.models.size()),
      tally_(problem.models.size()),
      present_(problem.current.size(), 0),
      device_index_(indexed_ ? problem.devices.size() : 0, problem.capacity_max),
      node_index_(indexed_ ? problem.nodes.size() : 0, problem.node_capacity_max) {
  for (Index d = 0; d < problem.devices.size(); ++d) {
    free_[d] = problem.devices[d].capacity;
    node_free_[problem.devices[d].node] += free_[d];
  }
  for (Index n = 0; n < problem.nodes.size(); ++n) {
    set_open(n, problem.nodes[n].state == NodePlanState::kSchedulable);
  }
}

bool State::has(Index model, Index node) const {
  for (const Slot slot : by_model_[model]) {
    if (replicas_[slot].node == node) return true;
  }
  return false;
}

bool State::fixed(Slot slot) const {
  const Replica& replica = replicas_[slot];
  if (problem_->nodes[replica.node].state == NodePlanState::kKeepOnly) return true;
  return replica.current != kNone && problem_->current[replica.current].pinned;
}

Score State::value_of(const ModelData& model, const ModelTally& tally) const {
  if (tally.replicas == 0) return 0;
  const Score speed = (model.weight * kSpeedPoints * std::min(tally.share, kWhole)) / kWhole;
  return model.weight * kFirstPoints + (tally.domains >= 2 ? model.weight * problem_->second_points : 0) + speed;
}

Score State::gain(Index model, Index domain, std::int64_t share) const {
  ModelTally after = tally_[model];
  if (after.replicas == 0) {
    after.domains = 1;
  } else if (after.domains == 1) {
    after.domains = problem_->nodes[replicas_[by_model_[model].front()].node].domain == domain ? 1 : 2;
  }
  ++after.replicas;
  after.share += share;
  return value_of(problem_->models[model], after) - tally_[model].value;
}

bool State::can_add(const Replica& replica) const {
  const ModelData& model = problem_->models[replica.model];
  if (tally_[replica.model].replicas >= model.max_replicas || has(replica.model, replica.node)) return false;
  if (open_[replica.node] == 0 && (replica.current == kNone || problem_->nodes[replica.node].state != NodePlanState::kKeepOnly)) {
    return false;
  }
  for (std::size_t i = 0; i < replica.parts; ++i) {
    if (free_[replica.device[i]] < part_cost(*problem_, replica, i)) return false;
  }
  return problem_->node_allows(model, replica.node);
}

Slot State::add(const Replica& replica) {
  Slot slot = 0;
  const bool new_slot = unused_.empty();
  if (new_slot) {
    slot = static_cast<Slot>(replicas_.size());
    replicas_.emplace_back();
  } else {
    slot = unused_.back();
    unused_.pop_back();
  }
  place(slot, replica);
  log_.push_back({.added = true, .new_slot = new_slot, .slot = slot, .replica = {}});
  return slot;
}

void State::remove(Slot slot) {
  log_.push_back({.added = false, .new_slot = false, .slot = slot, .replica = replicas_[slot]});
  take(slot);
  unused_.push_back(slot);
}

void State::rollback(std::size_t mark) {
  while (log_.size() > mark) {
    const Change& change = log_.back();
    if (change.added) {
      take(change.slot);
      if (change.new_slot) {
        replicas_.pop_back();
      } else {
        unused_.push_back(change.slot);
      }
    } else {
      AIV_ASSERT(!unused_.empty() && unused_.back() == change.slot);
      unused_.pop_back();
      place(change.slot, change.replica);
    }
    log_.pop_back();
  }
}

std::vector<Replica> State::changes(bool added) const {
  std::vector<Slot> slots;
  for (const Change& change : log_) slots.push_back(change.slot);
  std::sort(slots.begin(), slots.end());
  slots.erase(std::unique(slots.begin(), slots.end()), slots.end());
  std::vector<Replica> list;
  for (const Slot slot : slots) {
    // The first entry about a slot tells what it held before.
    const auto first = std::find_if(log_.begin(), log_.end(), [&](const Change& c) { return c.slot == slot; });
    const Replica before = first->added ? Replica{} : first->replica;
    const Replica now = replicas_[slot];
    if (before == now) continue;
    if (added && now.model != kNone) list.push_back(now);
    if (!added && before.model != kNone) list.push_back(before);
  }
  return list;
}

bool State::added_since(std::size_t mark, Slot slot) const {
  for (std::size_t i = log_.size(); i > mark; --i) {
    if (log_[i - 1].slot == slot) return log_[i - 1].added;
  }
  return false;
}

void State::place(Slot slot, const Replica& replica) {
  for (std::size_t i = 0; i < replica.parts; ++i) {
    set_free(replica.device[i], free_[replica.device[i]] - part_cost(*problem_, replica, i));
  }
  replicas_[slot] = replica;
  insert_sorted(by_node_[replica.node], slot, [this](Slot s) { return replicas_[s].model; });
  insert_sorted(by_model_[replica.model], slot, [this](Slot s) { return replicas_[s].node; });
  if (replica.current != kNone) {
    present_[replica.current] = 1;
    kept_ += problem_->current[replica.current].price;
  } else {
    moved_ += bytes_of(*problem_, replica);
  }
  ++placed_;
  retally(replica.model);
}

void State::take(Slot slot) {
  const Replica replica = replicas_[slot];
  for (std::size_t i = 0; i < replica.parts; ++i) {
    set_free(replica.device[i], free_[replica.device[i]] + part_cost(*problem_, replica, i));
  }
  erase_from(by_node_[replica.node], slot);
  erase_from(by_model_[replica.model], slot);
  if (replica.current != kNone) {
    present_[replica.current] = 0;
    kept_ -= problem_->current[replica.current].price;
  } else {
    moved_ -= bytes_of(*problem_, replica);
  }
  replicas_[slot] = Replica{};
  --placed_;
  retally(replica.model);
}

void State::retally(Index model) {
  const ModelData& data = problem_->models[model];
  ModelTally tally;
  Index domain = kNone;
  std::int64_t lowest = std::numeric_limits<std::int64_t>::max();
  for (const Slot slot : by_model_[model]) {
    const Replica& replica = replicas_[slot];
    ++tally.replicas;
    tally.share += replica.share;
    lowest = std::min(lowest, problem_->variants[replica.variant].quality);
    const Index here = problem_->nodes[replica.node].domain;
    if (tally.domains == 0) {
      tally.domains = 1;
      domain = here;
    } else if (here != domain) {
      tally.domains = 2;
    }
  }
  tally.value = value_of(data, tally);
  tally.quality = tally.replicas > 0 ? (data.quality_weight * (lowest / 1000)) / 1000 : 0;
  if (tally_[model].replicas == 0 && tally.replicas > 0) {
    ++covered_;
    covered_weight_ += data.weight;
  } else if (tally_[model].replicas > 0 && tally.replicas == 0) {
    --covered_;
    covered_weight_ -= data.weight;
  }
  value_ += tally.value - tally_[model].value;
  quality_ += tally.quality - tally_[model].quality;
  tally_[model] = tally;
}

void State::set_free(Index device, Bytes bytes) {
  const Index node = problem_->devices[device].node;
  node_free_[node] += bytes - free_[device];
  free_[device] = bytes;
  if (open_[node] == 0 || !indexed_) return;
  device_index_.set(device, bytes);
  if (problem_->nodes[node].device_count > 1) node_index_.set(node, node_free_[node]);
}

void State::set_open(Index node, bool open) {
  open_[node] = open ? 1 : 0;
  if (!indexed_) return;
  const NodeData& data = problem_->nodes[node];
  for (Index d = data.first_device; d < data.first_device + data.device_count; ++d) {
    if (open) {
      device_index_.set(d, free_[d]);
    } else {
      device_index_.erase(d);
    }
  }
  if (open && data.device_count > 1) {
    node_index_.set(node, node_free_[node]);
  } else {
    node_index_.erase(node);
  }
}

std::vector<Replica> State::snapshot() const {
  std::vector<Replica> all;
  all.reserve(placed_);
  for (const Replica& replica : replicas_) {
    if (replica.model != kNone) all.push_back(replica);
  }
  return all;
}

void State::restore(const std::vector<Replica>& replicas) {
  for (Slot slot = 0; slot < replicas_.size(); ++slot) {
    if (is_placed(slot)) take(slot);
  }
  replicas_.clear();
  unused_.clear();
  for (const Replica& replica : replicas) add(replica);
  forget();
}

bool operator==(const State& a, const State& b) {
  return a.free_ == b.free_ && a.node_free_ == b.node_free_ && a.open_ == b.open_ && a.replicas_ == b.replicas_ &&
         a.unused_ == b.unused_ && a.by_node_ == b.by_node_ && a.by_model_ == b.by_model_ && a.tally_ == b.tally_ &&
         a.present_ == b.present_ && a.device_index_ == b.device_index_ && a.node_index_ == b.node_index_ &&
         a.placed_ == b.placed_ && a.covered_ == b.covered_ &&
         a.covered_weight_ == b.covered_weight_ && a.value_ == b.value_ && a.kept_ == b.kept_ && a.quality_ == b.quality_ &&
         a.moved_ == b.moved_ && a.log_ == b.log_;
}

void State::check() const {
  State fresh(*problem_);
  for (Index n = 0; n < problem_->nodes.size(); ++n) fresh.set_open(n, open(n));
  std::size_t count = 0;
  for (const Replica& replica : replicas_) {
    if (replica.model == kNone) continue;
    ++count;
    const VariantData& variant = problem_->variants[replica.variant];
    AIV_ASSERT(variant.model == replica.model && fresh.can_add(replica));
    AIV_ASSERT(replica.parts == 1 || variant.splittable);
    Bytes sum = 0;
    for (std::size_t i = 0; i < replica.parts; ++i) {
      AIV_ASSERT(problem_->devices[replica.device[i]].node == replica.node && replica.bytes[i] > 0);
      AIV_ASSERT(problem_->device_allows(variant, problem_->devices[replica.device[i]]));
      sum += replica.bytes[i];
    }
    AIV_ASSERT(sum == variant.bytes);
    fresh.add(replica);
  }
  AIV_ASSERT(count == placed_ && fresh.free_ == free_ && fresh.node_free_ == node_free_ && fresh.tally_ == tally_);
  AIV_ASSERT(fresh.covered_ == covered_ && fresh.covered_weight_ == covered_weight_);
  AIV_ASSERT(fresh.value_ == value_ && fresh.quality_ == quality_ && fresh.moved_ == moved_);
  AIV_ASSERT(fresh.kept_ == kept_ && fresh.present_ == present_);
  AIV_ASSERT(fresh.device_index_ == device_index_ && fresh.node_index_ == node_index_);
}

}  // namespace aiv::placement
