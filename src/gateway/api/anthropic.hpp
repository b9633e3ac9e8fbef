// Anthropic's Messages API over an engine's chat API.
//
// The engine (llama-server 0.5) has /v1/messages of its own; it is not used, because a stream in that form
// could not be resumed on another replica, repeats an assistant's prefilled text, and has ids and errors that
// are not ours (docs/decisions/0012-api-families.md).
#pragma once
#include "gateway/api/chat_part.hpp"
#include "gateway/api/translated.hpp"

namespace aiv::gateway {

// A body of /v1/messages or /v1/messages/count_tokens. Errors are 400 with the path of the field.
Translation translate_anthropic(std::string_view body, const TranslationContext& context);

class AnthropicForm : public AnswerForm {
 public:
  // `prefill`: text of a last assistant message, which the engine repeats and this family does not.
  AnthropicForm(std::string model, std::string request_id, std::string prefill);
  [[nodiscard]] ApiFamily family() const override { return ApiFamily::kAnthropic; }
  void event(std::string& out, std::string_view data) override;
  void done(std::string& out) override;
  void life_sign(std::string& out) override;
  Result<std::string> whole(std::string_view body) override;
  std::string error_event(const ApiError& error) override;
  void forget() override;

 private:
  enum class Block { kNone, kThinking, kText, kTool };
  void start(std::string& out);
  void open(std::string& out, Block block, std::string_view start);
  void close(std::string& out);
  void text(std::string& out, std::string_view text);
  void tool(std::string& out, const ToolCallPart& part);
  void delta(std::string& out, std::string_view type, std::string_view key, std::string_view text) const;
  [[nodiscard]] std::string_view without_prefill(std::string_view text);

  std::string model_;
  std::string request_id_;
  std::string message_id_;
  std::string prefill_;
  std::size_t stripped_ = 0;  // bytes of prefill_ that were left out
  bool stripping_ = false;
  bool started_ = false;
  Block block_ = Block::kNone;
  int index_ = -1;
  std::int64_t tool_index_ = -1;
  std::int64_t prompt_total_ = 0;
  std::int64_t prompt_cached_ = 0;
  std::string finish_reason_;
  ChatUsage usage_;
};

}  // namespace aiv::gateway
