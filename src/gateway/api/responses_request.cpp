// From a body of /v1/responses to an OpenAI chat request (responses.hpp).
#include "gateway/api/responses.hpp"

namespace aiv::gateway {
namespace {

class ResponsesReader {
 public:
  explicit ResponsesReader(const Json& in) : in_(in) {}

  std::expected<Json, ApiError> write() {
    if (!refuse_state() || !input() || !tools() || !options()) return std::unexpected(error_);
    out_["messages"] = std::move(messages_);
    return std::move(out_);
  }

  // What an answer repeats of its request; absent fields with the API's defaults.
  [[nodiscard]] std::string echo() const {
    Json echo;
    const auto copy = [&](const char* key, Json fallback) {
      echo[key] = in_.contains(key) ? in_[key] : std::move(fallback);
    };
    copy("instructions", nullptr);
    copy("max_output_tokens", nullptr);
    copy("metadata", Json::object());
    copy("parallel_tool_calls", true);
    copy("reasoning", {{"effort", nullptr}, {"summary", nullptr}});
    copy("temperature", 1.0);
    copy("text", {{"format", {{"type", "text"}}}});
    copy("tool_choice", "auto");
    copy("tools", Json::array());
    copy("top_p", 1.0);
    copy("truncation", "disabled");
    copy("user", nullptr);
    const std::string text = dump_json(echo);
    return text.substr(1, text.size() - 2);
  }

 private:
  bool wrong(const std::string& path, std::string_view reason) {
    error_ = wrong_field(path, reason);
    return false;
  }

  bool refuse_state() {
    for (const char* key : {"previous_response_id", "conversation", "prompt"}) {
      if (!field(in_, key).is_null())
        return wrong(key, "is not supported: nothing is stored here, send the whole conversation as 'input'");
    }
    if (asks(field(in_, "background"))) return wrong("background", "is not supported: nothing is stored here");
    if (asks(field(in_, "top_logprobs"))) return wrong("top_logprobs", "is not supported: use /v1/chat/completions");
    for (const Json& wanted : field(in_, "include")) {
      // Of the others the answer holds what there is: nothing is encrypted, searched or run here.
      if (wanted == "message.output_text.logprobs") return wrong("include", "cannot hold logprobs: use /v1/chat/completions");
    }
    return true;
  }

  bool input() {
    const Json& instructions = field(in_, "instructions");
    if (instructions.is_string()) {
      messages_.push_back({{"role", "system"}, {"content", instructions}});
    } else if (!instructions.is_null()) {
      return wrong("instructions", "must be a string");
    }
    const Json& input = field(in_, "input");
    if (input.is_string()) {
      messages_.push_back({{"role", "user"}, {"content", input}});
      return true;
    }
    if (!input.is_array()) return wrong("input", "must be a string or an array");
    for (std::size_t i = 0; i < input.size(); ++i) {
      if (!item(input[i], "input[" + std::to_string(i) + "]")) return false;
    }
    return true;
  }

  bool item(const Json& item, const std::string& path) {
    if (!item.is_object()) return wrong(path, "must be an object");
    const std::string type = text_of(item, "type");
    if (type.empty() || type == "message") return message(item, path);
    if (type == "function_call") {
      Json call{{"id", text_of(item, "call_id")},
                {"type", "function"},
                {"function", {{"name", text_of(item, "name")}, {"arguments", text_of(item, "arguments")}}}};
      // Calls that follow each other, or the assistant's text, are one message.
      if (!messages_.empty() && messages_.back()["role"] == "assistant") {
        messages_.back()["tool_calls"].push_back(std::move(call));
      } else {
        messages_.push_back(
            {{"role", "assistant"}, {"content", ""}, {"tool_calls", Json::array({std::move(call)})}});
      }
      return true;
    }
    if (type == "function_call_output") {
      const Json& output = field(item, "output");
      Json content;
      if (output.is_string()) {
        content = output;
      } else if (!parts(output, path + ".output", content)) {
        return false;
      }
      messages_.push_back(
          {{"role", "tool"}, {"tool_call_id", text_of(item, "call_id")}, {"content", std::move(content)}});
      return true;
    }
    if (type == "reasoning") return true;  // of an earlier turn; templates leave it out
    return wrong(path + ".type", "must be one of: message, function_call, function_call_output, reasoning");
  }

  bool message(const Json& item, const std::string& path) {
    const std::string role = text_of(item, "role");
    if (role != "user" && role != "assistant" && role != "system" && role != "developer") {
      return wrong(path + ".role", "must be one of: user, assistant, system, developer");
    }
    Json content;
    const Json& given = field(item, "content");
    if (given.is_string()) {
      content = given;
    } else if (!parts(given, path + ".content", content)) {
      return false;
    }
    messages_.push_back({{"role", role}, {"content", std::move(content)}});
    return true;
  }

