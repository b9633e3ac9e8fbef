#include "labs.hpp"

#include <algorithm>
#include <array>
#include <string>

#include "base/units.hpp"
#include "core/prng.hpp"

namespace aiv::test {
namespace {

// Memory and bandwidth as in the vendors' data sheets.
struct Card {
  const char* name;
  Bytes gib;
  double gb_per_s;
  const char* backend;
};
constexpr std::array kCards = {
    Card{"GTX 1060 6GB", 6, 192, "cuda"},   Card{"GTX 1070", 8, 256, "cuda"},     Card{"GTX 1080", 8, 320, "cuda"},
    Card{"GTX 1080 Ti", 11, 484, "cuda"},   Card{"RTX 2060", 6, 336, "cuda"},     Card{"RTX 2080 Ti", 11, 616, "cuda"},
    Card{"RTX 3060", 12, 360, "cuda"},      Card{"RTX 3090", 24, 936, "cuda"},    Card{"Tesla P40", 24, 347, "cuda"},
    Card{"Tesla T4", 16, 320, "cuda"},      Card{"Tesla M40", 12, 288, "cuda"},   Card{"Tesla P100", 16, 732, "cuda"},
    Card{"Tesla M10", 8, 83, "cuda"},       Card{"RX 580", 8, 256, "vulkan"},     Card{"RX 6700 XT", 12, 384, "vulkan"},
    Card{"MI50", 16, 1024, "rocm"},         Card{"Vega 64", 8, 484, "vulkan"},    Card{"RTX 4060 Ti", 16, 288, "cuda"},
};

// Bytes of a model with its context: from 0.8 to 42 GB, small ones more often.
constexpr std::array kSizesMb = {800,  1200, 1900, 2400, 2800,  3400,  4100,  4900,  5300, 5700,
                                 6300, 7400, 8600, 9800, 11500, 13200, 15800, 20500, 27000, 42000};

class Maker {
 public:
  Maker(std::uint64_t seed, const LabShape& shape) : prng_(seed * 7919 + 17), shape_(shape) {}

  PlanInput make() {
    make_nodes();
    make_models();
    if (shape_.current) make_current();
    return std::move(input_);
  }

 private:
  std::uint32_t draw(std::uint32_t bound) { return prng_.below(bound); }

  void make_nodes() {
    for (int n = 0; n < shape_.nodes; ++n) {
      PlanNode node;
      node.id = "n" + std::to_string(n + 1);
      node.failure_domain = node.id;
      if (shape_.shared_domains && n > 0 && draw(5) == 0) node.failure_domain = input_.nodes.back().failure_domain;
      if (shape_.closed_nodes && shape_.nodes > 3 && draw(16) == 0) node.state = NodePlanState::kUnschedulable;
      std::uint32_t count = std::min<std::uint32_t>(static_cast<std::uint32_t>(shape_.devices_per_node_max),
                                                          1 + draw(3) * draw(2) + (draw(8) == 0 ? 1 : 0));
      count = shape_.two_devices ? 1 + draw(3) : count;
      const bool alike = draw(2) == 0;
      Card card = kCards[draw(kCards.size())];
      for (std::uint32_t d = 0; d < count; ++d) {
        if (!alike) card = kCards[draw(kCards.size())];
        PlanDevice device;
        device.id = node.id + "/" + std::to_string(d);
        device.vram_bytes = card.gib * kGiB;
        // The driver's own part, and now and then a desktop or somebody's job.
        const Bytes foreign = (200 + draw(200) + (draw(6) == 0 ? draw(3000) : 0)) * kMiB;
        device.free_bytes = std::max<Bytes>(0, device.vram_bytes - foreign);
        device.overhead_bytes = (160 + 10 * draw(20)) * kMiB;
        device.bandwidth_bytes_per_s = card.gb_per_s * 1e9;
        device.backend = shape_.several_backends ? card.backend : "cuda";
        capacity_ += static_cast<double>(device.free_bytes);
        node.devices.push_back(std::move(device));
      }
      input_.nodes.push_back(std::move(node));
    }
  }

