#include "gateway/journal.hpp"

#include <cstring>

#include "gateway/api_error.hpp"
#include "gateway/sse.hpp"

namespace aiv::gateway {
namespace {

Json usage_json(const AnswerUsage& usage) {
  return Json{{"completion_tokens", usage.completion_tokens},
              {"prompt_tokens", usage.prompt_tokens},
              {"total_tokens", usage.prompt_tokens + usage.completion_tokens}};
}

std::string as_event(const Json& json) { return "data: " + dump_json(json) + "\n\n"; }

}  // namespace

std::size_t json_string_end(std::string_view json, std::size_t start) {
  while (true) {
    const std::size_t quote = json.find('"', start);
    if (quote == std::string_view::npos) return quote;
    std::size_t backslashes = 0;
    while (quote > backslashes && json[quote - 1 - backslashes] == '\\') ++backslashes;
    if (backslashes % 2 == 0) return quote;
    start = quote + 1;
  }
}

bool Journal::add(std::string_view event, Endpoint endpoint) {
  std::size_t at = std::string_view::npos;
  if (endpoint == Endpoint::kChat) {
    const std::size_t delta = find_json_value(event, "delta");
    if (delta != std::string_view::npos) at = find_json_value(event, "content", delta);
  } else {
    at = find_json_value(event, "text");
  }
  if (at == std::string_view::npos || event.substr(at, 4) == "null") {
    if (event.find("\"tool_calls\"") != std::string_view::npos) {
      tool_call_ = true;
    } else if (event.find("\"reasoning_content\"") != std::string_view::npos) {
      reasoning_ = true;
    } else if (is_role_event(event)) {
      return false;
    } else {
      other_ = true;
    }
    return true;
  }
  const std::size_t end = event[at] == '"' ? json_string_end(event, at + 1) : std::string_view::npos;
  if (end == std::string_view::npos) {
    other_ = true;
    return true;
  }
  const std::string_view text = event.substr(at + 1, end - at - 1);
  if (mould_.empty()) {
    mould_ = event;
    text_begin_ = at + 1;
    text_end_ = end;
    endpoint_ = endpoint;
  }
  if (text.empty()) return false;  // the engine holds something back
  ++events_;
  if (escaped_.size() + text.size() >= kDeliveredBytesMax) overflowed_ = true;
  if (overflowed_) return true;
  escaped_ += text;
  escaped_ += '\n';
  return true;
}

void Journal::add_text(std::string_view text) {
  if (text.empty()) return;
  ++events_;
  std::string escaped;
  append_json_string(escaped, text);
  if (escaped_.size() + escaped.size() >= kDeliveredBytesMax) overflowed_ = true;
  if (overflowed_) return;
  escaped_ += std::string_view(escaped).substr(1, escaped.size() - 2);
  escaped_ += '\n';
}

void Journal::clear() { *this = Journal(); }

std::vector<std::string> Journal::texts() const {
  std::vector<std::string> texts;
  for (std::string_view rest = escaped_; !rest.empty();) {
    const std::size_t end = rest.find('\n');
    const auto text = parse_json("\"" + std::string(rest.substr(0, end)) + "\"");
    if (text && text->is_string()) texts.push_back(text->get<std::string>());
    rest.remove_prefix(end + 1);
  }
  return texts;
}

void Journal::tell(ResumeFacts& facts) const {
  facts.tool_call_begun = tool_call_;
  facts.reasoning_begun = reasoning_;
  // The mould came from a node: it is looked at before anything is made from it.
  const auto json = parse_json(event_data(mould_));
  const bool sound = json && json->is_object() && json->contains("choices") && (*json)["choices"].is_array() &&
                     !(*json)["choices"].empty() && (*json)["choices"][0].is_object();
  // A text that is no JSON, which its event cannot have been either, is not among those that can be read back.
  const bool readable = overflowed_ || texts().size() == static_cast<std::size_t>(events_);
  facts.other_delta = other_ || !sound || !readable;
  facts.delivered_too_long = overflowed_;
}

std::string Journal::text_event(std::string_view text) const {
  std::string out;
  out.reserve(mould_.size() + text.size() + 16);
  out.append(mould_, 0, text_begin_ - 1);
  append_json_string(out, text);
  out.append(mould_, text_end_ + 1);
  return out;
}

std::string Journal::delta_event(Json delta) const {
  auto json = parse_json(event_data(mould_));
  AIV_ASSERT(json && json->contains("choices") && !(*json)["choices"].empty());
  (*json)["choices"][0]["delta"] = std::move(delta);
  json->erase("timings");
  return as_event(*json);
}

std::string Journal::finish_event(std::string_view reason, const AnswerUsage* usage) const {
  auto json = parse_json(event_data(mould_));
  AIV_ASSERT(json && json->contains("choices") && !(*json)["choices"].empty());
  Json& choice = (*json)["choices"][0];
  choice["finish_reason"] = std::string(reason);
  if (endpoint_ == Endpoint::kChat) {
    choice["delta"] = Json::object();
  } else {
    choice["text"] = "";
  }
  json->erase("timings");
  if (usage != nullptr) (*json)["usage"] = usage_json(*usage);
  return as_event(*json);
}

std::string Journal::usage_event(const AnswerUsage& usage) const {
  auto json = parse_json(event_data(mould_));
  AIV_ASSERT(json);
  (*json)["choices"] = Json::array();
  json->erase("timings");
  (*json)["usage"] = usage_json(usage);
  return as_event(*json);
}

void Journal::rename(std::string_view model) {
  const auto old = find_json_string(mould_, "model");
  if (!old || *old == model) return;
  const auto at = static_cast<std::size_t>(old->data() - mould_.data());
  const auto shift = static_cast<std::ptrdiff_t>(model.size()) - static_cast<std::ptrdiff_t>(old->size());
  mould_.replace(at, old->size(), model);
  if (at >= text_begin_) return;
  text_begin_ = static_cast<std::size_t>(static_cast<std::ptrdiff_t>(text_begin_) + shift);
  text_end_ = static_cast<std::size_t>(static_cast<std::ptrdiff_t>(text_end_) + shift);
}

bool is_role_event(std::string_view event) {
  const std::size_t delta = find_json_value(event, "delta");
  if (delta == std::string_view::npos) return false;
  const std::string_view rest = event.substr(delta);
  if (!rest.starts_with("{\"role\":")) return false;
  const std::size_t content = find_json_value(rest, "content");
  const std::string_view value = content == std::string_view::npos ? std::string_view() : rest.substr(content);
  const bool empty = value.empty() || value.starts_with("null") || value.starts_with("\"\"");
  return empty && rest.find("\"tool_calls\"") == std::string_view::npos;
}

}  // namespace aiv::gateway
