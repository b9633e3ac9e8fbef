#include <algorithm>
#include <cmath>
#include <vector>

#include "core/placement_bound.hpp"

// The relaxation. With z (has a replica), h (survives a loss) and s (share of the demand met) per model, all in [0, 1]:
//   maximise  sum w (100 z + 30 h + 20 s)
//   z + h <= number of replicas      price a
//   s     <= sum of their shares     price g
//   s <= z, h <= z, and what fits on each node.
// With prices, the models decouple from the nodes. A node with several devices is relaxed to one of their total size; its
// items cost the smallest overhead once (twice where only a split can hold them) and have the best share on the node.

namespace aiv::placement {
namespace {

constexpr std::size_t kPairsMax = 600;  // (node, model) pairs beyond which the market's bound is the lower one
constexpr int kIterationsMax = 200;
constexpr double kWorkMax = 1e6;  // pairs looked at over all iterations

struct Item {
  Index model = 0;
  double cost = 0;
  double share = 0;
  double price = 0;  // at the current prices
};

// 0/1 knapsack by depth-first branch and bound over items in order of density (Horowitz and Sahni 1974). Returns an
// upper bound, exact unless the node limit stops it; `chosen` is the best filling found.
class Knapsack {
 public:
  double solve(std::vector<Item>& items, double room, int nodes_max, std::vector<std::size_t>& chosen) {
    std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
      const double x = a.price * b.cost;
      const double y = b.price * a.cost;
      return x != y ? x > y : a.model < b.model;
    });
    items_ = &items;
    count_ = 0;
    while (count_ < items.size() && items[count_].price > 0) ++count_;
    cost_.assign(count_ + 1, 0);
    value_.assign(count_ + 1, 0);
    for (std::size_t i = 0; i < count_; ++i) {
      cost_[i + 1] = cost_[i] + items[i].cost;
      value_[i + 1] = value_[i] + items[i].price;
    }
    best_ = 0;
    nodes_left_ = nodes_max;
    taken_.clear();
    best_taken_.clear();
    const double root = fractional(0, room);
    descend(0, room, 0);
    chosen = best_taken_;
    return nodes_left_ > 0 ? best_ : root;
  }

 private:
  [[nodiscard]] double fractional(std::size_t from, double room) const {
    const auto first = cost_.begin() + static_cast<std::ptrdiff_t>(from);
    const auto it = std::upper_bound(first, cost_.end(), cost_[from] + room);
    const auto j = static_cast<std::size_t>(it - cost_.begin()) - 1;
    double bound = value_[j] - value_[from];
    if (j < count_) bound += (*items_)[j].price * (room - (cost_[j] - cost_[from])) / (*items_)[j].cost;
    return bound;
  }

  void descend(std::size_t i, double room, double value) {
    if (value > best_) {
      best_ = value;
      best_taken_ = taken_;
    }
    if (--nodes_left_ <= 0) return;
    for (; i < count_; ++i) {
      if (value + fractional(i, room) <= best_ * (1 + 1e-9)) return;
      if ((*items_)[i].cost > room) continue;
      taken_.push_back(i);
      descend(i + 1, room - (*items_)[i].cost, value + (*items_)[i].price);
      taken_.pop_back();
      if (nodes_left_ <= 0) return;
    }
  }

  const std::vector<Item>* items_ = nullptr;
  std::size_t count_ = 0;
  std::vector<double> cost_;
  std::vector<double> value_;
  double best_ = 0;
  int nodes_left_ = 0;
  std::vector<std::size_t> taken_;
  std::vector<std::size_t> best_taken_;
};

struct ModelPrice {
  double weight = 0;
  double first = kFirstPoints;  // points of z
  double second = 0;            // points of h; 0 if it can never have two domains
  double share_max = 1;         // s cannot be more than this
  double a = 0;                 // both prices in points, to be multiplied by the weight
  double g = 0;
  double slope_a = 0;
  double slope_g = 0;
};

class Lagrange {
 public:
  explicit Lagrange(const Problem& problem) : problem_(problem), models_(problem.models.size()) {
    for (Index m = 0; m < models_.size(); ++m) {
      const ModelData& data = problem.models[m];
      models_[m].weight = static_cast<double>(data.weight) / problem.scale;
      models_[m].second =
          data.max_replicas >= 2 && problem.domain_count >= 2 ? static_cast<double>(problem.second_points) : 0;
      const double share = static_cast<double>(data.bound_share + 1) / static_cast<double>(kWhole);
      models_[m].share_max = std::min(1.0, share * data.max_replicas);
    }
    for (Index n = 0; n < problem.nodes.size(); ++n) gather(n);
  }

  double run(double bound, double target, const std::function<bool()>& stop) {
    start_prices();
    std::size_t pairs = 1;
    for (const auto& node : nodes_) pairs += node.items.size();
    const int iterations = std::clamp(static_cast<int>(kWorkMax / static_cast<double>(pairs)), 20, kIterationsMax);
    constexpr int knapsack_nodes = 300;
    double step = 1.0;
    int idle = 0;
    double best = 1e300;
    for (int i = 0; i < iterations; ++i) {
      if (stop && stop()) break;
      const double total = evaluate(knapsack_nodes);
      if (total < best * (1 - 1e-6)) {
        idle = 0;
        best = total;
      } else if (++idle >= 8) {
        step /= 2;
        idle = 0;
      }
      bound = std::min(bound, total);
      if (bound <= target * (1 + 1e-7)) break;
      double norm = 0;
      for (const ModelPrice& m : models_) {
        norm += m.weight * m.weight * (m.slope_a * m.slope_a + m.slope_g * m.slope_g);
      }
      if (norm <= 0) break;
      const double length = step * (total - target) / norm;
      for (ModelPrice& m : models_) {
        m.a = std::clamp(m.a - length * m.weight * m.slope_a, 0.0, 130.0);
        m.g = std::clamp(m.g - length * m.weight * m.slope_g, 0.0, static_cast<double>(kSpeedPoints));
      }
    }
    return bound;
  }

