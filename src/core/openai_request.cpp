#include "core/openai_request.hpp"

#include <array>
#include <cmath>

namespace aiv {
namespace {

// Tokens that anybody may ask for before the model's own context is known.
constexpr double kTokensMax = 1e9;
constexpr std::size_t kTextMax = std::size_t{64} * 1024 * 1024;  // the body's limit is the real one
constexpr std::size_t kGrammarMax = std::size_t{64} * 1024;

constexpr ValueRule number(double min, double max) {
  return {.types = kJsonNumber | kJsonInteger | kJsonNull, .min = min, .max = max};
}
constexpr ValueRule integer(double min, double max) {
  return {.types = kJsonInteger | kJsonNull, .min = min, .max = max};
}
constexpr ValueRule text(std::size_t bytes_max) {
  return {.types = kJsonString | kJsonNull, .bytes_max = bytes_max};
}
constexpr ValueRule word(std::string_view one_of) {
  return {.types = kJsonString | kJsonNull, .one_of = one_of};
}
constexpr ValueRule object(std::span<const FieldRule> fields) {
  return {.types = kJsonObject | kJsonNull, .fields = fields};
}
constexpr ValueRule list(const ValueRule* item, std::size_t items_max) {
  return {.types = kJsonArray | kJsonNull, .items_max = items_max, .item = item};
}
constexpr ValueRule any(unsigned types, std::size_t bytes_max) {
  return {.types = types, .bytes_max = bytes_max, .free = true};
}
// Refused unless it asks for nothing; `reason` ends "'field' ...".
constexpr ValueRule unsupported(std::string_view reason) {
  return {.types = kJsonNull | kJsonBool | kJsonInteger | kJsonNumber | kJsonString | kJsonArray | kJsonObject, .unsupported = reason};
}
constexpr ValueRule kFlag{.types = kJsonBool | kJsonNull};
constexpr ValueRule kModel{.types = kJsonString, .bytes_max = 128};

// ---- messages

constexpr std::array kImageUrl{
    FieldRule{.name = "url",
              .value = {.types = kJsonString, .bytes_max = kTextMax, .prefix = "data:"},
              .required = true},
    FieldRule{.name = "detail", .value = word("auto|low|high"), .use = FieldUse::kDrop},
};
constexpr std::array kInputAudio{
    FieldRule{.name = "data", .value = {.types = kJsonString, .bytes_max = kTextMax}, .required = true},
    FieldRule{.name = "format", .value = word("wav|mp3")},
};
constexpr std::array kPart{
    FieldRule{.name = "type",
              .value = {.types = kJsonString, .one_of = "text|image_url|input_audio|refusal"},
              .required = true},
    FieldRule{.name = "text", .value = text(kTextMax)},
    FieldRule{.name = "image_url", .value = object(kImageUrl)},
    FieldRule{.name = "input_audio", .value = object(kInputAudio)},
};
constexpr ValueRule kPartItem{.types = kJsonObject, .fields = kPart};

constexpr std::array kCalledFunction{
    FieldRule{.name = "name", .value = {.types = kJsonString, .bytes_max = 256}, .required = true},
    FieldRule{.name = "arguments", .value = {.types = kJsonString | kJsonObject, .bytes_max = kTextMax, .free = true}},
};
constexpr std::array kToolCall{
    FieldRule{.name = "id", .value = text(256)},
    FieldRule{.name = "type", .value = word("function")},
    FieldRule{.name = "function", .value = {.types = kJsonObject, .fields = kCalledFunction}, .required = true},
};
constexpr ValueRule kToolCallItem{.types = kJsonObject, .fields = kToolCall};

constexpr std::array kMessage{
    FieldRule{.name = "role",
              .value = {.types = kJsonString, .one_of = "system|developer|user|assistant|tool|function"},
              .required = true},
    FieldRule{.name = "content",
              .value = {.types = kJsonString | kJsonArray | kJsonNull,
                        .bytes_max = kTextMax,
                        .items_max = 1024,
                        .item = &kPartItem},
              .keep_null = true},
    FieldRule{.name = "name", .value = text(256)},
    FieldRule{.name = "reasoning_content", .value = text(kTextMax)},
    FieldRule{.name = "tool_calls", .value = list(&kToolCallItem, 128)},
    FieldRule{.name = "tool_call_id", .value = text(256)},
};
constexpr ValueRule kMessageItem{.types = kJsonObject, .fields = kMessage};

// ---- tools and formats

constexpr std::array kFunction{
    FieldRule{.name = "name", .value = {.types = kJsonString, .bytes_max = 256}, .required = true},
    FieldRule{.name = "description", .value = text(64 * 1024)},
    FieldRule{.name = "parameters", .value = any(kJsonObject | kJsonNull, 256 * 1024)},
    FieldRule{.name = "strict", .value = kFlag},
};
constexpr std::array kTool{
    FieldRule{.name = "type", .value = {.types = kJsonString, .one_of = "function"}, .required = true},
    FieldRule{.name = "function", .value = {.types = kJsonObject, .fields = kFunction}, .required = true},
};
constexpr ValueRule kToolItem{.types = kJsonObject, .fields = kTool};
constexpr std::array kChosenFunction{
    FieldRule{.name = "name", .value = {.types = kJsonString, .bytes_max = 256}, .required = true},
};
constexpr std::array kToolChoice{
    FieldRule{.name = "type", .value = word("function")},
    FieldRule{.name = "function", .value = {.types = kJsonObject, .fields = kChosenFunction}},
};
constexpr std::array kJsonSchema{
    FieldRule{.name = "name", .value = text(256)},
    FieldRule{.name = "description", .value = text(64 * 1024)},
    FieldRule{.name = "strict", .value = kFlag},
    FieldRule{.name = "schema", .value = any(kJsonObject | kJsonNull, 64 * 1024)},
};
constexpr std::array kResponseFormat{
    FieldRule{.name = "type", .value = {.types = kJsonString, .one_of = "text|json_object|json_schema"}, .required = true},
    FieldRule{.name = "json_schema", .value = object(kJsonSchema)},
    FieldRule{.name = "schema", .value = any(kJsonObject | kJsonNull, 64 * 1024)},
};
constexpr std::array kStreamOptions{
    FieldRule{.name = "include_usage", .value = kFlag, .use = FieldUse::kKeep},
    FieldRule{.name = "include_obfuscation", .value = kFlag, .use = FieldUse::kDrop},
};
constexpr ValueRule kStopItem{.types = kJsonString, .bytes_max = 256};
constexpr ValueRule kStop{.types = kJsonString | kJsonArray | kJsonNull, .items_max = 16, .item = &kStopItem};
// One completion per request: each further one would take a slot of its own behind the slot ledger's back.
constexpr ValueRule kOne = integer(1, 1);

// What both text routes take.
constexpr std::array kTextFields{
    FieldRule{.name = "model", .value = kModel, .use = FieldUse::kKeep, .required = true},
    FieldRule{.name = "stream", .value = kFlag, .use = FieldUse::kKeep},
    FieldRule{.name = "stream_options", .value = object(kStreamOptions), .use = FieldUse::kKeep},
    FieldRule{.name = "max_tokens", .value = integer(1, kTokensMax), .use = FieldUse::kKeep},
    FieldRule{.name = "temperature", .value = number(0, 2)},
    FieldRule{.name = "top_p", .value = number(0, 1)},
    FieldRule{.name = "top_k", .value = integer(-1, 1e6)},
    FieldRule{.name = "min_p", .value = number(0, 1)},
    FieldRule{.name = "typical_p", .value = number(0, 1)},
    FieldRule{.name = "seed", .value = integer(-1, 4294967295.0)},
    FieldRule{.name = "frequency_penalty", .value = number(-2, 2)},
    FieldRule{.name = "presence_penalty", .value = number(-2, 2)},
    FieldRule{.name = "repeat_penalty", .value = number(0, 10)},
    FieldRule{.name = "repeat_last_n", .value = integer(-1, 1e6)},
    FieldRule{.name = "stop", .value = kStop},
    FieldRule{.name = "n", .value = kOne, .use = FieldUse::kDrop},
    FieldRule{.name = "logit_bias",
              .value = {.types = kJsonObject | kJsonNull, .bytes_max = 64 * 1024, .items_max = 1024, .free = true}},
    FieldRule{.name = "grammar", .value = text(kGrammarMax)},
    FieldRule{.name = "json_schema", .value = any(kJsonObject | kJsonNull, 64 * 1024)},
    FieldRule{.name = "user", .value = text(512), .use = FieldUse::kKeep},
};

template <std::size_t A, std::size_t B>
constexpr std::array<FieldRule, A + B> joined(const std::array<FieldRule, A>& a, const std::array<FieldRule, B>& b) {
  std::array<FieldRule, A + B> all{};
  for (std::size_t i = 0; i < A; ++i) all[i] = a[i];
  for (std::size_t i = 0; i < B; ++i) all[A + i] = b[i];
  return all;
}

constexpr ValueRule kTextOnly{.types = kJsonString, .one_of = "text"};
constexpr std::array kChatOwnFields{
    FieldRule{.name = "messages",
              .value = {.types = kJsonArray, .items_max = 8192, .item = &kMessageItem},
              .required = true},
    FieldRule{.name = "max_completion_tokens", .value = integer(1, kTokensMax), .use = FieldUse::kKeep},
    FieldRule{.name = "logprobs", .value = kFlag},
    FieldRule{.name = "top_logprobs", .value = integer(0, 20)},
    FieldRule{.name = "response_format", .value = object(kResponseFormat)},
    FieldRule{.name = "tools", .value = list(&kToolItem, 128)},
    FieldRule{.name = "tool_choice",
              .value = {.types = kJsonString | kJsonObject | kJsonNull,
                        .fields = kToolChoice,
                        .one_of = "none|auto|required"}},
    FieldRule{.name = "parallel_tool_calls", .value = kFlag},
    FieldRule{.name = "chat_template_kwargs", .value = any(kJsonObject | kJsonNull, 4096)},
    FieldRule{.name = "reasoning_effort", .value = word("none|minimal|low|medium|high|xhigh")},
    FieldRule{.name = "modalities", .value = list(&kTextOnly, 4), .use = FieldUse::kDrop},
    FieldRule{.name = "audio", .value = unsupported("is not supported: answers are text"), .use = FieldUse::kDrop},
    FieldRule{.name = "functions", .value = unsupported("is not supported any more: use 'tools'"), .use = FieldUse::kDrop},
    FieldRule{.name = "function_call", .value = unsupported("is not supported any more: use 'tool_choice'"), .use = FieldUse::kDrop},
    FieldRule{.name = "web_search_options", .value = unsupported("is not supported: this server searches nothing"), .use = FieldUse::kDrop},
    FieldRule{.name = "metadata", .value = any(kJsonObject | kJsonNull, 16 * 1024), .use = FieldUse::kDrop},
};

constexpr ValueRule kTokenId{.types = kJsonInteger, .min = 0, .max = 2147483647.0};
constexpr std::array kCompletionOwnFields{
    // One prompt, as text or token ids: a list of prompts would take a slot for each. (A list of one text, as some clients
    // always send it, is that text: gateway/openai_parse.cpp.)
    FieldRule{.name = "prompt",
              .value = {.types = kJsonString | kJsonArray, .bytes_max = kTextMax, .items_max = kJsonNodesMax, .item = &kTokenId},
              .required = true},
    FieldRule{.name = "logprobs", .value = integer(0, 20)},
    FieldRule{.name = "best_of", .value = kOne, .use = FieldUse::kDrop},
    FieldRule{.name = "echo", .value = unsupported("is not supported: the answer never repeats its prompt"), .use = FieldUse::kDrop},
    FieldRule{.name = "suffix", .value = unsupported("is not supported: nothing is filled in between two texts"), .use = FieldUse::kDrop},
};

constexpr ValueRule kTokenList{.types = kJsonString | kJsonInteger | kJsonArray,
                               .min = 0,
                               .max = 2147483647.0,
                               .bytes_max = kTextMax,
                               .items_max = kJsonNodesMax,
                               .item = &kTokenId};
constexpr std::array kEmbeddingFields{
    FieldRule{.name = "model", .value = kModel, .use = FieldUse::kKeep, .required = true},
    FieldRule{.name = "input",
              .value = {.types = kJsonString | kJsonArray, .bytes_max = kTextMax, .items_max = 2048, .item = &kTokenList},
              .required = true},
    FieldRule{.name = "encoding_format", .value = word("float|base64"), .use = FieldUse::kKeep},
    FieldRule{.name = "dimensions", .value = integer(1, 1e6), .use = FieldUse::kKeep},
    FieldRule{.name = "user", .value = text(512), .use = FieldUse::kKeep},
};

constexpr ValueRule kDocument{.types = kJsonString, .bytes_max = kTextMax};
constexpr std::array kRerankFields{
    FieldRule{.name = "model", .value = kModel, .use = FieldUse::kKeep, .required = true},
    FieldRule{.name = "query", .value = {.types = kJsonString, .bytes_max = kTextMax}, .required = true},
    FieldRule{.name = "documents",
              .value = {.types = kJsonArray, .items_max = 2048, .item = &kDocument},
              .required = true},
    FieldRule{.name = "top_n", .value = integer(1, 1e6)},
    FieldRule{.name = "return_documents", .value = kFlag, .use = FieldUse::kDrop},
    FieldRule{.name = "user", .value = text(512), .use = FieldUse::kKeep},
};

constexpr auto kChatFields = joined(kTextFields, kChatOwnFields);
constexpr auto kCompletionFields = joined(kTextFields, kCompletionOwnFields);

std::string format_number(double value) {
  if (value == std::floor(value) && std::abs(value) < 1e15) return std::to_string(static_cast<long long>(value));
  std::string text = std::to_string(value);
  while (text.ends_with('0')) text.pop_back();
  return text;
}

bool in_words(std::string_view words, std::string_view word) {
  while (true) {
    const std::size_t bar = words.find('|');
    if (words.substr(0, bar) == word) return true;
    if (bar == std::string_view::npos) return false;
    words.remove_prefix(bar + 1);
  }
}

}  // namespace

std::string describe_types(unsigned types) {
  static constexpr std::array<std::pair<unsigned, std::string_view>, 6> kNames{{{kJsonString, "a string"},
                                                                              {kJsonNumber, "a number"},
                                                                              {kJsonInteger, "an integer"},
                                                                              {kJsonBool, "true or false"},
                                                                              {kJsonArray, "an array"},
                                                                              {kJsonObject, "an object"}}};
  if ((types & kJsonNumber) != 0) types &= ~static_cast<unsigned>(kJsonInteger);
  std::string text;
  for (const auto& [bit, name] : kNames) {
    if ((types & bit) == 0) continue;
    if (!text.empty()) text += " or ";
    text += name;
  }
  return text;
}

std::span<const FieldRule> request_fields(Endpoint endpoint) {
  switch (endpoint) {
    case Endpoint::kChat: return kChatFields;
    case Endpoint::kCompletion: return kCompletionFields;
    case Endpoint::kEmbedding: return kEmbeddingFields;
    case Endpoint::kRerank: return kRerankFields;
  }
  return {};
}

std::string_view engine_path(Endpoint endpoint) {
  switch (endpoint) {
    case Endpoint::kChat: return "/v1/chat/completions";
    case Endpoint::kCompletion: return "/v1/completions";
    case Endpoint::kEmbedding: return "/v1/embeddings";
    case Endpoint::kRerank: return "/v1/rerank";
  }
  return {};
}

Result<> check_type(const ValueRule& rule, unsigned type) {
  if ((rule.types & type) != 0) return {};
  if (type == kJsonInteger && (rule.types & kJsonNumber) != 0) return {};
  return fail(ErrorCode::kInvalidArgument, "must be " + describe_types(rule.types));
}

Result<> check_number(const ValueRule& rule, double value) {
  if (value >= rule.min && value <= rule.max) return {};  // false for NaN too
  if (rule.min == rule.max) return fail(ErrorCode::kInvalidArgument, "must be " + format_number(rule.min));
  return fail(ErrorCode::kInvalidArgument,
              "must be between " + format_number(rule.min) + " and " + format_number(rule.max));
}

Result<> check_string(const ValueRule& rule, std::string_view value) {
  if (value.size() > rule.bytes_max) {
    return fail(ErrorCode::kInvalidArgument, "is longer than " + std::to_string(rule.bytes_max) + " bytes");
  }
  if (!rule.one_of.empty() && !in_words(rule.one_of, value)) {
    std::string words(rule.one_of);
    for (std::size_t at = 0; (at = words.find('|', at)) != std::string::npos;) words.replace(at, 1, ", ");
    return fail(ErrorCode::kInvalidArgument, "must be one of: " + words);
  }
  if (!rule.prefix.empty() && !value.starts_with(rule.prefix)) {
    return fail(ErrorCode::kInvalidArgument,
                "must begin with '" + std::string(rule.prefix) + "': the server fetches nothing, send the bytes inline");
  }
  return {};
}

Result<> check_items(const ValueRule& rule, std::size_t count) {
  if (rule.items_max == 0 || count <= rule.items_max) return {};
  return fail(ErrorCode::kInvalidArgument, "has more than " + std::to_string(rule.items_max) + " entries");
}

bool valid_name(std::string_view name) {
  const auto alphanumeric = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
  };
  if (name.empty() || name.size() > 128 || !alphanumeric(name.front())) return false;
  if (name.find("..") != std::string_view::npos) return false;
  for (const char c : name) {
    if (!alphanumeric(c) && std::string_view("._:/-").find(c) == std::string_view::npos) return false;
  }
  return true;
}

