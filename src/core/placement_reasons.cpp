#include "core/placement_reasons.hpp"

#include <algorithm>

#include "core/placement_repair.hpp"

namespace aiv::placement {
namespace {

constexpr std::size_t kHintModelsMax = 32;
constexpr Index kHintNodesMax = 128;

// What the nodes offer to a variant, in an empty cluster and now.
struct Offer {
  bool node = false;     // a node it may use
  bool backend = false;  // with a device of its backend
  bool buffer = false;   // that takes its largest tensor
  Bytes device = 0;      // largest room on one device, empty
  Bytes sum = 0;         // largest room over the devices of a node, empty
  Bytes device_now = 0;  // largest hole on a node where the model is not
  Bytes sum_now = 0;
  Bytes overhead = 0;  // of the device with the largest room
  int nodes_that_fit = 0;  // empty
};

class Diagnoser {
 public:
  Diagnoser(State& state, Deadline deadline) : state_(state), problem_(state.problem()), deadline_(deadline) {}

  Diagnosis of(Index model) {
    const ModelData& data = problem_.models[model];
    Diagnosis result;
    result.model = model;
    if (data.variant_count == 0 || data.max_replicas == 0) {
      result.reason = UnplacedReason::kNoVariant;
      return result;
    }
    // Judged by the variant that needs least of those whose backend is there.
    Offer offer;
    Index variant = kNone;
    for (Index i = 0; i < data.variant_count; ++i) {
      const Index v = problem_.order[data.first_variant + i];
      const Offer here = look(model, v);
      if (variant == kNone || (here.buffer && !offer.buffer) || (here.nodes_that_fit > 0 && offer.nodes_that_fit == 0)) {
        offer = here;
        variant = v;
      }
    }
    judge(offer, problem_.variants[variant], result);
    if (hints_left_ > 0 && offer.node && !deadline_.over()) {
      --hints_left_;
      find_hint(model, result);
    }
    return result;
  }

 private:
  // Models without node lists and without a replica see the same offers; only the sizes differ.
  Offer look(Index model, Index v) {
    const ModelData& data = problem_.models[model];
    const VariantData& variant = problem_.variants[v];
    if (!data.only.empty() || !data.excluded.empty() || state_.tally(model).replicas > 0) return look_afresh(model, v);
    const auto same = [&](const Seen& seen) {
      return seen.backends == variant.backends && seen.tensor == variant.largest_tensor &&
             seen.extra == variant.split_extra;
    };
    auto it = std::find_if(seen_.begin(), seen_.end(), same);
    if (it == seen_.end()) {
      if (seen_.size() >= kSeenMax) return look_afresh(model, v);
      it = seen_.insert(it, {variant.backends, variant.largest_tensor, variant.split_extra, look_afresh(model, v)});
    }
    Offer offer = it->offer;
    const Bytes most = variant.splittable ? std::max(offer.sum, offer.device) : offer.device;
    offer.nodes_that_fit = most >= variant.bytes ? 1 : 0;
    return offer;
  }

  Offer look_afresh(Index model, Index v) const {
    const VariantData& variant = problem_.variants[v];
    Offer offer;
    for (Index n = 0; n < problem_.nodes.size(); ++n) {
      if (!state_.open(n) || !problem_.node_allows(problem_.models[model], n)) continue;
      offer.node = true;
      look_at_node(variant, n, state_.has(model, n), offer);
    }
    return offer;
  }

  void look_at_node(const VariantData& variant, Index n, bool taken, Offer& offer) const {
    const NodeData& node = problem_.nodes[n];
    Bytes sum = 0;
    Bytes sum_now = 0;
    Bytes largest = 0;
    for (Index d = node.first_device; d < node.first_device + node.device_count; ++d) {
      const DeviceData& device = problem_.devices[d];
      if ((device.backend & variant.backends) == 0) continue;
      offer.backend = true;
      if (!problem_.device_allows(variant, device)) continue;
      offer.buffer = true;
      const Bytes room = std::max<Bytes>(0, device.capacity - device.overhead);
      const Bytes room_now = taken ? 0 : std::max<Bytes>(0, state_.free(d) - device.overhead);
      sum += std::max<Bytes>(0, room - variant.split_extra);
      sum_now += std::max<Bytes>(0, room_now - variant.split_extra);
      largest = std::max(largest, room);
      if (room > offer.device) offer.overhead = device.overhead;
      offer.device = std::max(offer.device, room);
      offer.device_now = std::max(offer.device_now, room_now);
    }
    offer.sum = std::max({offer.sum, sum, largest});
    offer.sum_now = std::max(offer.sum_now, sum_now);
    if (largest >= variant.bytes || (variant.splittable && sum >= variant.bytes)) ++offer.nodes_that_fit;
  }

  void judge(const Offer& offer, const VariantData& variant, Diagnosis& result) const {
    const int has = state_.tally(result.model).replicas;
    result.needs = variant.bytes;
    result.largest = variant.splittable ? offer.sum : offer.device;
    result.largest_is_device = !variant.splittable;
    if (!offer.node) {
      result.reason = UnplacedReason::kNoNode;
    } else if (!offer.backend) {
      result.reason = UnplacedReason::kBackend;
    } else if (!offer.buffer) {
      result.reason = UnplacedReason::kBufferLimit;
    } else if (offer.nodes_that_fit == 0) {
      const bool split_would_do = !variant.splittable && offer.sum >= variant.bytes;
      result.reason = split_would_do ? UnplacedReason::kSplitForbidden : UnplacedReason::kTooLarge;
    } else if (has > 0 && offer.nodes_that_fit <= has) {
      result.reason = UnplacedReason::kDistinctNodes;
    } else {
      result.reason = UnplacedReason::kNoRoom;
      result.largest = variant.splittable ? std::max(offer.sum_now, offer.device_now) : offer.device_now;
    }
  }

