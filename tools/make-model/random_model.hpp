// A model file of any size with random weights and a small real tokenizer: something to load where there is no trained
// model. It answers, with nonsense. Same options and seed, same bytes.
#pragma once
#include <cstdint>
#include <string>

#include "base/result.hpp"

namespace aiv {

// Shape of a Llama-like model with a tied output and F32 norms.
struct RandomModelShape {
  std::string name = "random";
  std::int64_t layers = 2;
  std::int64_t embd = 128;  // multiple of 32 * heads, so that each head has whole blocks
  std::int64_t heads = 4;
  std::int64_t kv_heads = 2;  // divides heads
  std::int64_t feed_forward = 384;
  std::int64_t ctx_train = 8192;
  std::int64_t vocab = 1024;  // at least kRandomModelVocabMin; what exceeds the word list is filled up
  // F16 weights instead of F32. On a software GPU the F16 kernels take 85 s of CPU to compile at the very first start
  // (the F32 ones a fraction of it), so the default is F32.
  bool f16 = false;
  std::uint64_t seed = 1;
};
inline constexpr std::int64_t kRandomModelVocabMin = 512;

// Bytes of the file's weights. kInvalidArgument: a shape that no engine takes.
Result<std::int64_t> random_model_bytes(const RandomModelShape& shape);

// Writes the file (GGUF version 3) to `path`.part, then renames it. kInvalidArgument for the shape, kIo for the disk.
Result<> write_random_model(const RandomModelShape& shape, const std::string& path);

}  // namespace aiv
