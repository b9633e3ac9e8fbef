// What an engine's chat (or text) answer says, one event or one whole body at a time, as the forms of the
// other API families need it. Reading is exact (a JSON parser, not a search): translated answers are rebuilt,
// never patched.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace aiv::gateway {

struct ChatUsage {
  std::int64_t prompt_tokens = 0;  // cached ones included
  std::int64_t cached_tokens = 0;
  std::int64_t generated_tokens = 0;
  double prompt_ms = 0;
  double generated_ms = 0;
};

struct ToolCallPart {
  std::int64_t index = 0;
  std::string_view id;         // only in the first part of a call
  std::string_view name;       // likewise
  std::string_view arguments;  // JSON text; in a stream a piece of it
};

// Views live until the next read_chat_part() on this thread.
struct ChatPart {
  std::string_view content;
  std::string_view reasoning;
  std::string_view finish_reason;
  std::vector<ToolCallPart> calls;
  bool has_usage = false;
  ChatUsage usage;
  std::int64_t prompt_total = 0;  // progress of the prompt (llama-server's `return_progress`); 0: not said
  std::int64_t prompt_cached = 0;
};

// Reads one event's data, or a whole answer's body. False: not an object; `part` is empty then. Fields of a
// wrong type count as absent.
bool read_chat_part(std::string_view json, ChatPart& part);

struct ToolCall {
  std::string id;
  std::string name;
  std::string arguments;
};

// The parts of an answer put together.
struct ChatAnswer {
  std::string content;
  std::string reasoning;
  std::vector<ToolCall> calls;
  std::string finish_reason;
  ChatUsage usage;
  void take(const ChatPart& part);
};

}  // namespace aiv::gateway
