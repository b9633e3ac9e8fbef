#include "core/placement_candidates.hpp"

#include <algorithm>

namespace aiv::placement {
namespace {

// What is left on the devices it uses; the smaller the better a fit. A split counts as a bad fit, because it
// pays an overhead on each device.
struct Fit {
  Bytes left = 0;
  int parts = 0;
};

bool fit_single(const State& state, Index v, Index node, const Search& search, Replica& out) {
  const Problem& problem = state.problem();
  const VariantData& variant = problem.variants[v];
  const NodeData& data = problem.nodes[node];
  Index best = kNone;
  std::uint32_t seen = 0;
  for (Index d = data.first_device; d < data.first_device + data.device_count; ++d) {
    const DeviceData& device = problem.devices[d];
    if (state.free(d) < problem.device_need(variant, device) || !problem.device_allows(variant, device))
      continue;
    ++seen;
    if (best == kNone) {
      best = d;
      continue;
    }
    const DeviceData& other = problem.devices[best];
    const Bytes left = state.free(d) - device.overhead;
    const Bytes other_left = state.free(best) - other.overhead;
    switch (search.taste) {
      case Taste::kBestFit:
        if (left < other_left) best = d;
        break;
      case Taste::kFastest: {
        const auto share = problem.share(variant, device.bandwidth);
        const auto other_share = problem.share(variant, other.bandwidth);
        if (share > other_share || (share == other_share && left < other_left)) best = d;
        break;
      }
      case Taste::kRandom:
        if (search.prng->below(seen) == 0) best = d;
        break;
      case Taste::kPriced: {
        const auto merit = [&](Index at) {
          const DeviceData& there = problem.devices[at];
          return static_cast<double>(
                     state.gain(variant.model, data.domain, problem.share(variant, there.bandwidth))) -
                 search.prices[at] * static_cast<double>(problem.device_need(variant, there));
        };
        if (merit(d) > merit(best)) best = d;
        break;
      }
    }
  }
  if (best == kNone) return false;
  out = Replica{};
  out.model = variant.model;
  out.variant = v;
  out.parts = 1;
  out.device[0] = best;
  out.bytes[0] = variant.bytes;
  problem.complete(out);
  return true;
}

struct Room {
  Index device = 0;
  Bytes room = 0;  // for model bytes, overhead taken off
  double bandwidth = 0;
};

// Gathers the devices that could hold a part; at most kRoomsMax, so that a node with a thousand devices costs
// no more.
constexpr std::size_t kRoomsMax = 16;
std::size_t gather_rooms(const State& state, const VariantData& variant, Index node,
                         std::array<Room, kRoomsMax>& rooms) {
  const Problem& problem = state.problem();
  const NodeData& data = problem.nodes[node];
  std::size_t count = 0;
  for (Index d = data.first_device; d < data.first_device + data.device_count; ++d) {
    const DeviceData& device = problem.devices[d];
    const Bytes room = state.free(d) - device.overhead - variant.split_extra;
    if (room < variant.split_unit || !problem.device_allows(variant, device)) continue;
    if (count < kRoomsMax) {
      rooms[count++] = {d, room, device.bandwidth};
      continue;
    }
    const auto least = std::min_element(rooms.begin(), rooms.end(),
                                        [](const Room& a, const Room& b) { return a.room < b.room; });
    if (least->room < room) *least = {d, room, device.bandwidth};
  }
  return count;
}

void order_rooms(std::span<Room> rooms, const Search& search) {
  switch (search.taste) {
    case Taste::kBestFit:
      std::sort(rooms.begin(), rooms.end(), [](const Room& a, const Room& b) {
        return a.room != b.room ? a.room > b.room : a.device < b.device;
      });
      break;
    case Taste::kFastest:
      std::sort(rooms.begin(), rooms.end(), [](const Room& a, const Room& b) {
        if (a.bandwidth != b.bandwidth) return a.bandwidth > b.bandwidth;
        return a.room != b.room ? a.room > b.room : a.device < b.device;
      });
      break;
    case Taste::kPriced:  // cheapest first
      std::sort(rooms.begin(), rooms.end(), [&](const Room& a, const Room& b) {
        const double x = search.prices[a.device];
        const double y = search.prices[b.device];
        return x != y ? x < y : a.device < b.device;
      });
      break;
    case Taste::kRandom:
      for (std::size_t i = rooms.size(); i > 1; --i) {
        std::swap(rooms[i - 1], rooms[search.prng->below(static_cast<std::uint32_t>(i))]);
      }
      break;
  }
}

// Fills the rooms in their order, the last one with what remains: the holes that stay are as whole as can be.
bool fit_split(const State& state, Index v, Index node, const Search& search, Replica& out) {
  const Problem& problem = state.problem();
  const VariantData& variant = problem.variants[v];
  std::array<Room, kRoomsMax> all;
  const std::size_t count = gather_rooms(state, variant, node, all);
  if (count < 2) return false;
  std::span<Room> rooms(all.data(), count);
  order_rooms(rooms, search);
  std::array<Bytes, kMaxParts> taken{};
  std::size_t parts = 0;
  Bytes rest = variant.bytes;
  for (; parts < rooms.size() && parts < kMaxParts && rest > 0; ++parts) {
    const Bytes room = rooms[parts].room;
    taken[parts] = rest <= room ? rest : room - room % variant.split_unit;
    rest -= taken[parts];
  }
  if (rest > 0 || parts < 2) return false;
  // Drop rooms that turned out not to be needed: the last may have made an earlier, smaller one superfluous.
  for (std::size_t i = 0; i + 1 < parts && parts > 2; ++i) {
    const std::size_t last = parts - 1;
    if (taken[i] > rooms[last].room - taken[last]) continue;
    taken[last] += taken[i];
    for (std::size_t k = i; k + 1 < parts; ++k) {
      taken[k] = taken[k + 1];
      rooms[k] = rooms[k + 1];
    }
    --parts;
    break;
  }
  out = Replica{};
  out.model = variant.model;
  out.variant = v;
  out.parts = static_cast<std::uint8_t>(parts);
  for (std::size_t i = 0; i < parts; ++i) {
    std::size_t k = i;
    for (; k > 0 && out.device[k - 1] > rooms[i].device; --k) {
      out.device[k] = out.device[k - 1];
      out.bytes[k] = out.bytes[k - 1];
    }
    out.device[k] = rooms[i].device;
    out.bytes[k] = taken[i];
  }
  problem.complete(out);
  return true;
}

Fit fit_of(const State& state, const Replica& replica) {
  Fit fit{.left = 0, .parts = replica.parts};
  for (std::size_t i = 0; i < replica.parts; ++i) {
    fit.left += state.free(replica.device[i]) - replica.bytes[i] -
                state.problem().devices[replica.device[i]].overhead;
  }
  return fit;
}

// Collects proposals and keeps the best by taste.
class Chooser {
 public:
  Chooser(const State& state, Index model, const Search& search)
      : state_(state), model_(model), search_(search) {}

