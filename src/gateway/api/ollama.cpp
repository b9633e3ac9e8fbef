#include "gateway/api/ollama.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

#include "base/units.hpp"
#include "gateway/api/embeddings.hpp"

namespace aiv::gateway {
namespace {

constexpr std::int64_t kNsPerMs = 1'000'000;

std::int64_t ns_of(double ms) {
  return std::max<std::int64_t>(1, static_cast<std::int64_t>(ms * 1e6));
}

}  // namespace

OllamaForm::OllamaForm(Kind kind, std::string model, std::function<std::int64_t()> unix_ms)
    : kind_(kind), model_(std::move(model)), unix_ms_(std::move(unix_ms)), began_ms_(unix_ms_()) {}

void OllamaForm::forget() {
  answer_ = {};
}

void OllamaForm::line(std::string& out, std::string_view content, std::string_view thinking,
                      std::string_view calls, std::string_view rest) {
  out += "{\"model\":";
  append_json_string(out, model_);
  fmt::format_to(std::back_inserter(out), ",\"created_at\":\"{}\",", rfc3339(unix_ms_()));
  out += kind_ == Kind::kChat ? "\"message\":{\"role\":\"assistant\",\"content\":" : "\"response\":";
  append_json_string(out, content);
  if (!thinking.empty()) {
    out += ",\"thinking\":";
    append_json_string(out, thinking);
  }
  if (!calls.empty() && kind_ == Kind::kChat) {
    out += ",\"tool_calls\":";
    out += calls;
  }
  if (kind_ == Kind::kChat) out += '}';
  out += rest;
}

std::string OllamaForm::calls_json() const {
  if (answer_.calls.empty()) return {};
  std::string out = "[";
  for (const ToolCall& call : answer_.calls) {
    if (out.size() > 1) out += ',';
    const auto arguments = parse_json(call.arguments);
    out += "{\"function\":{\"name\":" + json_text(call.name) +
           ",\"arguments\":" + (arguments && arguments->is_object() ? dump_json(*arguments) : "{}") + "}}";
  }
  return out + "]";
}

std::string OllamaForm::ending() const {
  const ChatUsage& usage = answer_.usage;
  const std::int64_t total_ns = std::max<std::int64_t>(1, (unix_ms_() - began_ms_) * kNsPerMs);
  return fmt::format(
      R"(,"done":true,"done_reason":"{}","total_duration":{},"load_duration":1,"prompt_eval_count":{},)"
      R"("prompt_eval_duration":{},"eval_count":{},"eval_duration":{}}})",
      answer_.finish_reason == "length" ? "length" : "stop", total_ns, usage.prompt_tokens,
      ns_of(usage.prompt_ms), usage.generated_tokens, ns_of(usage.generated_ms));
}

void OllamaForm::event(std::string& out, std::string_view data) {
  ChatPart part;
  if (!read_chat_part(data, part)) return;
  const std::string_view content = part.content;
  const std::string_view reasoning = part.reasoning;
  part.content = part.reasoning = {};
  answer_.take(part);  // calls are said whole, at the end
  if (content.empty() && reasoning.empty()) return;
  line(out, content, reasoning, {}, ",\"done\":false}\n");
}

void OllamaForm::done(std::string& out) {
  if (const std::string calls = calls_json(); !calls.empty()) line(out, {}, {}, calls, ",\"done\":false}\n");
  line(out, {}, {}, {}, ending() + "\n");
}

void OllamaForm::life_sign(std::string& out) {
  line(out, {}, {}, {}, ",\"done\":false}\n");
}

Result<std::string> OllamaForm::whole(std::string_view body) {
  ChatPart part;
  if (!read_chat_part(body, part)) return fail(ErrorCode::kCorrupt, "its answer is not JSON");
  answer_ = {};
  answer_.take(part);
  std::string out;
  line(out, answer_.content, answer_.reasoning, calls_json(), ending());
  return out;
}

std::string OllamaForm::error_event(const ApiError& error) {
  return gateway::error_event(ApiFamily::kOllama, error, {});
}

OllamaEmbedForm::OllamaEmbedForm(std::string model, bool legacy, std::int64_t dimensions, std::function<std::int64_t()> unix_ms)
    : model_(std::move(model)), legacy_(legacy), dimensions_(dimensions), unix_ms_(std::move(unix_ms)), began_ms_(unix_ms_()) {}

Result<std::string> OllamaEmbedForm::whole(std::string_view body) {
  std::string cut;
  if (dimensions_ > 0) {
    auto shorter = CutEmbeddingForm(model_, dimensions_, false).whole(body);
    if (!shorter) return shorter;
    cut = std::move(*shorter);
    body = cut;
  }
  const auto json = parse_json(body);
  if (!json || !json->is_object() || !json->contains("data") || !(*json)["data"].is_array()) {
    return fail(ErrorCode::kCorrupt, "its answer holds no embeddings");
  }
  std::string vectors;
  for (const Json& entry : (*json)["data"]) {
    if (!entry.is_object() || !entry.contains("embedding"))
      return fail(ErrorCode::kCorrupt, "its answer holds no embeddings");
    if (!vectors.empty()) vectors += ',';
    vectors += dump_json(entry["embedding"]);
    if (legacy_) break;
  }
  if (legacy_) return "{\"embedding\":" + vectors + "}";
  std::int64_t tokens = 0;
  if (json->contains("usage") && (*json)["usage"].is_object())
    tokens = (*json)["usage"].value("prompt_tokens", std::int64_t{0});
  return fmt::format(
      R"({{"model":{},"embeddings":[{}],"total_duration":{},"load_duration":1,"prompt_eval_count":{}}})",
      json_text(model_), vectors, std::max<std::int64_t>(1, (unix_ms_() - began_ms_) * kNsPerMs), tokens);
}

std::string OllamaEmbedForm::error_event(const ApiError& error) {
  return gateway::error_event(ApiFamily::kOllama, error, {});
}

}  // namespace aiv::gateway
