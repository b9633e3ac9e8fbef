#include "demo-model/trainer/model.hpp"

#include <algorithm>
#include <cmath>

#include "demo-model/trainer/random.hpp"

namespace aiv::demo {
namespace {

// y = x * w^T for a weight [out, in], as ggml_mul_mat.
void linear(const Part& w, const float* parameters, const std::vector<float>& x, Index rows,
            std::vector<float>& y) {
  y.resize(static_cast<std::size_t>(rows * w.rows));
  multiply(rows, w.rows, w.columns, {x.data(), w.columns}, View{parameters + w.offset, w.columns}.t(), 0,
           y.data(), w.rows);
}

// d_w += d_y^T * x, and d_x = d_y * w + keep * d_x.
void linear_backward(const Part& w, const float* parameters, const std::vector<float>& x,
                     const std::vector<float>& d_y, Index rows, float keep, std::vector<float>& d_x,
                     float* gradients) {
  multiply(w.rows, w.columns, rows, View{d_y.data(), w.rows}.t(), {x.data(), w.columns}, 1,
           gradients + w.offset, w.columns);
  d_x.resize(static_cast<std::size_t>(rows * w.columns));
  multiply(rows, w.columns, w.rows, {d_y.data(), w.rows}, {parameters + w.offset, w.columns}, keep,
           d_x.data(), w.columns);
}

// RMSNorm (Zhang, Sennrich 2019): y = x / sqrt(mean(x^2) + eps) * g. `scales` keeps the factor of each row.
void norm(const Part& g, const float* parameters, const std::vector<float>& x, Index rows,
          std::vector<float>& scales, std::vector<float>& y) {
  const Index width = g.columns;
  scales.resize(static_cast<std::size_t>(rows));
  y.resize(static_cast<std::size_t>(rows * width));
  const float* gain = parameters + g.offset;
  for (Index r = 0; r < rows; ++r) {
    const float* in = x.data() + r * width;
    float squares = 0;
    for (Index i = 0; i < width; ++i) squares += in[i] * in[i];
    const float scale = 1.0F / std::sqrt(squares / static_cast<float>(width) + kNormEpsilon);
    scales[static_cast<std::size_t>(r)] = scale;
    float* out = y.data() + r * width;
    for (Index i = 0; i < width; ++i) out[i] = in[i] * scale * gain[i];
  }
}

// d_x += the derivative through the norm; d_g likewise.
void norm_backward(const Part& g, const float* parameters, const std::vector<float>& x,
                   const std::vector<float>& scales, const std::vector<float>& d_y, Index rows,
                   std::vector<float>& d_x, float* gradients) {
  const Index width = g.columns;
  const float* gain = parameters + g.offset;
  float* d_gain = gradients + g.offset;
  for (Index r = 0; r < rows; ++r) {
    const float* in = x.data() + r * width;
    const float* d_out = d_y.data() + r * width;
    float* d_in = d_x.data() + r * width;
    const float scale = scales[static_cast<std::size_t>(r)];
    float along = 0;
    for (Index i = 0; i < width; ++i) {
      along += d_out[i] * gain[i] * in[i];
      d_gain[i] += d_out[i] * in[i] * scale;
    }
    const float shrink = along * scale * scale * scale / static_cast<float>(width);
    for (Index i = 0; i < width; ++i) d_in[i] += d_out[i] * gain[i] * scale - in[i] * shrink;
  }
}

}  // namespace

Layout::Layout(const Shape& of) : shape(of) {
  const auto add = [this](std::string name, Index rows, Index columns) {
    parts.push_back({.name = std::move(name), .rows = rows, .columns = columns, .offset = total});
    total += rows * columns;
  };
  add("token_embd.weight", shape.vocab, shape.width);
  add("output_norm.weight", 1, shape.width);
  for (Index i = 0; i < shape.layers; ++i) {
    const std::string block = "blk." + std::to_string(i) + ".";
    add(block + "attn_norm.weight", 1, shape.width);
    add(block + "attn_q.weight", shape.width, shape.width);
    add(block + "attn_k.weight", shape.width, shape.width);
    add(block + "attn_v.weight", shape.width, shape.width);
    add(block + "attn_output.weight", shape.width, shape.width);
    add(block + "ffn_norm.weight", 1, shape.width);
    add(block + "ffn_gate.weight", shape.feed_forward, shape.width);
    add(block + "ffn_up.weight", shape.feed_forward, shape.width);
    add(block + "ffn_down.weight", shape.width, shape.feed_forward);
  }
}

std::vector<float> initial_parameters(const Layout& layout, std::uint64_t seed) {
  std::vector<float> values(static_cast<std::size_t>(layout.total));
  Random random(seed);
  const float residual = 1.0F / std::sqrt(2.0F * static_cast<float>(layout.shape.layers));
  for (const Part& part : layout.parts) {
    const bool adds = part.name.ends_with("attn_output.weight") || part.name.ends_with("ffn_down.weight");
    for (Index i = 0; i < part.values(); ++i) {
      values[static_cast<std::size_t>(part.offset + i)] =
          part.is_norm() ? 1.0F : random.normal() * 0.02F * (adds ? residual : 1.0F);
    }
  }
  return values;
}

void Pass::place(const std::vector<const Document*>& documents) {
  spans_.clear();
  tokens_.clear();
  targets_.clear();
  squares_ = 0;
  for (const Document* document : documents) {
    // The last token has nothing to foretell.
    const auto length = static_cast<Index>(document->tokens.size()) - 1;
    const auto begin = static_cast<Index>(tokens_.size());
    spans_.push_back({begin, length, squares_});
    squares_ += length * length * layout_.shape.heads;
    for (Index i = 0; i < length; ++i) {
      const auto at = static_cast<std::size_t>(i);
      tokens_.push_back(document->tokens[at]);
      if (document->answer[at + 1] != 0) targets_.push_back({begin + i, document->tokens[at + 1]});
    }
  }
  rows_ = static_cast<Index>(tokens_.size());
  const Index pairs = layout_.shape.width / layout_.shape.heads / 2;
  cos_.resize(static_cast<std::size_t>(rows_ * pairs));
  sin_.resize(cos_.size());
  for (const Span& span : spans_) {
    for (Index i = 0; i < span.length; ++i) {
      for (Index p = 0; p < pairs; ++p) {
        const float turn =
            static_cast<float>(i) * std::pow(kRopeBase, -static_cast<float>(p) / static_cast<float>(pairs));
        const auto at = static_cast<std::size_t>((span.begin + i) * pairs + p);
        cos_[at] = std::cos(turn);
        sin_[at] = std::sin(turn);
      }
    }
  }
}

// Rotary positions (Su et al. 2021) over the pairs (2p, 2p + 1) of each head: llama.cpp's
// LLAMA_ROPE_TYPE_NORM. `direction` -1 turns back, which is the derivative.
void Pass::rotate(std::vector<float>& values, float direction) const {
  const Shape& s = layout_.shape;
  const Index pairs = s.width / s.heads / 2;
  for (Index r = 0; r < rows_; ++r) {
    const float* cosine = cos_.data() + r * pairs;
    const float* sine = sin_.data() + r * pairs;
    for (Index h = 0; h < s.heads; ++h) {
      float* x = values.data() + r * s.width + h * pairs * 2;
      for (Index p = 0; p < pairs; ++p) {
        const float first = x[2 * p];
        const float second = x[2 * p + 1];
        x[2 * p] = first * cosine[p] - direction * second * sine[p];
        x[2 * p + 1] = direction * first * sine[p] + second * cosine[p];
      }
    }
  }
}

void Pass::attend(LayerActs& acts) const {
  const Shape& s = layout_.shape;
  const Index size = s.width / s.heads;
  const float scale = 1.0F / std::sqrt(static_cast<float>(size));
  acts.probabilities.resize(static_cast<std::size_t>(squares_));
  acts.attended.resize(static_cast<std::size_t>(rows_ * s.width));
  for (const Span& span : spans_) {
    for (Index h = 0; h < s.heads; ++h) {
      const Index at = span.begin * s.width + h * size;
      const Index n = span.length;
      float* square = acts.probabilities.data() + span.probabilities + h * n * n;
      multiply(n, n, size, {acts.q.data() + at, s.width}, View{acts.k.data() + at, s.width}.t(), 0, square,
               n);
      for (Index i = 0; i < n; ++i) {
        float* row = square + i * n;
        float most = row[0];
        for (Index j = 1; j <= i; ++j) most = std::max(most, row[j]);
        float sum = 0;
        for (Index j = 0; j <= i; ++j) sum += row[j] = std::exp((row[j] - most) * scale);
        for (Index j = 0; j <= i; ++j) row[j] /= sum;
        for (Index j = i + 1; j < n; ++j) row[j] = 0;
      }
      multiply(n, size, n, {square, n}, {acts.v.data() + at, s.width}, 0, acts.attended.data() + at, s.width);
    }
  }
}

// From d_attended_ to d_q_, d_k_, d_v_.
void Pass::attend_backward(const LayerActs& acts) {
  const Shape& s = layout_.shape;
  const Index size = s.width / s.heads;
  const float scale = 1.0F / std::sqrt(static_cast<float>(size));
  for (std::vector<float>* d : {&d_q_, &d_k_, &d_v_}) d->resize(static_cast<std::size_t>(rows_ * s.width));
  for (const Span& span : spans_) {
    const Index n = span.length;
    d_square_.resize(static_cast<std::size_t>(n * n));
    for (Index h = 0; h < s.heads; ++h) {
      const Index at = span.begin * s.width + h * size;
      const float* square = acts.probabilities.data() + span.probabilities + h * n * n;
      const View d_out{d_attended_.data() + at, s.width};
      multiply(n, size, n, View{square, n}.t(), d_out, 0, d_v_.data() + at, s.width);
      multiply(n, n, size, d_out, View{acts.v.data() + at, s.width}.t(), 0, d_square_.data(), n);
      for (Index i = 0; i < n; ++i) {
        const float* p = square + i * n;
        float* d = d_square_.data() + i * n;
        float mean = 0;
        for (Index j = 0; j <= i; ++j) mean += p[j] * d[j];
        for (Index j = 0; j < n; ++j) d[j] = p[j] * (d[j] - mean) * scale;  // p is 0 above the diagonal
      }
      multiply(n, size, n, {d_square_.data(), n}, {acts.k.data() + at, s.width}, 0, d_q_.data() + at,
               s.width);
      multiply(n, size, n, View{d_square_.data(), n}.t(), {acts.q.data() + at, s.width}, 0, d_k_.data() + at,
               s.width);
    }
  }
}

void Pass::forward_layer(const std::vector<float>& parameters, Index index) {
  LayerActs& acts = acts_[static_cast<std::size_t>(index)];
  const float* p = parameters.data();
  const auto part = [&](Layout::LayerPart which) -> const Part& { return layout_.layer(index, which); };
  norm(part(Layout::kAttnNorm), p, acts.in, rows_, acts.in_scale, acts.in_normed);
  linear(part(Layout::kQ), p, acts.in_normed, rows_, acts.q);
  linear(part(Layout::kK), p, acts.in_normed, rows_, acts.k);
  linear(part(Layout::kV), p, acts.in_normed, rows_, acts.v);
  rotate(acts.q, 1);
  rotate(acts.k, 1);
  attend(acts);
  linear(part(Layout::kAttnOutput), p, acts.attended, rows_, acts.mid);
  for (std::size_t i = 0; i < acts.mid.size(); ++i) acts.mid[i] += acts.in[i];

  norm(part(Layout::kFfnNorm), p, acts.mid, rows_, acts.mid_scale, acts.mid_normed);
  linear(part(Layout::kGate), p, acts.mid_normed, rows_, acts.gate);
  linear(part(Layout::kUp), p, acts.mid_normed, rows_, acts.up);
  acts.product.resize(acts.gate.size());
  for (std::size_t i = 0; i < acts.gate.size(); ++i) {  // SwiGLU (Shazeer 2020)
    acts.product[i] = acts.gate[i] / (1.0F + std::exp(-acts.gate[i])) * acts.up[i];
  }
  const bool last = index + 1 == layout_.shape.layers;
  std::vector<float>& out = last ? out_ : acts_[static_cast<std::size_t>(index + 1)].in;
  linear(part(Layout::kDown), p, acts.product, rows_, out);
  for (std::size_t i = 0; i < out.size(); ++i) out[i] += acts.mid[i];
}

// d_stream_ holds the derivative by the layer's output before, by its input after.
void Pass::backward_layer(const std::vector<float>& parameters, Index index, std::vector<float>& gradients) {
  const LayerActs& acts = acts_[static_cast<std::size_t>(index)];
  const float* p = parameters.data();
  float* g = gradients.data();
  const auto part = [&](Layout::LayerPart which) -> const Part& { return layout_.layer(index, which); };
  linear_backward(part(Layout::kDown), p, acts.product, d_stream_, rows_, 0, d_gate_, g);
  d_up_.resize(d_gate_.size());
  for (std::size_t i = 0; i < d_gate_.size(); ++i) {
    const float sigmoid = 1.0F / (1.0F + std::exp(-acts.gate[i]));
    const float swish = acts.gate[i] * sigmoid;
    const float d = d_gate_[i];
    d_up_[i] = d * swish;
    d_gate_[i] = d * acts.up[i] * (sigmoid + swish * (1.0F - sigmoid));
  }
  linear_backward(part(Layout::kGate), p, acts.mid_normed, d_gate_, rows_, 0, d_normed_, g);
  linear_backward(part(Layout::kUp), p, acts.mid_normed, d_up_, rows_, 1, d_normed_, g);
  norm_backward(part(Layout::kFfnNorm), p, acts.mid, acts.mid_scale, d_normed_, rows_, d_stream_, g);

  linear_backward(part(Layout::kAttnOutput), p, acts.attended, d_stream_, rows_, 0, d_attended_, g);
  attend_backward(acts);
  rotate(d_q_, -1);
  rotate(d_k_, -1);
  linear_backward(part(Layout::kQ), p, acts.in_normed, d_q_, rows_, 0, d_normed_, g);
  linear_backward(part(Layout::kK), p, acts.in_normed, d_k_, rows_, 1, d_normed_, g);
  linear_backward(part(Layout::kV), p, acts.in_normed, d_v_, rows_, 1, d_normed_, g);
  norm_backward(part(Layout::kAttnNorm), p, acts.in, acts.in_scale, d_normed_, rows_, d_stream_, g);
}

double Pass::loss(const std::vector<float>& parameters, const std::vector<const Document*>& documents) {
  place(documents);
  const Index width = layout_.shape.width;
  const Index vocab = layout_.shape.vocab;
  const float* embedding = parameters.data() + layout_.embedding().offset;
  std::vector<float>& first = acts_[0].in;
  first.resize(static_cast<std::size_t>(rows_ * width));
  for (Index r = 0; r < rows_; ++r) {
    std::copy_n(embedding + tokens_[static_cast<std::size_t>(r)] * width, width, first.data() + r * width);
  }
  for (Index i = 0; i < layout_.shape.layers; ++i) forward_layer(parameters, i);
  norm(layout_.output_norm(), parameters.data(), out_, rows_, out_scale_, out_normed_);

  // Logits only where an answer's token follows.
  const Index count = answer_tokens();
  chosen_.resize(static_cast<std::size_t>(count * width));
  for (Index i = 0; i < count; ++i) {
    std::copy_n(out_normed_.data() + targets_[static_cast<std::size_t>(i)].row * width, width,
                chosen_.data() + i * width);
  }
  linear(layout_.embedding(), parameters.data(), chosen_, count, logits_);
  double sum = 0;
  for (Index i = 0; i < count; ++i) {  // logits become probabilities
    float* row = logits_.data() + i * vocab;
    const float most = *std::max_element(row, row + vocab);
    float total = 0;
    for (Index j = 0; j < vocab; ++j) total += row[j] = std::exp(row[j] - most);
    for (Index j = 0; j < vocab; ++j) row[j] /= total;
    sum -= std::log(std::max(row[targets_[static_cast<std::size_t>(i)].token], 1e-30F));
  }
  return sum;
}

void Pass::add_gradients(const std::vector<float>& parameters, float scale, std::vector<float>& gradients) {
  const Index width = layout_.shape.width;
  const Index vocab = layout_.shape.vocab;
  const Index count = answer_tokens();
  for (Index i = 0; i < count; ++i) {
    float* row = logits_.data() + i * vocab;
    row[targets_[static_cast<std::size_t>(i)].token] -= 1.0F;
    for (Index j = 0; j < vocab; ++j) row[j] *= scale;
  }
  linear_backward(layout_.embedding(), parameters.data(), chosen_, logits_, count, 0, d_chosen_,
                  gradients.data());
  d_normed_.assign(static_cast<std::size_t>(rows_ * width), 0);
  for (Index i = 0; i < count; ++i) {
    std::copy_n(d_chosen_.data() + i * width, width,
                d_normed_.data() + targets_[static_cast<std::size_t>(i)].row * width);
  }
  d_stream_.assign(static_cast<std::size_t>(rows_ * width), 0);
  norm_backward(layout_.output_norm(), parameters.data(), out_, out_scale_, d_normed_, rows_, d_stream_,
                gradients.data());
  for (Index i = layout_.shape.layers; i-- > 0;) backward_layer(parameters, i, gradients);
  float* d_embedding = gradients.data() + layout_.embedding().offset;
  for (Index r = 0; r < rows_; ++r) {
    float* row = d_embedding + tokens_[static_cast<std::size_t>(r)] * width;
    for (Index i = 0; i < width; ++i) row[i] += d_stream_[static_cast<std::size_t>(r * width + i)];
  }
}

}  // namespace aiv::demo
