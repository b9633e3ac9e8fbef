#include "reply.hpp"

#include <fmt/format.h>

#include "http.hpp"

namespace aiv::fake {
namespace {

constexpr std::string_view kFingerprint = "fake-0.5.0";

std::string as_json_string(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

void append_event(std::string& out, std::string_view json) {
  std::string event;
  event.reserve(json.size() + 8);
  event += "data: ";
  event += json;
  event += "\n\n";
  append_chunk(out, event);
}

std::string token_list(const std::vector<Token>& tokens) {
  return fmt::format("[{}]", fmt::join(tokens, ","));
}

}  // namespace

void append_json_string(std::string& out, std::string_view text) {
  out += '"';
  for (const char c : text) {
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20)
          out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
        else
          out += c;
    }
  }
  out += '"';
}

std::string error_json(int code, std::string_view type, std::string_view message, std::string_view more) {
  return fmt::format(R"({{"code":{},"message":{},"type":"{}"{}}})", code, as_json_string(message), type,
                     more);
}

std::string timings_json(const Timings& t) {
  const auto per = [](double ms, std::int64_t n) { return n > 0 ? ms / static_cast<double>(n) : 0.0; };
  const auto rate = [](double ms, std::int64_t n) {
    return ms > 0 ? 1000.0 * static_cast<double>(n) / ms : 0.0;
  };
  return fmt::format(
      R"({{"cache_n":0,"prompt_n":{},"prompt_ms":{},"prompt_per_token_ms":{},"prompt_per_second":{},"predicted_n":{},"predicted_ms":{},"predicted_per_token_ms":{},"predicted_per_second":{}}})",
      t.prompt_n, t.prompt_ms, per(t.prompt_ms, t.prompt_n), rate(t.prompt_ms, t.prompt_n), t.predicted_n,
      t.predicted_ms, per(t.predicted_ms, t.predicted_n), rate(t.predicted_ms, t.predicted_n));
}

Reply::Reply(ReplyStyle style) : style_(std::move(style)) {
  const auto model = as_json_string(style_.model);
  switch (style_.kind) {
    case ReplyKind::kChat:
      before_ = R"(data: {"choices":[{"finish_reason":null,"index":0,"delta":)";
      after_ = fmt::format(
          R"(}}],"created":{},"id":"{}","model":{},"system_fingerprint":"{}","object":"chat.completion.chunk")",
          style_.created, style_.id, model, kFingerprint);
      break;
    case ReplyKind::kCompletion:
      before_ = R"(data: {"choices":[{"text":)";
      after_ = fmt::format(R"(,"created":{},"model":{},"system_fingerprint":"{}","object":"text_completion")",
                           style_.created, model, kFingerprint);
      break;
    case ReplyKind::kNative:
      before_ = R"(data: {"index":0,"content":)";
      break;
  }
}

void Reply::append_first(std::string& out) const {
  if (style_.kind != ReplyKind::kChat) return;
  std::string progress;
  if (style_.return_progress) {
    progress = fmt::format(R"(,"prompt_progress":{{"total":{0},"cache":0,"processed":{0},"time_ms":0}})", style_.prompt_tokens);
  }
  append_chunk(out, before_ + R"({"role":"assistant","content":null})" + after_ + progress + "}\n\n");
  if (style_.tool_name.empty()) return;
  append_chunk(
      out,
      fmt::format(
          R"({}{{"tool_calls":[{{"index":0,"id":"{}","type":"function","function":{{"name":{},"arguments":""}}}}]}}{}}}{})",
          before_, style_.tool_id, as_json_string(style_.tool_name), after_, "\n\n"));
}

void Reply::append_token(std::string& out, std::string_view text, Token token, const Timings& timings) const {
  std::string event;
  event.reserve(before_.size() + after_.size() + text.size() + 192);
  event += before_;
  switch (style_.kind) {
    case ReplyKind::kChat:
      event += style_.tool_name.empty() ? R"({"content":)"
                                        : R"({"tool_calls":[{"index":0,"function":{"arguments":)";
      append_json_string(event, text);
      event += style_.tool_name.empty() ? "}" : "}}]}";
      event += after_;
      break;
    case ReplyKind::kCompletion:
      append_json_string(event, text);
      event += R"(,"index":0,"logprobs":null,"finish_reason":null}])";
      event += after_;
      event += R"(,"id":")" + style_.id + '"';
      break;
    case ReplyKind::kNative:
      append_json_string(event, text);
      event += fmt::format(
          R"(,"tokens":[{}],"stop":false,"id_slot":-1,"tokens_predicted":{},"tokens_evaluated":{})", token,
          timings.predicted_n, style_.prompt_tokens);
      break;
  }
  if (style_.timings_per_token) event += R"(,"timings":)" + timings_json(timings);
  event += "}\n\n";
  append_chunk(out, event);
}

