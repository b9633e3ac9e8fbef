// A llama-architecture language model with its derivatives, in single precision on the CPU: what trains
// models/demo.gguf.
//
// The mathematics is that of llama.cpp's `llama` graph (RMSNorm, rotary positions over neighbouring pairs,
// SwiGLU, output tied to the embedding), so that the engine computes what was trained. Documents of different
// lengths stand one after another in a batch; each attends only to itself and counts its positions from 0, so
// nothing is padded.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "demo-model/trainer/matrix.hpp"

namespace aiv::demo {

struct Shape {
  Index vocab = 1024;
  Index width = 128;
  Index layers = 5;
  Index heads = 4;  // each of width / heads values, an even number
  Index feed_forward = 352;
};
inline constexpr float kNormEpsilon = 1e-5F;
inline constexpr float kRopeBase = 10000.0F;

// One matrix [rows, columns] or norm [1, columns] inside the flat array of all parameters; named as in GGUF
// files.
struct Part {
  std::string name;
  Index rows = 0;
  Index columns = 0;
  Index offset = 0;
  [[nodiscard]] Index values() const { return rows * columns; }
  [[nodiscard]] bool is_norm() const { return rows == 1; }
};

// Where each part lies: token_embd, output_norm, then per layer the nine of kLayerParts.
struct Layout {
  explicit Layout(const Shape& of);
  Shape shape;
  std::vector<Part> parts;
  Index total = 0;

  enum LayerPart { kAttnNorm, kQ, kK, kV, kAttnOutput, kFfnNorm, kGate, kUp, kDown, kLayerParts };
  [[nodiscard]] const Part& embedding() const { return parts[0]; }
  [[nodiscard]] const Part& output_norm() const { return parts[1]; }
  [[nodiscard]] const Part& layer(Index index, LayerPart part) const {
    return parts[static_cast<std::size_t>(2 + index * kLayerParts + part)];
  }
};

// A document's tokens; `answer[i]` says that token i is one the model shall learn to say.
struct Document {
  std::vector<std::uint16_t> tokens;
  std::vector<std::uint8_t> answer;
};

// Fresh parameters: norms 1, matrices normal with deviation 0.02, those that add to the residual stream
// smaller by sqrt(2 * layers) (Radford et al. 2019, "Language Models are Unsupervised Multitask Learners",
// section 2.3).
std::vector<float> initial_parameters(const Layout& layout, std::uint64_t seed);

// Memory of one pass over documents; kept between passes.
class Pass {
 public:
  explicit Pass(const Layout& layout)
      : layout_(layout), acts_(static_cast<std::size_t>(layout.shape.layers)) {}

  // Sum of the cross-entropies (nats) over the answer tokens of `documents`, whose number answer_tokens()
  // gives.
  double loss(const std::vector<float>& parameters, const std::vector<const Document*>& documents);
  [[nodiscard]] Index answer_tokens() const { return static_cast<Index>(targets_.size()); }

  // After loss(): adds scale * d loss / d parameters to `gradients`.
  void add_gradients(const std::vector<float>& parameters, float scale, std::vector<float>& gradients);

 private:
  struct Span {  // one document
    Index begin = 0;
    Index length = 0;
    Index probabilities = 0;  // offset of its first head's square in LayerActs::probabilities
  };
  struct Target {
    Index row = 0;
    Index token = 0;
  };
  struct LayerActs {
    std::vector<float> in, in_scale, in_normed, q, k, v, probabilities, attended;
    std::vector<float> mid, mid_scale, mid_normed, gate, up, product;
  };

  void place(const std::vector<const Document*>& documents);
  void forward_layer(const std::vector<float>& parameters, Index index);
  void backward_layer(const std::vector<float>& parameters, Index index, std::vector<float>& gradients);
  void attend(LayerActs& acts) const;
  void attend_backward(const LayerActs& acts);
  void rotate(std::vector<float>& values, float direction) const;

  Layout layout_;
  Index rows_ = 0;
  Index squares_ = 0;
  std::vector<Span> spans_;
  std::vector<Index> tokens_;
  std::vector<Target> targets_;
  std::vector<float> cos_, sin_;  // [rows, head width / 2]
  std::vector<LayerActs> acts_;
  std::vector<float> out_, out_scale_, out_normed_, chosen_, logits_;
  // of the backward pass
  std::vector<float> d_stream_, d_normed_, d_q_, d_k_, d_v_, d_attended_, d_gate_, d_up_, d_chosen_,
      d_square_;
};

}  // namespace aiv::demo
