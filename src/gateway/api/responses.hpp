// OpenAI's Responses API over an engine's chat API. Nothing is stored: an answer cannot be asked for again,
// and a request that refers to an earlier one (previous_response_id, conversation, item_reference) is
// refused. Shapes: openai/openai-node src/resources/responses/responses.ts.
#pragma once
#include "gateway/api/chat_part.hpp"
#include "gateway/api/translated.hpp"

namespace aiv::gateway {

Translation translate_responses(std::string_view body, const TranslationContext& context);

class ResponsesForm : public AnswerForm {
 public:
  // `echo`: the fields of the request that every answer repeats, as members of an object
  // ("\"tools\":[],...").
  ResponsesForm(std::string model, std::string request_id, std::int64_t created_s, std::string echo);
  [[nodiscard]] ApiFamily family() const override { return ApiFamily::kOpenAi; }
  void event(std::string& out, std::string_view data) override;
  void done(std::string& out) override;
  Result<std::string> whole(std::string_view body) override;
  std::string error_event(const ApiError& error) override;
  void forget() override;

 private:
  enum class Item { kNone, kReasoning, kMessage, kCall };
  void start(std::string& out);
  void open(std::string& out, Item item, std::size_t call);
  void close(std::string& out);
  void emit(std::string& out, std::string_view type, std::string_view fields);
  void piece(std::string& out, std::string_view type, std::string_view text);
  [[nodiscard]] std::string item_id(Item item, std::size_t call) const;
  [[nodiscard]] std::string item_json(Item item, std::size_t call, bool whole) const;
  [[nodiscard]] std::string response_json(std::string_view status, const std::string& output) const;
  [[nodiscard]] std::string place() const;

  std::string model_;
  std::string request_id_;
  std::string digits_;
  std::int64_t created_s_;
  std::string echo_;
  bool started_ = false;
  std::int64_t sequence_ = 0;
  Item item_ = Item::kNone;
  std::size_t call_ = 0;
  int output_index_ = -1;
  std::vector<std::pair<Item, std::size_t>> items_;  // in order of their output_index
  ChatAnswer answer_;
};

}  // namespace aiv::gateway