std::string Reply::finish_word(Finish finish) const {
  if (finish == Finish::kLimit) return "length";
  return style_.kind == ReplyKind::kChat && !style_.tool_name.empty() ? "tool_calls" : "stop";
}

std::string Reply::usage(const Timings& timings) const {
  return fmt::format(
      R"("usage":{{"completion_tokens":{},"prompt_tokens":{},"total_tokens":{},"prompt_tokens_details":{{"cached_tokens":0}}}})",
      timings.predicted_n, style_.prompt_tokens, timings.predicted_n + style_.prompt_tokens);
}

void Reply::append_last(std::string& out, Finish finish, std::string_view stop_word,
                        const Timings& timings) const {
  const auto tail = R"(,"timings":)" + timings_json(timings);
  switch (style_.kind) {
    case ReplyKind::kChat:
      append_event(out, fmt::format(R"({{"choices":[{{"finish_reason":"{}","index":0,"delta":{{}}{}{}}})",
                                    finish_word(finish), after_, style_.include_usage ? "" : tail));
      if (style_.include_usage)
        append_event(out, fmt::format(R"({{"choices":[{}{},{}{}}})", "", std::string_view(after_).substr(1),
                                      usage(timings), tail));
      append_event(out, "[DONE]");
      break;
    case ReplyKind::kCompletion:
      append_event(
          out,
          fmt::format(
              R"({{"choices":[{{"text":"","index":0,"logprobs":null,"finish_reason":"{}"}}]{},{},"id":"{}"{}}})",
              finish_word(finish), after_, usage(timings), style_.id, tail));
      append_event(out, "[DONE]");
      break;
    case ReplyKind::kNative:
      append_event(out, native_tail("", {}, finish, stop_word, timings));
      break;
  }
}

void Reply::append_error(std::string& out, std::string_view error) {
  append_event(out, fmt::format(R"({{"error":{}}})", error));
}

std::string Reply::native_tail(std::string_view text, const std::vector<Token>& tokens, Finish finish,
                               std::string_view stop_word, const Timings& timings) const {
  const char* type = finish == Finish::kLimit ? "limit" : finish == Finish::kStopWord ? "word" : "eos";
  return fmt::format(
      R"({{"index":0,"content":{},"tokens":{},"id_slot":{},"stop":true,"model":{},"tokens_predicted":{},"tokens_evaluated":{},"generation_settings":{{"n_predict":{},"stream":{}}},"prompt":{},"has_new_line":{},"truncated":false,"stop_type":"{}","stopping_word":{},"tokens_cached":{},"timings":{}}})",
      as_json_string(text), token_list(tokens), style_.slot, as_json_string(style_.model),
      timings.predicted_n, style_.prompt_tokens, style_.limit, style_.stream,
      as_json_string(style_.prompt_text), text.find('\n') != std::string_view::npos, type,
      as_json_string(stop_word), timings.predicted_n + style_.prompt_tokens, timings_json(timings));
}

std::string Reply::whole(std::string_view text, const std::vector<Token>& tokens, Finish finish,
                         std::string_view stop_word, const Timings& timings) const {
  if (style_.kind == ReplyKind::kNative) return native_tail(text, tokens, finish, stop_word, timings);
  const auto common = fmt::format(
      R"("created":{},"model":{},"system_fingerprint":"{}","object":"{}",{},"id":"{}","timings":{})",
      style_.created, as_json_string(style_.model), kFingerprint,
      style_.kind == ReplyKind::kChat ? "chat.completion" : "text_completion", usage(timings), style_.id,
      timings_json(timings));
  if (style_.kind == ReplyKind::kCompletion)
    return fmt::format(R"({{"choices":[{{"text":{},"index":0,"logprobs":null,"finish_reason":"{}"}}],{}}})",
                       as_json_string(text), finish_word(finish), common);
  const auto message =
      style_.tool_name.empty()
          ? fmt::format(R"({{"role":"assistant","content":{}}})", as_json_string(text))
          : fmt::format(
                R"({{"role":"assistant","content":null,"tool_calls":[{{"type":"function","function":{{"name":{},"arguments":{}}},"id":"{}"}}]}})",
                as_json_string(style_.tool_name), as_json_string(text), style_.tool_id);
  return fmt::format(R"({{"choices":[{{"finish_reason":"{}","index":0,"message":{}}}],{}}})",
                     finish_word(finish), message, common);
}

}  // namespace aiv::fake
