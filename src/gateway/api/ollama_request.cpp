// From Ollama's requests to OpenAI's (ollama.hpp). What a client may say is ollama/ollama docs/api.md.
#include "base/units.hpp"
#include "gateway/api/ollama.hpp"

namespace aiv::gateway {
namespace {

// `name` is what older clients call it.
Json model_of(const Json& in) {
  return in.contains("model") ? in["model"] : field(in, "name");
}

struct OptionName {
  const char* ollama;
  const char* openai;
};
// The rest of Ollama's options (num_ctx, num_gpu, mirostat ...) is the server's affair, or nothing an engine
// is asked.
constexpr OptionName kOptions[] = {{"temperature", "temperature"},
                                   {"top_k", "top_k"},
                                   {"top_p", "top_p"},
                                   {"min_p", "min_p"},
                                   {"typical_p", "typical_p"},
                                   {"seed", "seed"},
                                   {"stop", "stop"},
                                   {"repeat_penalty", "repeat_penalty"},
                                   {"repeat_last_n", "repeat_last_n"},
                                   {"presence_penalty", "presence_penalty"},
                                   {"frequency_penalty", "frequency_penalty"}};

// What would make the answer another one than was asked for, were it left out.
bool refuse_unsupported(const Json& in, ApiError& error) {
  struct Field {
    const char* name;
    const char* reason;
  };
  static constexpr Field kUnsupported[] = {
      {"suffix", "is not supported: nothing is filled in between two texts"},
      {"template", "is not supported: the model's own template is used; 'raw' sends a prompt as it is"},
      {"context", "is not supported: send the whole conversation to /api/chat"},
      {"logprobs", "is not supported: use /v1/chat/completions"},
      {"top_logprobs", "is not supported: use /v1/chat/completions"}};
  for (const Field& one : kUnsupported) {
    if (!asks(field(in, one.name))) continue;
    error = wrong_field(one.name, one.reason);
    return false;
  }
  return true;
}

bool copy_options(const Json& in, Json& out, ApiError& error) {
  const Json& options = field(in, "options");
  if (options.is_null()) return true;
  if (!options.is_object()) {
    error = wrong_field("options", "must be an object");
    return false;
  }
  for (const OptionName& name : kOptions) {
    if (options.contains(name.ollama)) out[name.openai] = options[name.ollama];
  }
  if (asks(field(options, "mirostat"))) {
    error = wrong_field("options.mirostat", "is not supported: use temperature, top_p, top_k or min_p");
    return false;
  }
  const Json& limit = field(options, "num_predict");
  if (limit.is_null()) return true;
  if (!limit.is_number_integer()) {
    error = wrong_field("options.num_predict", "must be an integer");
    return false;
  }
  // -1 and -2 mean "until it ends" and "until the context is full": an engine's own way without a limit.
  if (limit.get<std::int64_t>() > 0) out["max_tokens"] = limit;
  return true;
}

bool copy_format(const Json& in, Json& out, ApiError& error) {
  const Json& format = field(in, "format");
  if (format.is_null() || (format.is_string() && format.get<std::string>().empty())) return true;
  if (format.is_string() && format.get<std::string>() == "json") {
    out["response_format"] = {{"type", "json_object"}};
    return true;
  }
  if (format.is_object()) {
    out["response_format"] = {{"type", "json_schema"},
                              {"json_schema", {{"name", "output"}, {"schema", format}}}};
    return true;
  }
  error = wrong_field("format", "must be \"json\" or a JSON schema");
  return false;
}

void copy_think(const Json& in, Json& out) {
  const Json& think = field(in, "think");
  if (think.is_boolean()) out["chat_template_kwargs"]["enable_thinking"] = think;
  if (think.is_string()) out["chat_template_kwargs"]["reasoning_effort"] = think;
}

// Images come as bare base64; what they are is in their first bytes.
std::string data_url(const std::string& base64) {
  const char* type = "image/jpeg";
  if (base64.starts_with("iVBORw0KGgo")) type = "image/png";
  if (base64.starts_with("R0lGOD")) type = "image/gif";
  if (base64.starts_with("UklGR")) type = "image/webp";
  return "data:" + std::string(type) + ";base64," + base64;
}

bool with_images(const Json& from, const std::string& path, const std::string& text, Json& content,
                 ApiError& error) {
  const Json& images = field(from, "images");
  content = text;
  if (images.is_null() || (images.is_array() && images.empty())) return true;
  if (!images.is_array()) {
    error = wrong_field(path + "images", "must be an array of base64 strings");
    return false;
  }
  content = Json::array({{{"type", "text"}, {"text", text}}});
  for (const Json& image : images) {
    if (!image.is_string()) {
      error = wrong_field(path + "images", "must be an array of base64 strings");
      return false;
    }
    content.push_back({{"type", "image_url"}, {"image_url", {{"url", data_url(image.get<std::string>())}}}});
  }
  return true;
}

// Calls have no ids in this family: a result belongs to the latest call of its tool's name, else to the
// oldest open one.
class CallIds {
 public:
  std::string made(const std::string& name) {
    std::string id = "call_" + std::to_string(next_++);
    open_.emplace_back(name, id);
    return id;
  }
  std::string answered(const std::string& name) {
    for (auto it = open_.begin(); it != open_.end(); ++it) {
      if (name.empty() || it->first == name) {
        std::string id = it->second;
        open_.erase(it);
        return id;
      }
    }
    return "call_0";
  }

