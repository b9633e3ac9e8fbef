// Weights, KV cache and recurrent state: exact. Sources (llama.cpp v0.5.0): ggml-cuda.cu, get_alloc_size (row
// padding); llama-model.cpp, load_tensors (which device a layer goes to); llama-kv-cache.cpp and
// llama-kv-cache-iswa.cpp (tensors and cells); llama-memory-recurrent.cpp.
#include <algorithm>

#include "core/vram_internal.hpp"

namespace aiv::vram {
namespace {

constexpr std::int64_t kRowPadding = 512;  // MATRIX_ROW_PADDING, ggml-cuda/common.cuh

// One cache tensor of `rows` rows of `width` elements as the backend allocates it.
Bytes cache_tensor(const Setting& setting, const GgmlType& type, std::int64_t width, std::int64_t rows) {
  if (width == 0) return 0;
  Bytes bytes = width / type.block * type.block_bytes * rows;
  if (setting.pad_rows && type.quantised && width % kRowPadding != 0) {
    bytes += (kRowPadding - width % kRowPadding) / type.block * type.block_bytes;
  }
  return round_up(bytes, setting.alignment);
}

// llama_init_from_model in llama-context.cpp: with flash attention the blocks must divide a head, otherwise
// (ggml) a row.
Result<> divides(std::int64_t width, const GgmlType& type, const char* option) {
  if (width % type.block == 0) return {};
  return fail(ErrorCode::kRefused,
              "heads of " + std::to_string(width) + " elements do not divide into blocks of " +
                  std::to_string(type.block) + " (" + type.name + "): use f16 for this model",
              option);
}

}  // namespace

std::vector<int> layer_devices(std::int64_t n_layers, std::int64_t blocks, int devices,
                               const std::vector<std::int64_t>& split) {
  // llama-model.cpp: upper_bound over the cumulative shares of i / (blocks + 1). Kept in integers: share k is
  // above i / (L+1) iff cumulative_k * (L+1) > i * sum.
  std::vector<std::int64_t> cumulative;
  std::int64_t sum = 0;
  for (int k = 0; k < devices; ++k)
    cumulative.push_back(sum += split.empty() ? 1 : split[static_cast<std::size_t>(k)]);
  const auto device = [&](std::int64_t i) {
    int k = 0;
    while (k + 1 < devices && cumulative[static_cast<std::size_t>(k)] * (blocks + 1) <= i * sum) ++k;
    return k;
  };
  std::vector<int> out;
  for (std::int64_t i = 0; i < n_layers; ++i) out.push_back(device(i));
  out.push_back(device(blocks));
  return out;
}

void add_weights(const ModelFacts& model, const Setting& setting, Estimate& out) {
  const int output_device = setting.device_of_layer.back();
  const auto on = [&](int device, const TensorFacts& t) {
    const Bytes bytes = round_up(t.bytes + (setting.pad_rows ? t.row_padding : 0), setting.alignment);
    out.devices[static_cast<std::size_t>(device)].weights += bytes;
  };
  std::vector<bool> has_layers(out.devices.size(), false);
  for (std::size_t i = 0; i + 1 < setting.device_of_layer.size(); ++i) {
    has_layers[static_cast<std::size_t>(setting.device_of_layer[i])] = true;
  }
  const bool moved = setting.options->token_embd_on_device;
  for (const TensorFacts& t : model.tensors) {
    switch (t.place) {
      case TensorPlace::kLayer:
        on(setting.device_of_layer[static_cast<std::size_t>(t.layer)], t);
        break;
      case TensorPlace::kOutput:
        on(output_device, t);
        break;
      case TensorPlace::kNotLoaded:
        break;
      case TensorPlace::kShared:
        for (std::size_t d = 0; d < has_layers.size(); ++d) {
          if (has_layers[d]) on(static_cast<int>(d), t);
        }
        break;
      case TensorPlace::kHost:
        // A tied output is a second copy, unless the override has put the first on the device already.
        if (t.token_embd && (moved || model.tied_output)) on(output_device, t);
        if (!t.token_embd || !moved) out.host_weights += t.bytes;
        break;
    }
  }
}

Result<> add_cache(const ModelFacts& model, const Setting& setting, Estimate& out) {
  // Without flash attention V is stored transposed, and every layer's rows then have the widest layer's width
  // (llama-kv-cache.cpp, TAG_V_CACHE_VARIABLE).
  const bool widest_v = !setting.flash_attn;
  for (std::size_t i = 0; i < model.layers.size(); ++i) {
    const LayerFacts& layer = model.layers[i];
    DeviceEstimate& device = out.devices[static_cast<std::size_t>(setting.device_of_layer[i])];
    const std::int64_t rows = setting.streams * (layer.window ? setting.window_cells : setting.cells);
    const std::int64_t v_width = layer.v_width > 0 && widest_v ? model.v_width_widest : layer.v_width;
    if (Result<> r = divides(widest_v ? layer.k_width : layer.head_k, *setting.type_k, "cache-type-k"); !r)
      return r;
    if (Result<> r = divides(widest_v ? v_width : layer.head_v, *setting.type_v, "cache-type-v"); !r)
      return r;
    const Bytes k = cache_tensor(setting, *setting.type_k, layer.k_width, rows);
    const Bytes v = cache_tensor(setting, *setting.type_v, v_width, rows);
    const std::int64_t sequences = setting.options->parallel;
    const Bytes r_state = round_up(4 * sequences * layer.recurrent_r, setting.alignment);
    const Bytes s_state = round_up(4 * sequences * layer.recurrent_s, setting.alignment);
    device.kv += k + v;
    device.recurrent += r_state + s_state;
    device.largest_cache_tensor = std::max({device.largest_cache_tensor, k, v, r_state, s_state});
  }
  return {};
}

}  // namespace aiv::vram
