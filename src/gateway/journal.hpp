// What a stream has delivered so far, kept so that another replica can continue it (core/resume.hpp).
//
// This is on the token path: of each event only the text's bytes are copied, still escaped, each followed by a newline
// (which escaped JSON text cannot hold); the first event is kept whole as the mould for those of a continuation, so
// that id, created, model and all other fields stay the same. JSON is read only when a stream has broken.
#pragma once
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

#include "base/json.hpp"
#include "core/openai_request.hpp"
#include "core/resume.hpp"

namespace aiv::gateway {

// Where the quote lies that ends the JSON string whose first character is at `start`; npos if it is not there.
[[nodiscard]] std::size_t json_string_end(std::string_view json, std::size_t start);

class Journal {
 public:
  // One event (SseEvent::kToken) that goes to the client. Whether it holds something of the answer.
  bool add(std::string_view event, Endpoint endpoint);
  // Text that a continuation delivered.
  void add_text(std::string_view text);
  void clear();

  // True once there was an event with text: a continuation has a mould.
  [[nodiscard]] bool has_mould() const { return !mould_.empty(); }
  // Events with text: about the tokens delivered, until they are counted.
  [[nodiscard]] std::int64_t events() const { return events_; }
  // The texts, unescaped, in order; empty ones are left out.
  [[nodiscard]] std::vector<std::string> texts() const;
  // Sets what the journal knows: kinds of deltas and whether it is complete.
  void tell(ResumeFacts& facts) const;

  // The events of a continuation, each with its end, in the form of the first one. `model` replaces the engine's name
  // of it.
  [[nodiscard]] std::string text_event(std::string_view text) const;
  [[nodiscard]] std::string delta_event(Json delta) const;  // of a chat
  [[nodiscard]] std::string finish_event(std::string_view reason, const AnswerUsage* usage) const;
  [[nodiscard]] std::string usage_event(const AnswerUsage& usage) const;
  void rename(std::string_view model);

 private:
  std::string escaped_;
  std::string mould_;
  std::size_t text_begin_ = 0;  // of the text in the mould, without its quotes
  std::size_t text_end_ = 0;
  Endpoint endpoint_ = Endpoint::kChat;
  std::int64_t events_ = 0;
  bool tool_call_ = false;
  bool reasoning_ = false;
  bool other_ = false;
  bool overflowed_ = false;
};

// True for the first event of a chat stream that says only whose turn it is.
[[nodiscard]] bool is_role_event(std::string_view event);

}  // namespace aiv::gateway
