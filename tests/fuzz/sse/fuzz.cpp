// Any bytes as an engine's stream: events cover what they claim, and no search reads beyond its text.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "gateway/api_error.hpp"
#include "gateway/sse.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace aiv::gateway;
  // A copy of exactly that size, so that the sanitizer sees any byte read behind it.
  const std::string stream(reinterpret_cast<const char*>(data), size);
  std::string_view rest = stream;
  while (const std::size_t event_size = next_event(rest)) {
    if (event_size > rest.size()) std::abort();
    const std::string_view event = rest.substr(0, event_size);
    const SseEvent kind = classify_event(event);
    const std::string_view payload = event_data(event);
    if (payload.size() > event.size()) std::abort();
    const auto timings = find_timings(payload);
    if (timings && timings->generated_tokens < 0) std::abort();
    std::string renamed;
    append_with_model(renamed, event, "name");
    if (renamed.empty()) std::abort();
    if (kind == SseEvent::kError && openai_error_event(from_engine_error(200, payload)).empty()) std::abort();
    rest.remove_prefix(event_size);
  }
  return 0;
}
