#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <tuple>
#include <vector>

#include "core/placement_bound.hpp"

// The relaxation: memory of each kind of device has a price per byte, each model buys the replicas that pay
// best at those prices (exactly: its points are not relaxed), and what is not sold is paid all the same:
//   bound(prices) = sum over kinds of price * capacity + sum over models of the most profit.
// By weak duality no legal placement is worth more at any prices >= 0, because its replicas fit the capacity
// of every kind. The prices move towards the least bound. What is relaxed: which replicas share a device (a
// kind's memory is one piece), distinct nodes, and how the parts of a split lie.
//
// A kind is what devices with the same backend, bandwidth and buffer limit have in common; overheads are
// rounded down to a common width where there would be too many kinds. The work per round is O(models *
// kinds), whatever the number of nodes.

namespace aiv::placement {
namespace {

constexpr std::size_t kKindsMax = 600;       // of small clusters; large ones merge more
constexpr double kOptionsPerRoundMax = 4e5;  // models * kinds
constexpr int kRoundsMin = 12;
constexpr int kRoundsMax = 500;
// Of the price search, by trial on sites of 20 and 200 nodes: the part of the bound that is hoped to go with
// a step, how much of the last direction is kept, and how many rounds without gain halve the hope.
constexpr double kHope = 0.001;
constexpr double kInertia = 0.3;
constexpr int kIdleMax = 5;
constexpr int kTrialsMax =
    200;  // replicas tried per model and round before its profit is estimated from above

struct Kind {
  std::uint64_t backend = 0;
  double bandwidth = 0;
  Bytes overhead = 0;      // the least of its devices
  Bytes buffer = 0;        // the largest
  Bytes capacity_max = 0;  // of one device
  double capacity = 0;     // of all
  double price = 0;        // per byte
  double used = 0;         // at these prices
};

// Kinds whose prices move together.
struct Group {
  std::size_t first = 0;
  std::size_t last = 0;
  double capacity = 0;
  double direction = 0;
};

// Two kinds that some node has both of (or one kind twice); the slower is `slow`.
struct Pair {
  Index slow = 0;
  Index other = 0;
  Bytes room = 0;  // of the roomiest node with both, overheads taken off
};

struct Option {
  double cost = 0;
  double share = 0;  // of the demand, at most 1
  Index kind = 0;
  Index other = kNone;  // second kind of a split
  Index variant = 0;
};

class Market {
 public:
  Market(const Problem& problem, const std::function<bool()>& stop) : problem_(problem), stop_(stop) {
    make_kinds();
    make_pairs();
    for (Index m = 0; m < problem.models.size(); ++m) {
      const ModelData& model = problem.models[m];
      if (model.bound_need > 0 && model.max_replicas > 0 && model.weight > 0) models_.push_back(m);
    }
  }

  double run(double bound, double target, double work) {
    const auto pairs = static_cast<double>(pairs_.size());
    const double per_model = 40 + static_cast<double>(kinds_.size()) + (pairs > 0 ? pairs / 4 : 0);
    const double rounds_wanted =
        work / (per_model * static_cast<double>(std::max<std::size_t>(1, models_.size())));
    search_prices(static_cast<int>(std::clamp(rounds_wanted, double{kRoundsMin}, double{kRoundsMax})),
                  target);
    return std::min(bound, best_);
  }

  // Of each device, in points of Score per byte.
  [[nodiscard]] std::vector<double> prices(int rounds) {
    search_prices(rounds, 0);
    std::vector<double> prices(kind_of_.size(), 0);
    for (std::size_t d = 0; d < prices.size(); ++d) {
      if (kind_of_[d] != kNone) prices[d] = best_prices_[kind_of_[d]] * problem_.scale;
    }
    return prices;
  }

 private:
  void search_prices(int rounds, double target) {
    start_prices();
    best_ = 1e300;
    judge(evaluate());
    const int together = rounds / 10;
    const int by_card = rounds / 2;
    polish(together, target, [](const Kind&, const Kind&) { return true; });
    polish(by_card, target,
           [](const Kind& a, const Kind& b) { return a.bandwidth == b.bandwidth && a.backend == b.backend; });
    polish(rounds - together - by_card, target, [](const Kind&, const Kind&) { return false; });
  }

