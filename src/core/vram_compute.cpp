// The compute buffer: the peak of one worst-case graph. A formula, not a simulation of the allocator: ggml's
// graph allocator keeps a handful of tensors of the widest operation alive at once, so the largest operation
// of the model, with what lives beside it, decides. The terms were fitted to llama.cpp v0.5.0's own dry run
// (no_alloc, CUDA's rules) over 27 shapes and 503 device figures: median error 0.01 MiB, p95 about 10,
// worst 32.
#include <algorithm>

#include "core/vram_internal.hpp"

namespace aiv::vram {
namespace {

// Gate, up and their product, or up alone (in place). Checked on starcoder2 and phi2 shapes: exact.
std::int64_t feed_forward_width(const GraphFacts& g) {
  return (g.gated ? 3 : 1) * g.feed_forward;
}

// F32 elements per token of the micro-batch in the widest moment of one layer.
std::int64_t widest_operation(const ModelFacts& model, const Setting& setting) {
  const GraphFacts& g = model.graph;
  const std::int64_t embd = model.n_embd;
  const bool hybrid = model.family == ModelFamily::kHybrid;
  // The query lives on beside the feed-forward part unless it is a view of a fused projection.
  const std::int64_t q = hybrid || g.fused_qkv ? 0 : g.q_width;
  std::int64_t widest = 0;
  if (g.feed_forward > 0) {
    // What the attention part still holds meanwhile. With a parallel residual both halves live side by side;
    // without flash attention one more copy (checked on cohere2 and phi2 shapes, exact there).
    const std::int64_t beside =
        g.parallel_residual ? 3 * embd + g.q_width + (setting.flash_attn ? 0 : embd) : 2 * embd + q;
    widest = std::max(widest, feed_forward_width(g) + beside);
  }
  if (g.experts > 0) {
    const std::int64_t e = g.experts_used * g.expert_feed_forward;
    const std::int64_t combined = embd > 2 * g.expert_feed_forward ? g.experts_used * embd : 0;
    widest = std::max(widest, 3 * e + 2 * embd + (q <= e ? q : q - e) + combined);
  }
  if (g.shared_feed_forward > 0) widest = std::max(widest, 3 * g.shared_feed_forward + 3 * embd + q);
  const std::int64_t mla =
      g.mla_rank > 0 ? 3 * embd + g.heads * (2 * g.mla_rank + 2 * g.mla_rope + g.mla_key) : 0;
  widest = std::max(widest, mla);
  if (!setting.flash_attn && g.heads > 0) {
    // Several streams need MLA's compressed queries and results contiguous as well (seen at one shape, 16
    // heads of 512).
    const std::int64_t scores =
        g.heads * (setting.cells + (mla > 0 && setting.streams > 1 ? 2 * g.mla_rank : 0));
    widest = std::max(
        widest,
        scores + (mla > 0 ? mla : (g.parallel_residual ? 4 : 2) * embd + 2 * g.q_width + 2 * g.kv_width));
  }
  return widest;
}

// Recurrent layers: the projections of the whole micro-batch and the states of all sequences.
std::int64_t recurrent_operation(const ModelFacts& model, const Setting& setting) {
  const GraphFacts& g = model.graph;
  std::int64_t r = 0;
  std::int64_t s = 0;
  for (const LayerFacts& layer : model.layers) {
    r = std::max(r, layer.recurrent_r);
    s = std::max(s, layer.recurrent_s);
  }
  if (s == 0 && r == 0) return 0;
  const std::int64_t sequences = setting.options->parallel;
  const std::int64_t d = g.ssm_inner;
  const std::int64_t c = d + 2 * g.ssm_groups * g.ssm_state;
  if (model.delta_net) return d + 3 * c + sequences * (2 * s + 2 * r) / setting.tokens;
  return (2 * d + 2 * g.ssm_groups * g.ssm_state + g.ssm_dt_rank) + 3 * d + 2 * c +
         sequences * (s + 2 * r) / setting.tokens;
}

Bytes masks_bytes(const ModelFacts& model, const Setting& setting) {
  const std::int64_t element = setting.flash_attn ? 2 : 4;
  if (model.family == ModelFamily::kEncoder) {
    return setting.tokens * setting.tokens * element * (model.window > 0 ? 2 : 1);
  }
  bool full = false;
  bool window = false;
  for (const LayerFacts& layer : model.layers) {
    if (layer.k_width == 0) continue;
    (layer.window ? window : full) = true;
  }
  if (!full && !window) return 0;
  // llama_kv_cache_iswa makes the mask of the full cache even where no layer is full.
  return setting.tokens * element * (setting.cells + (window ? setting.window_cells : 0));
}

std::int64_t encoder_operation(const ModelFacts& model, const Setting& setting) {
  const GraphFacts& g = model.graph;
  std::int64_t dense = feed_forward_width(g) + 2 * model.n_embd;
  if (g.experts > 0)
    dense = std::max(dense, g.experts_used * (g.expert_feed_forward + model.n_embd) + 2 * model.n_embd);
  // Views into a fused projection keep all of it alive (nomic-bert and modern-bert shapes: exact).
  const std::int64_t projections = (g.fused_qkv ? 7 : 5) * model.n_embd;
  return setting.flash_attn ? dense : std::max(dense, g.heads * setting.tokens + projections);
}

// Several devices without a tensor override: the engine switches pipeline parallelism on, with four copies of
// every input (llama-context.cpp, ggml-backend.cpp: GGML_SCHED_MAX_COPIES).
Bytes pipeline_bytes(const ModelFacts& model, const Setting& setting, std::size_t device, Bytes masks) {
  const bool pure_recurrent = model.family == ModelFamily::kMamba || model.family == ModelFamily::kMamba2 ||
                              model.family == ModelFamily::kRwkv;
  // In half tokens, because the second figure of the recurrent models is 23.5.
  const std::int64_t copies_x2 = pure_recurrent ? (device == 0 ? 22 : 47) : (device == 0 ? 8 : 16);
  return 3 * masks + 4 * setting.tokens * model.n_embd * copies_x2 / 2;
}

// f16 copies of K and V of the largest layer: CUDA and HIP kernels other than "vec" need them when the cache
// is quantised (ggml-cuda/fattn.cu, get_alloc_size).
Bytes flash_scratch(const ModelFacts& model, const Setting& setting, int device) {
  const bool quantised = setting.type_k->quantised || setting.type_v->quantised;
  if (!setting.options->flash_attention_scratch || !quantised || !setting.flash_attn || !setting.pad_rows)
    return 0;
  Bytes widest = 0;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    if (setting.device_of_layer[i] != device) continue;
    const LayerFacts& l = model.layers[i];
    widest = std::max(widest, 2 * setting.streams * (l.window ? setting.window_cells : setting.cells) *
                                  (l.k_width + l.v_width));
  }
  return widest;
}

}  // namespace

void add_compute(const ModelFacts& model, const Setting& setting, Estimate& out) {
  const Bytes masks = masks_bytes(model, setting);
  const bool encoder = model.family == ModelFamily::kEncoder;
  const std::int64_t widest =
      encoder ? encoder_operation(model, setting)
              : std::max(widest_operation(model, setting), recurrent_operation(model, setting));
  const Bytes body = masks + 4 * setting.tokens * (widest + 5);
  const Bytes logits = encoder ? 0 : 4 * setting.outputs * (model.n_vocab + model.n_embd);
  const bool pipeline = out.devices.size() > 1 && !setting.options->token_embd_on_device;
  for (std::size_t d = 0; d < out.devices.size(); ++d) {
    Bytes compute = std::max(body, logits);
    if (pipeline) compute += pipeline_bytes(model, setting, d, masks);
    out.devices[d].compute = compute + flash_scratch(model, setting, static_cast<int>(d));
  }
  const std::int64_t inputs = setting.options->token_embd_on_device ? 4 : 8;
  out.host_compute = (pipeline ? 4 : 1) * masks + inputs * setting.tokens * model.n_embd;
  out.host_output = encoder ? 0 : 4 * model.n_vocab * setting.options->parallel;
}

}  // namespace aiv::vram
