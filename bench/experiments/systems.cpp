#include "systems.hpp"

#include <algorithm>
#include <map>
#include <string>

#include "base/units.hpp"
#include "sim/hardware.hpp"
#include "sim/random.hpp"

namespace aiv::experiments {

PlanInput make_lab(std::uint64_t seed, int nodes, double load) {
  sim::Random random(seed);
  const Bytes sizes[] = {4, 6, 8, 8, 11, 12, 16, 24};
  const double bandwidths[] = {112e9, 192e9, 256e9, 320e9, 484e9, 360e9, 512e9, 936e9};
  PlanInput input;
  Bytes total = 0;
  for (int n = 0; n < nodes; ++n) {
    PlanNode node;
    node.id = "n" + std::to_string(n + 1);
    const std::size_t kind = random.index(std::size(sizes));
    const std::int64_t devices = random.between(1, 3);
    for (std::int64_t d = 0; d < devices; ++d) {
      PlanDevice device;
      device.id = node.id + "/" + std::to_string(d);
      device.vram_bytes = device.free_bytes = sizes[kind] * kGiB - 256 * kMiB;
      device.overhead_bytes = 100 * kMiB;
      device.bandwidth_bytes_per_s = bandwidths[kind];
      device.backend = "vulkan";
      total += device.free_bytes;
      node.devices.push_back(std::move(device));
    }
    input.nodes.push_back(std::move(node));
  }
  Bytes wanted = 0;
  while (static_cast<double>(wanted) < load * static_cast<double>(total)) {
    const ModelRecord model = sim::make_model(random.index(sim::catalogue_size()));
    PlanModel plan;
    plan.id = "m" + std::to_string(input.models.size() + 1);
    plan.max_replicas = 4;
    plan.weight = 1.0 / (1.0 + static_cast<double>(random.between(0, 4)));
    PlanVariant variant;
    variant.id = "q4";
    variant.bytes = model.size_bytes + model.size_bytes / 8;  // cache and buffers, equal for all systems
    variant.splittable = true;
    variant.split_extra_bytes = 120 * kMiB;
    variant.backends = {"vulkan"};
    plan.demand_tokens_per_s = replica_speed(320e9, variant.bytes) * static_cast<double>(random.between(1, 3));
    wanted += 2 * variant.bytes;
    plan.variants.push_back(std::move(variant));
    input.models.push_back(std::move(plan));
  }
  return input;
}

namespace {

struct Hole {
  std::size_t node = 0, device = 0;
  Bytes free = 0;
};

// One replica of every model by weight, then second ones; `pick` chooses among the devices that fit.
using Pick = std::function<std::size_t(const std::vector<Hole>&)>;
std::vector<PlanPlacement> by_rule(const PlanInput& input, int replicas, bool one_per_node, bool one_per_device, const Pick& pick) {
  std::vector<Hole> holes;
  for (std::size_t n = 0; n < input.nodes.size(); ++n) {
    for (std::size_t d = 0; d < input.nodes[n].devices.size(); ++d) holes.push_back({n, d, input.nodes[n].devices[d].free_bytes});
  }
  std::vector<std::size_t> order(input.models.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const double x = input.models[a].weight;
    const double y = input.models[b].weight;
    return x != y ? x > y : a < b;
  });
  std::vector<PlanPlacement> out;
  std::map<std::string, std::vector<std::size_t>> where;
  for (int round = 0; round < replicas; ++round) {
    for (const std::size_t m : order) {
      const PlanModel& model = input.models[m];
      const Bytes bytes = model.variants.front().bytes;
      std::vector<Hole> fits;
      for (const Hole& hole : holes) {
        const PlanDevice& device = input.nodes[hole.node].devices[hole.device];
        const auto& used = where[model.id];
        const bool there = std::find(used.begin(), used.end(), hole.node) != used.end();
        if (!there && hole.free >= bytes + device.overhead_bytes) fits.push_back(hole);
      }
      if (fits.empty()) continue;
      const Hole chosen = fits[pick(fits)];
      const PlanDevice& device = input.nodes[chosen.node].devices[chosen.device];
      out.push_back({model.id, "q4", input.nodes[chosen.node].id, {{device.id, bytes}}, false, false});
      where[model.id].push_back(chosen.node);
      for (Hole& hole : holes) {
        const bool same = hole.node == chosen.node && hole.device == chosen.device;
        if (same) hole.free -= bytes + device.overhead_bytes;
        if ((same && one_per_device) || (hole.node == chosen.node && one_per_node)) hole.free = 0;
      }
    }
  }
  return out;
}

std::size_t extreme(const std::vector<Hole>& holes, bool most) {
  const auto less = [](const Hole& a, const Hole& b) { return a.free < b.free; };
  const auto it = most ? std::max_element(holes.begin(), holes.end(), less) : std::min_element(holes.begin(), holes.end(), less);
  return static_cast<std::size_t>(it - holes.begin());
}

std::size_t first(const std::vector<Hole>&) { return 0; }
std::size_t largest(const std::vector<Hole>& holes) { return extreme(holes, true); }
std::size_t tightest(const std::vector<Hole>& holes) { return extreme(holes, false); }

}  // namespace

std::vector<PlanPlacement> ours(PlanInput input, bool splits, std::int64_t limit_ms, int replicas, double* bound) {
  for (PlanModel& model : input.models) {
    model.max_replicas = replicas;
    model.variants.front().splittable = splits;
  }
  PlanOptions options;
  options.steps = limit_ms > 0 ? steps_for_limit(input, limit_ms) : 0;
  options.with_steps = false;
  const Plan made = plan(input, options);
  if (bound != nullptr) *bound = made.upper_bound;
  return made.placements;
}

const std::vector<System>& systems() {
  static const std::vector<System> list = {
      {"B1 one a node", [](const PlanInput& in) { return by_rule(in, 2, true, true, largest); }},
      {"B2 one a GPU", [](const PlanInput& in) { return by_rule(in, 2, false, true, largest); }},
      {"B4 spread", [](const PlanInput& in) { return by_rule(in, 2, false, false, largest); }},
      {"B5 most allocated", [](const PlanInput& in) { return by_rule(in, 2, false, false, tightest); }},
      {"first fit", [](const PlanInput& in) { return by_rule(in, 2, false, false, first); }},
      {"ours", [](const PlanInput& in) { return ours(in, true, 200, 4, nullptr); }},
      {"ours, no splits", [](const PlanInput& in) { return ours(in, false, 200, 4, nullptr); }},
      {"ours, no search", [](const PlanInput& in) { return ours(in, true, 0, 4, nullptr); }},
      {"ours, max 2 replicas", [](const PlanInput& in) { return ours(in, true, 200, 2, nullptr); }},
  };
  return list;
}

}  // namespace aiv::experiments
