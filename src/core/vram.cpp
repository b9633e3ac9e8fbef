#include "core/vram.hpp"

#include <algorithm>
#include <array>
#include <limits>

#include "core/vram_internal.hpp"

namespace aiv {
namespace {

using vram::round_up;
using vram::Setting;

constexpr std::int64_t kContextMax = std::int64_t{1}
                                     << 27;  // tokens; the longest trained context is 10 million
constexpr int kParallelMax = 256;            // LLAMA_MAX_SEQ, llama-cparams.h
constexpr int kUbatchMax = 1 << 16;
constexpr int kBatch = 2048;     // llama-server's default --batch-size
constexpr int kDevicesMax = 16;  // GGML_SCHED_MAX_BACKENDS
// kv_cache_types in common/arg.cpp.
constexpr std::array<std::string_view, 9> kCacheTypes{"f32",  "f16",    "bf16", "q8_0", "q4_0",
                                                      "q4_1", "iq4_nl", "q5_0", "q5_1"};

std::unexpected<Error> bad(const char* option, std::string reason) {
  return fail(ErrorCode::kInvalidArgument, std::move(reason), option);
}

Result<> in_range(const char* option, std::int64_t value, std::int64_t min, std::int64_t max) {
  if (value >= min && value <= max) return {};
  return bad(option, "is " + std::to_string(value) + ", must be from " + std::to_string(min) + " to " +
                         std::to_string(max));
}

Result<const GgmlType*> cache_type(const char* option, std::string_view name) {
  if (std::find(kCacheTypes.begin(), kCacheTypes.end(), name) == kCacheTypes.end()) {
    std::string known;
    for (const std::string_view type : kCacheTypes) known.append(known.empty() ? "" : ", ").append(type);
    return bad(option, "is not a cache type; there are " + known);
  }
  return ggml_type_named(name);
}

Result<> check(const EstimateOptions& o) {
  for (const Result<>& r :
       {in_range("ctx", o.ctx, 1, kContextMax), in_range("parallel", o.parallel, 1, kParallelMax),
        in_range("ubatch", o.ubatch, 1, kUbatchMax), in_range("devices", o.devices, 1, kDevicesMax),
        in_range("outputs-max", o.outputs_max, 0, kContextMax),
        in_range("alignment", o.alignment, 0, 1 << 20)}) {
    if (!r) return r;
  }
  if (o.split.empty()) return {};
  if (o.split.size() != static_cast<std::size_t>(o.devices))
    return bad("split", "needs one number per device");
  std::int64_t sum = 0;
  for (const std::int64_t share : o.split) {
    if (Result<> r = in_range("split", share, 0, std::int64_t{1} << 40); !r) return r;
    sum += share;
  }
  if (sum == 0) return bad("split", "adds up to 0");
  return {};
}

// Cells and tokens as llama_context and llama_kv_cache_iswa compute them.
Result<Setting> adjust(const ModelFacts& model, const EstimateOptions& o) {
  if (Result<> r = check(o); !r) return std::unexpected(r.error());
  Setting s;
  s.options = &o;
  const Result<const GgmlType*> k = cache_type("cache-type-k", o.cache_type_k);
  if (!k) return std::unexpected(k.error());
  const Result<const GgmlType*> v = cache_type("cache-type-v", o.cache_type_v);
  if (!v) return std::unexpected(v.error());
  s.type_k = *k;
  s.type_v = *v;
  // llama_init_from_model in llama-context.cpp.
  s.flash_attn = o.flash_attn && model.architecture != "grok";
  if (s.type_v->quantised && !s.flash_attn) {
    return fail(ErrorCode::kRefused,
                "a quantised V cache needs flash attention: the engine refuses to start without it",
                "cache-type-v");
  }
  if (model.graph.mla_rank > 0 && s.type_k != s.type_v) {
    return fail(ErrorCode::kRefused, "a model with latent attention needs the same type for K and V",
                "cache-type-v");
  }
  s.pad_rows = o.backend != EstimateBackend::kVulkan;
  s.alignment = o.alignment > 0 ? o.alignment : 128;
  const std::int64_t padded = round_up(o.ctx, 256);
  s.streams = o.kv_unified ? 1 : o.parallel;
  s.cells = o.kv_unified ? padded : round_up(std::max<std::int64_t>(padded / o.parallel, 1), 256);
  const std::int64_t sequences = o.kv_unified ? o.parallel : 1;
  const std::int64_t context = s.cells * s.streams;
  s.tokens = std::min<std::int64_t>({o.ubatch, kBatch, context});
  s.window_cells =
      round_up(std::min(s.cells, model.window * sequences + std::min<std::int64_t>(o.ubatch, kBatch)), 256);
  const std::int64_t outputs = o.outputs_max > 0 ? o.outputs_max : (o.embeddings ? s.tokens : o.parallel);
  s.outputs = std::min(s.tokens, outputs);
  const std::int64_t blocks = std::max<std::int64_t>(model.n_blocks, model.n_layers);
  s.device_of_layer = vram::layer_devices(model.n_layers, blocks, o.devices, o.split);
  return s;
}

// Upper bound for what the table does not know: every tensor on a device, both caches at full length and full
// width in every layer, twice the sum of all that a graph could hold at once, logits of the whole
// micro-batch.
void add_generic(const ModelFacts& model, const Setting& s, Estimate& out) {
  const GraphFacts& g = model.graph;
  Bytes cache_all = 0;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    const LayerFacts& l = model.layers[i];
    const std::int64_t width =
        std::max({l.heads, l.kv_heads, std::int64_t{1}}) == 1 && l.head_k == 0
            ? model.n_embd
            : std::max<std::int64_t>(l.kv_heads, 1) * std::max({l.head_k, l.head_v, std::int64_t{1}});
    const Bytes rows = s.streams * s.cells;
    // f16 bounds every quantised type's row, too (an indexer's cache is not always of the cache's type).
    const std::int64_t element = s.type_k->number == 0 || s.type_v->number == 0 ? 4 : 2;
    const Bytes side = round_up(rows * (width + model.indexer_width) * element, s.alignment);
    DeviceEstimate& device = out.devices[static_cast<std::size_t>(s.device_of_layer[i])];
    device.kv += 2 * side;
    device.recurrent +=
        round_up(8 * static_cast<Bytes>(s.options->parallel) * (l.recurrent_r + l.recurrent_s), s.alignment);
    device.largest_cache_tensor = std::max(device.largest_cache_tensor, side);
    cache_all = std::max(cache_all, side);
  }
  const std::int64_t expert =
      std::max<std::int64_t>(g.experts_used, 1) * (g.expert_feed_forward + model.n_embd);
  const std::int64_t scores = s.flash_attn ? 0 : std::max<std::int64_t>(g.heads, 1) * s.cells;
  const std::int64_t width = 3 * g.feed_forward + 4 * expert + 3 * g.shared_feed_forward + 8 * model.n_embd +
                             4 * g.q_width + 4 * g.kv_width + 2 * scores + model.indexer_width * 64 +
                             8 * g.ssm_inner + g.heads * (2 * g.mla_rank + 2 * g.mla_rope + g.mla_key);
  const Bytes masks = 4 * 4 * s.tokens * s.cells;
  const Bytes compute = masks + 2 * 4 * s.tokens * width + 4 * s.tokens * (model.n_vocab + model.n_embd);
  for (DeviceEstimate& device : out.devices) device.compute = compute;
  out.host_compute = masks + 32 * s.tokens * model.n_embd;
  out.host_output = 4 * model.n_vocab * s.options->parallel;
}

// mmproj: its tensors and, before a measurement, the scores and activations of one image (an upper guess).
void add_projector(const ModelFacts& model, Estimate& out) {
  const std::int64_t patches = std::max<std::int64_t>(model.context_length, 1);
  out.devices[0].compute = 4 * patches * (model.graph.heads * patches + 6 * model.n_embd);
}

void add_operands(const ModelFacts& model, const Setting& s, Estimate& out) {
  Bytes largest = model.largest_tensor_bytes;
  for (const DeviceEstimate& d : out.devices) largest = std::max(largest, d.largest_cache_tensor);
  if (!s.flash_attn) largest = std::max(largest, 4 * s.tokens * model.graph.heads * s.cells);
  out.largest_operand = largest;
}

}  // namespace