 private:
  int next_ = 0;
  std::vector<std::pair<std::string, std::string>> open_;
};

bool copy_message(const Json& given, const std::string& path, CallIds& ids, Json& messages, ApiError& error) {
  if (!given.is_object()) {
    error = wrong_field(path, "must be an object");
    return false;
  }
  const Json& content = field(given, "content");
  if (!content.is_string() && !content.is_null()) {
    error = wrong_field(path + ".content", "must be a string");
    return false;
  }
  Json out{{"role", field(given, "role")}};
  Json said;
  if (!with_images(given, path + ".", text_of(given, "content"), said, error)) return false;
  out["content"] = std::move(said);
  if (const std::string thinking = text_of(given, "thinking"); !thinking.empty())
    out["reasoning_content"] = thinking;
  const Json& calls = field(given, "tool_calls");
  if (calls.is_array()) {
    Json list = Json::array();
    for (const Json& call : calls) {
      const Json& function = call.is_object() ? field(call, "function") : field(given, "");
      if (!function.is_object()) {
        error = wrong_field(path + ".tool_calls", "must hold functions");
        return false;
      }
      const Json& arguments = field(function, "arguments");
      const std::string name = text_of(function, "name");
      const std::string text = arguments.is_string() ? arguments.get<std::string>()
                               : arguments.is_null() ? "{}"
                                                     : dump_json(arguments);
      list.push_back({{"id", ids.made(name)},
                      {"type", "function"},
                      {"function", {{"name", name}, {"arguments", text}}}});
    }
    if (!list.empty()) out["tool_calls"] = std::move(list);
  }
  if (out["role"] == "tool") {
    const std::string name =
        given.contains("tool_name") ? text_of(given, "tool_name") : text_of(given, "name");
    out["tool_call_id"] = ids.answered(name);
  }
  messages.push_back(std::move(out));
  return true;
}

bool wants_stream(const Json& in) {
  const Json& stream = field(in, "stream");
  return !stream.is_boolean() || stream.get<bool>();
}

Translated finish(Json out, Endpoint endpoint, OllamaForm::Kind kind, const TranslationContext& context) {
  return {.endpoint = endpoint,
          .body = dump_json(out),
          .form = std::make_shared<OllamaForm>(kind, text_of(out, "model"), context.unix_ms)};
}

}  // namespace

Translation translate_ollama_chat(std::string_view body, const TranslationContext& context) {
  const auto in = read_object(body);
  if (!in) return std::unexpected(in.error());
  ApiError error;
  if (!refuse_unsupported(*in, error)) return std::unexpected(error);
  const Json& given = field(*in, "messages");
  if (!given.is_array()) return std::unexpected(wrong_field("messages", "must be an array"));
  Json messages = Json::array();
  CallIds ids;
  for (std::size_t i = 0; i < given.size(); ++i) {
    if (!copy_message(given[i], "messages[" + std::to_string(i) + "]", ids, messages, error))
      return std::unexpected(error);
  }
  Json out{{"model", model_of(*in)}, {"messages", std::move(messages)}, {"stream", wants_stream(*in)}};
  if (const Json& tools = field(*in, "tools"); !tools.is_null() && !tools.empty()) out["tools"] = tools;
  if (!copy_options(*in, out, error) || !copy_format(*in, out, error)) return std::unexpected(error);
  copy_think(*in, out);
  return finish(std::move(out), Endpoint::kChat, OllamaForm::Kind::kChat, context);
}

Translation translate_ollama_generate(std::string_view body, const TranslationContext& context) {
  const auto in = read_object(body);
  if (!in) return std::unexpected(in.error());
  ApiError error;
  const Json& prompt = field(*in, "prompt");
  if (!prompt.is_string()) return std::unexpected(wrong_field("prompt", "must be a string"));
  if (!refuse_unsupported(*in, error)) return std::unexpected(error);
  Json out{{"model", model_of(*in)}, {"stream", wants_stream(*in)}};
  const Json& raw = field(*in, "raw");
  const bool as_text = raw.is_boolean() && raw.get<bool>();
  if (as_text) {
    if (asks(field(*in, "format"))) return std::unexpected(wrong_field("format", "is not supported together with 'raw'"));
    if (asks(field(*in, "images"))) return std::unexpected(wrong_field("images", "is not supported together with 'raw'"));
    out["prompt"] = prompt;
  } else {
    Json messages = Json::array();
    if (const std::string system = text_of(*in, "system"); !system.empty()) {
      messages.push_back({{"role", "system"}, {"content", system}});
    }
    Json content;
    if (!with_images(*in, "", prompt.get<std::string>(), content, error)) return std::unexpected(error);
    messages.push_back({{"role", "user"}, {"content", std::move(content)}});
    out["messages"] = std::move(messages);
    if (!copy_format(*in, out, error)) return std::unexpected(error);
    copy_think(*in, out);
  }
  if (!copy_options(*in, out, error)) return std::unexpected(error);
  return finish(std::move(out), as_text ? Endpoint::kCompletion : Endpoint::kChat,
                OllamaForm::Kind::kGenerate, context);
}

Translation translate_ollama_embed(std::string_view body, const TranslationContext& context, bool legacy) {
  const auto in = read_object(body);
  if (!in) return std::unexpected(in.error());
  const char* const key = legacy ? "prompt" : "input";
  const Json& input = field(*in, key);
  if (!input.is_string() && (legacy || !input.is_array())) {
    return std::unexpected(
        wrong_field(key, legacy ? "must be a string" : "must be a string or an array of strings"));
  }
  Json out{{"model", model_of(*in)}, {"input", input}, {"encoding_format", "float"}};
  const Json& dimensions = field(*in, "dimensions");
  if (!dimensions.is_null()) out["dimensions"] = dimensions;
  return Translated{
      .endpoint = Endpoint::kEmbedding,
      .body = dump_json(out),
      .form = std::make_shared<OllamaEmbedForm>(text_of(out, "model"), legacy,
                                                dimensions.is_number_integer() ? dimensions.get<std::int64_t>() : 0, context.unix_ms)};
}

std::string ollama_load_answer(std::string_view body, bool chat, std::int64_t unix_ms) {
  const auto in = parse_json(body);
  if (!in || !in->is_object()) return {};
  const Json& messages = field(*in, "messages");
  const Json& prompt = field(*in, "prompt");
  const bool asks = chat ? !(messages.is_null() || (messages.is_array() && messages.empty()))
                         : !(prompt.is_null() || (prompt.is_string() && prompt.get<std::string>().empty()));
  if (asks) return {};
  const Json& keep = field(*in, "keep_alive");
  const bool unload =
      (keep.is_number() && keep.get<double>() == 0) ||
      (keep.is_string() && (keep.get<std::string>() == "0" || keep.get<std::string>() == "0s"));
  Json out{{"model", model_of(*in)}, {"created_at", rfc3339(unix_ms)}};
  if (chat) {
    out["message"] = {{"role", "assistant"}, {"content", ""}};
  } else {
    out["response"] = "";
  }
  out["done"] = true;
  out["done_reason"] = unload ? "unload" : "load";
  return dump_json(out);
}

}  // namespace aiv::gateway