  // True if the proposal counts.
  bool propose(const Replica& replica) {
    const Problem& problem = state_.problem();
    Score gain = state_.gain(model_, problem.nodes[replica.node].domain, replica.share);
    if (replica.current != kNone) gain += problem.current[replica.current].price;
    if (gain < search_.gain_min) return false;
    ++seen_;
    if (search_.taste == Taste::kPriced) {
      const double merit = static_cast<double>(gain) - price_at(problem, search_.prices, replica);
      if (best_.found() && merit <= merit_) return true;
      best_ = {replica, gain};
      merit_ = merit;
      return true;
    }
    const Fit fit = fit_of(state_, replica);
    if (!best_.found() || better(gain, fit)) {
      best_.replica = replica;
      best_.gain = gain;
      fit_ = fit;
    }
    return true;
  }

  [[nodiscard]] const Place& best() const { return best_; }

 private:
  [[nodiscard]] bool better(Score gain, const Fit& fit) const {
    switch (search_.taste) {
      case Taste::kBestFit:
        // A hole is no argument against half as much value more: a second failure domain, a card fast enough.
        if (gain / 3 >= best_.gain / 2) return true;
        if (best_.gain / 3 >= gain / 2) return false;
        if (fit.parts != fit_.parts) return fit.parts < fit_.parts;
        return fit.left != fit_.left ? fit.left < fit_.left : gain > best_.gain;
      case Taste::kFastest:
        if (gain != best_.gain) return gain > best_.gain;
        return fit.parts != fit_.parts ? fit.parts < fit_.parts : fit.left < fit_.left;
      case Taste::kRandom:
        return search_.prng->below(seen_) == 0;
      case Taste::kPriced:
        break;  // not by fit
    }
    return false;
  }

