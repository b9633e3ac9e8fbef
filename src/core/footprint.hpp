// What a replica of a deployment takes on given devices, and in which variants it may run. Between the exact
// estimate (core/vram.hpp), which knows files and flags, and the planner (core/cluster.hpp), which knows
// bytes.
#pragma once
#include <span>

#include "core/controller_state.hpp"

namespace aiv {

inline constexpr std::int64_t kDefaultCtxPerSlot = 4096;
inline constexpr std::int64_t kDefaultCtxPerInput = 2048;  // of embeddings and reranking
inline constexpr std::int64_t kInputTokensMax = 8192;      // of one input: the engine's physical batch
inline constexpr int kDefaultSlots = 2;
inline constexpr int kSlotsMax = 64;
inline constexpr std::int64_t kCtxMin = 64;
inline constexpr std::int64_t kCtxMax = 16'777'216;

// One way in which a deployment may run.
struct Variant {
  std::string id;  // "--ctx 4096 --slots 2"
  std::int64_t ctx_per_slot = 0;
  int slots = 1;
  std::string cache_type_k = "f16";
  std::string cache_type_v = "f16";
  double quality = 1.0;
  bool hint_only = false;  // not asked for: only to say what would fit
};

// Best first. A deployment that leaves slots open gets two, or one where two do not fit; one that leaves the
// context open gets min(4096, what the model was trained with) a slot, or 2048 for embeddings and reranking,
// whose inputs must fit one batch of the engine. The hints halve the context and quantise the cache.
[[nodiscard]] std::vector<Variant> variants_of(const Deployment& deployment, const ModelRecord& model);

// The spec of one replica on these devices of one node, in order, with its bytes on each; `layers` are the
// shares of a split (one per device; ignored for one device). Ids are left empty. kRefused when the engine
// would refuse the combination or an operand is larger than a device can bind; kInvalidArgument for options
// out of range.
Result<ReplicaSpec> make_spec(const Deployment& deployment, const ModelRecord& model, const Variant& variant,
                              std::span<const Device* const> devices,
                              std::span<const std::int64_t> layers = {});

// The exact spec of one replica whose layers lie on `devices` about as `parts` says (bytes, one per device),
// shifted until each device takes no more than its room (overhead included). kRefused: where it does not fit.
[[nodiscard]] Result<ReplicaSpec> spec_within(const Deployment& deployment, const ModelRecord& model,
                                              const Variant& variant, std::span<const Device* const> devices,
                                              std::span<const Bytes> parts, std::span<const Bytes> rooms);

// What the replicas of the deployment do: as it says, else as the model is.
[[nodiscard]] ModelKind kind_of(const Deployment& deployment, const ModelRecord& model);

// Driver context of one engine process on the device: as the agent says, else the start values of vram.md
// section 5.
[[nodiscard]] Bytes overhead_of(const Device& device);
// Kept free on a device against what no estimate holds (scratch memory, a grown pool): as learned
// (core/vram_margin.hpp), else kMarginUnknown. Software GPUs hold nothing but buffers and fake ones nothing
// at all: theirs are fixed.
[[nodiscard]] Bytes margin_of(const Device& device);
// What other people's programs hold or an operator keeps for them, whichever is more.
[[nodiscard]] Bytes others_share(const Device& device);
// What all our replicas together may take on the device: its size less others' share and the margin; >= 0,
// and 0 when it is switched off.
[[nodiscard]] Bytes budget_of(const Device& device);
// The fake engine plays on fake devices only, a real one on real ones.
[[nodiscard]] bool can_run(const ModelRecord& model, const Device& device);

// The deployment as the planner wants it: variants with bytes as large as any of `devices` makes them.
Result<PlanModel> plan_model_of(const Deployment& deployment, const ModelRecord& model,
                                std::span<const Device* const> devices);

}  // namespace aiv
