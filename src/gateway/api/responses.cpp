#include "gateway/api/responses.hpp"

#include <fmt/format.h>

#include <iterator>

namespace aiv::gateway {
namespace {

std::string text_part(std::string_view text) {
  return R"({"type":"output_text","text":)" + json_text(text) + R"(,"annotations":[],"logprobs":[]})";
}

std::string usage_json(const ChatUsage& usage) {
  return fmt::format(
      R"({{"input_tokens":{},"input_tokens_details":{{"cached_tokens":{}}},"output_tokens":{},)"
      R"("output_tokens_details":{{"reasoning_tokens":0}},"total_tokens":{}}})",
      usage.prompt_tokens, usage.cached_tokens, usage.generated_tokens,
      usage.prompt_tokens + usage.generated_tokens);
}

}  // namespace

ResponsesForm::ResponsesForm(std::string model, std::string request_id, std::int64_t created_s,
                             std::string echo)
    : model_(std::move(model)),
      request_id_(std::move(request_id)),
      digits_(id_from("", request_id_)),
      created_s_(created_s),
      echo_(std::move(echo)) {}

void ResponsesForm::forget() {
  answer_ = {};
}

void ResponsesForm::emit(std::string& out, std::string_view type, std::string_view fields) {
  fmt::format_to(std::back_inserter(out),
                 "event: {0}\ndata: {{\"type\":\"{0}\",\"sequence_number\":{1}{2}}}\n\n", type, sequence_++,
                 fields);
}

std::string ResponsesForm::place() const {
  return fmt::format(R"(,"item_id":"{}","output_index":{})", item_id(item_, call_), output_index_);
}

std::string ResponsesForm::item_id(Item item, std::size_t call) const {
  switch (item) {
    case Item::kReasoning:
      return "rs_" + digits_;
    case Item::kMessage:
      return "msg_" + digits_;
    case Item::kCall:
      return fmt::format("fc_{}_{}", digits_, call);
    case Item::kNone:
      break;
  }
  return {};
}

std::string ResponsesForm::item_json(Item item, std::size_t call, bool whole) const {
  const std::string_view status = whole ? "completed" : "in_progress";
  const std::string id = item_id(item, call);
  if (item == Item::kReasoning) {
    const std::string content =
        whole ? R"({"type":"reasoning_text","text":)" + json_text(answer_.reasoning) + "}" : "";
    return fmt::format(R"({{"type":"reasoning","id":"{}","summary":[],"content":[{}],"status":"{}"}})", id,
                       content, status);
  }
  if (item == Item::kMessage) {
    return fmt::format(R"({{"type":"message","id":"{}","status":"{}","role":"assistant","content":[{}]}})",
                       id, status, whole ? text_part(answer_.content) : "");
  }
  const ToolCall& said = answer_.calls[call];
  const std::string call_id = said.id.empty() ? fmt::format("call_{}_{}", digits_, call) : said.id;
  return fmt::format(
      R"({{"type":"function_call","id":"{}","call_id":{},"name":{},"arguments":{},"status":"{}"}})", id,
      json_text(call_id), json_text(said.name), whole ? json_text(said.arguments) : R"("")", status);
}

std::string ResponsesForm::response_json(std::string_view status, const std::string& output) const {
  const bool ended = status != "in_progress";
  return fmt::format(
      R"({{"id":"resp_{}","object":"response","created_at":{},"status":"{}","background":false,"error":null,)"
      R"("incomplete_details":{},"model":{},"output":[{}],"previous_response_id":null,"store":false,{},"usage":{}}})",
      digits_, created_s_, status, status == "incomplete" ? R"({"reason":"max_output_tokens"})" : "null",
      json_text(model_), output, echo_, ended ? usage_json(answer_.usage) : "null");
}

void ResponsesForm::start(std::string& out) {
  if (started_) return;
  started_ = true;
  const std::string response = response_json("in_progress", "");
  emit(out, "response.created", ",\"response\":" + response);
  emit(out, "response.in_progress", ",\"response\":" + response);
}

void ResponsesForm::open(std::string& out, Item item, std::size_t call) {
  close(out);
  item_ = item;
  call_ = call;
  ++output_index_;
  items_.emplace_back(item, call);
  emit(out, "response.output_item.added",
       fmt::format(R"(,"output_index":{},"item":{})", output_index_, item_json(item, call, false)));
  if (item == Item::kMessage) {
    emit(out, "response.content_part.added", place() + R"(,"content_index":0,"part":)" + text_part(""));
  }
}

void ResponsesForm::close(std::string& out) {
  if (item_ == Item::kNone) return;
  if (item_ == Item::kReasoning) {
    emit(out, "response.reasoning_text.done",
         place() + R"(,"content_index":0,"text":)" + json_text(answer_.reasoning));
  } else if (item_ == Item::kMessage) {
    emit(out, "response.output_text.done",
         place() + R"(,"content_index":0,"logprobs":[],"text":)" + json_text(answer_.content));
    emit(out, "response.content_part.done",
         place() + R"(,"content_index":0,"part":)" + text_part(answer_.content));
  } else {
    emit(out, "response.function_call_arguments.done",
         place() + ",\"name\":" + json_text(answer_.calls[call_].name) +
             ",\"arguments\":" + json_text(answer_.calls[call_].arguments));
  }
  emit(out, "response.output_item.done",
       fmt::format(R"(,"output_index":{},"item":{})", output_index_, item_json(item_, call_, true)));
  item_ = Item::kNone;
}

void ResponsesForm::piece(std::string& out, std::string_view type, std::string_view text) {
  std::string fields = place();
  if (item_ != Item::kCall) fields += R"(,"content_index":0)";
  if (item_ == Item::kMessage) fields += R"(,"logprobs":[])";
  fields += ",\"delta\":";
  append_json_string(fields, text);
  emit(out, type, fields);
}

void ResponsesForm::event(std::string& out, std::string_view data) {
  ChatPart part;
  if (!read_chat_part(data, part)) return;
  answer_.take(part);
  if (part.content.empty() && part.reasoning.empty() && part.calls.empty()) return;
  start(out);
  if (!part.reasoning.empty()) {
    if (item_ != Item::kReasoning) open(out, Item::kReasoning, 0);
    piece(out, "response.reasoning_text.delta", part.reasoning);
  }
  if (!part.content.empty()) {
    if (item_ != Item::kMessage) open(out, Item::kMessage, 0);
    piece(out, "response.output_text.delta", part.content);
  }
  for (const ToolCallPart& call : part.calls) {
    const auto index = static_cast<std::size_t>(call.index);
    if (item_ != Item::kCall || call_ != index) open(out, Item::kCall, index);
    if (!call.arguments.empty()) piece(out, "response.function_call_arguments.delta", call.arguments);
  }
}

void ResponsesForm::done(std::string& out) {
  start(out);
  close(out);
  std::string output;
  for (const auto& [item, call] : items_) output += (output.empty() ? "" : ",") + item_json(item, call, true);
  const bool cut = answer_.finish_reason == "length";
  emit(out, cut ? "response.incomplete" : "response.completed",
       ",\"response\":" + response_json(cut ? "incomplete" : "completed", output));
}

Result<std::string> ResponsesForm::whole(std::string_view body) {
  ChatPart part;
  if (!read_chat_part(body, part)) return fail(ErrorCode::kCorrupt, "its answer is not JSON");
  answer_ = {};
  answer_.take(part);
  std::string output;
  const auto add = [&](Item item, std::size_t call) {
    output += (output.empty() ? "" : ",") + item_json(item, call, true);
  };
  if (!answer_.reasoning.empty()) add(Item::kReasoning, 0);
  if (!answer_.content.empty()) add(Item::kMessage, 0);
  for (std::size_t i = 0; i < answer_.calls.size(); ++i) add(Item::kCall, i);
  return response_json(answer_.finish_reason == "length" ? "incomplete" : "completed", output);
}

std::string ResponsesForm::error_event(const ApiError& error) {
  std::string out;
  const std::string inner = openai_error_body(error);  // {"error":{..}}
  emit(out, "error",
       ",\"code\":" + json_text(error.code.empty() ? "server_error" : error.code) +
           ",\"message\":" + json_text(std::string_view(error.message).substr(0, kErrorMessageBytesMax)) +
           ",\"param\":" + (error.param.empty() ? "null" : json_text(error.param)) + "," +
           inner.substr(1, inner.size() - 2));
  return out;
}

}  // namespace aiv::gateway
