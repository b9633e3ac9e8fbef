// What a relay knows of an answer that is being continued: the requests it makes for that and the answers it reads.
// Free of I/O. What engines answer is checked: a wrong answer fails the attempt.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "core/openai_request.hpp"
#include "core/resume.hpp"
#include "gateway/relay.hpp"

namespace aiv::gateway {

// What the engine's request says about whether its answer can be continued.
void describe_request(const Json& request, Endpoint endpoint, ResumeFacts& facts);

struct Relay::Continuation {
  Continuation(Json engine_request, Endpoint endpoint);

  // {"prompt":..} of /apply-template
  Result<> take_prompt(std::string_view answer);
  // Called for each resume: `texts` of all events so far.
  void set_delivered(std::vector<std::string> texts, std::int64_t events);
  [[nodiscard]] bool wants_tokens() const { return !texts_.empty(); }
  [[nodiscard]] std::string tokenize_body() const;
  // {"tokens":[{"id":..,"piece":..}]}; a piece that is no UTF-8 comes as a list of bytes.
  Result<> take_tokens(std::string_view answer);
  // POST /completion. `left` nullopt: no limit.
  [[nodiscard]] std::string completion_body(std::optional<std::int64_t> left, int resume, int slot, bool cache_prompt) const;

  // By the chat route, where calls are possible: what /apply-template and /v1/chat/completions are asked.
  [[nodiscard]] std::string begun_template_body() const;
  // Whether that rendered to the prompt and the delivered text, byte by byte. A malformed answer fails.
  Result<bool> take_begun_prompt(std::string_view answer);
  [[nodiscard]] std::string chat_body(std::optional<std::int64_t> left, int resume, int slot, bool cache_prompt) const;
  // Tokens of the prompt with the delivered text (`begun`) or without: the answer of /tokenize to this.
  [[nodiscard]] std::string count_body(bool begun) const;
  Result<> take_count(std::string_view answer, bool begun);
  [[nodiscard]] bool wants_prompt_count() const { return prompt_tokens_ < 0; }

  struct Step {
    std::string text;
    Json delta;          // of the chat route: what is neither text nor the role; null: nothing
    std::string finish;  // "stop", "length" or "tool_calls" in the last event
  };
  Result<Step> take_event(std::string_view json);
  Result<Step> take_chat_event(std::string_view json);

  Json request;
  bool by_chat = false;   // calls of tools are possible
  bool rendered = false;  // the prompt is final
  bool exact = false;     // the delivered text is given as the tokens that it was made of
  std::int64_t delivered_tokens = 0;
  std::int64_t evaluated = 0;  // as the engine says: its prompt, delivered tokens included
  std::int64_t predicted = 0;
  std::string ending;  // of the chat route: the reason, until its end mark has come
  std::string finish;
  StopSeam seam;

 private:
  Json prompt_;          // text, or ids where the client sent ids
  std::string prefill_;  // the client's own beginning of the answer: in the prompt already
  std::vector<std::string> texts_;
  [[nodiscard]] Json begun_request() const;
  std::string delivered_;
  std::vector<std::int32_t> ids_;
  std::int64_t prompt_tokens_ = -1;  // not counted yet
};

}  // namespace aiv::gateway