  const State& state_;
  Index model_;
  const Search& search_;
  double merit_ = 0;
  std::uint32_t seen_ = 0;
  Place best_;
  Fit fit_;
};

bool node_usable(const State& state, Index model, Index node) {
  return state.open(node) && !state.has(model, node) &&
         state.problem().node_allows(state.problem().models[model], node);
}

void propose_on(const State& state, Index v, Index node, const Search& search, Chooser& chooser) {
  const VariantData& variant = state.problem().variants[v];
  // Most nodes are nearly full most of the time: the cheapest test first.
  if (state.node_free(node) < variant.bytes || !node_usable(state, variant.model, node)) return;
  Replica replica;
  if (fit_on_node(state, v, node, search, replica)) chooser.propose(replica);
}

// Single devices from the index, best fit upwards; for tastes other than best fit also from a random size on,
// because the fastest cards are rarely those with the smallest hole.
int walk_devices(const State& state, Index v, const Search& search, Chooser& chooser) {
  const Problem& problem = state.problem();
  const VariantData& variant = problem.variants[v];
  int found = 0;
  int looked = 0;
  const auto visit = [&](Index d) {
    const DeviceData& device = problem.devices[d];
    ++looked;
    if (state.free(d) >= problem.device_need(variant, device) && problem.device_allows(variant, device) &&
        node_usable(state, variant.model, device.node)) {
      Replica replica;
      replica.model = variant.model;
      replica.variant = v;
      replica.parts = 1;
      replica.device[0] = d;
      replica.bytes[0] = variant.bytes;
      problem.complete(replica);
      if (chooser.propose(replica)) ++found;
    }
    return found >= search.tries || looked >= 40 * search.tries;
  };
  const Index from =
      search.prng == nullptr ? 0 : search.prng->below(static_cast<std::uint32_t>(problem.devices.size()));
  state.device_index().walk(variant.bytes, from, visit);
  if (search.taste != Taste::kBestFit && search.prng != nullptr && problem.capacity_max > variant.bytes) {
    const auto span = static_cast<std::uint64_t>(problem.capacity_max - variant.bytes);
    const auto offset = static_cast<Bytes>((span >> 20) * search.prng->below(1U << 20));
    const int before = found;
    found = 0;
    looked = 0;
    state.device_index().walk(variant.bytes + offset, from, visit);
    found += before;
  }
  return found;
}

// Nodes with several devices from the index. It knows the sum of what is free, not what overheads take of it,
// so the walk starts above two overheads and only real candidates count against `tries`.
void walk_nodes(const State& state, Index v, const Search& search, Chooser& chooser) {
  const Problem& problem = state.problem();
  const VariantData& variant = problem.variants[v];
  int found = 0;
  int looked = 0;
  const Index from =
      search.prng == nullptr ? 0 : search.prng->below(static_cast<std::uint32_t>(problem.nodes.size()));
  state.node_index().walk(variant.bytes, from, [&](Index node) {
    ++looked;
    Replica replica;
    if (node_usable(state, variant.model, node) && fit_split(state, v, node, search, replica) &&
        chooser.propose(replica)) {
      ++found;
    }
    return found >= search.tries || looked >= 64 * search.tries;
  });
}

}  // namespace

double price_at(const Problem& problem, std::span<const double> prices, const Replica& replica) {
  double price = 0;
  for (std::size_t i = 0; i < replica.parts; ++i) {
    const Index d = replica.device[i];
    price += prices[d] * static_cast<double>(replica.bytes[i] + problem.devices[d].overhead);
  }
  return price;
}

bool fit_on_node(const State& state, Index variant, Index node, const Search& search, Replica& out) {
  const bool splittable = state.problem().variants[variant].splittable;
  if (search.split_first && splittable && fit_split(state, variant, node, search, out)) return true;
  if (fit_single(state, variant, node, search, out)) return true;
  return splittable && !search.split_first && fit_split(state, variant, node, search, out);
}

Place find_place(const State& state, Index model, const Search& search) {
  const Problem& problem = state.problem();
  const ModelData& data = problem.models[model];
  if (state.tally(model).replicas >= data.max_replicas) return {};
  Chooser chooser(state, model, search);
  for (const Index c : data.current) {
    const CurrentData& entry = problem.current[c];
    if (entry.keepable && !state.current_present(c) && state.can_add(entry.replica))
      chooser.propose(entry.replica);
  }
  for (Index i = 0; i < data.variant_count; ++i) {
    const Index v = problem.order[data.first_variant + i];
    if (problem.nodes.size() <= kSmallCluster) {
      for (Index n = 0; n < problem.nodes.size(); ++n) propose_on(state, v, n, search, chooser);
    } else {
      for (const Index n : search.nodes) propose_on(state, v, n, search, chooser);
      const int found = walk_devices(state, v, search, chooser);
      if (problem.variants[v].splittable && (found == 0 || search.split_first))
        walk_nodes(state, v, search, chooser);
    }
    // A smaller variant is faster and leaves more room; quality is raised where nothing is lost by it
    // (raise_quality).
    if (chooser.best().found()) break;
  }
  return chooser.best();
}

}  // namespace aiv::placement
