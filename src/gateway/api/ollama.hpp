// Ollama's API over an engine's: chat and generate become chat (or, for a raw prompt, text) requests; embed
// becomes embeddings. Streams are lines of JSON, on unless `stream` is false; times are RFC 3339, durations
// nanoseconds. Shapes: ollama/ollama api/types.go and server/routes.go.
#pragma once
#include "gateway/api/chat_part.hpp"
#include "gateway/api/translated.hpp"

namespace aiv::gateway {

Translation translate_ollama_chat(std::string_view body, const TranslationContext& context);
Translation translate_ollama_generate(std::string_view body, const TranslationContext& context);
// `legacy`: /api/embeddings, with one `prompt` and one `embedding`.
Translation translate_ollama_embed(std::string_view body, const TranslationContext& context, bool legacy);

// A request without a prompt asks only that the model be loaded, or unloaded (`keep_alive` 0): what it gets,
// since placement is not a client's affair here. Empty when the request has a prompt.
std::string ollama_load_answer(std::string_view body, bool chat, std::int64_t unix_ms);

class OllamaForm : public AnswerForm {
 public:
  enum class Kind { kChat, kGenerate };
  OllamaForm(Kind kind, std::string model, std::function<std::int64_t()> unix_ms);
  [[nodiscard]] ApiFamily family() const override { return ApiFamily::kOllama; }
  [[nodiscard]] std::string_view stream_type() const override { return "application/x-ndjson"; }
  void event(std::string& out, std::string_view data) override;
  void done(std::string& out) override;
  void life_sign(std::string& out) override;
  Result<std::string> whole(std::string_view body) override;
  std::string error_event(const ApiError& error) override;
  void forget() override;

 private:
  void line(std::string& out, std::string_view content, std::string_view thinking, std::string_view calls,
            std::string_view rest);
  [[nodiscard]] std::string calls_json() const;
  [[nodiscard]] std::string ending() const;

  Kind kind_;
  std::string model_;
  std::function<std::int64_t()> unix_ms_;
  std::int64_t began_ms_;
  ChatAnswer answer_;  // in a stream only its calls, end and usage
};

class OllamaEmbedForm : public AnswerForm {
 public:
  // `dimensions` 0: as many as the model has.
  OllamaEmbedForm(std::string model, bool legacy, std::int64_t dimensions, std::function<std::int64_t()> unix_ms);
  [[nodiscard]] ApiFamily family() const override { return ApiFamily::kOllama; }
  void event(std::string&, std::string_view) override {}
  void done(std::string&) override {}
  Result<std::string> whole(std::string_view body) override;
  std::string error_event(const ApiError& error) override;
  void forget() override {}

 private:
  std::string model_;
  bool legacy_;
  std::int64_t dimensions_;
  std::function<std::int64_t()> unix_ms_;
  std::int64_t began_ms_;
};

}  // namespace aiv::gateway
