// The loop around the model: documents from a file, AdamW, a cosine schedule, weights to a file.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "demo-model/trainer/model.hpp"

namespace aiv::demo {

struct Recipe {
  std::uint64_t seed = 1;
  Index steps = 6000;   // of the schedule
  Index last_step = 0;  // ends early after this one; 0: at the schedule's end
  Index batch_tokens =
      2048;  // of all threads together; a batch ends before the document that would exceed it
  Index threads = 2;
  Index warmup_steps = 200;
  float rate = 2e-3F;  // at the top of the schedule, which falls along a cosine to a twentieth of it
  float decay = 0.05F;
  float clip = 1.0F;  // bound of the gradients' Euclidean norm
};

// Reads documents as tokenizer.py writes them: per document a 16-bit count, then that many 16-bit tokens, the
// top bit of each saying that it belongs to an answer; all little-endian. kIo, or kInvalidArgument for a
// token outside `vocab`.
Result<std::vector<Document>> read_documents(const std::string& path, Index vocab);

struct Progress {
  Index step = 0;
  std::int64_t tokens_seen = 0;
  double loss = 0;             // mean nats per answer token since the last report
  double validation_loss = 0;  // over the validation documents
  double rate = 0;
};

// Trains `parameters` in place; calls `report` every `report_steps` steps and after the last. The result
// depends on the seed and the number of threads, and on the processor only by the rounding of its matrix
// product.
void train(const Layout& layout, const Recipe& recipe, const std::vector<Document>& documents,
           const std::vector<Document>& validation, Index report_steps, std::vector<float>& parameters,
           const std::function<void(const Progress&)>& report);

// Mean cross-entropy per answer token, nats.
double mean_loss(const Layout& layout, const std::vector<float>& parameters,
                 const std::vector<Document>& documents);

// Schedule: linear from 0 over warmup_steps, then a cosine to rate / 20 at the last step.
float rate_at(const Recipe& recipe, Index step);

// AdamW (Loshchilov, Hutter 2019) with beta 0.9 and 0.95; norms do not decay.
class AdamW {
 public:
  explicit AdamW(const Layout& layout);
  // Clips `gradients` to recipe.clip, applies them, and sets them to 0.
  void step(const Recipe& recipe, float rate, std::vector<float>& gradients, std::vector<float>& parameters);

 private:
  const Layout& layout_;
  std::vector<float> first_, second_;
  Index steps_ = 0;
};

// All parameters in the order of Layout::parts, 32-bit floats.
Result<> write_parameters(const std::vector<float>& parameters, const std::string& path);
Result<std::vector<float>> read_parameters(const std::string& path, const Layout& layout);

}  // namespace aiv::demo
