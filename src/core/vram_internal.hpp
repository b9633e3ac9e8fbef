// The parts of the estimate, each in its own file; only vram.cpp puts them together.
#pragma once
#include <cstdint>
#include <vector>

#include "core/gguf.hpp"
#include "core/vram.hpp"

namespace aiv::vram {

// `value` rounded up to a multiple of `step` (> 0).
[[nodiscard]] constexpr std::int64_t round_up(std::int64_t value, std::int64_t step) {
  return (value + step - 1) / step * step;
}

// The flags after the engine's own adjustments (llama_context's constructor, src/llama-context.cpp).
struct Setting {
  const EstimateOptions* options = nullptr;
  const GgmlType* type_k = nullptr;
  const GgmlType* type_v = nullptr;
  std::int64_t alignment = 128;
  bool flash_attn = true;
  bool pad_rows = true;  // CUDA and HIP
  std::int64_t streams = 1;
  std::int64_t cells = 0;         // per stream
  std::int64_t window_cells = 0;  // per stream, of window layers
  std::int64_t tokens = 0;        // of the worst-case graph: min(ubatch, batch, context)
  std::int64_t outputs = 0;
  std::vector<int> device_of_layer;  // n_layers entries, then the output's
};

// Device of layer i of `blocks` (the output is layer number `blocks`).
[[nodiscard]] std::vector<int> layer_devices(std::int64_t n_layers, std::int64_t blocks, int devices,
                                             const std::vector<std::int64_t>& split);

void add_weights(const ModelFacts& model, const Setting& setting, Estimate& out);
// kRefused if a row does not divide into the cache type's blocks.
Result<> add_cache(const ModelFacts& model, const Setting& setting, Estimate& out);
void add_compute(const ModelFacts& model, const Setting& setting, Estimate& out);

}  // namespace aiv::vram