 private:
  struct NodeItems {
    double room = 0;
    std::vector<Item> items;
  };

  void gather(Index n) {
    const NodeData& node = problem_.nodes[n];
    if (node.state == NodePlanState::kUnschedulable) return;
    NodeItems out;
    for (Index d = node.first_device; d < node.first_device + node.device_count; ++d) {
      out.room += static_cast<double>(problem_.devices[d].capacity);
    }
    for (Index m = 0; m < models_.size(); ++m) {
      const ModelData& model = problem_.models[m];
      if (model.max_replicas == 0 || !problem_.node_allows(model, n)) continue;
      Item item;
      item.model = m;
      for (Index i = 0; i < model.variant_count; ++i) {
        add_variant(problem_.variants[problem_.order[model.first_variant + i]], node, item);
      }
      if (item.cost > 0) out.items.push_back(item);
    }
    nodes_.push_back(std::move(out));
  }

  void add_variant(const VariantData& variant, const NodeData& node, Item& item) const {
    bool single = false;
    double least = 0;  // overheads of the devices that take it: smallest, and second smallest
    double second = 0;
    double room = 0;
    int devices = 0;
    double share = 0;
    for (Index d = node.first_device; d < node.first_device + node.device_count; ++d) {
      const DeviceData& device = problem_.devices[d];
      if (!problem_.device_allows(variant, device) || device.capacity <= device.overhead) continue;
      const auto overhead = static_cast<double>(device.overhead);
      if (devices == 0 || overhead < least) {
        second = least;
        least = overhead;
      } else if (devices == 1 || overhead < second) {
        second = overhead;
      }
      ++devices;
      room += static_cast<double>(device.capacity) - overhead;
      single = single || device.capacity >= problem_.device_need(variant, device);
      share = std::max(share, static_cast<double>(problem_.share(variant, device.bandwidth) + 1));
    }
    const auto bytes = static_cast<double>(variant.bytes);
    if (!single && (!variant.splittable || devices < 2 || room < bytes)) return;
    const double cost = bytes + least + (single ? 0 : second);
    item.cost = item.cost > 0 ? std::min(item.cost, cost) : cost;
    item.share = std::max(item.share, std::min(1.0, share / static_cast<double>(kWhole)));
  }

  // As if all memory were one piece: the density at which it is full prices the bytes.
  void start_prices() {
    double room = 0;
    for (const NodeItems& node : nodes_) room += node.room;
    struct Priced {
      double density = 0;
      double need = 0;
    };
    std::vector<Priced> wishes;
    for (Index m = 0; m < models_.size(); ++m) {
      const auto need = static_cast<double>(problem_.models[m].bound_need);
      if (need <= 0) continue;
      const ModelPrice& model = models_[m];
      wishes.push_back({model.weight * (model.first + 10) / need, need});
      if (model.second > 0) wishes.push_back({model.weight * (model.second + 10) / need, need});
    }
    std::sort(wishes.begin(), wishes.end(), [](const Priced& a, const Priced& b) { return a.density > b.density; });
    double critical = 0;
    for (const Priced& wish : wishes) {
      room -= wish.need;
      if (room > 0) continue;
      critical = wish.density;
      break;
    }
    for (Index m = 0; m < models_.size(); ++m) {
      ModelPrice& model = models_[m];
      if (model.weight <= 0) continue;
      model.g = critical > 0 ? 10 : 0;
      const double price = critical * static_cast<double>(problem_.models[m].bound_need) / model.weight;
      const double share = static_cast<double>(problem_.models[m].bound_share) / static_cast<double>(kWhole);
      model.a = std::clamp(price - model.g * share, 0.0, 120.0);
    }
  }

  // The total at the current prices, and its slopes.
  double evaluate(int knapsack_nodes) {
    double total = 0;
    for (ModelPrice& model : models_) {
      const double speed = std::max(0.0, (kSpeedPoints - model.g) * model.share_max);
      const double one = model.first - model.a + speed;
      const double two = model.second > 0 ? one + model.second - model.a : one;
      const double best = std::max({0.0, one, two});
      total += model.weight * best;
      const double met = best > 0 && speed > 0 ? model.share_max : 0;
      model.slope_a = best <= 0 ? 0 : (two > one ? -2 : -1);
      model.slope_g = -met;
    }
    for (NodeItems& node : nodes_) {
      for (Item& item : node.items) {
        const ModelPrice& model = models_[item.model];
        item.price = model.weight * (model.a + model.g * item.share);
      }
      total += knapsack_.solve(node.items, node.room, knapsack_nodes, chosen_);
      for (const std::size_t i : chosen_) {
        models_[node.items[i].model].slope_a += 1;
        models_[node.items[i].model].slope_g += node.items[i].share;
      }
    }
    return total * (1 + 1e-9);
  }

  const Problem& problem_;
  std::vector<ModelPrice> models_;
  std::vector<NodeItems> nodes_;
  Knapsack knapsack_;
  std::vector<std::size_t> chosen_;
};

}  // namespace

double lagrangian_bound(const Problem& problem, double value, const std::function<bool()>& stop) {
  const double simple = simple_bound(problem);
  if (problem.nodes.size() * problem.models.size() > kPairsMax || simple <= value * (1 + 1e-7)) return simple;
  return Lagrange(problem).run(simple, value, stop);
}

}  // namespace aiv::placement
