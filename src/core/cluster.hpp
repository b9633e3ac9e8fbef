// What the planner is told and what it answers, as plain data. Ids are strings here, at the edge; the planner works on
// indices. Sizes are bytes, bandwidth is bytes per second, demand is tokens per second.
//
// Readings where words leave room:
// - `free_bytes` is what the plan may use: memory held by `current` replicas is already counted in it.
// - A replica's speed is 0.6 * bandwidth / bytes tokens/s with the whole bytes of its variant and the smallest
//   bandwidth among its devices: decoding reads the whole model once per token, and layers run one after another.
// - The first listed id wins nowhere: duplicate ids are refused by validate().
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "core/documents.hpp"

namespace aiv {

// ---- input ---------------------------------------------------------------------------------------------

struct PlanDevice {
  std::string id;
  Bytes vram_bytes = 0;      // for messages only
  Bytes free_bytes = 0;      // what the plan may use, `current` included
  Bytes overhead_bytes = 0;  // per process that touches the device
  double bandwidth_bytes_per_s = 1;
  std::string backend;
  Bytes largest_buffer_bytes = 0;  // the largest single tensor it can hold (Vulkan's maxStorageBufferRange); 0 = no limit
};

enum class NodePlanState {
  kSchedulable,
  kKeepOnly,       // suspect: what is there stays, nothing is added
  kUnschedulable,  // drained, quarantined or lost: nothing may be there
};

struct PlanNode {
  std::string id;
  std::string failure_domain;  // empty = its own
  NodePlanState state = NodePlanState::kSchedulable;
  std::vector<PlanDevice> devices;
};

struct PlanVariant {
  std::string id;
  Bytes bytes = 0;  // weights + KV + compute on one device
  bool splittable = false;
  std::vector<std::string> backends;
  double quality = 1.0;
  Bytes split_extra_bytes = 0;     // more on each device of a split (its own compute buffer)
  Bytes split_unit_bytes = 0;      // parts of a split but the last are multiples of it (a layer); 0 = any byte
  Bytes largest_tensor_bytes = 0;  // against PlanDevice::largest_buffer_bytes; 0 = unknown
  bool hint_only = false;          // never placed; only named in "would fit with ..."
};

struct PlanModel {
  std::string id;
  double weight = 1.0;
  int min_replicas = 1;
  int max_replicas = 1;
  double demand_tokens_per_s = 0;
  std::vector<PlanVariant> variants;
  std::vector<std::string> only_nodes;      // if not empty, nowhere else
  std::vector<std::string> excluded_nodes;  // never there
};

struct PlanPart {
  std::string device;
  Bytes bytes = 0;
  friend bool operator==(const PlanPart&, const PlanPart&) = default;
};

struct PlanPlacement {
  std::string model;
  std::string variant;
  std::string node;
  std::vector<PlanPart> parts;  // ascending by position of the device in its node
  bool keep = false;            // out: stands so in `current`. in: ignored
  bool pinned = false;          // in: must not be displaced while it is legal
  friend bool operator==(const PlanPlacement&, const PlanPlacement&) = default;
};

struct PlanPolicy {
  int survive_node_losses = 1;  // 0: the second failure domain has no value of its own
  // Price in points of value for displacing a current replica that could stay. Coverage is worth 100 and survival 30
  // per unit of weight, so those are repaired and nobody reloads 20 GiB for two points of demand.
  double move_price = 4;
  double move_price_per_gib = 1;
  // A plan that displaces a current replica is taken only if it gains at least this share of the value of the plan
  // that displaces nothing. Keeps a cluster calm whose plan is as good as found.
  double min_gain = 0.005;
};

struct PlanInput {
  std::vector<PlanNode> nodes;
  std::vector<PlanModel> models;
  std::vector<PlanPlacement> current;
  PlanPolicy policy;
};

// ---- output --------------------------------------------------------------------------------------------

enum class UnplacedReason {
  kNoNode,          // no schedulable node, or none that the model may use
  kNoVariant,       // max_replicas is 0, or every variant is hint_only
  kBackend,         // no device of an allowed node runs any variant's backend
  kTooLarge,        // larger than the largest allowed node even when that is empty
  kSplitForbidden,  // larger than the largest device, fits a node, but the variant may not be split
  kBufferLimit,     // a tensor exceeds what the devices hold in one buffer
  kNoRoom,          // fits an empty node, but others need the room more
  kDistinctNodes,   // more replicas wanted than nodes that could hold one
};

// The nearest change that would give the model one replica more.
enum class HintKind { kNone, kOtherVariant, kMoveAway, kUnloadOther, kFreeMemory };

struct PlacementHint {
  HintKind kind = HintKind::kNone;
  std::string variant;      // kOtherVariant: its id
  std::string other_model;  // kMoveAway, kUnloadOther
  std::string node;         // where the replica would then go
  std::string other_node;   // kMoveAway: where the other would go
  Bytes bytes = 0;          // kFreeMemory: how much more must be free on `node`
  friend bool operator==(const PlacementHint&, const PlacementHint&) = default;
};

struct Unplaced {
  std::string model;
  UnplacedReason reason = UnplacedReason::kNoRoom;
  int replicas = 0;         // how many it has
  int wanted = 1;           // min_replicas, at least 1
  Bytes needs_bytes = 0;    // smallest variant with one overhead
  Bytes largest_bytes = 0;  // what the best allowed node (or device, if it may not be split) has
  bool largest_is_device = false;
  PlacementHint hint;
  friend bool operator==(const Unplaced&, const Unplaced&) = default;
};

enum class StepAction { kLoad, kUnload, kMove };
enum class StepReason {
  kNone,
  kGap,      // the model has fewer replicas than its floor for a moment: no room to load first
  kForeign,  // the replica breaks a rule now (node drained, memory taken by others)
};

struct PlanStep {
  StepAction action = StepAction::kLoad;
  std::string model;
  std::string variant;
  std::string node;
  std::vector<PlanPart> parts;
  Bytes bytes = 0;
  std::string from_node;  // kMove
  std::vector<PlanPart> from_parts;
  StepReason reason = StepReason::kNone;
  friend bool operator==(const PlanStep&, const PlanStep&) = default;
};

struct Plan {
  std::vector<PlanPlacement> placements;  // by model, then node, in the input's order
  std::vector<Unplaced> unplaced;         // no replica, or fewer than min_replicas
  std::vector<PlanStep> steps;
  double value = 0;
  double upper_bound = 0;  // no legal placement has a higher value
  double quality = 0;      // sum over models of weight * lowest quality among its replicas
  Bytes bytes_moved = 0;   // sum over placements with keep == false
  std::int64_t search_steps = 0;
  bool truncated = false;  // the safety stop cut the search: determinism is off
};

// Refuses what a planner could not give a meaning to; `where` is the JSON path ("models[3].variants[0].bytes").
// Entries of `current` whose node, device, model or variant is gone are fine.
[[nodiscard]] Result<> validate(const PlanInput& input);

// tokens/s of a replica of `bytes` on devices whose slowest has `bandwidth_bytes_per_s`. Source: decoding is bound by
// reading all weights per token; 0.6 is the share of peak bandwidth that llama.cpp reaches on the cards measured.
[[nodiscard]] double replica_speed(double bandwidth_bytes_per_s, Bytes bytes);

// One sentence for people: "needs 22.1 GiB on one node; the largest node has 16.0 GiB free; fits with variant q2".
[[nodiscard]] std::string describe(const Unplaced& unplaced);
[[nodiscard]] std::string describe(StepReason reason);
[[nodiscard]] std::string_view to_string(StepAction action);
[[nodiscard]] std::string_view to_string(UnplacedReason reason);

}  // namespace aiv
