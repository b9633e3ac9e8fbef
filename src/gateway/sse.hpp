// The engine's event stream as the relay sees it: where events end, what each of them is, and the few numbers that
// are looked for in the last ones. Pure, without allocation: this is the token path, so text is searched with
// memchr and memmem and no JSON tree is made.
//
// Searching JSON text for `"key":` is sound: inside a JSON string a quote is escaped, so `key"` after a plain quote
// can only be a key (or a whole string value, which no colon follows).
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace aiv::gateway {

// Bytes of the event at the front of `buffer`, with the empty line that ends it; 0 when it is not whole yet.
[[nodiscard]] std::size_t next_event(std::string_view buffer);

enum class SseEvent : std::uint8_t {
  kToken,    // a choice that goes on: finish_reason null
  kFinish,   // finish_reason set
  kDone,     // data: [DONE]
  kError,    // {"error":..}
  kComment,  // ": ..."
  kOther,    // usage, progress, anything else
};
[[nodiscard]] SseEvent classify_event(std::string_view event);

// The text after "data: " (or "error: "), without the empty line.
[[nodiscard]] std::string_view event_data(std::string_view event);

// Where the value of the first key `key` begins; npos when there is none.
[[nodiscard]] std::size_t find_json_value(std::string_view json, std::string_view key, std::size_t from = 0);
[[nodiscard]] std::optional<std::string_view> find_json_string(std::string_view json, std::string_view key);
[[nodiscard]] std::optional<double> find_json_number(std::string_view json, std::string_view key);

// What the engine says about its work: llama-server's `timings` (server-common.cpp, server_slot_stats::to_json), or
// the `usage` of the OpenAI form where there are none.
struct EngineTimings {
  std::int64_t prompt_tokens = 0;  // computed now; cached ones apart
  std::int64_t cached_tokens = 0;
  std::int64_t generated_tokens = 0;
  double prompt_ms = 0;
  double generated_ms = 0;
};
[[nodiscard]] std::optional<EngineTimings> find_timings(std::string_view json);

// Appends `json` with its first "model" string replaced by `name` (which needs no escaping); as it is when it has
// none or has that one already.
void append_with_model(std::string& out, std::string_view json, std::string_view name);

}  // namespace aiv::gateway
