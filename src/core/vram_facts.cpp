// From a parsed header to ModelFacts. Sources: llama.cpp v0.5.0, src/llama-model.cpp (load_hparams,
// load_tensors), src/llama-hparams.cpp (n_embd_r, n_embd_s, has_kv, is_mla), src/llama-arch.cpp (where a
// tensor belongs).
#include <algorithm>
#include <array>
#include <charconv>
#include <map>

#include "base/units.hpp"
#include "core/vram.hpp"
#include "core/vram_arch.hpp"
#include "core/vram_keys.hpp"

namespace aiv {
namespace {

constexpr std::int64_t kLayersMax = 512;  // LLAMA_MAX_LAYERS
constexpr std::int64_t kWidthMax = 1 << 22;
// What one layer may keep; far above any model, and low enough that no later product can overflow.
constexpr std::int64_t kCacheWidthMax = std::int64_t{1} << 24;
constexpr std::int64_t kStateMax = std::int64_t{1} << 36;
constexpr std::int64_t kHeadsMax = 1 << 16;
constexpr std::int64_t kRowPadding = 512;  // MATRIX_ROW_PADDING, ggml-cuda/common.cuh

class FactsBuilder {
 public:
  explicit FactsBuilder(const GgufHeader& header)
      : header_(header), keys_(header), row_(find_architecture(header.architecture)) {}

  Result<ModelFacts> run() {
    if (header_.split_count != header_.parts) {
      return fail(
          ErrorCode::kInvalidArgument,
          "this is one of " + std::to_string(header_.split_count) + " parts: read all of them together",
          header_.place_of_key("split.count"));
    }
    identity();
    if (facts_.family == ModelFamily::kProjector) {
      projector();
    } else {
      shape();
      if (keys_.ok()) layers();
      if (keys_.ok()) graph();
    }
    if (!keys_.ok()) return std::unexpected(keys_.error());
    if (Result<> r = tensors(); !r) return std::unexpected(r.error());
    finish();
    if (!keys_.ok()) return std::unexpected(keys_.error());
    return std::move(facts_);
  }

 private:
  std::string text(std::string_view key) const {
    const GgufValue* value = header_.find(key);
    const auto* string = value == nullptr ? nullptr : std::get_if<std::string>(value);
    return string == nullptr ? std::string() : printable(*string);
  }

  void identity() {
    facts_.architecture = printable(header_.architecture);
    facts_.name = text("general.name");
    facts_.size_label = text("general.size_label");
    facts_.file_bytes = static_cast<Bytes>(header_.file_bytes);
    facts_.has_chat_template = header_.find("tokenizer.chat_template") != nullptr;
    facts_.known = row_ != nullptr;
    facts_.family = row_ != nullptr ? row_->family : ModelFamily::kUnknown;
    if (header_.architecture == "clip") {
      facts_.family = ModelFamily::kProjector;
      facts_.known = false;
    }
  }

  // A file of tensors beside a model (mmproj): only its vision tower's sizes matter.
  void projector() {
    facts_.n_embd = keys_.integer("vision.embedding_length", 0, 0, kWidthMax);
    facts_.graph.heads = keys_.integer("vision.attention.head_count", 0, 0, kHeadsMax);
    facts_.graph.feed_forward = keys_.integer("vision.feed_forward_length", 0, 0, kWidthMax);
    const std::int64_t image = keys_.integer("vision.image_size", 0, 0, 1 << 16);
    const std::int64_t patch = keys_.integer("vision.patch_size", 0, 0, 1 << 16);
    if (patch > 0) facts_.context_length = (image / patch) * (image / patch);
  }

