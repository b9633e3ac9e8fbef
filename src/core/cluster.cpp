#include "core/cluster.hpp"

#include <bit>
#include <cmath>
#include <set>
#include <string>

#include "base/units.hpp"

namespace aiv {
namespace {

constexpr Bytes kBytesMax = std::int64_t{1} << 62;
constexpr std::size_t kBackendsMax = 64;  // different backends of all devices: they are bits of a word
constexpr int kReplicasMax = 1'000'000;

std::string at(std::string_view list, std::size_t i) { return std::string(list) + "[" + std::to_string(i) + "]"; }

Result<> refuse(const std::string& path, std::string reason) {
  return fail(ErrorCode::kInvalidArgument, std::move(reason), path);
}

// Paths are functions that make the text: of a site with 10,000 nodes 200,000 fields are looked at, and text is wanted
// for the first fault alone.
template <class Path>
Result<> check_bytes(Bytes bytes, Bytes min, const Path& path, std::string_view field) {
  if (bytes < min) {
    return refuse(path() + std::string(field), std::to_string(bytes) + ", must be at least " + std::to_string(min));
  }
  if (bytes > kBytesMax) return refuse(path() + std::string(field), std::to_string(bytes) + " is more than 2^62 bytes");
  return {};
}

template <class Path>
Result<> check_number(double value, bool zero_allowed, const Path& path, std::string_view field) {
  if (!std::isfinite(value)) return refuse(path() + std::string(field), "is not a finite number");
  if (value < 0 || (value == 0 && !zero_allowed)) {
    return refuse(path() + std::string(field), zero_allowed ? "must not be negative" : "must be more than 0");
  }
  if (value > 1e18) return refuse(path() + std::string(field), "is more than 1e18");
  return {};
}

// The ids so far of one kind. A few are compared one by one, many are told apart by a hash of our own in an open table
// (at most half full): a tree of 20,000 names costs more than all else here.
class Ids {
 public:
  explicit Ids(std::size_t count) {
    if (count > 8) slots_.resize(std::bit_ceil(2 * count));
  }
  // False if it is there already.
  bool add(const std::string& id) {
    if (slots_.empty()) {
      for (const std::string* other : few_) {
        if (*other == id) return false;
      }
      few_.push_back(&id);
      return true;
    }
    std::uint64_t hash = 14695981039346656037ULL;  // FNV-1a (Fowler, Noll, Vo), its high bits folded in
    for (const char c : id) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
    const std::size_t mask = slots_.size() - 1;
    std::size_t at = static_cast<std::size_t>(hash ^ (hash >> 32U)) & mask;
    for (; slots_[at] != nullptr; at = (at + 1) & mask) {
      if (*slots_[at] == id) return false;
    }
    slots_[at] = &id;
    return true;
  }

