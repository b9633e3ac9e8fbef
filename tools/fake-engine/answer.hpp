// What the fake engine says: the n-th token of an answer is a function of (model name, prompt text, n) alone,
// so an answer that was broken off and continued elsewhere can be compared byte for byte with an unbroken
// one.
//
// Everything works on text. A prompt that already ends in the beginning of its own answer is recognised,
// because that beginning can be computed from what is before it: so a continuation needs no mark in the
// prompt, whether it comes as chat prefill, as text or as token ids.
//
// Tokens: a word of the answer vocabulary (a blank and four letters, " kaba") is one token; other text is cut
// into pieces of up to three bytes at blanks, never inside a UTF-8 character. Token ids carry their text, so
// any sequence of ids can be turned back.
#pragma once
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "base/result.hpp"

namespace aiv::fake {

using Token = std::int32_t;
inline constexpr Token kBos = 1;
inline constexpr Token kEos = 2;
inline constexpr Token kWordBase = 1000;
inline constexpr std::size_t kWordCount = 4096;
inline constexpr std::int64_t kVocabSize = std::int64_t{1} << 28;
inline constexpr std::int64_t kAnswerTokensMax = 1'000'000;

std::vector<Token> tokenize(std::string_view text);
// Empty for the marks of begin and end, and for an id that is no token.
std::string piece_of(Token token);
std::string detokenize(std::span<const Token> tokens);

// The control line: "#fake tokens=120 token_ms=20 first_ms=0 say=TEXT". `say` and `tool` take the rest of the
// line.
struct Control {
  std::int64_t tokens = 24;
  std::optional<double> token_ms;  // nullopt: the model's own pace
  std::optional<double> first_ms;
  std::optional<std::string> say;
  std::optional<std::string> tool_name;
  std::string tool_arguments;
  // Faults before token N is sent (N tokens are out); -1 = never.
  std::int64_t die_at = -1;
  std::int64_t stall_at = -1;
  std::int64_t eof_at = -1;
  std::int64_t error_at = -1;
  std::int64_t stamp = 0;  // 1: each token of a stream is " @" and when it was made (CLOCK_MONOTONIC, ns) instead
};

// A line that does not begin with "#fake" gives the defaults. kInvalidArgument names the setting at fault.
Result<Control> parse_control(std::string_view line);

// The prompt of a chat: "<|role|>\ncontent<|end|>\n" for each message, then "<|assistant|>\n". A last message
// of the assistant is left open, to be continued. kInvalidArgument when the messages have no such form.
struct ChatPrompt {
  std::string text;
  std::string prefill;  // content of an open last message
};
Result<ChatPrompt> apply_template(const Json& messages);

// An answer to `prompt`, which may hold the first tokens of it already.
class Answer {
 public:
  static Result<Answer> make(std::string_view model, std::string_view prompt);

  [[nodiscard]] const Control& control() const { return control_; }
  // Tokens that the prompt already holds.
  [[nodiscard]] std::int64_t start() const { return start_; }
  // Tokens of the whole answer, from its very beginning.
  [[nodiscard]] std::int64_t total() const { return total_; }
  [[nodiscard]] Token token_at(std::int64_t n) const;

 private:
  Control control_;
  std::uint64_t seed_ = 0;
  std::int64_t start_ = 0;
  std::int64_t total_ = 0;
  std::vector<Token> fixed_;  // of say= and tool=
};

// A unit vector that is a function of (model, text) alone.
std::vector<float> embedding_of(std::string_view model, std::string_view text, std::size_t dimensions);
// A relevance in (0, 1) that is a function of (model, query, document) alone.
double relevance_of(std::string_view model, std::string_view query, std::string_view document);

}  // namespace aiv::fake