  void shape() {
    blocks_ = keys_.required("block_count", 1, kLayersMax);
    const std::int64_t nextn = keys_.integer("nextn_predict_layers", 0, 0, blocks_);
    facts_.n_blocks = blocks_;
    facts_.n_layers = blocks_ - nextn;
    facts_.indexer_width = keys_.integer("attention.indexer.key_length", 0, 0, kWidthMax);
    facts_.delta_net = row_ != nullptr && row_->recurrent == RecurrentRule::kInterval &&
                       header_.architecture != "minimax-01";
    facts_.n_embd = keys_.required("embedding_length", 1, kWidthMax);
    facts_.context_length = keys_.integer("context_length", 0, 0, std::int64_t{1} << 40);
    if (keys_.ok() && facts_.n_layers == 0)
      keys_.fail_at("nextn_predict_layers", "leaves no layer of the model itself");
  }

  bool attention_needed() const {
    return row_ != nullptr && (row_->family == ModelFamily::kAttention || row_->family == ModelFamily::kMla ||
                               row_->family == ModelFamily::kEncoder || row_->family == ModelFamily::kHybrid);
  }

  void layers() {
    const auto count = static_cast<std::size_t>(blocks_);
    heads_ = keys_.per_layer("attention.head_count", 0, kHeadsMax, count);
    kv_heads_ = keys_.per_layer("attention.head_count_kv", -1, kHeadsMax, count);
    ff_ = keys_.per_layer("feed_forward_length", 0, kWidthMax, count);
    if (!keys_.ok()) return;
    for (std::size_t i = 0; i < count; ++i) {
      if (kv_heads_[i] < 0) kv_heads_[i] = heads_[i];
    }
    const std::int64_t heads_widest = *std::max_element(heads_.begin(), heads_.end());
    if (attention_needed() && heads_widest == 0)
      return keys_.fail_at("attention.head_count", "is 0 or missing");
    // llama.cpp takes the default head size from the first layer.
    const std::int64_t head =
        heads_[0] > 0 ? facts_.n_embd / heads_[0] : (heads_widest > 0 ? facts_.n_embd / heads_widest : 0);
    head_k_ = keys_.integer("attention.key_length", head, 1, kWidthMax);
    head_v_ = keys_.integer("attention.value_length", head, 1, kWidthMax);
    head_k_window_ = keys_.integer("attention.key_length_swa", head_k_, 1, kWidthMax);
    head_v_window_ = keys_.integer("attention.value_length_swa", head_v_, 1, kWidthMax);
    mla_ = keys_.integer("attention.key_length_mla", 0, 0, kWidthMax) > 0 &&
           keys_.integer("attention.value_length_mla", 0, 0, kWidthMax) > 0;
    recurrent_sizes();
    if (r_ > kStateMax || s_ > kStateMax)
      return keys_.fail_at("ssm.state_size", "the recurrent state is too large");
    window();
    recurrent_pattern();
    if (!keys_.ok()) return;
    for (std::size_t i = 0; i < static_cast<std::size_t>(facts_.n_layers); ++i)
      facts_.layers.push_back(layer(i));
  }

  // n_embd_r and n_embd_s of llama-hparams.cpp.
  void recurrent_sizes() {
    GraphFacts& g = facts_.graph;
    g.ssm_conv = keys_.integer("ssm.conv_kernel", 0, 0, 1024);
    g.ssm_inner = keys_.integer("ssm.inner_size", 0, 0, kWidthMax);
    g.ssm_state = keys_.integer("ssm.state_size", 0, 0, 1 << 20);
    g.ssm_groups = keys_.integer("ssm.group_count", 0, 0, kHeadsMax);
    g.ssm_dt_rank = keys_.integer("ssm.time_step_rank", 0, 0, kWidthMax);
    const std::int64_t wkv = keys_.integer("wkv.head_size", 0, 0, kWidthMax);
    const std::int64_t shift = keys_.integer("token_shift_count", 2, 0, 1024);
    const std::int64_t short_conv = keys_.integer("shortconv.l_cache", 0, 0, 1024);
    const std::int64_t kda = keys_.integer("kda.head_dim", 0, 0, 1 << 16);
    if (wkv > 0) {
      r_ = shift * facts_.n_embd;
      s_ = facts_.n_embd * wkv;
    } else if (short_conv > 0) {
      r_ = facts_.n_embd * (short_conv - 1);
      s_ = g.ssm_state * g.ssm_inner;
    } else if (kda > 0) {
      r_ = 3 * (g.ssm_conv > 0 ? g.ssm_conv - 1 : 3) * heads_[0] * kda;
      s_ = kda * kda * heads_[0];
    } else {
      r_ = (g.ssm_conv > 0 ? g.ssm_conv - 1 : 0) * (g.ssm_inner + 2 * g.ssm_groups * g.ssm_state);
      s_ = header_.architecture == "minimax-01" ? head_k_ * head_k_ * heads_[0] : g.ssm_state * g.ssm_inner;
    }
  }

