#include "gateway/relay_continuation.hpp"

#include <algorithm>
#include <array>
#include <utility>

namespace aiv::gateway {
namespace {

// What a continuation is sampled with: as the client asked. Everything else of the request is either in the prompt
// already or ours. Defaults are the engine's on both routes (tools/server/server-schema.cpp).
constexpr std::array<std::string_view, 12> kSampling{"temperature",       "top_p",            "top_k",          "min_p",
                                                     "typical_p",         "frequency_penalty", "presence_penalty", "repeat_penalty",
                                                     "repeat_last_n",     "stop",             "logit_bias",     "seed"};

Error malformed(std::string_view what) {
  return {ErrorCode::kUnavailable, "it gave an answer that is not understood (" + std::string(what) + ")", {}};
}

bool has_media(const Json& messages) {
  if (!messages.is_array()) return false;
  for (const Json& message : messages) {
    if (!message.is_object() || !message.contains("content") || !message["content"].is_array()) continue;
    for (const Json& part : message["content"]) {
      const std::string type = part.is_object() ? part.value("type", "") : "";
      if (type == "image_url" || type == "input_audio") return true;
    }
  }
  return false;
}

std::vector<std::string> stop_strings(const Json& request) {
  std::vector<std::string> stops;
  if (!request.contains("stop")) return stops;
  const Json& stop = request["stop"];
  if (stop.is_string()) stops.push_back(stop.get<std::string>());
  if (stop.is_array()) {
    for (const Json& one : stop) {
      if (one.is_string()) stops.push_back(one.get<std::string>());
    }
  }
  return stops;
}

const Json* last_assistant(const Json& request) {
  if (!request.contains("messages") || !request["messages"].is_array() || request["messages"].empty()) return nullptr;
  const Json& last = request["messages"].back();
  return last.is_object() && last.contains("role") && last["role"] == "assistant" ? &last : nullptr;
}

bool given(const Json& request, std::string_view key) {
  const auto found = request.find(std::string(key));
  return found != request.end() && !found->is_null() && *found != "" && *found != false;
}

std::int64_t integer_of(const Json& json, const char* key) {
  const auto found = json.find(key);
  return found != json.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

}  // namespace

void describe_request(const Json& request, Endpoint endpoint, ResumeFacts& facts) {
  facts.text_route = endpoint == Endpoint::kChat || endpoint == Endpoint::kCompletion;
  const Json choice = given(request, "tool_choice") ? request["tool_choice"] : Json("auto");
  facts.tools_offered = request.contains("tools") && !request["tools"].empty() && choice != "none";
  facts.tools_demanded = facts.tools_offered && choice != "auto";
  facts.constrained = given(request, "grammar") || given(request, "json_schema");
  if (request.contains("response_format") && request["response_format"].is_object()) {
    facts.constrained = facts.constrained || request["response_format"].value("type", "text") != "text";
  }
  facts.logprobs = given(request, "logprobs") || given(request, "top_logprobs");
  facts.media = request.contains("messages") && has_media(request["messages"]);
  if (const Json* last = last_assistant(request)) facts.open_prefill = !last->contains("content") || !(*last)["content"].is_string();
}

Relay::Continuation::Continuation(Json engine_request, Endpoint endpoint) : request(std::move(engine_request)) {
  ResumeFacts facts;
  describe_request(request, endpoint, facts);
  by_chat = endpoint == Endpoint::kChat && facts.tools_offered;
  if (endpoint == Endpoint::kCompletion) {
    prompt_ = request["prompt"];
    rendered = true;
  } else if (const Json* last = last_assistant(request)) {
    prefill_ = (*last)["content"].get<std::string>();
  }
}

Result<> Relay::Continuation::take_prompt(std::string_view answer) {
  const auto json = parse_json(answer);
  if (!json || !json->is_object() || !json->contains("prompt") || !(*json)["prompt"].is_string()) {
    return std::unexpected(malformed("template"));
  }
  prompt_ = (*json)["prompt"];
  rendered = true;
  return {};
}

void Relay::Continuation::set_delivered(std::vector<std::string> all, std::int64_t events) {
  delivered_.clear();
  texts_.clear();
  ids_.clear();
  exact = false;
  finish.clear();
  ending.clear();
  evaluated = predicted = 0;
  // The engine repeats what the client began; the rendered prompt has it too.
  std::string_view skip = prefill_;
  for (std::string& text : all) {
    if (!skip.empty() && text.starts_with(skip)) {
      text.erase(0, skip.size());
      skip = {};
    } else if (!skip.empty() && skip.starts_with(text)) {
      skip.remove_prefix(text.size());
      text.clear();
    }
    if (text.empty()) continue;
    delivered_ += text;
    texts_.push_back(std::move(text));
  }
  delivered_tokens = texts_.empty() ? 0 : events;
  seam = StopSeam(stop_strings(request), delivered_);
}

std::string Relay::Continuation::tokenize_body() const {
  return dump_json(Json{{"content", texts_}, {"add_special", false}, {"parse_special", false}, {"with_pieces", true}});
}

Result<> Relay::Continuation::take_tokens(std::string_view answer) {
  const auto json = parse_json(answer);
  if (!json || !json->is_object() || !json->contains("tokens") || !(*json)["tokens"].is_array()) {
    return std::unexpected(malformed("tokens"));
  }
  std::vector<TokenPiece> tokens;
  for (const Json& token : (*json)["tokens"]) {
    if (!token.is_object() || !token.contains("id") || !token["id"].is_number_integer() || !token.contains("piece")) {
      return std::unexpected(malformed("token"));
    }
    TokenPiece piece{.id = static_cast<std::int32_t>(token["id"].get<std::int64_t>()), .bytes = {}};
    if (token["piece"].is_string()) piece.bytes = token["piece"].get<std::string>();
    if (token["piece"].is_array()) {
      for (const Json& byte : token["piece"]) {
        if (byte.is_number_integer()) piece.bytes += static_cast<char>(byte.get<std::int64_t>());
      }
    }
    tokens.push_back(std::move(piece));
  }
  exact = tokens_say(tokens, delivered_);
  if (!exact) return {};
  for (const TokenPiece& token : tokens) ids_.push_back(token.id);
  delivered_tokens = static_cast<std::int64_t>(ids_.size());
  return {};
}

std::string Relay::Continuation::completion_body(std::optional<std::int64_t> left, int resume, int slot,
                                                 bool cache_prompt) const {
  Json body = Json::object();
  for (const std::string_view key : kSampling) {
    if (const auto found = request.find(std::string(key)); found != request.end()) body[std::string(key)] = *found;
  }
  if (body.contains("seed") && body["seed"].is_number_integer() && body["seed"].get<std::int64_t>() >= 0) {
    body["seed"] = resume_seed(body["seed"].get<std::int64_t>(), resume);
  }
  if (delivered_.empty()) {
    body["prompt"] = prompt_;
  } else if (prompt_.is_string() && !exact) {
    body["prompt"] = prompt_.get<std::string>() + delivered_;
  } else {
    Json parts = prompt_.is_array() ? prompt_ : Json::array({prompt_});
    if (exact) {
      for (const std::int32_t id : ids_) parts.push_back(id);
    } else {
      parts.push_back(delivered_);
    }
    body["prompt"] = std::move(parts);
  }
  body["n_predict"] = left.value_or(-1);
  body["stream"] = true;
  body["cache_prompt"] = cache_prompt;
  if (slot >= 0) body["id_slot"] = slot;
  return dump_json(body);
}

// The request with the answer so far as its last message. `continue_final_message` makes the chat route go on from there
// without repeating it, with its parser of calls knowing what was said (llama.cpp 0.5.0: tools/server/server-common.cpp,
// oaicompat_chat_params_parse; server-task.cpp, task_result_state).
Json Relay::Continuation::begun_request() const {
  Json body = request;
  if (delivered_.empty() && prefill_.empty()) return body;
  Json& messages = body["messages"];
  if (last_assistant(body) == nullptr) {
    Json begun = Json::object();
    begun["role"] = "assistant";
    messages.push_back(std::move(begun));
  }
  messages.back()["content"] = prefill_ + delivered_;
  body["continue_final_message"] = true;
  body["add_generation_prompt"] = false;
  return body;
}

std::string Relay::Continuation::begun_template_body() const { return dump_json(begun_request()); }

Result<bool> Relay::Continuation::take_begun_prompt(std::string_view answer) {
  const auto json = parse_json(answer);
  if (!json || !json->is_object() || !json->contains("prompt") || !(*json)["prompt"].is_string() || !prompt_.is_string()) {
    return std::unexpected(malformed("template"));
  }
  return (*json)["prompt"].get<std::string>() == prompt_.get<std::string>() + delivered_;
}

std::string Relay::Continuation::count_body(bool begun) const {
  const std::string prompt = prompt_.is_string() ? prompt_.get<std::string>() : std::string();
  return dump_json(Json{{"content", begun ? prompt + delivered_ : prompt}, {"add_special", true}, {"parse_special", true}});
}

Result<> Relay::Continuation::take_count(std::string_view answer, bool begun) {
  const auto json = parse_json(answer);
  if (!json || !json->is_object() || !json->contains("tokens") || !(*json)["tokens"].is_array()) {
    return std::unexpected(malformed("tokens"));
  }
  const auto count = static_cast<std::int64_t>((*json)["tokens"].size());
  if (!begun) {
    prompt_tokens_ = count;
    return {};
  }
  delivered_tokens = std::max<std::int64_t>(count - std::max<std::int64_t>(prompt_tokens_, 0), 0);
  evaluated = count;
  return {};
}

std::string Relay::Continuation::chat_body(std::optional<std::int64_t> left, int resume, int slot, bool cache_prompt) const {
  Json body = begun_request();
  if (body.contains("seed") && body["seed"].is_number_integer() && body["seed"].get<std::int64_t>() >= 0) {
    body["seed"] = resume_seed(body["seed"].get<std::int64_t>(), resume);
  }
  if (left) body["max_tokens"] = *left;
  body["stream"] = true;
  body["stream_options"] = Json{{"include_usage", true}};
  body["cache_prompt"] = cache_prompt;
  if (slot >= 0) body["id_slot"] = slot;
  return dump_json(body);
}

Result<Relay::Continuation::Step> Relay::Continuation::take_chat_event(std::string_view text) {
  const auto json = parse_json(text);
  if (!json || !json->is_object() || !json->contains("choices") || !(*json)["choices"].is_array()) {
    return std::unexpected(malformed("event"));
  }
  if (json->contains("usage") && (*json)["usage"].is_object()) {
    evaluated = integer_of((*json)["usage"], "prompt_tokens");
    predicted = integer_of((*json)["usage"], "completion_tokens");
  }
  Step step;
  if ((*json)["choices"].empty()) return step;
  const Json& choice = (*json)["choices"][0];
  if (!choice.is_object() || !choice.contains("delta") || !choice["delta"].is_object()) {
    return std::unexpected(malformed("event"));
  }
  Json delta = choice["delta"];
  if (delta.contains("content") && delta["content"].is_string()) step.text = delta["content"].get<std::string>();
  delta.erase("content");
  delta.erase("role");
  if (!delta.empty()) step.delta = std::move(delta);
  if (!step.text.empty() || !step.delta.is_null()) ++predicted;  // until the engine says how many tokens it were
  if (choice.contains("finish_reason") && choice["finish_reason"].is_string()) step.finish = choice["finish_reason"].get<std::string>();
  return step;
}

Result<Relay::Continuation::Step> Relay::Continuation::take_event(std::string_view text) {
  const auto json = parse_json(text);
  if (!json || !json->is_object() || !json->contains("content") || !(*json)["content"].is_string()) {
    return std::unexpected(malformed("event"));
  }
  evaluated = integer_of(*json, "tokens_evaluated");
  predicted = integer_of(*json, "tokens_predicted");
  Step step{.text = (*json)["content"].get<std::string>(), .delta = {}, .finish = {}};
  if (json->contains("stop") && (*json)["stop"] == true) {
    const bool limit = json->contains("stop_type") && (*json)["stop_type"] == "limit";
    step.finish = limit ? "length" : "stop";
  }
  return step;
}

}  // namespace aiv::gateway
