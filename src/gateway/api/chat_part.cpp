#include "gateway/api/chat_part.hpp"

#include <simdjson.h>

#include <algorithm>
#include <cstring>

#include "gateway/openai_parse.hpp"

namespace aiv::gateway {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::object;

constexpr std::size_t kCallsMax = 256;  // llama-server numbers them from 0; a larger index is no call
constexpr std::int64_t kTokensMax = 1'000'000'000'000;

std::string_view text_of(const object& from, std::string_view key) {
  std::string_view text;
  if (from[key].get(text) != simdjson::SUCCESS) return {};
  return text;
}

std::int64_t count_of(const object& from, std::string_view key) {
  double value = 0;
  if (from[key].get(value) != simdjson::SUCCESS) return 0;
  return value > 0 && value < static_cast<double>(kTokensMax) ? static_cast<std::int64_t>(value) : 0;
}

double number_of(const object& from, std::string_view key) {
  double value = 0;
  return from[key].get(value) == simdjson::SUCCESS && value > 0 ? value : 0;
}

void read_calls(const array& calls, ChatPart& part) {
  std::int64_t position = 0;
  for (const element each : calls) {
    object call;
    if (each.get(call) != simdjson::SUCCESS || part.calls.size() >= kCallsMax) continue;
    ToolCallPart out{.index = position++};
    std::int64_t index = 0;
    if (call["index"].get(index) == simdjson::SUCCESS) out.index = index;
    if (out.index < 0 || out.index >= static_cast<std::int64_t>(kCallsMax)) continue;
    out.id = text_of(call, "id");
    if (object function; call["function"].get(function) == simdjson::SUCCESS) {
      out.name = text_of(function, "name");
      out.arguments = text_of(function, "arguments");
    }
    part.calls.push_back(out);
  }
}

void read_choice(const object& choice, ChatPart& part) {
  part.finish_reason = text_of(choice, "finish_reason");
  part.content = text_of(choice, "text");  // of a text completion
  object message;
  if (choice["delta"].get(message) != simdjson::SUCCESS &&
      choice["message"].get(message) != simdjson::SUCCESS)
    return;
  part.content = text_of(message, "content");
  part.reasoning = text_of(message, "reasoning_content");
  if (array calls; message["tool_calls"].get(calls) == simdjson::SUCCESS) read_calls(calls, part);
}

void read_usage(const object& root, ChatPart& part) {
  if (object usage; root["usage"].get(usage) == simdjson::SUCCESS) {
    part.has_usage = true;
    part.usage.prompt_tokens = count_of(usage, "prompt_tokens");
    part.usage.generated_tokens = count_of(usage, "completion_tokens");
    object details;
    if (usage["prompt_tokens_details"].get(details) == simdjson::SUCCESS) {
      part.usage.cached_tokens = std::min(count_of(details, "cached_tokens"), part.usage.prompt_tokens);
    }
  }
  if (object timings; root["timings"].get(timings) == simdjson::SUCCESS) {
    part.usage.prompt_ms = number_of(timings, "prompt_ms");
    part.usage.generated_ms = number_of(timings, "predicted_ms");
    if (!part.has_usage) {
      part.has_usage = true;
      part.usage.cached_tokens = count_of(timings, "cache_n");
      part.usage.prompt_tokens = count_of(timings, "prompt_n") + part.usage.cached_tokens;
      part.usage.generated_tokens = count_of(timings, "predicted_n");
    }
  }
  if (object progress; root["prompt_progress"].get(progress) == simdjson::SUCCESS) {
    part.prompt_total = count_of(progress, "total");
    part.prompt_cached = std::min(count_of(progress, "cache"), part.prompt_total);
  }
}

}  // namespace

bool read_chat_part(std::string_view json, ChatPart& part) {
  part = {};
  thread_local simdjson::dom::parser parser;
  if (parser.capacity() > kParserKeepBytes && json.size() < kParserKeepBytes)
    parser = simdjson::dom::parser();
  object root;
  // The parser copies the text, because it reads some bytes beyond it.
  if (parser.parse(json.data(), json.size(), true).get(root) != simdjson::SUCCESS) return false;
  array choices;
  if (root["choices"].get(choices) == simdjson::SUCCESS) {
    for (const element each : choices) {
      if (object choice; each.get(choice) == simdjson::SUCCESS) read_choice(choice, part);
      break;  // the gateway asks for one choice
    }
  }
  read_usage(root, part);
  return true;
}

void ChatAnswer::take(const ChatPart& part) {
  content += part.content;
  reasoning += part.reasoning;
  for (const ToolCallPart& call : part.calls) {
    const auto index = static_cast<std::size_t>(call.index);
    if (calls.size() <= index) calls.resize(index + 1);
    if (!call.id.empty()) calls[index].id = call.id;
    if (!call.name.empty()) calls[index].name = call.name;
    calls[index].arguments += call.arguments;
  }
  if (!part.finish_reason.empty()) finish_reason = part.finish_reason;
  if (!part.has_usage) return;
  const ChatUsage before = usage;
  usage = part.usage;
  if (usage.prompt_ms <= 0) usage.prompt_ms = before.prompt_ms;
  if (usage.generated_ms <= 0) usage.generated_ms = before.generated_ms;
}

}  // namespace aiv::gateway