  void window() {
    windowed_.assign(static_cast<std::size_t>(blocks_), false);
    if (row_ != nullptr && row_->family == ModelFamily::kEncoder) {
      // No cache, but a second mask (modern-bert and gemma-embedding; other encoders do not read the key).
      const bool reads = header_.architecture == "modern-bert" || header_.architecture == "gemma-embedding";
      facts_.window = reads ? keys_.integer("attention.sliding_window", 0, 0, std::int64_t{1} << 31) : 0;
      return;
    }
    if (row_ == nullptr || row_->window == WindowRule::kNone) return;
    std::int64_t size =
        keys_.integer("attention.sliding_window", row_->default_window, 0, std::int64_t{1} << 31);
    if (header_.architecture == "llama4" && size > 0) size = 8192;
    if (header_.architecture == "smallthinker" && size > 0) size = 4096;
    if (header_.architecture == "exaone4" && facts_.n_layers != 64) return;
    if (size == 0) return;
    facts_.window = size;
    const auto count = static_cast<std::size_t>(blocks_);
    if (row_->window == WindowRule::kAllAttention) {
      for (std::size_t i = 0; i < count; ++i) windowed_[i] = kv_heads_[i] > 0;
      return;
    }
    const std::string_view key = "attention.sliding_window_pattern";
    if (keys_.is_array(key) || row_->window == WindowRule::kArray) {
      if (!keys_.has(key))
        return keys_.fail_at(key, "is missing: the engine cannot tell which layers have the window");
      // llama.cpp wants one element per layer, with or without the prediction layers.
      const auto flags = keys_.per_layer(key, 0, 1, static_cast<std::size_t>(facts_.n_layers));
      for (std::size_t i = 0; i < flags.size(); ++i) windowed_[i] = flags[i] != 0;
      return;
    }
    const std::int64_t period = keys_.integer(key, row_->period, 0, kLayersMax);
    for (std::int64_t i = 0; i < facts_.n_layers; ++i) {
      const bool full =
          period != 0 &&
          (row_->window == WindowRule::kPeriodFullFirst ? i % period == 0 : i % period == period - 1);
      windowed_[static_cast<std::size_t>(i)] = !full;
    }
  }

  void recurrent_pattern() {
    const auto count = static_cast<std::size_t>(facts_.n_layers);
    attention_.assign(count, true);
    recurrent_.assign(count, false);
    if (row_ == nullptr) return;
    std::int64_t interval = 4;
    std::vector<std::int64_t> listed;
    if (row_->recurrent == RecurrentRule::kInterval) {
      interval = keys_.integer("full_attention_interval", header_.architecture == "minimax-01" ? 8 : 4, 1,
                               kLayersMax);
      if (keys_.has("attention.recurrent_layers"))
        listed = keys_.per_layer("attention.recurrent_layers", 0, 1, count);
    }
    for (std::size_t i = 0; i < count; ++i) {
      const bool no_kv = kv_heads_[i] == 0;
      switch (row_->recurrent) {
        case RecurrentRule::kNone:
          break;
        case RecurrentRule::kAll:
          recurrent_[i] = true;
          attention_[i] = false;
          break;
        case RecurrentRule::kNoKvHeads:
          recurrent_[i] = no_kv;
          attention_[i] = !no_kv;
          break;
        case RecurrentRule::kNoKvHeadsNoFf:
          recurrent_[i] = no_kv && ff_[i] == 0;
          attention_[i] = !no_kv && ff_[i] == 0;
          break;
        case RecurrentRule::kInterval:
          recurrent_[i] =
              listed.empty() ? (static_cast<std::int64_t>(i) + 1) % interval != 0 : listed[i] != 0;
          attention_[i] = !recurrent_[i];
          break;
        case RecurrentRule::kBoth:
          recurrent_[i] = true;
          break;
      }
    }
    shared_kv();
  }