  bool parts(const Json& given, const std::string& path, Json& content) {
    if (!given.is_array()) return wrong(path, "must be a string or an array");
    content = Json::array();
    for (std::size_t i = 0; i < given.size(); ++i) {
      const std::string here = path + "[" + std::to_string(i) + "]";
      const std::string type = given[i].is_object() ? text_of(given[i], "type") : "";
      if (type == "input_text" || type == "output_text" || type == "text") {
        content.push_back({{"type", "text"}, {"text", text_of(given[i], "text")}});
      } else if (type == "refusal") {
        content.push_back({{"type", "text"}, {"text", text_of(given[i], "refusal")}});
      } else if (type == "input_image") {
        content.push_back({{"type", "image_url"}, {"image_url", {{"url", text_of(given[i], "image_url")}}}});
      } else {
        return wrong(here + ".type", "must be one of: input_text, output_text, input_image, refusal");
      }
    }
    // Templates of models without images mostly want a string.
    if (content.size() == 1 && content[0].contains("text")) content = content[0]["text"];
    return true;
  }

  bool tools() {
    const Json& tools = field(in_, "tools");
    const Json& choice = field(in_, "tool_choice");
    std::string only;
    if (choice.is_string()) {
      out_["tool_choice"] = choice;
    } else if (choice.is_object()) {
      if (text_of(choice, "type") != "function") return wrong("tool_choice.type", "must be function");
      only = text_of(choice, "name");
      out_["tool_choice"] = "required";
    }
    if (tools.is_null()) return true;
    if (!tools.is_array()) return wrong("tools", "must be an array");
    Json list = Json::array();
    for (std::size_t i = 0; i < tools.size(); ++i) {
      const std::string path = "tools[" + std::to_string(i) + "]";
      if (!tools[i].is_object()) return wrong(path, "must be an object");
      if (text_of(tools[i], "type") != "function")
        return wrong(path + ".type", "must be function: this server runs no tools itself");
      if (!only.empty() && text_of(tools[i], "name") != only) continue;
      Json function{{"name", text_of(tools[i], "name")}};
      for (const char* key : {"description", "parameters", "strict"}) {
        if (!field(tools[i], key).is_null()) function[key] = tools[i][key];
      }
      list.push_back({{"type", "function"}, {"function", std::move(function)}});
    }
    if (!only.empty() && list.empty())
      return wrong("tool_choice.name", "is not the name of a tool in this request");
    if (!list.empty()) out_["tools"] = std::move(list);
    return true;
  }

  bool options() {
    // Checked by the chat request's own rules.
    for (const char* same :
         {"model", "stream", "temperature", "top_p", "parallel_tool_calls", "user", "metadata"}) {
      if (in_.contains(same)) out_[same] = in_[same];
    }
    if (in_.contains("max_output_tokens")) out_["max_tokens"] = in_["max_output_tokens"];
    const Json& reasoning = field(in_, "reasoning");
    if (reasoning.is_object() && !field(reasoning, "effort").is_null()) out_["reasoning_effort"] = reasoning["effort"];
    const Json& text = field(in_, "text");
    if (text.is_null()) return true;
    if (!text.is_object()) return wrong("text", "must be an object");
    const Json& format = field(text, "format");
    if (!format.is_object() || text_of(format, "type") == "text") return true;
    const std::string type = text_of(format, "type");
    if (type == "json_object") {
      out_["response_format"] = {{"type", "json_object"}};
    } else if (type == "json_schema") {
      out_["response_format"] = {
          {"type", "json_schema"},
          {"json_schema", {{"name", text_of(format, "name")}, {"schema", field(format, "schema")}}}};
    } else {
      return wrong("text.format.type", "must be one of: text, json_object, json_schema");
    }
    return true;
  }

  const Json& in_;
  Json out_;
  Json messages_ = Json::array();
  ApiError error_;
};

}  // namespace

Translation translate_responses(std::string_view body, const TranslationContext& context) {
  const auto in = read_object(body);
  if (!in) return std::unexpected(in.error());
  ResponsesReader writer(*in);
  const auto out = writer.write();
  if (!out) return std::unexpected(out.error());
  return Translated{.endpoint = Endpoint::kChat,
                    .body = dump_json(*out),
                    .form = std::make_shared<ResponsesForm>(text_of(*out, "model"), context.request_id,
                                                            context.unix_ms() / 1000, writer.echo())};
}

}  // namespace aiv::gateway
