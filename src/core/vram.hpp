// How many bytes a replica takes on each device, known from the model file's header before anything is
// loaded.
//
// Weights, KV cache and recurrent state follow exactly from the header and the flags; the compute buffer from
// a formula fitted to llama.cpp v0.5.0's own worst-case graphs (error: median 0.01 MiB, p95 about 10). What
// no header can say, the driver's context and scratch memory, is the caller's (overhead, margin:
// core/vram_margin.hpp). An architecture that is not in our table gets an upper bound and
// `EstimateMethod::kGeneric`, never a figure that looks exact. All sizes are bytes. Sources: the comments in
// vram_*.cpp name file and version.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "core/documents.hpp"
#include "core/gguf.hpp"

namespace aiv {

// Where the engine puts a tensor.
enum class TensorPlace : std::uint8_t {
  kHost,      // input embedding: looked up on the CPU unless overridden
  kLayer,     // with its layer
  kOutput,    // with the output layer
  kShared,    // once on every device that has layers
  kNotLoaded  // next-token-prediction layers, auxiliary classifiers
};

struct TensorFacts {
  Bytes bytes = 0;
  Bytes row_padding = 0;  // what CUDA and HIP add to a quantised tensor whose rows are not a multiple of 512
  std::int32_t layer = -1;  // with kLayer
  TensorPlace place = TensorPlace::kLayer;
  bool token_embd = false;  // token_embd.weight: may be moved to the device
};

// What one layer keeps between tokens. Widths are elements per token (heads * head size).
struct LayerFacts {
  std::int64_t k_width = 0;  // 0 = no K cache in this layer
  std::int64_t v_width = 0;
  std::int64_t recurrent_r = 0;  // F32 elements per sequence: convolution history
  std::int64_t recurrent_s = 0;  // F32 elements per sequence: state
  bool window = false;           // its cache holds only the sliding window
  std::int64_t heads = 0, head_k = 0, head_v = 0, kv_heads = 0;
};

// The shape of the graph's largest operations (vram.md's compute term).
struct GraphFacts {
  std::int64_t heads = 0;         // largest over the attention layers
  std::int64_t q_width = 0;       // heads * d_v
  std::int64_t kv_width = 0;      // kv heads * max(d_k, d_v)
  std::int64_t feed_forward = 0;  // widest dense part that is present, 0 = none
  std::int64_t experts = 0, experts_used = 0, expert_feed_forward = 0;
  std::int64_t shared_feed_forward = 0;
  std::int64_t mla_rank = 0, mla_rope = 0, mla_key = 0;
  std::int64_t ssm_inner = 0, ssm_state = 0, ssm_groups = 0, ssm_dt_rank = 0, ssm_conv = 0;
  bool fused_qkv = false;
  bool gated = false;              // the feed-forward part has a gate beside its up projection
  bool parallel_residual = false;  // attention and feed-forward read the same normed input
};

enum class ModelFamily : std::uint8_t {
  kAttention,
  kMla,
  kMamba,
  kMamba2,
  kRwkv,
  kHybrid,
  kEncoder,
  kProjector,
  kUnknown
};

// Everything about a model file that a decision needs; computed once, small, copied freely.
struct ModelFacts {
  std::string architecture;
  std::string name;          // general.name, printable, may be empty
  std::string size_label;    // general.size_label ("8B"), may be empty
  std::string quantisation;  // the type that holds most weight bytes ("q4_K")
  ModelKind kind = ModelKind::kChat;
  ModelFamily family = ModelFamily::kUnknown;
  bool known = false;    // the architecture is in our table
  Bytes file_bytes = 0;  // all parts
  Bytes tensor_bytes = 0;
  std::int64_t parameters = 0;
  std::int64_t context_length = 0;  // as trained; 0 = not said
  std::int64_t n_blocks = 0;        // block_count of the file: what splits count with
  std::int64_t n_layers = 0;        // layers that are loaded
  std::int64_t n_embd = 0;
  std::int64_t n_vocab = 0;
  std::int64_t window = 0;          // sliding window in tokens, 0 = none
  std::int64_t v_width_widest = 0;  // over all layers: what each V row takes without flash attention
  std::int64_t indexer_width = 0;   // sparse attention's extra keys, elements per token and layer
  bool delta_net = false;           // recurrent layers are gated delta nets (qwen3next, qwen35)
  bool tied_output = false;         // the output layer uses token_embd's bytes
  bool has_chat_template = false;
  Bytes token_embd_bytes = 0;
  Bytes largest_tensor_bytes = 0;  // engine.md trap 3: compare with Device::max_storage_buffer_range
  GraphFacts graph;
  std::vector<LayerFacts> layers;  // n_layers entries
  std::vector<TensorFacts> tensors;
};

// The facts of a parsed header. kCorrupt when keys contradict each other or the tensors (block_count against
// the layers that are there, zero heads, missing embedding).
Result<ModelFacts> model_facts(const GgufHeader& header);
// read_gguf + model_facts.
Result<ModelFacts> read_model(ByteSource& source);

enum class EstimateBackend : std::uint8_t { kCuda, kHip, kVulkan };
enum class EstimateMethod : std::uint8_t { kFormula, kGeneric };

// The flags of the engine process. Defaults are those of the product (engine.md section 2).
struct EstimateOptions {
  std::int64_t ctx = 4096;  // of the process, all slots together
  int parallel = 1;
  int ubatch = 512;
  bool flash_attn = true;
  std::string cache_type_k = "f16";
  std::string cache_type_v = "f16";
  bool kv_unified = false;
  int devices = 1;
  // Proportions as passed to -ts, one per device; empty = equal. Layer counts make it exact.
  std::vector<std::int64_t> split;
  bool embeddings = false;
  std::int64_t outputs_max = 0;  // 0 = as llama-server sets it: `parallel`; for embeddings the ubatch
  EstimateBackend backend = EstimateBackend::kCuda;
  std::int64_t alignment = 0;  // 0 = the backend's usual one
  // Count the f16 copies that CUDA and HIP kernels of older cards make of a quantised cache. The reference
  // figures (the engine's dry run) leave them out, so `aiv estimate` does too; a node with such a card asks
  // for them.
  bool flash_attention_scratch = false;
  bool token_embd_on_device = false;  // -ot token_embd.weight=DEV
};

struct DeviceEstimate {
  Bytes weights = 0;
  Bytes kv = 0;
  Bytes recurrent = 0;
  Bytes compute = 0;
  Bytes largest_cache_tensor = 0;  // one layer's K or V (or state), for max_storage_buffer_range
  std::int64_t layers = 0;         // of the L+1, the output counts as one
  [[nodiscard]] Bytes total() const { return weights + kv + recurrent + compute; }
  // As the documents carry it; KV and recurrent state are one figure there.
  [[nodiscard]] DeviceBytes device_bytes(std::string device_id, Bytes overhead) const {
    return DeviceBytes{.device_id = std::move(device_id),
                       .weights = weights,
                       .kv = kv + recurrent,
                       .compute = compute,
                       .overhead = overhead};
  }
  friend bool operator==(const DeviceEstimate&, const DeviceEstimate&) = default;
};

struct Estimate {
  std::string architecture;
  EstimateMethod method = EstimateMethod::kFormula;
  std::vector<DeviceEstimate> devices;
  Bytes host_weights = 0;
  Bytes host_compute = 0;
  Bytes host_output =
      0;  // logits handed to the sampler (pinned); not in host_compute, as in the engine's log
  // The largest single buffer that one operation binds: tensor, one layer's K or V, scores without flash
  // attention. A Vulkan device whose maxStorageBufferRange is smaller would leave that operation to the CPU.
  Bytes largest_operand = 0;
  std::int64_t ctx = 0;           // what the engine makes of it (padded to 256, streams)
  std::int64_t ctx_per_slot = 0;  // cells one request may use
  [[nodiscard]] Bytes device_total() const;
};

// kInvalidArgument: an option out of range or a cache type that the engine does not know. kRefused: a
// combination that the engine refuses (a quantised V cache without flash attention; rows that do not divide
// into blocks). Pure; about a microsecond per hundred tensors.
Result<Estimate> estimate(const ModelFacts& model, const EstimateOptions& options);

// The product's rule for the token embedding (engine.md section 2): override it when the output is tied,
// where it costs nothing, or on more than one device, where it switches the four pipeline copies off.
[[nodiscard]] bool prefer_token_embd_on_device(const ModelFacts& model, int devices);

[[nodiscard]] std::string_view to_string(EstimateMethod method);
[[nodiscard]] std::string_view to_string(EstimateBackend backend);

}  // namespace aiv
