// Embeddings with fewer dimensions than the model has: the first `dimensions` of each vector, brought to
// length 1 again (what models trained for it expect, and what OpenAI's API does). Engines give whole vectors
// only.
#pragma once
#include <cstdint>

#include "gateway/api/answer_form.hpp"

namespace aiv::gateway {

class CutEmbeddingForm : public AnswerForm {
 public:
  CutEmbeddingForm(std::string model, std::int64_t dimensions, bool base64);
  [[nodiscard]] ApiFamily family() const override { return ApiFamily::kOpenAi; }
  void event(std::string&, std::string_view) override {}
  void done(std::string&) override {}
  // kInvalidArgument when the model has fewer dimensions than are asked for.
  Result<std::string> whole(std::string_view body) override;
  std::string error_event(const ApiError& error) override { return openai_error_event(error); }
  void forget() override {}

 private:
  std::string model_;
  std::size_t dimensions_;
  bool base64_;
};

}  // namespace aiv::gateway
