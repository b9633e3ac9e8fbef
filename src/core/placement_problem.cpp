#include "core/placement_problem.hpp"


#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <string_view>

#include "base/units.hpp"

namespace aiv::placement {
namespace {

using Names = std::map<std::string_view, Index>;

// Names that are all there before the first is looked for: sorted then, for half of what a tree costs.
class Sorted {
 public:
  void add(std::string_view name) { names_.emplace_back(name, static_cast<Index>(names_.size())); }
  void sort() { std::sort(names_.begin(), names_.end()); }
  [[nodiscard]] Index find(std::string_view name) const {
    const auto it = std::lower_bound(names_.begin(), names_.end(), std::pair(name, Index{0}));
    return it == names_.end() || it->first != name ? kNone : it->second;
  }

 private:
  std::vector<std::pair<std::string_view, Index>> names_;
};

Index index_of(const Sorted& names, std::string_view name) { return names.find(name); }

Index index_of(const Names& names, std::string_view name) {
  const auto it = names.find(name);
  return it == names.end() ? kNone : it->second;
}

struct Maps {
  Sorted nodes;
  Sorted devices;
  Sorted models;
  Names domains;
  Names backends;
};

// Sizes that no cluster has are cut to what cannot overflow in any sum: all capacities together stay below 2^61.
Bytes capacity_cap(const PlanInput& input) {
  std::int64_t devices = 1;
  for (const PlanNode& node : input.nodes) devices += static_cast<std::int64_t>(node.devices.size());
  return (std::int64_t{1} << 61) / devices;
}
constexpr Bytes kOverheadCap = std::int64_t{1} << 61;  // above every capacity: such a device takes nothing

void compile_nodes(const PlanInput& input, Problem& problem, Maps& maps) {
  const Bytes cap = capacity_cap(input);
  for (const PlanNode& node : input.nodes) {
    const auto n = static_cast<Index>(problem.nodes.size());
    maps.nodes.add(node.id);
    const std::string_view domain = node.failure_domain.empty() ? node.id : node.failure_domain;
    const Index d = maps.domains.emplace(domain, static_cast<Index>(maps.domains.size())).first->second;
    problem.nodes.push_back({.first_device = static_cast<Index>(problem.devices.size()),
                             .device_count = static_cast<Index>(node.devices.size()),
                             .domain = d,
                             .state = node.state});
    Bytes sum = 0;
    for (const PlanDevice& device : node.devices) {
      maps.devices.add(device.id);
      const Index b = maps.backends.emplace(device.backend, static_cast<Index>(maps.backends.size())).first->second;
      AIV_ASSERT(b < 64);
      problem.devices.push_back(
          {.node = n,
           .capacity = std::min(device.free_bytes, cap),
           .overhead = std::min(device.overhead_bytes, kOverheadCap),
           .bandwidth = device.bandwidth_bytes_per_s,
           .backend = std::uint64_t{1} << b,
           .largest_buffer = device.largest_buffer_bytes > 0 ? device.largest_buffer_bytes
                                                             : std::numeric_limits<Bytes>::max()});
      problem.capacity_max = std::max(problem.capacity_max, problem.devices.back().capacity);
      sum += problem.devices.back().capacity;
    }
    problem.node_capacity_max = std::max(problem.node_capacity_max, sum);
  }
  problem.domain_count = static_cast<Index>(maps.domains.size());
  maps.nodes.sort();
}

// Weights as integers: the largest has at most 36 bits, so weight * 20 * kWhole fits 63; the sum has at most 44, so
// 150 points for every model fit 52 and stay exact in a double too.
double choose_scale(const PlanInput& input) {
  double largest = 0;
  double sum = 0;
  for (const PlanModel& model : input.models) {
    largest = std::max(largest, model.weight);
    sum += model.weight;
  }
  if (largest <= 0) return 1;
  const int bits = std::min(36 - std::ilogb(largest) - 1, 44 - std::ilogb(sum) - 1);
  return std::ldexp(1.0, std::clamp(bits, -1000, 1000));
}

std::vector<Index> node_list(const std::vector<std::string>& names, const Maps& maps) {
  std::vector<Index> list;
  for (const std::string& name : names) {
    if (const Index n = index_of(maps.nodes, name); n != kNone) list.push_back(n);
  }
  std::sort(list.begin(), list.end());
  return list;
}

VariantData compile_variant(const PlanVariant& variant, double demand, Index model, const Maps& maps) {
  VariantData data;
  data.model = model;
  data.bytes = variant.bytes;
  data.split_extra = std::min(variant.split_extra_bytes, kOverheadCap / 2);
  data.split_unit = std::max<Bytes>(1, variant.split_unit_bytes);
  data.largest_tensor = variant.largest_tensor_bytes;
  data.splittable = variant.splittable;
  data.quality = std::llround(variant.quality * 1e6);
  for (const std::string& backend : variant.backends) {
    if (const Index b = index_of(maps.backends, backend); b != kNone) data.backends |= std::uint64_t{1} << b;
  }
  // replica_speed() / demand, in kWhole-ths, with the bandwidth left open.
  data.share_per_bandwidth =
      demand > 0 ? replica_speed(1.0, variant.bytes) / demand * static_cast<double>(kWhole) : -1.0;
  return data;
}

void compile_models(const PlanInput& input, Problem& problem, Maps& maps) {
  problem.models.reserve(input.models.size());
  for (const PlanModel& model : input.models) {
    const auto m = static_cast<Index>(problem.models.size());
    maps.models.add(model.id);
    ModelData data;
    // What counts a little must not count nothing.
    data.weight = std::max<Score>(model.weight > 0 ? 1 : 0, std::llround(model.weight * problem.scale));
    data.quality_weight = std::llround(std::min(model.weight, 1e9) * 64);
    data.min_replicas = model.min_replicas;
    data.max_replicas = model.max_replicas;
    // A list that names only nodes that are gone must not read as "anywhere": kNone matches no node.
    data.only = node_list(model.only_nodes, maps);
    if (!model.only_nodes.empty() && data.only.empty()) data.only.push_back(kNone);
    data.excluded = node_list(model.excluded_nodes, maps);
    data.first_variant = static_cast<Index>(problem.order.size());
    for (const PlanVariant& variant : model.variants) {
      const auto v = static_cast<Index>(problem.variants.size());
      problem.variants.push_back(compile_variant(variant, model.demand_tokens_per_s, m, maps));
      if (!variant.hint_only) problem.order.push_back(v);
    }
    data.variant_count = static_cast<Index>(problem.order.size()) - data.first_variant;
    std::sort(problem.order.begin() + data.first_variant, problem.order.end(), [&](Index a, Index b) {
      const VariantData& x = problem.variants[a];
      const VariantData& y = problem.variants[b];
      if (x.bytes != y.bytes) return x.bytes < y.bytes;
      return x.quality != y.quality ? x.quality > y.quality : a < b;
    });
    problem.models.push_back(std::move(data));
  }
}

// The variant's index in Problem::variants; kNone if the model has none of that name or it may not be placed.
Index find_variant(const PlanInput& input, const std::vector<Index>& first, Index model, const std::string& id) {
  const auto& variants = input.models[model].variants;
  for (std::size_t i = 0; i < variants.size(); ++i) {
    if (variants[i].id == id) return first[model] + static_cast<Index>(i);
  }
  return kNone;
}

// True if the entry, alone in an empty cluster, breaks no rule.
bool legal_alone(const Problem& problem, const CurrentData& entry, bool hint_only) {
  const Replica& replica = entry.replica;
  const VariantData& variant = problem.variants[entry.variant];
  if (hint_only || problem.nodes[entry.node].state == NodePlanState::kUnschedulable) return false;
  if (!problem.node_allows(problem.models[entry.model], entry.node)) return false;
  if (replica.parts == 0 || (replica.parts > 1 && !variant.splittable)) return false;
  Bytes sum = 0;
  for (std::size_t i = 0; i < replica.parts; ++i) {
    const DeviceData& device = problem.devices[replica.device[i]];
    if (device.node != entry.node || replica.bytes[i] <= 0 || !problem.device_allows(variant, device)) return false;
    if (i > 0 && replica.device[i] == replica.device[i - 1]) return false;
    sum += replica.bytes[i];
  }
  return sum == variant.bytes;
}

void sort_parts(Replica& replica) {
  for (std::size_t i = 1; i < replica.parts; ++i) {
    for (std::size_t k = i; k > 0 && replica.device[k] < replica.device[k - 1]; --k) {
      std::swap(replica.device[k], replica.device[k - 1]);
      std::swap(replica.bytes[k], replica.bytes[k - 1]);
    }
  }
}

// An entry that says again what an earlier one said is the same replica.
bool listed_before(const Problem& problem, const CurrentData& entry) {
  for (const Index c : problem.models[entry.model].current) {
    const CurrentData& other = problem.current[c];
    if (other.variant == entry.variant && other.node == entry.node && other.held == entry.held) return true;
  }
  return false;
}

void compile_current(const PlanInput& input, Problem& problem, Maps& maps) {
  if (input.current.empty()) return;
  maps.devices.sort();
  maps.models.sort();
  std::vector<Index> first(input.models.size());
  Index next = 0;
  for (std::size_t m = 0; m < input.models.size(); ++m) {
    first[m] = next;
    next += static_cast<Index>(input.models[m].variants.size());
  }
  for (std::size_t i = 0; i < input.current.size(); ++i) {
    const PlanPlacement& placement = input.current[i];
    CurrentData entry;
    entry.input = static_cast<Index>(i);
    entry.model = index_of(maps.models, placement.model);
    entry.node = index_of(maps.nodes, placement.node);
    entry.pinned = placement.pinned;
    if (entry.model == kNone || entry.node == kNone) continue;
    entry.variant = find_variant(input, first, entry.model, placement.variant);
    if (entry.variant == kNone) continue;
    bool known = true;
    for (const PlanPart& part : placement.parts) known = known && maps.devices.find(part.device) != kNone;
    if (!known) continue;
    entry.replica.model = entry.model;
    entry.replica.variant = entry.variant;
    if (placement.parts.size() <= kMaxParts) {
      for (const PlanPart& part : placement.parts) {
        entry.replica.device[entry.replica.parts] = index_of(maps.devices, part.device);
        entry.replica.bytes[entry.replica.parts] = part.bytes;
        ++entry.replica.parts;
      }
      sort_parts(entry.replica);
    }
    const auto& variant = input.models[entry.model].variants[entry.variant - first[entry.model]];
    entry.keepable = legal_alone(problem, entry, variant.hint_only);
    const Bytes extra = placement.parts.size() > 1 ? problem.variants[entry.variant].split_extra : 0;
    for (const PlanPart& part : placement.parts) {
      const Index d = index_of(maps.devices, part.device);
      entry.held.emplace_back(d, std::min(part.bytes, kOverheadCap) + problem.devices[d].overhead + extra);
    }
    if (listed_before(problem, entry)) continue;
    const double gib = static_cast<double>(variant.bytes) / static_cast<double>(kGiB);
    const double price = input.policy.move_price + input.policy.move_price_per_gib * gib;
    entry.price = std::llround(std::min(price * problem.scale, 0x1p52));
    problem.models[entry.model].current.push_back(static_cast<Index>(problem.current.size()));
    problem.current.push_back(std::move(entry));
    CurrentData& stored = problem.current.back();
    if (stored.keepable) problem.complete(stored.replica);
  }
}

}  // namespace

bool Problem::node_allows(const ModelData& model, Index node) const {
  if (!model.only.empty() && !std::binary_search(model.only.begin(), model.only.end(), node)) return false;
  return model.excluded.empty() || !std::binary_search(model.excluded.begin(), model.excluded.end(), node);
}

void Problem::complete(Replica& replica) const {
  double bandwidth = devices[replica.device[0]].bandwidth;
  for (std::size_t i = 1; i < replica.parts; ++i) {
    bandwidth = std::min(bandwidth, devices[replica.device[i]].bandwidth);
  }
  replica.node = devices[replica.device[0]].node;
  replica.share = share(variants[replica.variant], bandwidth);
  replica.current = kNone;
  for (const Index c : models[replica.model].current) {
    const Replica& there = current[c].replica;
    if (!current[c].keepable || there.variant != replica.variant || there.parts != replica.parts) continue;
    bool same = true;
    for (std::size_t i = 0; i < replica.parts; ++i) {
      same = same && there.device[i] == replica.device[i] && there.bytes[i] == replica.bytes[i];
    }
    if (same) {
      replica.current = c;
      break;
    }
  }
}

namespace {

struct BackendData {
  double bandwidth = 0;
  Bytes overhead = std::numeric_limits<Bytes>::max();
  bool present = false;
};

// The best share and the smallest need of a replica per model, from one summary per backend: O(models * variants).
void summarise(Problem& problem, bool with_kept, std::int64_t ModelData::*best_share, Bytes ModelData::*smallest_need) {
  std::array<BackendData, 64> backends;
  for (const DeviceData& device : problem.devices) {
    const NodePlanState state = problem.nodes[device.node].state;
    if (state != NodePlanState::kSchedulable && !(with_kept && state == NodePlanState::kKeepOnly)) continue;
    BackendData& data = backends[static_cast<std::size_t>(std::countr_zero(device.backend))];
    data.bandwidth = std::max(data.bandwidth, device.bandwidth);
    data.overhead = std::min(data.overhead, device.overhead);
    data.present = true;
  }
  for (ModelData& model : problem.models) {
    for (Index i = 0; i < model.variant_count; ++i) {
      const VariantData& variant = problem.variants[problem.order[model.first_variant + i]];
      for (std::uint64_t bits = variant.backends; bits != 0; bits &= bits - 1) {
        const BackendData& data = backends[static_cast<std::size_t>(std::countr_zero(bits))];
        if (!data.present) continue;
        model.*best_share = std::max(model.*best_share, problem.share(variant, data.bandwidth));
        const Bytes need = variant.bytes + data.overhead;
        if (model.*smallest_need == 0 || need < model.*smallest_need) model.*smallest_need = need;
      }
    }
  }
}

}  // namespace

Problem compile(const PlanInput& input) {
  Problem problem;
  Maps maps;
  problem.scale = choose_scale(input);
  problem.second_points = input.policy.survive_node_losses > 0 ? kSecondPoints : 0;
  problem.min_gain = input.policy.min_gain;
  compile_nodes(input, problem, maps);
  compile_models(input, problem, maps);
  compile_current(input, problem, maps);
  summarise(problem, false, &ModelData::best_share, &ModelData::smallest_need);
  summarise(problem, true, &ModelData::bound_share, &ModelData::bound_need);
  return problem;
}

}  // namespace aiv::placement
