// The JSON of an answer, event by event, in exactly the shapes of llama-server 0.5.0 (key order included: its
// nlohmann::ordered_json output was taken as the model). The parts that never change within a stream are made
// once, so a token costs a few appends.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "answer.hpp"

namespace aiv::fake {

enum class ReplyKind { kChat, kCompletion, kNative };  // /v1/chat/completions, /v1/completions, /completion

struct ReplyStyle {
  ReplyKind kind = ReplyKind::kChat;
  bool stream = false;
  bool include_usage = false;
  bool timings_per_token = false;
  bool return_progress = false;  // the first event says how long the prompt is
  std::string model;
  std::string id;            // "chatcmpl-..."
  std::int64_t created = 0;  // Unix seconds
  int slot = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t limit = -1;  // n_predict as asked
  std::string tool_name;    // the answer is a call of this tool
  std::string tool_id;
  std::string prompt_text;  // kNative repeats it in the last event
};

// Why an answer ended; the words differ per family.
enum class Finish { kStop, kLimit, kStopWord };

struct Timings {
  std::int64_t prompt_n = 0;
  double prompt_ms = 0;
  std::int64_t predicted_n = 0;
  double predicted_ms = 0;
};

class Reply {
 public:
  explicit Reply(ReplyStyle style);
  // What precedes the first token in a stream (the role; nothing for completions). `out` gets HTTP chunks.
  void append_first(std::string& out) const;
  // `count` is the number of tokens sent, this one included.
  void append_token(std::string& out, std::string_view text, Token token, const Timings& timings) const;
  void append_last(std::string& out, Finish finish, std::string_view stop_word, const Timings& timings) const;
  static void append_error(std::string& out, std::string_view error_json);
  // The body of an answer that is not streamed.
  [[nodiscard]] std::string whole(std::string_view text, const std::vector<Token>& tokens, Finish finish,
                                  std::string_view stop_word, const Timings& timings) const;
  [[nodiscard]] const ReplyStyle& style() const { return style_; }

 private:
  [[nodiscard]] std::string finish_word(Finish finish) const;
  [[nodiscard]] std::string usage(const Timings& timings) const;
  [[nodiscard]] std::string native_tail(std::string_view text, const std::vector<Token>& tokens,
                                        Finish finish, std::string_view stop_word,
                                        const Timings& timings) const;
  ReplyStyle style_;
  std::string before_;  // of a token's text
  std::string after_;   // and behind it
};

std::string error_json(int code, std::string_view type, std::string_view message, std::string_view more = {});
std::string timings_json(const Timings& timings);
// With the quotes.
void append_json_string(std::string& out, std::string_view text);

}  // namespace aiv::fake
