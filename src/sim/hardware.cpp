#include "sim/hardware.hpp"

#include <array>

#include "base/units.hpp"

namespace aiv::sim {

namespace {

struct Card {
  std::string_view name;
  std::int64_t gb_per_s;
};
// Memory bandwidth by the makers' data sheets.
constexpr Card kCards[] = {
    {"GTX 970", 224},   {"GTX 1060", 192},    {"GTX 1070", 256}, {"GTX 1080 Ti", 484}, {"GTX 1080", 320},
    {"RTX 2060", 336},  {"RTX 2080 Ti", 616}, {"RTX 3060", 360}, {"RTX 3090", 936},    {"RTX 4090", 1008},
    {"RX 580", 256},    {"RX 6700 XT", 384},  {"MI50", 1024},    {"Tesla P40", 346},   {"Tesla T4", 300},
    {"Tesla M40", 288}, {"Tesla K80", 240},
};

struct Shape {
  std::string_view id;
  std::int64_t layers, embd, heads, kv_heads, head, ff, vocab;
  Bytes weights;    // of the layers and the output, in MiB
  Bytes embedding;  // in MiB
};
constexpr std::array kShapes = {
    Shape{"llama3.2-1b-q8", 16, 2048, 32, 8, 64, 8192, 128256, 1250, 266},
    Shape{"qwen2.5-3b-q4", 36, 2048, 16, 2, 128, 11008, 151936, 1840, 170},
    Shape{"llama3.1-8b-q4", 32, 4096, 32, 8, 128, 14336, 128256, 4403, 281},
    Shape{"mistral-nemo-12b-q4", 40, 5120, 32, 8, 128, 14336, 131072, 6770, 360},
    Shape{"qwen2.5-7b-q4", 28, 3584, 28, 4, 128, 18944, 152064, 4168, 292},
    Shape{"phi4-14b-q4", 40, 5120, 40, 10, 128, 17920, 100352, 8360, 275},
    Shape{"qwen2.5-14b-q4", 48, 5120, 40, 8, 128, 13824, 152064, 8148, 417},
    Shape{"qwen2.5-32b-q4", 64, 5120, 40, 8, 128, 27648, 152064, 18508, 417},
};

}  // namespace

std::size_t catalogue_size() {
  return kShapes.size();
}

Result<std::vector<Device>> make_devices(const std::string& node, const std::string& gpus) {
  std::vector<Device> out;
  std::size_t from = 0;
  while (from <= gpus.size()) {
    const std::size_t comma = std::min(gpus.find(',', from), gpus.size());
    const std::string part = gpus.substr(from, comma - from);
    from = comma + 1;
    const std::size_t colon = part.rfind(':');
    const auto size =
        colon == std::string::npos ? Result<std::int64_t>(0) : parse_bytes(part.substr(colon + 1));
    if (colon == std::string::npos || colon == 0 || !size || *size < kMiB || *size > 1024 * kGiB) {
      return fail(ErrorCode::kInvalidArgument, "is not NAME:SIZE, e.g. GTX 1080:8GiB", printable(part, 60));
    }
    Device device;
    device.id = node + "/" + std::to_string(out.size());
    device.uuid = "sim-" + device.id;
    device.name = part.substr(0, colon);
    device.backend = "vulkan";
    device.vram_bytes = *size;
    device.free_bytes = *size;
    device.overhead_bytes = 100 * kMiB;
    device.alignment = 256;
    device.bandwidth_bytes_per_s = 200'000'000'000;
    for (const Card& card : kCards) {
      if (device.name == card.name) device.bandwidth_bytes_per_s = card.gb_per_s * 1'000'000'000;
    }
    out.push_back(std::move(device));
  }
  return out;
}

ModelRecord make_model(std::size_t n) {
  const Shape& shape = kShapes[n % kShapes.size()];
  auto facts = std::make_shared<ModelFacts>();
  facts->architecture = "llama";
  facts->family = ModelFamily::kAttention;
  facts->known = true;
  facts->context_length = 32'768;
  facts->n_blocks = facts->n_layers = shape.layers;
  facts->n_embd = shape.embd;
  facts->n_vocab = shape.vocab;
  facts->v_width_widest = shape.kv_heads * shape.head;
  facts->token_embd_bytes = shape.embedding * kMiB;
  facts->largest_tensor_bytes = shape.embedding * kMiB;
  facts->graph.heads = shape.heads;
  facts->graph.q_width = shape.heads * shape.head;
  facts->graph.kv_width = shape.kv_heads * shape.head;
  facts->graph.feed_forward = shape.ff;
  facts->graph.gated = true;
  const Bytes output = shape.embedding * kMiB;
  const Bytes per_layer = (shape.weights * kMiB - output) / shape.layers;
  for (std::int64_t i = 0; i < shape.layers; ++i) {
    LayerFacts layer;
    layer.k_width = layer.v_width = shape.kv_heads * shape.head;
    layer.heads = shape.heads;
    layer.head_k = layer.head_v = shape.head;
    layer.kv_heads = shape.kv_heads;
    facts->layers.push_back(layer);
    facts->tensors.push_back({per_layer, 0, static_cast<std::int32_t>(i), TensorPlace::kLayer, false});
  }
  facts->tensors.push_back({output, 0, -1, TensorPlace::kOutput, false});
  facts->tensors.push_back({facts->token_embd_bytes, 0, -1, TensorPlace::kHost, true});
  for (const TensorFacts& tensor : facts->tensors) facts->tensor_bytes += tensor.bytes;
  facts->file_bytes = facts->tensor_bytes;
  ModelRecord model;
  model.id = std::string(shape.id) + (n < kShapes.size() ? "" : "-" + std::to_string(n / kShapes.size() + 1));
  model.path = "/models/" + model.id + ".gguf";
  model.digest = "sha256:" + model.id;
  model.size_bytes = facts->file_bytes;
  model.engine = EngineKind::kLlama;
  model.facts = std::move(facts);
  return model;
}

}  // namespace aiv::sim