Bytes Estimate::device_total() const {
  Bytes total = 0;
  for (const DeviceEstimate& device : devices) total += device.total();
  return total;
}

Result<Estimate> estimate(const ModelFacts& model, const EstimateOptions& options) {
  const Result<Setting> setting = adjust(model, options);
  if (!setting) return std::unexpected(setting.error());
  Estimate out;
  out.architecture = model.architecture;
  out.method = model.known ? EstimateMethod::kFormula : EstimateMethod::kGeneric;
  out.devices.resize(static_cast<std::size_t>(options.devices));
  out.ctx = setting->cells * setting->streams;
  out.ctx_per_slot = setting->cells;
  for (const int device : setting->device_of_layer) ++out.devices[static_cast<std::size_t>(device)].layers;
  vram::add_weights(model, *setting, out);
  if (model.family == ModelFamily::kProjector) {
    add_projector(model, out);
  } else if (!model.known) {
    add_generic(model, *setting, out);
  } else {
    if (Result<> r = vram::add_cache(model, *setting, out); !r) return std::unexpected(r.error());
    vram::add_compute(model, *setting, out);
  }
  add_operands(model, *setting, out);
  return out;
}

bool prefer_token_embd_on_device(const ModelFacts& model, int devices) {
  return model.token_embd_bytes > 0 && (model.tied_output || devices > 1);
}

std::string_view to_string(EstimateMethod method) {
  switch (method) {
    case EstimateMethod::kFormula:
      return "formula";
    case EstimateMethod::kGeneric:
      return "generic";
  }
  return "";
}

std::string_view to_string(EstimateBackend backend) {
  switch (backend) {
    case EstimateBackend::kCuda:
      return "cuda";
    case EstimateBackend::kHip:
      return "hip";
    case EstimateBackend::kVulkan:
      return "vulkan";
  }
  return "";
}

}  // namespace aiv