  void make_models() {
    double wanted = 0;
    for (int m = 0; shape_.models > 0 ? m < shape_.models : wanted < shape_.load * capacity_; ++m) {
      PlanModel model;
      model.id = "m" + std::to_string(m + 1);
      model.weight = 1 + draw(4) * draw(3);
      model.min_replicas = 1;
      model.max_replicas = 1 + static_cast<int>(draw(4));
      const std::uint32_t one = draw(20);
      const std::uint32_t other = draw(20);
      const double mb = (kSizesMb[std::min(one, other)] + static_cast<double>(draw(400))) * shape_.size_factor;
      const Bytes base = static_cast<Bytes>(std::min(mb, 42'400.0) * 1e6);
      // About what half a card to three cards deliver, so that speed decides something.
      const double one_card = 0.6 * 400e9 / static_cast<double>(base);
      model.demand_tokens_per_s = draw(10) == 0 ? 0 : one_card * (0.4 + 0.1 * draw(26));
      const std::uint32_t variants = 1 + draw(3) / 2;
      for (std::uint32_t v = 0; v < variants; ++v) {
        PlanVariant variant;
        variant.id = v == 0 ? "q4" : "q8";
        variant.bytes = v == 0 ? base : base + base / 2;
        variant.quality = v == 0 ? 0.9 : 1.0;
        variant.splittable = draw(10) < 7;
        variant.backends = {"cuda", "vulkan", "rocm"};
        if (draw(6) == 0) variant.backends = {"cuda"};
        model.variants.push_back(std::move(variant));
      }
      wanted += 2 * static_cast<double>(base);
      input_.models.push_back(std::move(model));
    }
  }

  // First fit in the order of the file, as by hand, plus entries about things that are gone.
  void make_current() {
    std::vector<std::vector<Bytes>> free;
    for (const auto& node : input_.nodes) {
      free.emplace_back();
      for (const auto& device : node.devices) free.back().push_back(device.free_bytes);
    }
    for (const auto& model : input_.models) {
      if (draw(4) == 0) continue;
      int wanted = 1 + static_cast<int>(draw(2));
      wanted = std::min(wanted, model.max_replicas);
      const PlanVariant& variant = model.variants[draw(static_cast<std::uint32_t>(model.variants.size()))];
      for (std::size_t n = 0; n < input_.nodes.size() && wanted > 0; ++n) {
        if (place_by_hand(model, variant, n, free)) --wanted;
      }
    }
    if (!input_.models.empty()) {
      PlanPlacement gone;
      gone.model = input_.models.front().id;
      gone.variant = input_.models.front().variants.front().id;
      gone.node = "a node that is gone";
      gone.parts = {{"a node that is gone/0", 1}};
      input_.current.push_back(gone);
    }
  }

  bool place_by_hand(const PlanModel& model, const PlanVariant& variant, std::size_t n,
                     std::vector<std::vector<Bytes>>& free) {
    const PlanNode& node = input_.nodes[n];
    for (std::size_t d = 0; d < node.devices.size(); ++d) {
      const PlanDevice& device = node.devices[d];
      if (std::find(variant.backends.begin(), variant.backends.end(), device.backend) == variant.backends.end()) continue;
      if (free[n][d] < variant.bytes + device.overhead_bytes) continue;
      free[n][d] -= variant.bytes + device.overhead_bytes;
      PlanPlacement p;
      p.model = model.id;
      p.variant = variant.id;
      p.node = node.id;
      p.parts = {{device.id, variant.bytes}};
      input_.current.push_back(std::move(p));
      return true;
    }
    return false;
  }

  Prng prng_;
  LabShape shape_;
  PlanInput input_;
  double capacity_ = 0;
};

}  // namespace

PlanInput random_lab(std::uint64_t seed, const LabShape& shape) { return Maker(seed, shape).make(); }

PlanInput tiny_lab(std::uint64_t seed) {
  Prng prng(seed);
  PlanInput input;
  const std::uint32_t nodes = 1 + prng.below(3);
  for (std::uint32_t n = 0; n < nodes; ++n) {
    PlanNode node;
    node.id = "n" + std::to_string(n);
    if (prng.chance(1, 4)) node.failure_domain = "rack";
    const std::uint32_t devices = 1 + prng.below(2);
    for (std::uint32_t d = 0; d < devices; ++d) {
      PlanDevice device;
      device.id = node.id + "/" + std::to_string(d);
      device.free_bytes = device.vram_bytes = 4 + prng.below(9);
      device.overhead_bytes = prng.below(2);
      device.bandwidth_bytes_per_s = 10.0 * (1 + prng.below(4));
      device.backend = prng.chance(1, 5) ? "vulkan" : "cuda";
      node.devices.push_back(device);
    }
    input.nodes.push_back(node);
  }
  const std::uint32_t models = 1 + prng.below(4);
  for (std::uint32_t m = 0; m < models; ++m) {
    PlanModel model;
    model.id = "m" + std::to_string(m);
    model.weight = 1 + prng.below(3);
    model.max_replicas = 1 + static_cast<int>(prng.below(3));
    model.demand_tokens_per_s = prng.below(4) * 1.5;
    PlanVariant variant;
    variant.id = "v";
    variant.bytes = 2 + prng.below(10);
    variant.splittable = prng.chance(1, 2);
    variant.backends = {"cuda"};
    if (prng.chance(1, 2)) variant.backends.push_back("vulkan");
    model.variants.push_back(variant);
    input.models.push_back(model);
  }
  return input;
}

}  // namespace aiv::test
