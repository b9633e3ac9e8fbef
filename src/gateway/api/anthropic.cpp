#include "gateway/api/anthropic.hpp"

#include <fmt/format.h>

#include <iterator>

#include "base/json.hpp"

namespace aiv::gateway {
namespace {

std::string_view stop_reason(std::string_view finish_reason) {
  if (finish_reason == "length") return "max_tokens";
  if (finish_reason == "tool_calls") return "tool_use";
  return "end_turn";
}

std::string usage_json(const ChatUsage& usage) {
  return fmt::format(
      R"({{"input_tokens":{},"cache_creation_input_tokens":0,"cache_read_input_tokens":{},"output_tokens":{}}})",
      usage.prompt_tokens - usage.cached_tokens, usage.cached_tokens, usage.generated_tokens);
}

void append_event(std::string& out, std::string_view type, std::string_view fields) {
  fmt::format_to(std::back_inserter(out), "event: {0}\ndata: {{\"type\":\"{0}\"{1}}}\n\n", type, fields);
}

// A call's arguments as the object they are; an engine cut off in the middle of them leaves none.
std::string object_text(const std::string& arguments) {
  const auto json = parse_json(arguments);
  return json && json->is_object() ? dump_json(*json) : "{}";
}

}  // namespace

AnthropicForm::AnthropicForm(std::string model, std::string request_id, std::string prefill)
    : model_(std::move(model)),
      request_id_(std::move(request_id)),
      message_id_(id_from("msg_", request_id_)),
      prefill_(std::move(prefill)),
      stripping_(!prefill_.empty()) {}

void AnthropicForm::forget() {
  stripped_ = 0;
  stripping_ = !prefill_.empty();
  prompt_total_ = prompt_cached_ = 0;
  finish_reason_.clear();
  usage_ = {};
}

// The engine says a prefilled text again before it goes on; what differs from it is new.
std::string_view AnthropicForm::without_prefill(std::string_view text) {
  if (!stripping_) return text;
  std::size_t same = 0;
  while (same < text.size() && stripped_ < prefill_.size() && text[same] == prefill_[stripped_]) {
    ++same;
    ++stripped_;
  }
  if (same < text.size() || stripped_ == prefill_.size()) stripping_ = false;
  return text.substr(same);
}

void AnthropicForm::start(std::string& out) {
  if (started_) return;
  started_ = true;
  ChatUsage usage{.prompt_tokens = prompt_total_, .cached_tokens = prompt_cached_};
  append_event(
      out, "message_start",
      fmt::format(R"(,"message":{{"id":"{}","type":"message","role":"assistant","model":{},"content":[],)"
                  R"("stop_reason":null,"stop_sequence":null,"usage":{}}})",
                  message_id_, json_text(model_), usage_json(usage)));
}

void AnthropicForm::open(std::string& out, Block block, std::string_view start_json) {
  close(out);
  block_ = block;
  ++index_;
  append_event(out, "content_block_start",
               fmt::format(R"(,"index":{},"content_block":{})", index_, start_json));
}

void AnthropicForm::close(std::string& out) {
  if (block_ == Block::kNone) return;
  block_ = Block::kNone;
  append_event(out, "content_block_stop", fmt::format(R"(,"index":{})", index_));
}

void AnthropicForm::delta(std::string& out, std::string_view type, std::string_view key,
                          std::string_view text) const {
  fmt::format_to(std::back_inserter(out),
                 "event: content_block_delta\ndata: "
                 "{{\"type\":\"content_block_delta\",\"index\":{},\"delta\":{{\"type\":\"{}\",\"{}\":",
                 index_, type, key);
  append_json_string(out, text);
  out += "}}\n\n";
}

void AnthropicForm::text(std::string& out, std::string_view text) {
  if (block_ != Block::kText) open(out, Block::kText, R"({"type":"text","text":""})");
  delta(out, "text_delta", "text", text);
}

void AnthropicForm::tool(std::string& out, const ToolCallPart& part) {
  if (block_ != Block::kTool || part.index != tool_index_) {
    tool_index_ = part.index;
    open(out, Block::kTool,
         fmt::format(R"({{"type":"tool_use","id":{},"name":{},"input":{{}}}})",
                     json_text(part.id.empty() ? fmt::format("toolu_{}_{}", message_id_.substr(4), part.index)
                                               : std::string(part.id)),
                     json_text(part.name)));
  }
  if (!part.arguments.empty()) delta(out, "input_json_delta", "partial_json", part.arguments);
}

void AnthropicForm::event(std::string& out, std::string_view data) {
  ChatPart part;
  if (!read_chat_part(data, part)) return;
  if (part.prompt_total > 0) {
    prompt_total_ = part.prompt_total;
    prompt_cached_ = part.prompt_cached;
  }
  if (part.has_usage) usage_ = part.usage;
  if (!part.finish_reason.empty()) finish_reason_ = part.finish_reason;
  const std::string_view content = without_prefill(part.content);
  if (content.empty() && part.reasoning.empty() && part.calls.empty()) return;
  start(out);
  if (!part.reasoning.empty()) {
    if (block_ != Block::kThinking)
      open(out, Block::kThinking, R"({"type":"thinking","thinking":"","signature":""})");
    delta(out, "thinking_delta", "thinking", part.reasoning);
  }
  if (!content.empty()) text(out, content);
  for (const ToolCallPart& call : part.calls) tool(out, call);
}

void AnthropicForm::done(std::string& out) {
  start(out);
  close(out);
  append_event(out, "message_delta",
               fmt::format(R"(,"delta":{{"stop_reason":"{}","stop_sequence":null}},"usage":{})",
                           stop_reason(finish_reason_), usage_json(usage_)));
  append_event(out, "message_stop", "");
}

void AnthropicForm::life_sign(std::string& out) {
  append_event(out, "ping", "");
}

Result<std::string> AnthropicForm::whole(std::string_view body) {
  ChatPart part;
  ChatAnswer answer;
  if (!read_chat_part(body, part)) return fail(ErrorCode::kCorrupt, "its answer is not JSON");
  answer.take(part);
  forget();
  const std::string_view content = without_prefill(answer.content);
  std::string blocks;
  const auto add = [&](const std::string& block) { blocks += (blocks.empty() ? "" : ",") + block; };
  if (!answer.reasoning.empty())
    add(R"({"type":"thinking","thinking":)" + json_text(answer.reasoning) + R"(,"signature":""})");
  if (!content.empty()) add(R"({"type":"text","text":)" + json_text(content) + "}");
  for (std::size_t i = 0; i < answer.calls.size(); ++i) {
    const ToolCall& call = answer.calls[i];
    const std::string id = call.id.empty() ? fmt::format("toolu_{}_{}", message_id_.substr(4), i) : call.id;
    add(R"({"type":"tool_use","id":)" + json_text(id) + R"(,"name":)" + json_text(call.name) +
        R"(,"input":)" + object_text(call.arguments) + "}");
  }
  return fmt::format(
      R"({{"id":"{}","type":"message","role":"assistant","model":{},"content":[{}],"stop_reason":"{}",)"
      R"("stop_sequence":null,"usage":{}}})",
      message_id_, json_text(model_), blocks, stop_reason(answer.finish_reason), usage_json(answer.usage));
}

std::string AnthropicForm::error_event(const ApiError& error) {
  return gateway::error_event(ApiFamily::kAnthropic, error, request_id_);
}

}  // namespace aiv::gateway
