// Headers of well-known models with their real shapes and quantisation mixes, for figures that are written
// into tests. Data is not held: read them through SparseSource.
#pragma once
#include <string>

#include "gguf_builder.hpp"

namespace aiv::test {

// The layers to which the _K_M mixes give a finer type for attn_v and ffn_down (llama-quant.cpp,
// use_more_bits).
inline bool gets_more_bits(std::uint32_t layer, std::uint32_t layers) {
  return layer < layers / 8 || layer >= 7 * layers / 8 || (layer - layers / 8) % 3 == 2;
}

struct KMixShape {
  std::string architecture;
  std::uint32_t layers, embd, ff, heads, kv_heads, head_dim, context, vocab;
  bool tied = false, qk_norm = false, post_norm = false;
  std::uint32_t window = 0;
  std::uint32_t experts = 0, experts_used = 0, expert_ff = 0;
};

inline void k_mix_feed_forward(GgufBuilder& b, const KMixShape& s, const std::string& blk, const char* fine) {
  if (s.experts == 0) {
    b.tensor(blk + "ffn_gate.weight", {s.embd, s.ff}, "q4_K")
        .tensor(blk + "ffn_up.weight", {s.embd, s.ff}, "q4_K");
    b.tensor(blk + "ffn_down.weight", {s.ff, s.embd}, fine);
    return;
  }
  b.tensor(blk + "ffn_gate_inp.weight", {s.embd, s.experts});
  b.tensor(blk + "ffn_gate_exps.weight", {s.embd, s.expert_ff, s.experts}, "q4_K");
  b.tensor(blk + "ffn_up_exps.weight", {s.embd, s.expert_ff, s.experts}, "q4_K");
  b.tensor(blk + "ffn_down_exps.weight", {s.expert_ff, s.embd, s.experts}, fine);
}

// Q4_K_M of a Llama, Qwen or Gemma shape, dense or with experts.
inline GgufBuilder k_mix(const KMixShape& s) {
  GgufBuilder b(s.architecture);
  b.u32(".block_count", s.layers).u32(".context_length", s.context).u32(".embedding_length", s.embd);
  b.u32(".feed_forward_length", s.ff)
      .u32(".attention.head_count", s.heads)
      .u32(".attention.head_count_kv", s.kv_heads);
  b.u32(".attention.key_length", s.head_dim).u32(".attention.value_length", s.head_dim);
  if (s.window > 0) b.u32(".attention.sliding_window", s.window);
  if (s.experts > 0) {
    b.u32(".expert_count", s.experts)
        .u32(".expert_used_count", s.experts_used)
        .u32(".expert_feed_forward_length", s.expert_ff);
  }
  b.tensor("token_embd.weight", {s.embd, s.vocab}, s.tied ? "q6_K" : "q4_K")
      .tensor("output_norm.weight", {s.embd});
  if (!s.tied) b.tensor("output.weight", {s.embd, s.vocab}, "q6_K");
  for (std::uint32_t i = 0; i < s.layers; ++i) {
    const std::string blk = "blk." + std::to_string(i) + ".";
    const char* fine = gets_more_bits(i, s.layers) ? "q6_K" : "q4_K";
    b.tensor(blk + "attn_norm.weight", {s.embd})
        .tensor(blk + "attn_q.weight", {s.embd, s.heads * s.head_dim}, "q4_K");
    b.tensor(blk + "attn_k.weight", {s.embd, s.kv_heads * s.head_dim}, "q4_K");
    b.tensor(blk + "attn_v.weight", {s.embd, s.kv_heads * s.head_dim}, fine);
    b.tensor(blk + "attn_output.weight", {s.heads * s.head_dim, s.embd}, "q4_K");
    if (s.qk_norm)
      b.tensor(blk + "attn_q_norm.weight", {s.head_dim}).tensor(blk + "attn_k_norm.weight", {s.head_dim});
    if (s.post_norm)
      b.tensor(blk + "post_attention_norm.weight", {s.embd}).tensor(blk + "post_ffw_norm.weight", {s.embd});
    b.tensor(blk + "ffn_norm.weight", {s.embd});
    k_mix_feed_forward(b, s, blk, fine);
  }
  return b;
}

inline GgufBuilder llama_3_1_8b() {
  return k_mix({.architecture = "llama",
                .layers = 32,
                .embd = 4096,
                .ff = 14336,
                .heads = 32,
                .kv_heads = 8,
                .head_dim = 128,
                .context = 131072,
                .vocab = 128256});
}

inline GgufBuilder gemma_3_4b() {
  return k_mix({.architecture = "gemma3",
                .layers = 34,
                .embd = 2560,
                .ff = 10240,
                .heads = 8,
                .kv_heads = 4,
                .head_dim = 256,
                .context = 131072,
                .vocab = 262208,
                .tied = true,
                .qk_norm = true,
                .post_norm = true,
                .window = 1024});
}

inline GgufBuilder qwen3_30b_a3b() {
  return k_mix({.architecture = "qwen3moe",
                .layers = 48,
                .embd = 2048,
                .ff = 6144,
                .heads = 32,
                .kv_heads = 4,
                .head_dim = 128,
                .context = 40960,
                .vocab = 151936,
                .qk_norm = true,
                .experts = 128,
                .experts_used = 8,
                .expert_ff = 768});
}

inline GgufBuilder mamba2_2_7b() {
  constexpr std::uint32_t embd = 2560, inner = 5120, state = 128, conv = inner + 2 * state,
                          heads = inner / 64;
  GgufBuilder b("mamba2");
  b.u32(".block_count", 64)
      .u32(".context_length", 1048576)
      .u32(".embedding_length", embd)
      .u32(".feed_forward_length", 0);
  b.u32(".attention.head_count", 0)
      .u32(".ssm.conv_kernel", 4)
      .u32(".ssm.inner_size", inner)
      .u32(".ssm.state_size", state);
  b.u32(".ssm.time_step_rank", heads).u32(".ssm.group_count", 1);
  b.tensor("token_embd.weight", {embd, 50288}, "q8_0").tensor("output_norm.weight", {embd});
  for (int i = 0; i < 64; ++i) {
    const std::string blk = "blk." + std::to_string(i) + ".";
    b.tensor(blk + "attn_norm.weight", {embd})
        .tensor(blk + "ssm_in.weight", {embd, 2 * inner + 2 * state + heads}, "q8_0");
    b.tensor(blk + "ssm_conv1d.weight", {4, conv})
        .tensor(blk + "ssm_conv1d.bias", {conv})
        .tensor(blk + "ssm_dt.bias", {heads});
    b.tensor(blk + "ssm_a", {1, heads})
        .tensor(blk + "ssm_d", {1, heads})
        .tensor(blk + "ssm_norm.weight", {inner, 1});
    b.tensor(blk + "ssm_out.weight", {inner, embd}, "q8_0");
  }
  return b;
}

inline void deepseek_v2_lite_layer(GgufBuilder& b, std::uint32_t i) {
  constexpr std::uint32_t embd = 2048, heads = 16, expert_ff = 1408, experts = 64;
  const std::string blk = "blk." + std::to_string(i) + ".";
  b.tensor(blk + "attn_norm.weight", {embd}).tensor(blk + "attn_q.weight", {embd, heads * 192}, "q4_K");
  b.tensor(blk + "attn_kv_a_norm.weight", {512}).tensor(blk + "attn_kv_a_mqa.weight", {embd, 576}, "q4_K");
  // Rows of 128 and of 1408 do not divide into blocks of 256: the quantiser falls back to Q8_0.
  b.tensor(blk + "attn_k_b.weight", {128, 512, heads}, "q8_0")
      .tensor(blk + "attn_v_b.weight", {512, 128, heads}, "q4_K");
  b.tensor(blk + "attn_output.weight", {heads * 128, embd}, "q4_K").tensor(blk + "ffn_norm.weight", {embd});
  if (i == 0) {
    b.tensor(blk + "ffn_gate.weight", {embd, 10944}, "q4_K")
        .tensor(blk + "ffn_up.weight", {embd, 10944}, "q4_K");
    b.tensor(blk + "ffn_down.weight", {10944, embd}, "q8_0");
    return;
  }
  b.tensor(blk + "ffn_gate_inp.weight", {embd, experts})
      .tensor(blk + "ffn_gate_exps.weight", {embd, expert_ff, experts}, "q4_K");
  b.tensor(blk + "ffn_up_exps.weight", {embd, expert_ff, experts}, "q4_K");
  b.tensor(blk + "ffn_down_exps.weight", {expert_ff, embd, experts}, "q8_0");
  b.tensor(blk + "ffn_gate_shexp.weight", {embd, 2 * expert_ff}, "q4_K")
      .tensor(blk + "ffn_up_shexp.weight", {embd, 2 * expert_ff}, "q4_K");
  b.tensor(blk + "ffn_down_shexp.weight", {2 * expert_ff, embd}, "q6_K");
}

inline GgufBuilder deepseek_v2_lite() {
  GgufBuilder b("deepseek2");
  b.u32(".block_count", 27)
      .u32(".context_length", 163840)
      .u32(".embedding_length", 2048)
      .u32(".feed_forward_length", 10944);
  b.u32(".attention.head_count", 16).u32(".attention.head_count_kv", 1).u32(".attention.kv_lora_rank", 512);
  b.u32(".rope.dimension_count", 64).u32(".attention.key_length", 576).u32(".attention.value_length", 512);
  b.u32(".attention.key_length_mla", 192)
      .u32(".attention.value_length_mla", 128)
      .u32(".expert_count", 64)
      .u32(".expert_used_count", 6);
  b.u32(".expert_feed_forward_length", 1408)
      .u32(".expert_shared_count", 2)
      .u32(".leading_dense_block_count", 1);
  b.tensor("token_embd.weight", {2048, 102400}, "q4_K")
      .tensor("output_norm.weight", {2048})
      .tensor("output.weight", {2048, 102400}, "q6_K");
  for (std::uint32_t i = 0; i < 27; ++i) deepseek_v2_lite_layer(b, i);
  return b;
}

inline GgufBuilder bge_base() {
  constexpr std::uint32_t embd = 768, ff = 3072;
  GgufBuilder b("bert");
  b.u32(".block_count", 12)
      .u32(".context_length", 512)
      .u32(".embedding_length", embd)
      .u32(".feed_forward_length", ff);
  b.u32(".attention.head_count", 12).u32(".pooling_type", 1).boolean(".attention.causal", false);
  b.tensor("token_embd.weight", {embd, 30522}, "f16")
      .tensor("position_embd.weight", {embd, 512})
      .tensor("token_types.weight", {embd, 2});
  b.tensor("token_embd_norm.weight", {embd}).tensor("token_embd_norm.bias", {embd});
  for (int i = 0; i < 12; ++i) {
    const std::string blk = "blk." + std::to_string(i) + ".";
    for (const char* n : {"attn_q", "attn_k", "attn_v", "attn_output"}) {
      b.tensor(blk + n + ".weight", {embd, embd}, "f16").tensor(blk + n + ".bias", {embd});
    }
    for (const char* n : {"attn_output_norm", "layer_output_norm"})
      b.tensor(blk + n + ".weight", {embd}).tensor(blk + n + ".bias", {embd});
    b.tensor(blk + "ffn_up.weight", {embd, ff}, "f16").tensor(blk + "ffn_up.bias", {ff});
    b.tensor(blk + "ffn_down.weight", {ff, embd}, "f16").tensor(blk + "ffn_down.bias", {embd});
  }
  return b;
}

}  // namespace aiv::test
