#include "core/placement_greedy.hpp"

#include <algorithm>
#include <bit>

namespace aiv::placement {
namespace {

Search search_for(Taste taste, Prng* prng) {
  Search search;
  search.taste = taste;
  search.prng = prng;
  return search;
}

bool place_one(State& state, Index model, const Search& search) {
  const Place place = find_place(state, model, search);
  if (!place.found()) return false;
  state.add(place.replica);
  return true;
}

constexpr int kWorkPerReplica =
    10;  // a place is found in 10 to 50 us: the clock is asked about once a millisecond

struct Wish {
  double density = 0;
  Index model = 0;
  double factor = 1;
  friend bool operator<(const Wish& a, const Wish& b) {
    return a.density != b.density ? a.density < b.density : a.model > b.model;
  }
};

double density_of(const State& state, Index model, double factor) {
  const Score score = potential(state, model);
  if (score <= 0) return 0;
  return factor * static_cast<double>(score) /
         static_cast<double>(state.problem().models[model].smallest_need);
}

// A lazy heap: a model's potential only falls while replicas are added, so a stale top is valued anew and
// pushed back.
void fill_from(State& state, std::vector<Wish>& heap, const Refill& how, Deadline* deadline) {
  Search search = how.search;
  std::make_heap(heap.begin(), heap.end());
  while (!heap.empty() && (deadline == nullptr || !deadline->over(kWorkPerReplica))) {
    std::pop_heap(heap.begin(), heap.end());
    Wish& top = heap.back();
    if (how.random_taste) {
      search.taste = random_taste(*search.prng, search);
      search.split_first = search.prng->chance(1, 8);
    }
    const double now = density_of(state, top.model, top.factor);
    if (now >= top.density && now > 0 && !place_one(state, top.model, search)) {
      heap.pop_back();
      continue;
    }
    top.density = density_of(state, top.model, top.factor);
    if (top.density <= 0) {
      heap.pop_back();
    } else {
      std::push_heap(heap.begin(), heap.end());
    }
  }
}

}  // namespace

Score potential(const State& state, Index model) {
  const Problem& problem = state.problem();
  const ModelData& data = problem.models[model];
  const ModelTally& tally = state.tally(model);
  if (data.smallest_need == 0 || tally.replicas >= data.max_replicas) return 0;
  const std::int64_t before = std::min(tally.share, kWhole);
  const std::int64_t after = std::min(tally.share + data.best_share, kWhole);
  Score score = data.weight * kSpeedPoints * (after - before) / kWhole;
  if (tally.replicas == 0) score += data.weight * kFirstPoints;
  if (tally.domains == 1) score += data.weight * problem.second_points;
  return score;
}

Score loss(const State& state, Slot slot) {
  const Replica& replica = state.replica(slot);
  const Problem& problem = state.problem();
  const ModelData& data = problem.models[replica.model];
  const ModelTally& tally = state.tally(replica.model);
  if (tally.replicas == 1) return tally.value;
  const std::int64_t after = std::min(tally.share - replica.share, kWhole);
  Score score = data.weight * kSpeedPoints * (std::min(tally.share, kWhole) - after) / kWhole;
  if (tally.domains < 2) return score;
  Index domain = kNone;
  for (const Slot other : state.of_model(replica.model)) {
    if (other == slot) continue;
    const Index here = problem.nodes[state.replica(other).node].domain;
    if (domain != kNone && here != domain) return score;
    domain = here;
  }
  return score + data.weight * problem.second_points;
}

void keep_current(State& state) {
  const Problem& problem = state.problem();
  std::vector<Index> order;
  for (Index c = 0; c < problem.current.size(); ++c) {
    if (problem.current[c].keepable) order.push_back(c);
  }
  std::sort(order.begin(), order.end(), [&](Index a, Index b) {
    const CurrentData& x = problem.current[a];
    const CurrentData& y = problem.current[b];
    if (x.pinned != y.pinned) return x.pinned;
    const Score wx = problem.models[x.model].weight;
    const Score wy = problem.models[y.model].weight;
    if (wx != wy) return wx > wy;
    const Bytes bx = problem.variants[x.variant].bytes;
    const Bytes by = problem.variants[y.variant].bytes;
    return bx != by ? bx < by : a < b;
  });
  for (const Index c : order) {
    const Replica& replica = problem.current[c].replica;
    // The same replica listed twice is one.
    if (replica.current == c && state.can_add(replica)) state.add(replica);
  }
}

void fill_by_phase(State& state, Taste taste, Prng* prng, Deadline& deadline) {
  const Problem& problem = state.problem();
  std::vector<Index> order(problem.models.size());
  for (Index m = 0; m < order.size(); ++m) order[m] = m;
  std::sort(order.begin(), order.end(), [&](Index a, Index b) {
    const ModelData& x = problem.models[a];
    const ModelData& y = problem.models[b];
    const auto cx = std::bit_width(static_cast<std::uint64_t>(x.weight));
    const auto cy = std::bit_width(static_cast<std::uint64_t>(y.weight));
    if (cx != cy) return cx > cy;
    return x.smallest_need != y.smallest_need ? x.smallest_need > y.smallest_need : a < b;
  });
  Search search = search_for(taste, prng);
  for (const Index m : order) {
    if (deadline.over(kWorkPerReplica)) return;
    if (state.tally(m).replicas == 0) place_one(state, m, search);
  }
  for (const Index m : order) {
    if (deadline.over(kWorkPerReplica)) return;
    if (state.tally(m).domains != 1) continue;
    search.gain_min = std::max<Score>(1, problem.models[m].weight * problem.second_points);
    if (problem.second_points > 0) place_one(state, m, search);
  }
  fill_by_density(state, taste, prng, deadline);
}

void fill_by_density(State& state, Taste taste, Prng* prng, Deadline& deadline) {
  std::vector<Wish> heap;
  for (Index m = 0; m < state.problem().models.size(); ++m) {
    if (const double density = density_of(state, m, 1.0); density > 0) heap.push_back({density, m, 1.0});
  }
  fill_from(state, heap, {.search = search_for(taste, prng)}, &deadline);
}

void refill(State& state, std::span<const Index> models, const Refill& how) {
  std::vector<Wish> heap;
  heap.reserve(models.size());
  for (const Index m : models) {
    double factor = 1.0;
    if (how.noise > 0) {
      const double draw =
          static_cast<double>(how.search.prng->below(1U << 16)) / static_cast<double>(1U << 15) - 1.0;
      factor += how.noise * draw;
    }
    if (const double density = density_of(state, m, factor); density > 0)
      heap.push_back({density, m, factor});
  }
  fill_from(state, heap, how, nullptr);
}

}  // namespace aiv::placement