  // Gemma-3n and Gemma-4: the last layers read an earlier layer's cache (gemma3n.cpp, gemma4.cpp:
  // n_layer_kv_from_start).
  void shared_kv() {
    std::int64_t own = facts_.n_layers;
    if (header_.architecture == "gemma3n") own = 20;
    if (header_.architecture == "gemma4")
      own = blocks_ - keys_.integer("attention.shared_kv_layers", 0, 0, blocks_);
    for (std::int64_t i = own; i < facts_.n_layers; ++i) attention_[static_cast<std::size_t>(i)] = false;
    reuses_kv_ = own < facts_.n_layers;
  }

  LayerFacts layer(std::size_t i) {
    LayerFacts l;
    l.window = windowed_[i];
    l.heads = heads_[i];
    l.kv_heads = kv_heads_[i];
    l.head_k = l.window ? head_k_window_ : head_k_;
    l.head_v = l.window ? head_v_window_ : head_v_;
    if (l.kv_heads * std::max(l.head_k, l.head_v) > kCacheWidthMax ||
        l.heads * std::max(l.head_k, l.head_v) > kCacheWidthMax) {
      keys_.fail_at("attention.head_count", "times the head size is too large");
    }
    if (attention_[i] && facts_.family != ModelFamily::kEncoder) {
      l.k_width = l.kv_heads * l.head_k;
      l.v_width = mla_ ? 0 : l.kv_heads * l.head_v;
    }
    if (recurrent_[i]) {
      l.recurrent_r = r_;
      l.recurrent_s = s_;
    }
    return l;
  }

  void graph() {
    GraphFacts& g = facts_.graph;
    const auto count = static_cast<std::size_t>(facts_.n_layers);
    for (std::size_t i = 0; i < count; ++i) {
      const LayerFacts& l = facts_.layers[i];
      facts_.v_width_widest = std::max(facts_.v_width_widest, mla_ ? 0 : l.kv_heads * l.head_v);
      if (!attention_[i] && !reuses_kv_) continue;
      g.heads = std::max(g.heads, l.heads);
      g.q_width = std::max(
          g.q_width,
          l.heads * (mla_ ? keys_.integer("attention.value_length_mla", 0, 0, kWidthMax) : l.head_v));
      g.kv_width = std::max(g.kv_width, l.kv_heads * std::max(l.head_k, l.head_v));
    }
    for (std::size_t i = 0; i < count; ++i) ff_widest_ = std::max(ff_widest_, ff_[i]);
    const auto used = keys_.per_layer("expert_used_count", 0, kHeadsMax, count);
    const auto expert_ff = keys_.per_layer("expert_feed_forward_length", 0, kWidthMax, count);
    g.experts = keys_.integer("expert_count", 0, 0, kHeadsMax);
    g.experts_used = *std::max_element(used.begin(), used.end());
    g.expert_feed_forward = *std::max_element(expert_ff.begin(), expert_ff.end());
    if (g.expert_feed_forward == 0) g.expert_feed_forward = ff_widest_;
    if (mla_) {
      g.mla_rank = keys_.integer("attention.kv_lora_rank", 0, 0, kWidthMax);
      g.mla_rope = keys_.integer("rope.dimension_count", 0, 0, kWidthMax);
      g.mla_key = keys_.integer("attention.key_length_mla", 0, 0, kWidthMax);
    }
  }

