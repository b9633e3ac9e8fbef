// Any bytes as the stream of an engine that died and as what the next one answers: what is made of them for the client
// is JSON, and a continuation asks for exactly what was delivered.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "gateway/journal.hpp"
#include "gateway/relay_continuation.hpp"
#include "gateway/sse.hpp"

namespace {

using namespace aiv;
using namespace aiv::gateway;

void require(bool holds) {
  if (!holds) std::abort();
}

// A text goes out in the form of the engine's first event, whatever that began with.
void check_event(std::string_view event) { require(parse_json(event_data(event)).has_value()); }

// What the journal kept of the events in `stream`; false where it says that the answer cannot be continued.
bool keep(Journal& journal, std::string_view stream, Endpoint endpoint) {
  while (const std::size_t size = next_event(stream)) {
    const std::string_view event = stream.substr(0, size);
    if (classify_event(event) == SseEvent::kToken) journal.add(event, endpoint);
    stream.remove_prefix(size);
  }
  ResumeFacts facts;
  journal.tell(facts);
  return journal.has_mould() && resume_obstacle(facts) == ResumeObstacle::kNone;
}

void check_continuation(const Journal& journal, std::string_view answer, Endpoint endpoint) {
  const Json request{{"prompt", "p"}, {"messages", Json::array()}, {"stop", Json::array({"ab", "c"})}, {"seed", 7}};
  Relay::Continuation continuation(request, endpoint);
  static_cast<void>(continuation.take_prompt(answer));
  continuation.set_delivered(journal.texts(), journal.events());
  if (continuation.wants_tokens()) {
    require(parse_json(continuation.tokenize_body()).has_value());
    static_cast<void>(continuation.take_tokens(answer));
  }
  require(parse_json(continuation.completion_body(9, 1, 0, true)).has_value());
  const auto step = continuation.take_event(answer);
  if (step && !step->text.empty()) check_event(journal.text_event(step->text));
}

// The same by the chat route, as where tools are offered.
void check_chat_continuation(const Journal& journal, std::string_view answer) {
  const Json request{{"messages", Json::array({Json{{"role", "user"}, {"content", "x"}}})},
                     {"tools", Json::array({Json::object()})}};
  Relay::Continuation continuation(request, Endpoint::kChat);
  require(continuation.by_chat);
  static_cast<void>(continuation.take_prompt(answer));
  continuation.set_delivered(journal.texts(), journal.events());
  static_cast<void>(continuation.take_begun_prompt(answer));
  for (const bool begun : {false, true}) {
    require(parse_json(continuation.count_body(begun)).has_value());
    static_cast<void>(continuation.take_count(answer, begun));
  }
  require(continuation.delivered_tokens >= 0);
  std::string delivered;
  for (const std::string& text : journal.texts()) delivered += text;
  const auto asked = parse_json(continuation.chat_body(9, 1, 0, true));
  require(asked.has_value());
  require(delivered.empty() ? (*asked)["messages"].size() == 1 : (*asked)["messages"][1]["content"] == delivered);
  const auto step = continuation.take_chat_event(answer);
  if (step && !step->delta.is_null()) check_event(journal.delta_event(step->delta));
}

}  // namespace

// The first byte is the endpoint; a NUL parts the stream from the next engine's answer.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data), size);
  const Endpoint endpoint = bytes[0] % 2 == 0 ? Endpoint::kChat : Endpoint::kCompletion;
  const std::size_t cut = bytes.find('\0', 1);
  const std::string stream = bytes.substr(1, cut == std::string::npos ? cut : cut - 1);
  const std::string answer = cut == std::string::npos ? std::string() : bytes.substr(cut + 1);
  Journal journal;
  if (!keep(journal, stream, endpoint)) return 0;
  journal.rename("another/name:1");
  check_event(journal.text_event("\"text\"\n"));
  const AnswerUsage usage{3, 4};
  check_event(journal.finish_event("stop", &usage));
  check_event(journal.usage_event(usage));
  check_continuation(journal, answer, endpoint);
  if (endpoint == Endpoint::kChat) check_chat_continuation(journal, answer);
  journal.add_text("more\n");
  require(journal.texts().size() <= static_cast<std::size_t>(journal.events()));
  return 0;
}