  void make_kinds() {
    const double models = static_cast<double>(std::max<std::size_t>(1, problem_.models.size()));
    const auto most =
        static_cast<std::size_t>(std::clamp(kOptionsPerRoundMax / models, 40.0, double{kKindsMax}));
    for (Bytes width = 1; width < (Bytes{1} << 60); width = width == 1 ? Bytes{1} << 24 : width * 2) {
      if (group(width) <= most) return;
    }
  }

  std::size_t group(Bytes width) {
    kinds_.clear();
    kind_of_.assign(problem_.devices.size(), kNone);
    std::map<std::tuple<double, std::uint64_t, Bytes, Bytes>, Index> known;  // fastest first, see below
    for (Index d = 0; d < problem_.devices.size(); ++d) {
      const DeviceData& device = problem_.devices[d];
      if (problem_.nodes[device.node].state == NodePlanState::kUnschedulable ||
          device.capacity <= device.overhead)
        continue;
      known.emplace(
          std::tuple{-device.bandwidth, device.backend, device.largest_buffer, device.overhead / width},
          Index{0});
    }
    for (auto& [key, index] : known) {
      index = static_cast<Index>(kinds_.size());
      Kind kind;
      kind.bandwidth = -std::get<0>(key);
      kind.backend = std::get<1>(key);
      kind.buffer = std::get<2>(key);
      kind.overhead = std::numeric_limits<Bytes>::max();
      kinds_.push_back(kind);
    }
    for (Index d = 0; d < problem_.devices.size(); ++d) {
      const DeviceData& device = problem_.devices[d];
      const auto it =
          known.find({-device.bandwidth, device.backend, device.largest_buffer, device.overhead / width});
      if (it == known.end() || problem_.nodes[device.node].state == NodePlanState::kUnschedulable ||
          device.capacity <= device.overhead) {
        continue;
      }
      kind_of_[d] = it->second;
      Kind& kind = kinds_[it->second];
      kind.overhead = std::min(kind.overhead, device.overhead);
      kind.capacity_max = std::max(kind.capacity_max, device.capacity - device.overhead);
      kind.capacity += static_cast<double>(device.capacity);
    }
    return kinds_.size();
  }

  void make_pairs() {
    std::map<std::pair<Index, Index>, Bytes> rooms;
    for (const NodeData& node : problem_.nodes) {
      Bytes room = 0;
      for (Index d = node.first_device; d < node.first_device + node.device_count; ++d) {
        if (kind_of_[d] != kNone) room += problem_.devices[d].capacity - problem_.devices[d].overhead;
      }
      for (Index a = node.first_device; a < node.first_device + node.device_count; ++a) {
        for (Index b = a + 1; b < node.first_device + node.device_count && kind_of_[a] != kNone; ++b) {
          if (kind_of_[b] == kNone) continue;
          // Kinds are in order of bandwidth: the higher index is the slower one.
          const auto key = std::minmax(kind_of_[a], kind_of_[b]);
          Bytes& most = rooms[{key.second, key.first}];
          most = std::max(most, room);
        }
      }
    }
    for (const auto& [key, room] : rooms) pairs_.push_back({key.first, key.second, room});
  }

  // As if all memory were one piece: the density at which it is full prices every byte.
  void start_prices() {
    double room = 0;
    for (const Kind& kind : kinds_) room += kind.capacity;
    std::vector<std::pair<double, double>> wishes;  // minus density, need
    for (const Index m : models_) {
      const ModelData& model = problem_.models[m];
      const auto need = static_cast<double>(model.bound_need);
      const double weight = weight_of(model);
      wishes.emplace_back(-weight * 110 / need, need);
      if (model.max_replicas > 1) wishes.emplace_back(-weight * 38 / need, need);
    }
    std::sort(wishes.begin(), wishes.end());
    double price = 0;
    for (const auto& [density, need] : wishes) {
      price = -density;
      room -= need;
      if (room <= 0) break;
    }
    if (room > 0) price /= 16;
    for (Kind& kind : kinds_) kind.price = price;
  }

  [[nodiscard]] double weight_of(const ModelData& model) const {
    // Rounded to the nearest in compile().
    return (static_cast<double>(model.weight) + 0.5) / problem_.scale;
  }

  [[nodiscard]] double share_of(const VariantData& variant, double bandwidth) const {
    return std::min(
        1.0, static_cast<double>(problem_.share(variant, bandwidth) + 1) / static_cast<double>(kWhole));
  }

