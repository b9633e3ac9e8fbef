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

  struct Step {
    std::string text;
    std::string finish;  // "stop" or "length" in the last event
  };
  Result<Step> take_event(std::string_view json);

  Json request;
  bool rendered = false;  // the prompt is final
  bool exact = false;     // the delivered text is given as the tokens that it was made of
  std::int64_t delivered_tokens = 0;
  std::int64_t evaluated = 0;  // as the engine says: its prompt, delivered tokens included
  std::int64_t predicted = 0;
  std::string finish;
  StopSeam seam;

 private:
  Json prompt_;          // text, or ids where the client sent ids
  std::string prefill_;  // the client's own beginning of the answer: in the prompt already
  std::vector<std::string> texts_;
  std::string delivered_;
  std::vector<std::int32_t> ids_;
};

}  // namespace aiv::gateway