  void find_hint(Index model, Diagnosis& result) {
    if (hint_variant(model, result)) return;
    if (result.reason != UnplacedReason::kNoRoom) {
      if (result.needs > result.largest && result.reason == UnplacedReason::kTooLarge) {
        hint_missing(model, result, true);
      }
      return;
    }
    if (!hint_by_force(model, result)) hint_missing(model, result, false);
  }

  // A variant that the planner may not use, and that would fit now.
  bool hint_variant(Index model, Diagnosis& result) {
    Search search;
    for (Index v = 0; v < problem_.variants.size(); ++v) {
      if (problem_.variants[v].model != model || is_placeable(model, v)) continue;
      for (Index n = 0; n < problem_.nodes.size(); ++n) {
        if (!state_.open(n) || state_.has(model, n) || !problem_.node_allows(problem_.models[model], n)) continue;
        Replica replica;
        if (!fit_on_node(state_, v, n, search, replica)) continue;
        result.hint = HintKind::kOtherVariant;
        result.variant = v;
        result.node = n;
        return true;
      }
    }
    return false;
  }

  bool is_placeable(Index model, Index v) const {
    const ModelData& data = problem_.models[model];
    const auto first = problem_.order.begin() + data.first_variant;
    return std::find(first, first + data.variant_count, v) != first + data.variant_count;
  }

  // One other replica moves, or goes.
  bool hint_by_force(Index model, Diagnosis& result) {
    Prng prng(1);
    Search search;
    search.prng = &prng;
    search.gain_min = 0;
    for (Index n = 0; n < problem_.nodes.size() && n < kHintNodesMax; ++n) {
      const std::size_t mark = state_.mark();
      std::vector<Index> touched;
      if (force_on_node(state_, model, n, search, touched) && touched.size() == 1) {
        const Index other = touched.front();
        Index other_node = kNone;
        for (const Slot slot : state_.of_model(other)) {
          if (state_.added_since(mark, slot)) other_node = state_.replica(slot).node;
        }
        const bool moved = other_node != kNone && other_node != n;
        if (result.hint == HintKind::kNone || moved) {
          result.hint = moved ? HintKind::kMoveAway : HintKind::kUnloadOther;
          result.other_model = other;
          result.node = n;
          result.other_node = other_node;
        }
      }
      state_.rollback(mark);
      if (result.hint == HintKind::kMoveAway) break;
    }
    return result.hint != HintKind::kNone;
  }

  // The node that lacks least.
  void hint_missing(Index model, Diagnosis& result, bool empty) {
    const ModelData& data = problem_.models[model];
    for (Index n = 0; n < problem_.nodes.size(); ++n) {
      if (!state_.open(n) || state_.has(model, n) || !problem_.node_allows(data, n)) continue;
      for (Index i = 0; i < data.variant_count; ++i) {
        const Bytes lacks = missing_on(problem_.variants[problem_.order[data.first_variant + i]], n, empty);
        if (lacks <= 0 || (result.hint != HintKind::kNone && lacks >= result.bytes)) continue;
        result.hint = HintKind::kFreeMemory;
        result.node = n;
        result.bytes = lacks;
      }
    }
  }

  // 0: the node runs none of its backends.
  Bytes missing_on(const VariantData& variant, Index n, bool empty) const {
    const NodeData& node = problem_.nodes[n];
    Bytes sum = 0;
    Bytes largest = -1;
    for (Index d = node.first_device; d < node.first_device + node.device_count; ++d) {
      const DeviceData& device = problem_.devices[d];
      if (!problem_.device_allows(variant, device)) continue;
      const Bytes room = std::max<Bytes>(0, (empty ? device.capacity : state_.free(d)) - device.overhead);
      largest = std::max(largest, room);
      sum += std::max<Bytes>(0, room - variant.split_extra);
    }
    if (largest < 0) return 0;
    return variant.bytes - (variant.splittable ? std::max(sum, largest) : largest);
  }

  static constexpr std::size_t kSeenMax = 64;
  struct Seen {
    std::uint64_t backends = 0;
    Bytes tensor = 0;
    Bytes extra = 0;
    Offer offer;
  };

  State& state_;
  const Problem& problem_;
  std::vector<Seen> seen_;
  Deadline deadline_;
  std::size_t hints_left_ = kHintModelsMax;
};

}  // namespace

std::vector<Diagnosis> diagnose(State& state, Deadline deadline) {
  const Problem& problem = state.problem();
  std::vector<Diagnosis> list;
  Diagnoser diagnoser(state, deadline);
  for (Index m = 0; m < problem.models.size(); ++m) {
    const int has = state.tally(m).replicas;
    if (has == 0 || has < problem.models[m].min_replicas) list.push_back(diagnoser.of(m));
  }
  return list;
}

}  // namespace aiv::placement