  static bool allows(const VariantData& variant, const Kind& kind) {
    return (variant.backends & kind.backend) != 0 && variant.largest_tensor <= kind.buffer;
  }

  // The options that no other beats in both cost and share, dearest first.
  void gather(const ModelData& model) {
    options_.clear();
    for (Index i = 0; i < model.variant_count; ++i) {
      const Index v = problem_.order[model.first_variant + i];
      const VariantData& variant = problem_.variants[v];
      const auto bytes = static_cast<double>(variant.bytes);
      double least = 1e300;
      for (Index k = 0; k < kinds_.size(); ++k) {
        const Kind& kind = kinds_[k];
        if (variant.bytes > kind.capacity_max || !allows(variant, kind)) continue;
        const double cost = kind.price * (bytes + static_cast<double>(kind.overhead));
        if (cost >= least) continue;  // a faster kind costs no more
        least = cost;
        options_.push_back({cost, share_of(variant, kind.bandwidth), k, kNone, v});
      }
      if (variant.splittable) gather_splits(variant, v, bytes);
    }
    std::sort(options_.begin(), options_.end(), [](const Option& a, const Option& b) {
      if (a.share != b.share) return a.share > b.share;
      if (a.cost != b.cost) return a.cost < b.cost;
      return std::tie(a.variant, a.kind, a.other) < std::tie(b.variant, b.kind, b.other);
    });
    std::size_t kept = 0;
    for (const Option& option : options_) {
      if (kept > 0 && option.cost >= options_[kept - 1].cost) continue;
      options_[kept++] = option;
    }
    options_.resize(kept);
  }

  // A split is as slow as its slowest kind and pays at least two overheads; its bytes cost at least the lower
  // price of two kinds of a node. Where the variant fits one device of the cheaper kind, that is no worse.
  void gather_splits(const VariantData& variant, Index v, double bytes) {
    double least = 1e300;
    for (const Pair& pair : pairs_) {  // those with the fastest slower kind first
      if (variant.bytes > pair.room) continue;
      const Kind& slow = kinds_[pair.slow];
      const Kind& other = kinds_[pair.other];
      const Kind& cheap = slow.price <= other.price ? slow : other;
      if (variant.bytes <= cheap.capacity_max || !allows(variant, slow) || !allows(variant, other)) continue;
      const double cost = cheap.price * bytes + slow.price * static_cast<double>(slow.overhead) +
                          other.price * static_cast<double>(other.overhead);
      if (cost >= least) continue;
      least = cost;
      options_.push_back({cost, share_of(variant, slow.bandwidth), pair.slow, pair.other, v});
    }
  }

  // The most profit of a model with `count` replicas chosen, the next one not before `from`.
  void choose(const ModelData& model, double weight, std::size_t from, int count, double share, double cost) {
    if (count > 0) {
      const double second =
          count > 1 && problem_.domain_count > 1 ? static_cast<double>(problem_.second_points) : 0;
      const double profit = weight * (kFirstPoints + second + kSpeedPoints * std::min(1.0, share)) - cost;
      if (profit > profit_) {
        profit_ = profit;
        bought_ = buying_;
      }
    }
    if (count >= model.max_replicas || --trials_ < 0) return;
    const double gain = weight * ((count == 0 ? kFirstPoints : 0) +
                                  (count < 2 ? static_cast<double>(problem_.second_points) : 0) +
                                  kSpeedPoints * std::max(0.0, 1.0 - share));
    const double least = options_.back().cost;
    // What is there with all that could be gained, and every further replica at the least cost.
    const double most =
        weight * (kFirstPoints + static_cast<double>(problem_.second_points) + kSpeedPoints) - cost;
    if (gain <= least || (count > 0 && most - least <= profit_)) return;
    for (std::size_t i = from; i < options_.size(); ++i) {
      if (options_[i].cost >= gain || (count > 0 && most - options_[i].cost <= profit_)) continue;
      buying_.push_back(i);
      choose(model, weight, i, count + 1, share + options_[i].share, cost + options_[i].cost);
      buying_.pop_back();
    }
  }

