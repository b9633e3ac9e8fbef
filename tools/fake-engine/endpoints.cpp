// What each path answers (server.hpp). Shapes and error texts are llama-server 0.5.0's.
#include <fmt/format.h>
#include <time.h>

#include <algorithm>

#include "base/hash.hpp"
#include "core/prng.hpp"
#include "server.hpp"

namespace aiv::fake {
namespace {

constexpr std::size_t kEmbeddingDimensions = 64;
constexpr std::size_t kStopWordsMax = 64;

std::string base64(const std::string& bytes) {
  constexpr std::string_view kDigits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  for (std::size_t i = 0; i < bytes.size(); i += 3) {
    const auto left = std::min<std::size_t>(3, bytes.size() - i);
    unsigned word = 0;
    for (std::size_t k = 0; k < 3; ++k)
      word = (word << 8) | (k < left ? static_cast<unsigned char>(bytes[i + k]) : 0U);
    for (std::size_t k = 0; k < 4; ++k) out += k <= left ? kDigits[(word >> (18 - 6 * k)) & 63U] : '=';
  }
  return out;
}

std::string random_id(std::string_view prefix) {
  static Prng prng(static_cast<std::uint64_t>(monotonic_ns()));
  constexpr std::string_view kLetters = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string id(prefix);
  for (int i = 0; i < 32; ++i) id += kLetters[prng.below(static_cast<std::uint32_t>(kLetters.size()))];
  return id;
}

std::int64_t unix_seconds() {
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  return t.tv_sec;
}

std::int64_t integer_of(const Json& body, std::initializer_list<const char*> keys, std::int64_t fallback) {
  for (const auto* key : keys) {
    const auto found = body.find(key);
    if (found != body.end() && found->is_number()) return found->get<std::int64_t>();
  }
  return fallback;
}

bool flag_of(const Json& body, const char* key) {
  const auto found = body.find(key);
  return found != body.end() && found->is_boolean() && found->get<bool>();
}

bool wants_usage(const Json& body) {
  const auto options = body.find("stream_options");
  return options != body.end() && options->is_object() && flag_of(*options, "include_usage");
}

// Text of a prompt that is a string, a list of token ids, or a list of both.
Result<std::string> prompt_text(const Json& prompt) {
  if (prompt.is_string()) return prompt.get<std::string>();
  if (!prompt.is_array())
    return fail(ErrorCode::kInvalidArgument, "\"prompt\" must be a string or a list of tokens");
  std::string text;
  for (const auto& part : prompt) {
    if (part.is_string())
      text += part.get<std::string>();
    else if (part.is_number_integer())
      text += piece_of(static_cast<Token>(part.get<std::int64_t>()));
    else
      return fail(ErrorCode::kInvalidArgument, "\"prompt\" must be a string or a list of tokens");
  }
  return text;
}

std::vector<std::string> stop_words_of(const Json& body) {
  std::vector<std::string> words;
  const auto stop = body.find("stop");
  if (stop == body.end()) return words;
  if (stop->is_string()) words.push_back(stop->get<std::string>());
  if (stop->is_array())
    for (const auto& word : *stop)
      if (word.is_string() && words.size() < kStopWordsMax) words.push_back(word.get<std::string>());
  std::erase(words, "");
  return words;
}

// Finds the first stop word in the answer and cuts the answer there.
void apply_stop_words(Generation& g) {
  std::string text;
  for (auto n = g.answer.start(); n < g.end; ++n) {
    text += piece_of(g.answer.token_at(n));
    for (const auto& word : g.stop_words) {
      const auto at = text.find(word);
      if (at == std::string::npos) continue;
      g.end = n + 1;
      g.finish = Finish::kStopWord;
      g.stop_word = word;
      g.cut_text = g.prefill + text.substr(0, at);
      return;
    }
  }
}

}  // namespace

void Server::respond(Connection& c, int status, std::string_view body, std::string_view type) {
  // llama-server closes after an error.
  if (status != 200) c.request.keep_alive = false;
  c.out += http_response(status, type, body, c.request.keep_alive);
  finish_request(c);
}

void Server::respond_error(Connection& c, int status, std::string_view type, std::string_view message,
                           std::string_view more) {
  respond(c, status, R"({"error":)" + error_json(status, type, message, more) + "}");
}

void Server::handle_request(Connection& c) {
  const auto& path = c.request.path;
  if (!ready_) return respond_error(c, 503, "unavailable_error", "Loading model");
  if (path != "/health" && !options_.api_key.empty() &&
      !equal_constant_time(c.request.authorization, options_.api_key))
    return respond_error(c, 401, "authentication_error", "Invalid API Key");
  if (c.request.method == "GET") {
    if (path == "/health" || path == "/v1/health") return respond(c, 200, R"({"status":"ok"})");
    if (path == "/v1/models" || path == "/models")
      return respond(c, 200, fmt::format(R"({{"object":"list","data":[{}]}})", model_object()));
    if (path == "/slots" && options_.slots_endpoint) return respond(c, 200, slots_json());
    if (path == "/props") return respond(c, 200, props_json());
    if (path == "/metrics" && options_.metrics)
      return respond(c, 200, metrics_text(), "text/plain; version=0.0.4");
  } else if (c.request.method == "POST") {
    if (path == "/v1/chat/completions" || path == "/chat/completions")
      return handle_generation(c, ReplyKind::kChat);
    if (path == "/v1/completions") return handle_generation(c, ReplyKind::kCompletion);
    if (path == "/completion" || path == "/completions") return handle_generation(c, ReplyKind::kNative);
    if (path == "/v1/embeddings" || path == "/embeddings") return handle_embeddings(c);
    if (path == "/v1/rerank" || path == "/rerank") return handle_rerank(c);
    if (path == "/v1/chat/completions/input_tokens" || path == "/apply-template" || path == "/tokenize" || path == "/detokenize")
      return handle_small(c, path);
  }
  respond_error(c, 404, "not_found_error", "File Not Found");
}

void Server::handle_generation(Connection& c, ReplyKind kind) {
  if (options_.embeddings || options_.rerank)
    return respond_error(
        c, 501, "not_supported_error",
        "This server does not support completions. It was started with `--embeddings` or `--rerank`");
  const auto body = parse_json(c.request.body, 256);
  if (!body) return respond_error(c, 500, "server_error", "parse error: " + body.error().message());
  if (!body->is_object())
    return respond_error(c, 400, "invalid_request_error", "the body must be a JSON object");
  ChatPrompt prompt;
  const char* field = kind == ReplyKind::kChat ? "messages" : "prompt";
  const auto given = body->find(field);
  if (given == body->end())
    return respond_error(c, 400, "invalid_request_error", fmt::format("'{}' is required", field));
  if (kind == ReplyKind::kChat) {
    auto made = apply_template(*given);
    if (!made) return respond_error(c, 400, "invalid_request_error", made.error().reason);
    prompt = std::move(*made);
    // A begun message that is to be continued explicitly is not said again.
    if (flag_of(*body, "continue_final_message")) {
      if (body->value("add_generation_prompt", true))
        return respond_error(c, 400, "invalid_request_error", "Cannot set both add_generation_prompt and continue_final_message to true.");
      prompt.prefill.clear();
    }
  } else {
    auto text = prompt_text(*given);
    if (!text) return respond_error(c, 400, "invalid_request_error", text.error().reason);
    prompt.text = std::move(*text);
  }
  auto answer = Answer::make(options_.model.name, prompt.text);
  if (!answer) return respond_error(c, 400, "invalid_request_error", answer.error().reason);
  const auto prompt_tokens =
      static_cast<std::int64_t>(tokenize(prompt.text).size()) + 1;  // with the mark of the begin
  const auto ctx = options_.ctx_per_slot();
  if (prompt_tokens >= ctx)
    return respond_error(
        c, 400, "exceed_context_size_error",
        fmt::format("request ({} tokens) exceeds the available context size ({} tokens), try increasing it",
                    prompt_tokens, ctx),
        fmt::format(R"(,"n_prompt_tokens":{},"n_ctx":{})", prompt_tokens, ctx));
  ReplyStyle style;
  style.kind = kind;
  style.stream = flag_of(*body, "stream");
  style.include_usage = wants_usage(*body);
  style.timings_per_token = flag_of(*body, "timings_per_token");
  style.return_progress = flag_of(*body, "return_progress");
  style.model = options_.name();
  style.id = random_id("chatcmpl-");
  style.created = unix_seconds();
  style.prompt_tokens = prompt_tokens;
  style.limit = integer_of(*body, {"max_completion_tokens", "max_tokens", "n_predict"}, -1);
  if (kind == ReplyKind::kChat && answer->control().tool_name) {
    style.tool_name = *answer->control().tool_name;
    style.tool_id = random_id("");
  }
  if (kind == ReplyKind::kNative) style.prompt_text = prompt.text;
  const auto limit = std::min(style.limit < 0 ? kAnswerTokensMax : style.limit, ctx - prompt_tokens);
  auto g = std::make_unique<Generation>(Reply(std::move(style)), std::move(*answer));
  g->prefill = std::move(prompt.prefill);
  g->stop_words = stop_words_of(*body);
  g->next = g->answer.start();
  g->end = std::min(g->answer.total(), g->next + limit);
  g->finish = g->end < g->answer.total() || g->end - g->next == limit ? Finish::kLimit : Finish::kStop;
  g->received_ns = monotonic_ns();
  if (!g->stop_words.empty()) apply_stop_words(*g);
  c.request.body.clear();
  enqueue(c, std::move(g));
}

void Server::handle_embeddings(Connection& c) {
  if (!options_.embeddings)
    return respond_error(c, 501, "not_supported_error",
                         "This server does not support embeddings. Start it with `--embeddings`");
  const auto body = parse_json(c.request.body);
  if (!body || !body->is_object())
    return respond_error(c, 400, "invalid_request_error", "the body must be a JSON object");
  const auto input = body->find(body->contains("input") ? "input" : "content");
  if (input == body->end())
    return respond_error(c, 400, "invalid_request_error", "\"input\" or \"content\" must be provided");
  const auto format = body->find("encoding_format");
  const bool as_base64 =
      format != body->end() && format->is_string() && format->get<std::string>() == "base64";
  std::vector<std::string> texts;
  const bool many = input->is_array() && !input->empty() && !input->front().is_number();
  for (const auto& item : many ? *input : Json::array({*input})) {
    auto text = prompt_text(item);
    if (!text) return respond_error(c, 400, "invalid_request_error", text.error().reason);
    texts.push_back(std::move(*text));
  }
  std::string data;
  std::int64_t tokens = 0;
  for (std::size_t i = 0; i < texts.size(); ++i) {
    tokens += static_cast<std::int64_t>(tokenize(texts[i]).size()) + 1;
    const auto vector = embedding_of(options_.model.name, texts[i], kEmbeddingDimensions);
    std::string value;
    if (as_base64) {
      value =
          '"' + base64({reinterpret_cast<const char*>(vector.data()), vector.size() * sizeof(float)}) + '"';
    } else {
      value = fmt::format("[{}]", fmt::join(vector, ","));
    }
    data += fmt::format(R"({}{{"embedding":{},"index":{},"object":"embedding"{}}})", i == 0 ? "" : ",", value,
                        i, as_base64 ? R"(,"encoding_format":"base64")" : "");
  }
  counters_.prompt_tokens += tokens;
  std::string name;
  append_json_string(name, options_.name());
  respond(
      c, 200,
      fmt::format(
          R"({{"model":{},"object":"list","usage":{{"prompt_tokens":{},"total_tokens":{}}},"data":[{}]}})",
          name, tokens, tokens, data));
}

void Server::handle_rerank(Connection& c) {
  if (!options_.rerank)
    return respond_error(c, 501, "not_supported_error",
                         "This server does not support reranking. Start it with `--reranking`");
  const auto body = parse_json(c.request.body);
  if (!body || !body->is_object())
    return respond_error(c, 400, "invalid_request_error", "the body must be a JSON object");
  const auto query = body->find("query");
  const auto documents = body->find("documents");
  if (query == body->end() || !query->is_string())
    return respond_error(c, 400, "invalid_request_error", "\"query\" must be provided");
  if (documents == body->end() || !documents->is_array())
    return respond_error(c, 400, "invalid_request_error", "\"documents\" must be a non-empty string array");
  std::vector<std::pair<double, std::size_t>> scores;
  std::int64_t tokens = 0;
  for (const auto& document : *documents) {
    if (!document.is_string())
      return respond_error(c, 400, "invalid_request_error", "\"documents\" must be a non-empty string array");
    const auto text = document.get<std::string>();
    tokens +=
        static_cast<std::int64_t>(tokenize(query->get<std::string>()).size() + tokenize(text).size()) + 4;
    scores.emplace_back(relevance_of(options_.model.name, query->get<std::string>(), text), scores.size());
  }
  std::sort(scores.begin(), scores.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  const auto top = static_cast<std::size_t>(
      std::max<std::int64_t>(integer_of(*body, {"top_n"}, static_cast<std::int64_t>(scores.size())), 0));
  if (scores.size() > top) scores.resize(top);
  std::string results;
  for (const auto& [score, index] : scores)
    results +=
        fmt::format(R"({}{{"index":{},"relevance_score":{}}})", results.empty() ? "" : ",", index, score);
  std::string name;
  append_json_string(name, options_.name());
  respond(
      c, 200,
      fmt::format(
          R"({{"model":{},"object":"list","usage":{{"prompt_tokens":{},"total_tokens":{}}},"results":[{}]}})",
          name, tokens, tokens, results));
}

void Server::handle_small(Connection& c, const std::string& path) {
  const auto body = parse_json(c.request.body, 256);
  if (!body || !body->is_object())
    return respond_error(c, 400, "invalid_request_error", "the body must be a JSON object");
  std::string out;
  if (path == "/apply-template") {
    if (!body->contains("messages"))
      return respond_error(c, 400, "invalid_request_error", "'messages' is required");
    const auto prompt = apply_template((*body)["messages"]);
    if (!prompt) return respond_error(c, 400, "invalid_request_error", prompt.error().reason);
    append_json_string(out, prompt->text);
    return respond(c, 200, R"({"prompt":)" + out + "}");
  }
  if (path == "/v1/chat/completions/input_tokens") {
    const auto messages = body->find("messages");
    if (messages == body->end()) return respond_error(c, 400, "invalid_request_error", "'messages' is required");
    const auto prompt = apply_template(*messages);
    if (!prompt) return respond_error(c, 400, "invalid_request_error", prompt.error().reason);
    return respond(c, 200, fmt::format(R"({{"input_tokens":{},"object":"response.input_tokens"}})", tokenize(prompt->text).size() + 1));
  }
  if (path == "/detokenize") {
    if (!body->contains("tokens"))
      return respond_error(c, 400, "invalid_request_error", "'tokens' is required");
    const auto text = prompt_text((*body)["tokens"]);
    if (!text) return respond_error(c, 400, "invalid_request_error", text.error().reason);
    append_json_string(out, *text);
    return respond(c, 200, R"({"content":)" + out + "}");
  }
  std::vector<Token> tokens;
  if (flag_of(*body, "add_special")) tokens.push_back(kBos);
  const auto content = body->find("content");
  // A list of texts is tokenised text by text: a token never reaches over the end of one.
  const Json texts = content == body->end() ? Json::array() : content->is_array() ? *content : Json::array({*content});
  for (const auto& text : texts) {
    if (!text.is_string()) continue;
    const auto more = tokenize(text.get<std::string>());
    tokens.insert(tokens.end(), more.begin(), more.end());
  }
  if (!flag_of(*body, "with_pieces"))
    return respond(c, 200, fmt::format(R"({{"tokens":[{}]}})", fmt::join(tokens, ",")));
  for (const auto token : tokens) {
    out += fmt::format(R"({}{{"id":{},"piece":)", out.empty() ? "" : ",", token);
    append_json_string(out, piece_of(token));
    out += '}';
  }
  respond(c, 200, R"({"tokens":[)" + out + "]}");
}

std::string Server::model_object() const {
  std::string name;
  append_json_string(name, options_.name());
  return fmt::format(
      R"({{"id":{0},"aliases":[{0}],"tags":[],"object":"model","created":{1},"owned_by":"llamacpp","meta":{{"vocab_type":1,"n_vocab":{2},"n_ctx":{3},"n_ctx_train":{4},"n_embd":{5},"n_params":{6},"size":{6},"ftype":"fake"}}}})",
      name, start_unix_, kVocabSize, options_.ctx_per_slot(), options_.model.ctx_train, kEmbeddingDimensions,
      options_.model.weights_bytes);
}

std::string Server::slots_json() const {
  std::string out = "[";
  for (std::size_t i = 0; i < slots_.size(); ++i) {
    const auto* c = slots_[i];
    out += fmt::format(R"({}{{"id":{},"n_ctx":{},"speculative":false,"is_processing":{})", i == 0 ? "" : ",",
                       i, options_.ctx_per_slot(), c != nullptr);
    if (c != nullptr && c->generation) {
      const auto& g = *c->generation;
      out += fmt::format(
          R"(,"id_task":{},"n_prompt_tokens":{},"next_token":[{{"has_next_token":true,"has_new_line":false,"n_remain":{},"n_decoded":{}}}])",
          c->task, g.reply.style().prompt_tokens, g.end - g.next, g.next - g.answer.start());
    }
    out += '}';
  }
  return out + ']';
}

std::string Server::props_json() const {
  std::string name;
  append_json_string(name, options_.name());
  std::string path;
  append_json_string(path, options_.model_path);
  return fmt::format(
      R"({{"default_generation_settings":{{"n_ctx":{}}},"total_slots":{},"model_alias":{},"model_path":{},"modalities":{{"vision":false,"video":false,"audio":false}},"endpoint_slots":{},"endpoint_props":false,"endpoint_metrics":{},"chat_template":"fake","bos_token":"","eos_token":"","build_info":"fake-{}","is_sleeping":false}})",
      options_.ctx_per_slot(), options_.slots, name, path, options_.slots_endpoint, options_.metrics,
      AIV_VERSION);
}

std::string Server::metrics_text() const {
  std::string out;
  const auto add = [&](std::string_view name, std::string_view kind, std::string_view help, double value) {
    out += fmt::format("# HELP llamacpp:{0} {1}\n# TYPE llamacpp:{0} {2}\nllamacpp:{0} {3}\n", name, help,
                       kind, value);
  };
  const auto busy = static_cast<double>(slots_.size() - free_slots_.size());
  const auto per_second = [](double n, double ms) { return ms > 0 ? 1000 * n / ms : 0.0; };
  add("prompt_tokens_total", "counter", "Number of prompt tokens processed, excluding cached tokens",
      static_cast<double>(counters_.prompt_tokens));
  add("prompt_seconds_total", "counter", "Total time spent processing prompts", counters_.prompt_ms / 1000);
  add("tokens_predicted_total", "counter", "Number of generation tokens processed",
      static_cast<double>(counters_.predicted_tokens));
  add("tokens_predicted_seconds_total", "counter", "Total time spent generating tokens",
      counters_.predicted_ms / 1000);
  add("n_decode_total", "counter", "Total number of llama_decode() calls",
      static_cast<double>(counters_.predicted_tokens));
  add("prompt_tokens_seconds", "gauge", "Average prompt throughput in tokens/s",
      per_second(static_cast<double>(counters_.prompt_tokens), counters_.prompt_ms));
  add("predicted_tokens_seconds", "gauge", "Average generation throughput in tokens/s",
      per_second(static_cast<double>(counters_.predicted_tokens), counters_.predicted_ms));
  add("requests_processing", "gauge", "Number of requests processing", busy);
  add("requests_deferred", "gauge", "Number of requests deferred", static_cast<double>(waiting_));
  add("requests_cancelled", "counter", "Requests whose peer left before the end (fake engine only)",
      static_cast<double>(counters_.cancelled));
  return out;
}

}  // namespace aiv::fake
