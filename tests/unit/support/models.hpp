// Model shapes for tests: headers with the tensors that llama.cpp v0.5.0 wants of each architecture, tiny
// ones by default and real ones on request.
#pragma once
#include <string>

#include "gguf_builder.hpp"

namespace aiv::test {

struct DenseShape {
  std::string architecture = "llama";
  std::uint32_t layers = 2, embd = 64, ff = 128, heads = 4, kv_heads = 2, head_dim = 16, context = 512,
                vocab = 96;
  std::uint32_t window = 0;
  std::string type = "f16";
  std::string embedding_type = "f16";
  bool tied = false;
};

// Everything but the tensors, so that a test can add or leave out keys.
inline GgufBuilder dense_keys(const DenseShape& s) {
  GgufBuilder b(s.architecture);
  b.u32(".block_count", s.layers).u32(".context_length", s.context).u32(".embedding_length", s.embd);
  b.u32(".feed_forward_length", s.ff)
      .u32(".attention.head_count", s.heads)
      .u32(".attention.head_count_kv", s.kv_heads);
  b.u32(".attention.key_length", s.head_dim).u32(".attention.value_length", s.head_dim);
  if (s.window > 0) b.u32(".attention.sliding_window", s.window);
  return b;
}

inline void dense_tensors(GgufBuilder& b, const DenseShape& s) {
  b.tensor("token_embd.weight", {s.embd, s.vocab}, s.embedding_type).tensor("output_norm.weight", {s.embd});
  if (!s.tied) b.tensor("output.weight", {s.embd, s.vocab}, s.type);
  for (std::uint32_t i = 0; i < s.layers; ++i) {
    const std::string blk = "blk." + std::to_string(i) + ".";
    b.tensor(blk + "attn_norm.weight", {s.embd})
        .tensor(blk + "attn_q.weight", {s.embd, s.heads * s.head_dim}, s.type);
    b.tensor(blk + "attn_k.weight", {s.embd, s.kv_heads * s.head_dim}, s.type);
    b.tensor(blk + "attn_v.weight", {s.embd, s.kv_heads * s.head_dim}, s.type);
    b.tensor(blk + "attn_output.weight", {s.heads * s.head_dim, s.embd}, s.type)
        .tensor(blk + "ffn_norm.weight", {s.embd});
    b.tensor(blk + "ffn_gate.weight", {s.embd, s.ff}, s.type)
        .tensor(blk + "ffn_up.weight", {s.embd, s.ff}, s.type);
    b.tensor(blk + "ffn_down.weight", {s.ff, s.embd}, s.type);
  }
}

inline GgufBuilder dense_model(const DenseShape& s = {}) {
  GgufBuilder b = dense_keys(s);
  dense_tensors(b, s);
  return b;
}

}  // namespace aiv::test