  // "blk.12.attn_q.weight" -> 12, -1 for other names, -2 for a number that is none.
  static std::int64_t layer_of(std::string_view name) {
    if (!name.starts_with("blk.")) return -1;
    name.remove_prefix(4);
    std::int64_t number = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), number);
    if (error != std::errc() || end == name.data() || end == name.data() + name.size() || *end != '.' ||
        number < 0)
      return -2;
    return number;
  }

  // LLM_TENSOR_INFOS in llama-arch.cpp: LLM_TENSOR_LAYER_INPUT stays on the host.
  static TensorPlace place_of(std::string_view name) {
    for (const std::string_view host :
         {"token_embd.weight", "position_embd.weight", "token_types.weight", "per_layer_token_embd.weight"}) {
      if (name == host) return TensorPlace::kHost;
    }
    if (name.starts_with("rope_freqs.") || name.starts_with("rope_factors_")) return TensorPlace::kShared;
    return TensorPlace::kOutput;
  }

  Result<> tensors() {
    std::vector<bool> seen(static_cast<std::size_t>(blocks_), false);
    facts_.tensors.reserve(header_.tensors.size());
    for (const GgufTensor& tensor : header_.tensors) {
      TensorFacts t;
      t.bytes = static_cast<Bytes>(tensor.bytes);
      const auto row = static_cast<std::int64_t>(tensor.dims[0]);
      if (tensor.type->quantised && row % kRowPadding != 0) {
        t.row_padding = (kRowPadding - row % kRowPadding) / tensor.type->block * tensor.type->block_bytes;
      }
      const std::int64_t layer = facts_.family == ModelFamily::kProjector ? -1 : layer_of(tensor.name);
      if (layer == -2 || layer >= blocks_) {
        return fail(ErrorCode::kCorrupt, "there is no such layer: block_count is " + std::to_string(blocks_),
                    "tensor " + printable(tensor.name) + ", offset " + std::to_string(tensor.entry_offset));
      }
      if (layer >= 0) {
        seen[static_cast<std::size_t>(layer)] = true;
        t.place = layer < facts_.n_layers ? TensorPlace::kLayer : TensorPlace::kNotLoaded;
        t.layer = static_cast<std::int32_t>(layer);
      } else {
        t.place = facts_.family == ModelFamily::kProjector ? TensorPlace::kOutput : place_of(tensor.name);
      }
      count(tensor, t);
      facts_.tensors.push_back(t);
    }
    for (std::int64_t i = 0; i < facts_.n_layers; ++i) {
      if (seen[static_cast<std::size_t>(i)] || facts_.family == ModelFamily::kUnknown) continue;
      return fail(ErrorCode::kCorrupt,
                  "is " + std::to_string(blocks_) + ", but layer " + std::to_string(i) + " has no tensors",
                  header_.place_of_key(header_.architecture + ".block_count"));
    }
    return check_embedding();
  }

  void count(const GgufTensor& tensor, TensorFacts& t) {
    const std::string_view name = tensor.name;
    std::int64_t elements = 1;
    for (const std::uint64_t dim : tensor.dims) elements *= static_cast<std::int64_t>(dim);
    facts_.parameters += elements;
    facts_.tensor_bytes += t.bytes;
    by_type_[tensor.type->name] += t.bytes;
    if (t.place != TensorPlace::kNotLoaded)
      facts_.largest_tensor_bytes = std::max(facts_.largest_tensor_bytes, t.bytes);
    if (name == "token_embd.weight") {
      t.token_embd = true;
      facts_.token_embd_bytes = t.bytes;
      facts_.n_vocab = static_cast<std::int64_t>(tensor.dims[1]);
      embedding_at_ = tensor.entry_offset;
      embedding_width_ = static_cast<std::int64_t>(tensor.dims[0]);
    }
    if (name == "output.weight") has_output_ = true;
    if (name.starts_with("cls.")) has_classifier_ = true;
    if (t.place != TensorPlace::kLayer) return;
    GraphFacts& g = facts_.graph;
    const auto rows = static_cast<std::int64_t>(tensor.dims[1]);
    if (name.ends_with(".ffn_up.weight")) {
      // A fused gate and up projection (phi3, glm4) is twice as wide as the layer says.
      const std::int64_t said = ff_[static_cast<std::size_t>(t.layer)];
      g.feed_forward = std::max(g.feed_forward, said > 0 ? said : rows);
      if (said > 0 && rows == 2 * said) g.gated = true;
    }
    if (name.ends_with(".ffn_up_shexp.weight")) g.shared_feed_forward = std::max(g.shared_feed_forward, rows);
    if (name.ends_with(".attn_qkv.weight")) g.fused_qkv = true;
    if (name.ends_with(".ffn_gate.weight")) g.gated = true;
    for (const std::string_view norm :
         {".ffn_norm.weight", ".ffn_norm", ".post_attention_norm.weight", ".post_ffw_norm.weight"}) {
      if (name.ends_with(norm)) second_norm_ = true;
    }
  }

