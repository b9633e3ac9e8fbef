// A request of another API family as the chat (or text) request that engines understand, and the form its
// answer takes.
#pragma once
#include <cstdint>
#include <expected>
#include <functional>
#include <memory>
#include <string>

#include "base/json.hpp"
#include "core/openai_request.hpp"
#include "gateway/api/answer_form.hpp"

namespace aiv::gateway {

// What a translation must know of the world.
struct TranslationContext {
  std::string request_id;                 // "req-..."
  std::function<std::int64_t()> unix_ms;  // the clock of created_at and of durations
};

struct Translated {
  Endpoint endpoint = Endpoint::kChat;
  std::string body;  // the OpenAI request; it still goes through parse_openai_request()
  std::shared_ptr<AnswerForm> form;
  bool want_progress = false;  // the form says the prompt's size before the first token
};
using Translation = std::expected<Translated, ApiError>;

// The body of a family's request: an object, UTF-8, at most 64 levels deep, no key twice at the top.
std::expected<Json, ApiError> read_object(std::string_view body);

// A field of an object: null where it is absent, and as text "" where it is no string.
const Json& field(const Json& object, const char* key);
std::string text_of(const Json& object, const char* key);

// Whether a value asks for something: neither absent, null, false, 0, "" nor empty.
bool asks(const Json& value);

// The error names the path ("messages[1].content").
ApiError wrong_field(const std::string& path, std::string_view reason);

// `text` as a JSON string with its quotes.
std::string json_text(std::string_view text);

// "msg_" and the digits of the request's id: as unguessable as that.
std::string id_from(std::string_view prefix, std::string_view request_id);

}  // namespace aiv::gateway
