// From a body of /v1/messages to an OpenAI chat request (anthropic.hpp). What a client may say is Anthropic's
// API reference, "Create a Message"; what has no counterpart in an engine is refused by name when it would
// change the answer, and left out when it would not (cache_control, metadata, service_tier).
#include "gateway/api/anthropic.hpp"

namespace aiv::gateway {
namespace {

class AnthropicReader {
 public:
  explicit AnthropicReader(const Json& in) : in_(in) {}

  std::expected<Json, ApiError> write() {
    if (!field(in_, "messages").is_array())
      return std::unexpected(wrong_field("messages", "must be an array"));
    Json messages = Json::array();
    if (!system(messages)) return std::unexpected(error_);
    const Json& given = in_["messages"];
    for (std::size_t i = 0; i < given.size(); ++i) {
      if (!message(given[i], "messages[" + std::to_string(i) + "]", messages)) return std::unexpected(error_);
    }
    Json out;
    out["messages"] = std::move(messages);
    if (!tools(out) || !options(out)) return std::unexpected(error_);
    return out;
  }

  // The text of a last assistant message.
  [[nodiscard]] std::string prefill(const Json& out) const {
    const Json& messages = out["messages"];
    if (messages.empty() || messages.back()["role"] != "assistant" || messages.back().contains("tool_calls"))
      return {};
    const Json& content = messages.back()["content"];
    if (content.is_string()) return content.get<std::string>();
    std::string text;
    if (content.is_array()) {
      for (const Json& part : content) {
        if (part.contains("text")) text += part["text"].get<std::string>();
      }
    }
    return text;
  }

 private:
  bool wrong(const std::string& path, std::string_view reason) {
    error_ = wrong_field(path, reason);
    return false;
  }

  bool system(Json& messages) {
    const Json& system = field(in_, "system");
    if (system.is_null()) return true;
    std::string text;
    if (system.is_string()) {
      text = system.get<std::string>();
    } else if (system.is_array()) {
      for (std::size_t i = 0; i < system.size(); ++i) {
        if (!system[i].is_object() || !field(system[i], "text").is_string()) {
          return wrong("system[" + std::to_string(i) + "]", "must be a text block");
        }
        text += system[i]["text"].get<std::string>();
      }
    } else {
      return wrong("system", "must be a string or an array of text blocks");
    }
    messages.push_back({{"role", "system"}, {"content", std::move(text)}});
    return true;
  }

  bool message(const Json& given, const std::string& path, Json& messages) {
    if (!given.is_object()) return wrong(path, "must be an object");
    const std::string role = text_of(given, "role");
    if (role != "user" && role != "assistant")
      return wrong(path + ".role", "must be one of: user, assistant");
    const Json& content = field(given, "content");
    if (content.is_string()) {
      messages.push_back({{"role", role}, {"content", content}});
      return true;
    }
    if (!content.is_array()) return wrong(path + ".content", "must be a string or an array");
    parts_ = Json::array();
    calls_ = Json::array();
    results_ = Json::array();
    thinking_.clear();
    for (std::size_t i = 0; i < content.size(); ++i) {
      if (!block(content[i], path + ".content[" + std::to_string(i) + "]")) return false;
    }
    // An engine's template wants the results of tools right behind the calls, before what the user says then.
    for (Json& result : results_) messages.push_back(std::move(result));
    if (parts_.empty() && calls_.empty() && thinking_.empty()) return true;
    Json out{{"role", role}, {"content", parts_.empty() ? Json("") : plain(parts_)}};
    if (!thinking_.empty()) out["reasoning_content"] = thinking_;
    if (!calls_.empty()) out["tool_calls"] = std::move(calls_);
    messages.push_back(std::move(out));
    return true;
  }

  // Templates of models without images mostly want a string.
  static Json plain(const Json& parts) {
    if (parts.size() == 1 && parts[0].contains("text")) return parts[0]["text"];
    return parts;
  }

  bool block(const Json& block, const std::string& path) {
    if (!block.is_object()) return wrong(path, "must be an object");
    const std::string type = text_of(block, "type");
    if (type == "text") {
      if (!field(block, "text").is_string()) return wrong(path + ".text", "must be a string");
      parts_.push_back({{"type", "text"}, {"text", block["text"]}});
      return true;
    }
    if (type == "image") return image(block, path, parts_);
    if (type == "document") return document(block, path);
    if (type == "thinking") {
      thinking_ += text_of(block, "thinking");
      return true;
    }
    if (type == "redacted_thinking") return true;  // nobody but its maker can read it
    if (type == "tool_use") {
      const Json& input = field(block, "input");
      calls_.push_back(
          {{"id", text_of(block, "id")},
           {"type", "function"},
           {"function",
            {{"name", text_of(block, "name")}, {"arguments", input.is_null() ? "{}" : dump_json(input)}}}});
      return true;
    }
    if (type == "tool_result") return tool_result(block, path);
    return wrong(path + ".type", "must be one of: text, image, document, thinking, tool_use, tool_result");
  }

  bool image(const Json& block, const std::string& path, Json& parts) {
    const Json& source = field(block, "source");
    if (!source.is_object() || text_of(source, "type") != "base64") {
      return wrong(path + ".source",
                   "must be of type base64: the server fetches nothing, send the bytes inline");
    }
    const std::string media = text_of(source, "media_type");
    if (media != "image/jpeg" && media != "image/png" && media != "image/gif" && media != "image/webp") {
      return wrong(path + ".source.media_type",
                   "must be one of: image/jpeg, image/png, image/gif, image/webp");
    }
    const std::string url = "data:" + media + ";base64," + text_of(source, "data");
    parts.push_back({{"type", "image_url"}, {"image_url", {{"url", url}}}});
    return true;
  }

