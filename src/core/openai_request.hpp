// What a client may say to an engine: the allow-list of the OpenAI routes as data, and the checks of single values.
//
// RULES
// - The engine gets only what we wrote. A request is rebuilt from the fields listed here; a field that is not listed
//   is left out, whatever it is called. Rationale: llama-server takes fields that are ours alone or have been used
//   against it (id_slot, cache_prompt, n_discard, chat_parser, lora, n_cache_reuse).
// - A listed field of the wrong type, range or size refuses the request by the field's name; nothing is clamped
//   silently.
// - Fields of the OpenAI API that mean nothing to an engine (user, metadata, store) are checked and left out.
// - A field whose loss would make the answer another one than was asked for (functions, audio, echo) is refused by name.
// - Images are data: addresses only; the engine never fetches anything (SSRF).
// - Free-form parts (JSON schemas, tool parameters) are bounded in bytes, and all JSON in depth and nodes.
//
// The walk over the parsed JSON is the gateway's (gateway/openai_parse.hpp); this part knows no JSON library.
#pragma once
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace aiv {

enum class Endpoint : std::uint8_t { kChat, kCompletion, kEmbedding, kRerank };

// Whether an answer is text, made token by token; the others are one figure or list.
[[nodiscard]] constexpr bool generates(Endpoint endpoint) {
  return endpoint == Endpoint::kChat || endpoint == Endpoint::kCompletion;
}

// Types a value may have; a rule holds a set of them.
enum JsonType : unsigned {
  kJsonNull = 1,
  kJsonBool = 2,
  kJsonInteger = 4,
  kJsonNumber = 8,  // with a fraction; an integer passes too
  kJsonString = 16,
  kJsonArray = 32,
  kJsonObject = 64,
};
// "a string", "a number or null": for messages.
std::string describe_types(unsigned types);

struct FieldRule;

// What one value must be. Limits that do not apply to its type are not looked at.
struct ValueRule {
  unsigned types = 0;
  double min = -std::numeric_limits<double>::infinity();
  double max = std::numeric_limits<double>::infinity();
  std::size_t bytes_max = 256;          // of a string; of the text of a free value
  std::size_t items_max = 0;            // of an array
  const ValueRule* item = nullptr;      // every element of an array
  std::span<const FieldRule> fields{};  // of an object
  bool free = false;                    // any JSON of the given types within bytes_max
  std::string_view prefix{};            // a string must begin with it
  std::string_view one_of{};            // a string must be one of these words, separated by '|'
  // What no engine here can do: said of any value but null, false, "" and empty lists and objects, which ask for nothing.
  std::string_view unsupported{};
};

enum class FieldUse : std::uint8_t {
  kPass,  // written into the engine's request
  kKeep,  // checked and kept for us (model, stream); written by us
  kDrop,  // checked and left out
};

struct FieldRule {
  std::string_view name;
  ValueRule value;
  FieldUse use = FieldUse::kPass;
  bool required = false;
  bool keep_null = false;  // else a null is the same as the field's absence
};

std::span<const FieldRule> request_fields(Endpoint endpoint);
// The engine's path for it, e.g. "/v1/chat/completions".
std::string_view engine_path(Endpoint endpoint);

inline constexpr int kJsonDepthMax = 64;
inline constexpr std::size_t kJsonNodesMax = 100'000;

// Checks of one value; the error's `reason` goes to the client, `where` is filled by the caller (the field's path).
Result<> check_type(const ValueRule& rule, unsigned type);
Result<> check_number(const ValueRule& rule, double value);
Result<> check_string(const ValueRule& rule, std::string_view value);
Result<> check_items(const ValueRule& rule, std::size_t count);

// Names of models, deployments, nodes, keys: [A-Za-z0-9][A-Za-z0-9._:/-]{0,127}, without "..".
[[nodiscard]] bool valid_name(std::string_view name);

// A checked request, ready to be sent once it is known where.
struct CheckedRequest {
  Endpoint endpoint = Endpoint::kChat;
  std::string model{};        // as the client said it
  bool stream = false;
  bool include_usage = false;
  bool report_prompt = false;    // the engine says in the stream how long the prompt is, before its first token
  std::int64_t max_tokens = 0;   // 0: not given
  bool base64 = false;           // embeddings as base64 of little-endian float32
  std::int64_t dimensions = 0;   // of embeddings, cut by the gateway; 0: as the model has them
  std::string user{};            // whom the client says it asks for; accounting only
  std::size_t prompt_bytes = 0;  // of the messages, prompt or input as written
  std::string body{};            // the engine's request, without its last '}' (see engine_body())
};

// The bytes for one attempt. `slot` < 0: the engine chooses. `cache_prompt` only where the slot's last user belongs
// to the same share group: llama-server reuses whatever prefix lies there, and says so in its timings.
std::string engine_body(const CheckedRequest& request, int slot, bool cache_prompt);

// The range that depends on the model: max_tokens at most the context of a slot (0 = not known).
Result<> check_against_context(const CheckedRequest& request, std::int64_t ctx_per_slot);

}  // namespace aiv