std::string engine_body(const CheckedRequest& request, int slot, bool cache_prompt) {
  std::string body;
  body.reserve(request.body.size() + 128);
  body = request.body;
  if (generates(request.endpoint)) {
    if (request.max_tokens > 0) body += ",\"max_tokens\":" + std::to_string(request.max_tokens);
    if (request.stream) {
      body += request.include_usage ? ",\"stream\":true,\"stream_options\":{\"include_usage\":true}" : ",\"stream\":true";
    }
    if (request.report_prompt && request.stream) body += ",\"return_progress\":true";
    body += cache_prompt ? ",\"cache_prompt\":true" : ",\"cache_prompt\":false";
    if (slot >= 0) body += ",\"id_slot\":" + std::to_string(slot);
  }
  // A vector that is to be cut is needed as numbers.
  if (request.base64 && request.dimensions == 0) body += ",\"encoding_format\":\"base64\"";
  body += '}';
  return body;
}

Result<> check_against_context(const CheckedRequest& request, std::int64_t ctx_per_slot) {
  if (ctx_per_slot <= 0 || request.max_tokens <= ctx_per_slot) return {};
  return fail(ErrorCode::kInvalidArgument,
              "must be at most " + std::to_string(ctx_per_slot) + ", the context of this model", "max_tokens");
}

}  // namespace aiv