  Result<> check_embedding() {
    if (facts_.family == ModelFamily::kProjector) return {};
    if (facts_.token_embd_bytes == 0) {
      if (facts_.family == ModelFamily::kUnknown) return {};
      return fail(ErrorCode::kCorrupt, "is missing",
                  "tensor token_embd.weight, offset " + std::to_string(header_.tensors[0].entry_offset));
    }
    if (embedding_width_ != facts_.n_embd && facts_.known) {
      return fail(ErrorCode::kCorrupt,
                  "has rows of " + std::to_string(embedding_width_) + ", but embedding_length is " +
                      std::to_string(facts_.n_embd),
                  "tensor token_embd.weight, offset " + std::to_string(embedding_at_));
    }
    return {};
  }

  void finish() {
    // One norm per layer for both halves: Cohere, Phi-2, Falcon.
    facts_.graph.parallel_residual =
        facts_.family == ModelFamily::kAttention && facts_.graph.feed_forward > 0 && !second_norm_;
    // gemma-embedding is an encoder with a (tied) output in llama.cpp; the BERTs have none.
    const bool has_head = facts_.family != ModelFamily::kEncoder || header_.architecture == "gemma-embedding";
    facts_.tied_output =
        facts_.family != ModelFamily::kProjector && has_head && !has_output_ && facts_.token_embd_bytes > 0;
    Bytes most = 0;
    for (const auto& [name, bytes] : by_type_) {
      if (bytes > most) {
        most = bytes;
        facts_.quantisation = name;
      }
    }
    // enum llama_pooling_type: 1 mean, 2 first token, 3 last token, 4 rank.
    const std::int64_t pooling = keys_.integer("pooling_type", -1, -1, 4);
    if (pooling == 4 || has_classifier_) {
      facts_.kind = ModelKind::kRerank;
    } else if (facts_.family == ModelFamily::kEncoder || pooling >= 1 ||
               header_.architecture == "llama-embed") {
      facts_.kind = ModelKind::kEmbedding;
    }
  }

  const GgufHeader& header_;
  ArchKeys keys_;
  const ArchitectureRow* row_;
  ModelFacts facts_;
  std::int64_t blocks_ = 0;
  std::vector<std::int64_t> heads_, kv_heads_, ff_;
  std::vector<bool> windowed_, attention_, recurrent_;
  std::int64_t head_k_ = 0, head_v_ = 0, head_k_window_ = 0, head_v_window_ = 0;
  std::int64_t r_ = 0, s_ = 0;
  std::int64_t ff_widest_ = 0;
  std::int64_t embedding_width_ = 0;
  std::uint64_t embedding_at_ = 0;
  bool second_norm_ = false, mla_ = false, reuses_kv_ = false, has_output_ = false, has_classifier_ = false;
  std::map<std::string, Bytes> by_type_;
};

}  // namespace

Result<ModelFacts> model_facts(const GgufHeader& header) {
  return FactsBuilder(header).run();
}

Result<ModelFacts> read_model(ByteSource& source) {
  Result<GgufHeader> header = read_gguf(source);
  if (!header) return std::unexpected(header.error());
  return model_facts(*header);
}

}  // namespace aiv