  bool document(const Json& block, const std::string& path) {
    const Json& source = field(block, "source");
    if (!source.is_object() || text_of(source, "type") != "text")
      return wrong(path + ".source", "must be of type text");
    parts_.push_back({{"type", "text"}, {"text", text_of(source, "data")}});
    return true;
  }

  bool tool_result(const Json& block, const std::string& path) {
    const Json& content = field(block, "content");
    Json parts = Json::array();
    std::string text;
    bool images = false;
    if (content.is_string()) text = content.get<std::string>();
    if (content.is_array()) {
      for (std::size_t i = 0; i < content.size(); ++i) {
        const std::string here = path + ".content[" + std::to_string(i) + "]";
        const std::string type = content[i].is_object() ? text_of(content[i], "type") : "";
        if (type == "image") {
          images = true;
          if (!image(content[i], here, parts)) return false;
        } else if (type == "text") {
          text += text_of(content[i], "text");
          parts.push_back({{"type", "text"}, {"text", text_of(content[i], "text")}});
        } else {
          return wrong(here + ".type", "must be one of: text, image");
        }
      }
    } else if (!content.is_string() && !content.is_null()) {
      return wrong(path + ".content", "must be a string or an array");
    }
    results_.push_back({{"role", "tool"},
                        {"tool_call_id", text_of(block, "tool_use_id")},
                        {"content", images ? parts : Json(text)}});
    return true;
  }

  bool tools(Json& out) {
    const Json& tools = field(in_, "tools");
    const Json& choice = field(in_, "tool_choice");
    const std::string chosen = choice.is_object() ? text_of(choice, "type") : "";
    if (!choice.is_null() && chosen != "auto" && chosen != "any" && chosen != "tool" && chosen != "none") {
      return wrong("tool_choice.type", "must be one of: auto, any, tool, none");
    }
    if (tools.is_null()) return true;
    if (!tools.is_array()) return wrong("tools", "must be an array");
    const std::string only = chosen == "tool" ? text_of(choice, "name") : "";
    Json list = Json::array();
    for (std::size_t i = 0; i < tools.size(); ++i) {
      const std::string path = "tools[" + std::to_string(i) + "]";
      if (!tools[i].is_object()) return wrong(path, "must be an object");
      const std::string type = text_of(tools[i], "type");
      if (!type.empty() && type != "custom")
        return wrong(path + ".type", "must be custom: this server runs no tools itself");
      // An engine knows "some tool" but no particular one; with that one alone it has no choice.
      if (!only.empty() && text_of(tools[i], "name") != only) continue;
      Json function{{"name", text_of(tools[i], "name")}};
      if (field(tools[i], "description").is_string()) function["description"] = tools[i]["description"];
      if (field(tools[i], "input_schema").is_object()) function["parameters"] = tools[i]["input_schema"];
      list.push_back({{"type", "function"}, {"function", std::move(function)}});
    }
    if (!only.empty() && list.empty())
      return wrong("tool_choice.name", "is not the name of a tool in this request");
    if (!list.empty()) out["tools"] = std::move(list);
    if (chosen == "any" || chosen == "tool") out["tool_choice"] = "required";
    if (chosen == "none") out["tool_choice"] = "none";
    const Json& alone = choice.is_object() ? field(choice, "disable_parallel_tool_use") : field(in_, "");
    if (alone.is_boolean()) out["parallel_tool_calls"] = !alone.get<bool>();
    return true;
  }

  bool options(Json& out) {
    // Checked by the OpenAI request's own rules, whose fields have the same names.
    for (const char* same : {"model", "stream", "max_tokens", "temperature", "top_p", "top_k"}) {
      if (in_.contains(same)) out[same] = in_[same];
    }
    if (asks(field(in_, "mcp_servers"))) return wrong("mcp_servers", "is not supported: this server calls no others");
    if (asks(field(in_, "container"))) return wrong("container", "is not supported: this server runs no tools itself");
    if (const Json& stop = field(in_, "stop_sequences"); !stop.is_null()) {
      if (!stop.is_array()) return wrong("stop_sequences", "must be an array");
      out["stop"] = stop;
    }
    if (const Json& thinking = field(in_, "thinking"); thinking.is_object()) {
      const std::string type = text_of(thinking, "type");
      if (type == "enabled" || type == "disabled")
        out["chat_template_kwargs"]["enable_thinking"] = type == "enabled";
    }
    const Json& config = field(in_, "output_config");
    const Json& format = config.is_object() ? field(config, "format") : field(in_, "output_format");
    if (format.is_object() && text_of(format, "type") == "json_schema") {
      out["response_format"] = {{"type", "json_schema"},
                                {"json_schema", {{"name", "output"}, {"schema", field(format, "schema")}}}};
    }
    return true;
  }

  const Json& in_;
  ApiError error_;
  Json parts_;
  Json calls_;
  Json results_;
  std::string thinking_;
};

}  // namespace

Translation translate_anthropic(std::string_view body, const TranslationContext& context) {
  const auto in = read_object(body);
  if (!in) return std::unexpected(in.error());
  AnthropicReader writer(*in);
  const auto out = writer.write();
  if (!out) return std::unexpected(out.error());
  Translated translated{.endpoint = Endpoint::kChat,
                        .body = dump_json(*out),
                        .form = std::make_shared<AnthropicForm>(text_of(*out, "model"), context.request_id,
                                                                writer.prefill(*out)),
                        .want_progress = true};
  return translated;
}

}  // namespace aiv::gateway
