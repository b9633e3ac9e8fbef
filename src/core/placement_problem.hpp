// The planner's input on indices: flat arrays, integer scores, everything that strings and doubles are needed for
// worked out once.
//
// Scores are integers so that sums do not depend on their order: one point of value is `scale` units, a weight w is
// W = round(w * scale), a share of demand is a fraction of kWhole. The scale is a power of two chosen so that no sum
// can overflow (compile()).
#pragma once
#include <array>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "core/cluster.hpp"
#include "core/placement.hpp"

namespace aiv::placement {

using Index = std::uint32_t;
using Score = std::int64_t;
inline constexpr Index kNone = std::numeric_limits<Index>::max();
inline constexpr std::int64_t kWhole = std::int64_t{1} << 20;  // a demand that is met

inline constexpr int kFirstPoints = 100;
inline constexpr int kSecondPoints = 30;
inline constexpr int kSpeedPoints = 20;

struct DeviceData {
  Index node = 0;
  Bytes capacity = 0;
  Bytes overhead = 0;
  double bandwidth = 1;
  std::uint64_t backend = 0;  // one bit
  Bytes largest_buffer = std::numeric_limits<Bytes>::max();
};

struct NodeData {
  Index first_device = 0;
  Index device_count = 0;
  Index domain = 0;
  NodePlanState state = NodePlanState::kSchedulable;
};

struct VariantData {
  Index model = 0;
  Bytes bytes = 0;
  Bytes split_extra = 0;
  Bytes split_unit = 1;
  Bytes largest_tensor = 0;
  std::uint64_t backends = 0;  // bits of DeviceData::backend
  double share_per_bandwidth = 0;  // share of the demand in kWhole-ths per byte/s of bandwidth; < 0: demand is 0
  std::int64_t quality = 0;        // in millionths
  bool splittable = false;
};

struct ModelData {
  Index first_variant = 0;  // into Problem::order: placeable variants, smallest first
  Index variant_count = 0;
  Score weight = 0;
  std::int64_t quality_weight = 0;
  int min_replicas = 1;
  int max_replicas = 1;
  std::int64_t best_share = 0;  // of one replica, on the fastest backend that any variant runs on
  Bytes smallest_need = 0;      // smallest variant and smallest overhead; 0 if it runs nowhere
  // The same where nodes that keep what they have count too: for bounds, because what runs there has its value.
  std::int64_t bound_share = 0;
  Bytes bound_need = 0;
  std::vector<Index> only;      // sorted node indices
  std::vector<Index> excluded;  // sorted
  std::vector<Index> current;   // indices into Problem::current
};

// A replica, placed or proposed. Devices ascend.
struct Replica {
  Index model = kNone;
  Index variant = kNone;
  Index node = kNone;
  Index current = kNone;  // the entry of Problem::current that it is equal to
  std::int64_t share = 0;  // of the demand, in kWhole-ths, capped there
  std::array<Index, kMaxParts> device{};
  std::array<Bytes, kMaxParts> bytes{};
  std::uint8_t parts = 0;
  friend bool operator==(const Replica&, const Replica&) = default;
};

struct CurrentData {
  Index input = 0;  // position in PlanInput::current
  Index model = 0;
  Index variant = 0;
  Index node = 0;
  bool keepable = false;  // obeys every rule by itself
  bool pinned = false;
  Score price = 0;  // of displacing it, if it could stay
  Replica replica;  // if keepable
  std::vector<std::pair<Index, Bytes>> held;  // what it occupies now, by device, overheads included
};

struct Problem {
  std::vector<DeviceData> devices;
  std::vector<NodeData> nodes;
  std::vector<VariantData> variants;  // in the input's order, model by model
  std::vector<Index> order;           // see ModelData::first_variant
  std::vector<ModelData> models;
  std::vector<CurrentData> current;
  Index domain_count = 0;
  double scale = 1;
  Score second_points = kSecondPoints;
  Bytes capacity_max = 0;       // of a device
  Bytes node_capacity_max = 0;  // of a node's devices together
  double min_gain = 0;

  [[nodiscard]] Bytes device_need(const VariantData& variant, const DeviceData& device) const {
    return variant.bytes + device.overhead;
  }
  [[nodiscard]] bool device_allows(const VariantData& variant, const DeviceData& device) const {
    return (variant.backends & device.backend) != 0 && variant.largest_tensor <= device.largest_buffer;
  }
  [[nodiscard]] bool node_allows(const ModelData& model, Index node) const;
  [[nodiscard]] std::int64_t share(const VariantData& variant, double bandwidth) const {
    if (variant.share_per_bandwidth < 0) return kWhole;
    const double part = variant.share_per_bandwidth * bandwidth;
    return part >= static_cast<double>(kWhole) ? kWhole : static_cast<std::int64_t>(part);
  }
  // Fills in node, share and the matching current entry from model, variant and parts.
  void complete(Replica& replica) const;
};

// The input must have passed validate().
[[nodiscard]] Problem compile(const PlanInput& input);

}  // namespace aiv::placement