  double evaluate() {
    double total = 0;
    for (Kind& kind : kinds_) {
      total += kind.price * kind.capacity;
      kind.used = 0;
    }
    for (const Index m : models_) {
      const ModelData& model = problem_.models[m];
      const double weight = weight_of(model);
      gather(model);
      if (options_.empty()) continue;
      profit_ = 0;
      trials_ = kTrialsMax;
      bought_.clear();
      buying_.clear();
      choose(model, weight, 0, 0, 0, 0);
      const double most =
          weight * (kFirstPoints + static_cast<double>(problem_.second_points) + kSpeedPoints);
      total += trials_ < 0 ? std::max(profit_, most - options_.back().cost) : profit_;
      for (const std::size_t i : bought_) use(options_[i]);
    }
    return total * (1 + 1e-9);
  }

  void use(const Option& option) {
    const auto bytes = static_cast<double>(problem_.variants[option.variant].bytes);
    Kind& kind = kinds_[option.kind];
    kind.used += static_cast<double>(kind.overhead);
    if (option.other == kNone) {
      kind.used += bytes;
      return;
    }
    Kind& other = kinds_[option.other];
    other.used += static_cast<double>(other.overhead);
    (kind.price <= other.price ? kind : other).used += bytes;
  }

  bool judge(double total) {
    if (total >= best_) return false;
    const bool clearly = total < best_ * (1 - 1e-6);
    best_ = total;
    best_prices_.clear();
    for (const Kind& kind : kinds_) best_prices_.push_back(kind.price);
    return clearly;
  }

  // Subgradient steps (Held, Wolfe and Crowder 1974) from the best prices, the direction averaged over
  // rounds. Neighbours in the order of kinds that are `alike` move together: few prices find their level in
  // few rounds.
  template <class Alike>
  void polish(int rounds, double target, Alike&& alike) {
    restart();
    std::vector<Group> groups;
    for (std::size_t k = 0; k < kinds_.size(); ++k) {
      if (k == 0 || !alike(kinds_[k - 1], kinds_[k])) groups.push_back({.first = k});
      groups.back().last = k + 1;
      groups.back().capacity += kinds_[k].capacity;
    }
    double hope = kHope;
    int idle = 0;
    double total = best_;
    for (int i = 0; i < rounds && best_ > target; ++i) {
      if (stop_ && stop_()) return;
      total = evaluate();
      idle = judge(total) ? 0 : idle + 1;
      if (idle >= kIdleMax) {
        hope /= 2;
        idle = 0;
        restart();
        for (Group& group : groups) group.direction = 0;
        total = evaluate();
      }
      double norm = 0;
      for (Group& group : groups) {
        double slope = 0;
        for (std::size_t k = group.first; k < group.last; ++k) slope += kinds_[k].used - kinds_[k].capacity;
        slope /= std::sqrt(group.capacity);
        group.direction = kInertia * group.direction + (1 - kInertia) * slope;
        norm += group.direction * group.direction;
      }
      if (norm <= 0) return;
      const double aim = std::max(target, best_ * (1 - hope));
      const double step = std::max(total - aim, total * 1e-5) / norm;
      for (const Group& group : groups) {
        const double move = step * group.direction / std::sqrt(group.capacity);
        for (std::size_t k = group.first; k < group.last; ++k)
          kinds_[k].price = std::max(0.0, kinds_[k].price + move);
      }
    }
  }

  void restart() {
    for (std::size_t k = 0; k < kinds_.size(); ++k) {
      kinds_[k].price = best_prices_[k];
    }
  }

  const Problem& problem_;
  const std::function<bool()>& stop_;
  std::vector<Kind> kinds_;  // fastest first
  std::vector<Index> kind_of_;
  std::vector<Pair> pairs_;
  std::vector<Index> models_;
  std::vector<Option> options_;
  std::vector<std::size_t> buying_;
  std::vector<std::size_t> bought_;
  double profit_ = 0;
  int trials_ = 0;
  double best_ = 0;
  std::vector<double> best_prices_;
};

}  // namespace

double market_bound(const Problem& problem, double value, double work, const std::function<bool()>& stop) {
  const double simple = simple_bound(problem);
  if (simple <= value * (1 + 1e-7)) return simple;
  return Market(problem, stop).run(simple, value * (1 + 1e-7), work);
}

std::vector<double> market_prices(const Problem& problem, int rounds, const std::function<bool()>& stop) {
  return Market(problem, stop).prices(rounds);
}

}  // namespace aiv::placement