 private:
  std::vector<const std::string*> few_;
  std::vector<const std::string*> slots_;
};

template <class Path>
Result<> check_id(Ids& seen, const std::string& id, const Path& path) {
  if (id.empty()) return refuse(path() + ".id", "must not be empty");
  if (!seen.add(id)) return refuse(path() + ".id", "\"" + printable(id, 64) + "\" is there twice");
  return {};
}

template <class Path>
Result<> check_device(const PlanDevice& device, const Path& path) {
  if (auto r = check_bytes(device.vram_bytes, 0, path, ".vram_bytes"); !r) return r;
  if (auto r = check_bytes(device.free_bytes, 0, path, ".free_bytes"); !r) return r;
  if (auto r = check_bytes(device.overhead_bytes, 0, path, ".overhead_bytes"); !r) return r;
  if (auto r = check_bytes(device.largest_buffer_bytes, 0, path, ".largest_buffer_bytes"); !r) return r;
  return check_number(device.bandwidth_bytes_per_s, false, path, ".bandwidth_bytes_per_s");
}

Result<> check_nodes(const PlanInput& input) {
  std::size_t devices = 0;
  for (const PlanNode& node : input.nodes) devices += node.devices.size();
  Ids node_ids(input.nodes.size());
  Ids device_ids(devices);
  std::set<std::string_view> backends;
  for (std::size_t n = 0; n < input.nodes.size(); ++n) {
    const PlanNode& node = input.nodes[n];
    const auto path = [n] { return at("nodes", n); };
    if (auto r = check_id(node_ids, node.id, path); !r) return r;
    for (std::size_t d = 0; d < node.devices.size(); ++d) {
      const PlanDevice& device = node.devices[d];
      const auto device_path = [&path, d] { return path() + "." + at("devices", d); };
      if (auto r = check_id(device_ids, device.id, device_path); !r) return r;
      if (auto r = check_device(device, device_path); !r) return r;
      backends.insert(device.backend);
      if (backends.size() > kBackendsMax) {
        return refuse(device_path() + ".backend", "more than " + std::to_string(kBackendsMax) + " different backends");
      }
    }
  }
  return {};
}

template <class Path>
Result<> check_variant(const PlanVariant& variant, const Path& path) {
  if (auto r = check_bytes(variant.bytes, 1, path, ".bytes"); !r) return r;
  if (auto r = check_bytes(variant.split_extra_bytes, 0, path, ".split_extra_bytes"); !r) return r;
  if (auto r = check_bytes(variant.split_unit_bytes, 0, path, ".split_unit_bytes"); !r) return r;
  if (auto r = check_bytes(variant.largest_tensor_bytes, 0, path, ".largest_tensor_bytes"); !r) return r;
  return check_number(variant.quality, true, path, ".quality");
}

Result<> check_models(const PlanInput& input) {
  Ids model_ids(input.models.size());
  for (std::size_t m = 0; m < input.models.size(); ++m) {
    const PlanModel& model = input.models[m];
    const auto path = [m] { return at("models", m); };
    if (auto r = check_id(model_ids, model.id, path); !r) return r;
    if (auto r = check_number(model.weight, true, path, ".weight"); !r) return r;
    if (auto r = check_number(model.demand_tokens_per_s, true, path, ".demand_tokens_per_s"); !r) return r;
    if (model.min_replicas < 0) return refuse(path() + ".min_replicas", "must not be negative");
    if (model.max_replicas > kReplicasMax) return refuse(path() + ".max_replicas", "is more than a million");
    if (model.max_replicas < model.min_replicas) return refuse(path() + ".max_replicas", "is less than min_replicas");
    if (model.variants.empty()) return refuse(path() + ".variants", "must not be empty");
    Ids variant_ids(model.variants.size());
    for (std::size_t v = 0; v < model.variants.size(); ++v) {
      const auto variant_path = [&path, v] { return path() + "." + at("variants", v); };
      if (auto r = check_id(variant_ids, model.variants[v].id, variant_path); !r) return r;
      if (auto r = check_variant(model.variants[v], variant_path); !r) return r;
    }
  }
  return {};
}

Result<> check_current(const PlanInput& input) {
  for (std::size_t c = 0; c < input.current.size(); ++c) {
    const auto& parts = input.current[c].parts;
    for (std::size_t d = 0; d < parts.size(); ++d) {
      const auto path = [c, d] { return at("current", c) + "." + at("devices", d); };
      if (auto r = check_bytes(parts[d].bytes, 0, path, ".bytes"); !r) return r;
    }
  }
  return {};
}

std::string hint_text(const PlacementHint& hint) {
  switch (hint.kind) {
    case HintKind::kNone: return "";
    case HintKind::kOtherVariant: return "; fits with variant " + hint.variant + " on " + hint.node;
    case HintKind::kMoveAway:
      return "; fits on " + hint.node + " if " + hint.other_model + " moves to " + hint.other_node;
    case HintKind::kUnloadOther: return "; fits on " + hint.node + " if " + hint.other_model + " is unloaded there";
    case HintKind::kFreeMemory:
      return "; nearest: " + hint.node + " lacks " + format_bytes(hint.bytes);
  }
  return "";
}

}  // namespace

Result<> validate(const PlanInput& input) {
  if (auto r = check_nodes(input); !r) return r;
  if (auto r = check_models(input); !r) return r;
  if (auto r = check_current(input); !r) return r;
  const auto policy = [] { return std::string("policy"); };
  if (auto r = check_number(input.policy.move_price, true, policy, ".move_price"); !r) return r;
  if (auto r = check_number(input.policy.move_price_per_gib, true, policy, ".move_price_per_gib"); !r) return r;
  return check_number(input.policy.min_gain, true, policy, ".min_gain");
}

double replica_speed(double bandwidth_bytes_per_s, Bytes bytes) {
  return 0.6 * bandwidth_bytes_per_s / static_cast<double>(bytes);
}

std::string describe(const Unplaced& unplaced) {
  const std::string needs = "needs " + format_bytes(unplaced.needs_bytes);
  const std::string has = format_bytes(unplaced.largest_bytes) + " free";
  std::string text;
  if (unplaced.replicas > 0) {
    text = "has " + std::to_string(unplaced.replicas) + " of " + std::to_string(unplaced.wanted) + " replicas: ";
  }
  switch (unplaced.reason) {
    case UnplacedReason::kNoNode: text += "no node that it may use is schedulable"; break;
    case UnplacedReason::kNoVariant: text += "no variant of it may be placed (max_replicas is 0, or all are hints)"; break;
    case UnplacedReason::kBackend: text += "no device of a node that it may use runs the backends of its variants"; break;
    case UnplacedReason::kTooLarge:
      text += needs + (unplaced.largest_is_device ? " on one device; the largest device has "
                                                  : " on one node; the largest node has ") + has;
      break;
    case UnplacedReason::kSplitForbidden:
      text += needs + " on one device and may not be split; the largest device has " + has;
      break;
    case UnplacedReason::kBufferLimit: text += "one of its tensors is larger than a device can hold in one buffer"; break;
    case UnplacedReason::kNoRoom:
      text += needs + "; the largest hole that the others leave has " + format_bytes(unplaced.largest_bytes);
      break;
    case UnplacedReason::kDistinctNodes:
      text += "each replica needs a node of its own, and no further node could hold one (" + needs + ")";
      break;
  }
  return text + hint_text(unplaced.hint);
}

std::string describe(StepReason reason) {
  switch (reason) {
    case StepReason::kNone: return "";
    case StepReason::kGap: return "no room to load elsewhere first: fewer replicas for a moment";
    case StepReason::kForeign: return "may not stay as it is: node closed, rule broken or memory gone";
  }
  return "";
}

std::string_view to_string(StepAction action) {
  switch (action) {
    case StepAction::kLoad: return "load";
    case StepAction::kUnload: return "unload";
    case StepAction::kMove: return "move";
  }
  return "";
}

std::string_view to_string(UnplacedReason reason) {
  switch (reason) {
    case UnplacedReason::kNoNode: return "no_node";
    case UnplacedReason::kNoVariant: return "no_variant";
    case UnplacedReason::kBackend: return "backend";
    case UnplacedReason::kTooLarge: return "too_large";
    case UnplacedReason::kSplitForbidden: return "split_forbidden";
    case UnplacedReason::kBufferLimit: return "buffer_limit";
    case UnplacedReason::kNoRoom: return "no_room";
    case UnplacedReason::kDistinctNodes: return "distinct_nodes";
  }
  return "";
}

}  // namespace aiv
