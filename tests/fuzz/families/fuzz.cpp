// Any bytes as a request of each API family and as an engine's answer: nothing crashes, what a translation
// makes is a request that the OpenAI rules can read or refuse, and what a form makes of a whole answer is
// JSON.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "gateway/api/anthropic.hpp"
#include "gateway/api/embeddings.hpp"
#include "gateway/api/ollama.hpp"
#include "gateway/api/responses.hpp"
#include "gateway/openai_parse.hpp"
#include "net/task.hpp"

// Of the loop, which is not built here and whose coroutines nothing here runs.
void* aiv::net::detail::allocate_frame(std::size_t) { std::abort(); }
void aiv::net::detail::free_frame(void*, std::size_t) noexcept {}

namespace {

void check_translation(aiv::gateway::Translation translated) {
  using namespace aiv::gateway;
  if (!translated) {
    if (translated.error().status != 400 || translated.error().message.empty()) std::abort();
    return;
  }
  if (!aiv::parse_json(translated->body)) std::abort();
  const auto request = parse_openai_request(translated->endpoint, translated->body);
  if (!request && request.error().status != 400) std::abort();
}

void check_form(aiv::gateway::AnswerForm& form, const std::string& bytes) {
  std::string out;
  form.event(out, bytes);
  form.event(out, bytes);
  form.life_sign(out);
  form.done(out);
  if (form.error_event(aiv::gateway::replica_failed("x")).empty()) std::abort();
  form.forget();
  if (const auto whole = form.whole(bytes); whole && !aiv::parse_json(*whole, 256)) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace aiv::gateway;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const TranslationContext context{.request_id = "req-0123456789abcdef",
                                   .unix_ms = [] { return std::int64_t{1}; }};
  check_translation(translate_anthropic(bytes, context));
  check_translation(translate_responses(bytes, context));
  check_translation(translate_ollama_chat(bytes, context));
  check_translation(translate_ollama_generate(bytes, context));
  check_translation(translate_ollama_embed(bytes, context, false));
  const std::string loaded = ollama_load_answer(bytes, true, 1);
  if (!loaded.empty() && !aiv::parse_json(loaded, 256)) std::abort();
  AnthropicForm anthropic("m", "req-1", "Once");
  check_form(anthropic, bytes);
  OllamaForm ollama(OllamaForm::Kind::kChat, "m", context.unix_ms);
  check_form(ollama, bytes);
  ResponsesForm responses("m", "req-1", 1, "\"tools\":[]");
  check_form(responses, bytes);
  CutEmbeddingForm cut("m", 2, true);
  check_form(cut, bytes);
  return 0;
}
