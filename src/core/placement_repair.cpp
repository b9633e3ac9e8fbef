#include "core/placement_repair.hpp"

#include <algorithm>

namespace aiv::placement {
namespace {

constexpr std::size_t kForceNodesMax = 64;  // nodes tried per model; enough for a lab, a sample of a large site
constexpr std::size_t kForceModelsMax = 256;
constexpr int kWorkPerTry = 50;  // of a Deadline
constexpr int kWorkPerRaise = 2;

// The price of taking the replica away: its value, and that of a current one that could stay.
Score price_of(const State& state, Slot slot) {
  const Replica& replica = state.replica(slot);
  return loss(state, slot) + (replica.current == kNone ? 0 : state.problem().current[replica.current].price);
}

// The replica whose removal costs least per byte it frees where room is missing; kNone if none may be removed.
// `device` kNone: anywhere on the node.
Slot cheapest_victim(const State& state, Index node, Index device, Bytes missing) {
  Slot best = kNone;
  double best_rate = 0;
  for (const Slot slot : state.on_node(node)) {
    if (state.fixed(slot)) continue;
    const Replica& replica = state.replica(slot);
    Bytes freed = 0;
    for (std::size_t i = 0; i < replica.parts; ++i) {
      if (device == kNone || replica.device[i] == device) {
        freed += replica.bytes[i] + state.problem().devices[replica.device[i]].overhead;
      }
    }
    if (freed == 0) continue;
    // More than is missing is worth no more than what is missing.
    const double rate = static_cast<double>(price_of(state, slot)) / static_cast<double>(std::min(freed, missing));
    if (best == kNone || rate < best_rate) {
      best = slot;
      best_rate = rate;
    }
  }
  return best;
}

// Removes replicas until `need` fits on the one device; false if that cannot be.
bool clear_device(State& state, Index device, Bytes need, std::vector<Index>& removed) {
  const Index node = state.problem().devices[device].node;
  while (state.free(device) < need) {
    const Slot victim = cheapest_victim(state, node, device, need - state.free(device));
    if (victim == kNone) return false;
    removed.push_back(state.replica(victim).model);
    state.remove(victim);
  }
  return true;
}

// Removes replicas from the node until the variant can be put there, split if need be.
bool clear_for_split(State& state, Index variant, Index node, const Search& search, std::vector<Index>& removed,
                     Replica& out) {
  while (!fit_on_node(state, variant, node, search, out)) {
    const Slot victim = cheapest_victim(state, node, kNone, state.problem().variants[variant].bytes);
    if (victim == kNone) return false;
    removed.push_back(state.replica(victim).model);
    state.remove(victim);
  }
  return true;
}

// The device of the node on which clearing costs least by a look at what lies there; kNone if the variant fits on
// none of them alone.
Index device_to_clear(const State& state, const VariantData& variant, Index node, const Search& search) {
  const Problem& problem = state.problem();
  const NodeData& data = problem.nodes[node];
  Index best = kNone;
  Bytes best_missing = 0;
  std::uint32_t seen = 0;
  for (Index d = data.first_device; d < data.first_device + data.device_count; ++d) {
    const Bytes need = problem.device_need(variant, problem.devices[d]);
    if (need > problem.devices[d].capacity || !problem.device_allows(variant, problem.devices[d])) continue;
    const Bytes missing = need - state.free(d);
    ++seen;
    const bool take = search.taste == Taste::kRandom ? search.prng->below(seen) == 0 : missing < best_missing;
    if (best == kNone || take) {
      best = d;
      best_missing = missing;
    }
  }
  return best;
}

}  // namespace

bool force_on_node(State& state, Index model, Index node, const Search& search, std::vector<Index>& touched) {
  const Problem& problem = state.problem();
  const ModelData& data = problem.models[model];
  if (!state.open(node) || state.has(model, node) || !problem.node_allows(data, node)) return false;
  if (state.tally(model).replicas >= data.max_replicas) return false;
  const std::size_t start = state.mark();
  for (Index i = 0; i < data.variant_count; ++i) {
    const Index v = problem.order[data.first_variant + i];
    const VariantData& variant = problem.variants[v];
    std::vector<Index> removed;
    Replica replica;
    const Index device = device_to_clear(state, variant, node, search);
    bool fits = false;
    if (device != kNone && !(search.split_first && variant.splittable)) {
      fits = clear_device(state, device, problem.device_need(variant, problem.devices[device]), removed) &&
             fit_on_node(state, v, node, search, replica);
    } else if (variant.splittable) {
      fits = clear_for_split(state, v, node, search, removed, replica);
    }
    if (!fits) {
      state.rollback(start);
      continue;
    }
    state.add(replica);
    Refill how{.search = search, .random_taste = false, .noise = 0};
    refill(state, removed, how);
    touched.insert(touched.end(), removed.begin(), removed.end());
    return true;
  }
  return false;
}

std::vector<Index> below_minimum(const State& state) {
  const Problem& problem = state.problem();
  std::vector<Index> list;
  for (Index m = 0; m < problem.models.size(); ++m) {
    if (state.tally(m).replicas < problem.models[m].min_replicas && problem.models[m].smallest_need > 0) {
      list.push_back(m);
    }
  }
  std::sort(list.begin(), list.end(), [&](Index a, Index b) {
    const Score x = problem.models[a].weight;
    const Score y = problem.models[b].weight;
    return x != y ? x > y : a < b;
  });
  return list;
}

void force_minimums(State& state, const std::vector<Index>& models, Prng& prng, Deadline& deadline) {
  const Problem& problem = state.problem();
  const auto nodes = static_cast<std::uint32_t>(problem.nodes.size());
  if (nodes == 0) return;
  Search search;
  search.prng = &prng;
  search.tries = 2;
  std::size_t budget = kForceModelsMax;
  for (const Index m : models) {
    if (state.tally(m).replicas >= problem.models[m].min_replicas || budget == 0) continue;
    --budget;
    const Objective before = state.objective();
    Objective best = before;
    Index best_node = kNone;
    const std::size_t tries = std::min<std::size_t>(nodes, kForceNodesMax);
    const std::uint32_t first = nodes > kForceNodesMax ? prng.below(nodes) : 0;
    std::vector<Index> touched;
    for (std::size_t k = 0; k < tries && !deadline.over(kWorkPerTry); ++k) {
      const auto node = static_cast<Index>((first + k) % nodes);
      const std::size_t mark = state.mark();
      Prng copy = prng;  // the trial must be repeatable below
      search.prng = &copy;
      if (force_on_node(state, m, node, search, touched) && state.objective().net > best.net) {
        best = state.objective();
        best_node = node;
      }
      state.rollback(mark);
    }
    if (best_node == kNone) continue;
    Prng copy = prng;
    search.prng = &copy;
    AIV_ASSERT(force_on_node(state, m, best_node, search, touched));
  }
}

void raise_quality(State& state, Deadline& deadline) {
  const Problem& problem = state.problem();
  for (Slot slot = 0; slot < state.slots(); ++slot) {
    if (deadline.over(kWorkPerRaise)) return;
    if (!state.is_placed(slot)) continue;
    const Replica old = state.replica(slot);
    const ModelData& model = problem.models[old.model];
    if (old.current != kNone || old.parts != 1 || model.variant_count < 2) continue;
    const Objective before = state.objective();
    const std::size_t mark = state.mark();
    Replica best = old;
    state.remove(slot);
    for (Index i = 0; i < model.variant_count; ++i) {
      const Index v = problem.order[model.first_variant + i];
      if (problem.variants[v].quality <= problem.variants[best.variant].quality) continue;
      Replica candidate = old;
      candidate.variant = v;
      candidate.bytes[0] = problem.variants[v].bytes;
      problem.complete(candidate);
      if (!problem.device_allows(problem.variants[v], problem.devices[old.device[0]])) continue;
      if (!state.can_add(candidate)) continue;
      const std::size_t inner = state.mark();
      state.add(candidate);
      if (state.objective().net >= before.net) best = candidate;
      state.rollback(inner);
    }
    if (best.variant == old.variant) {
      state.rollback(mark);
    } else {
      state.add(best);
    }
  }
}

}  // namespace aiv::placement
