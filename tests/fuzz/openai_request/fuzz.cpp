// Any bytes as a client's body: it is refused, or what goes to the engine is JSON made of allowed fields only.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "base/json.hpp"
#include "gateway/openai_parse.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace aiv;
  if (size == 0) return 0;
  const auto endpoint = static_cast<Endpoint>(data[0] % 3);
  std::string body(reinterpret_cast<const char*>(data) + 1, size - 1);
  const auto request = gateway::parse_openai_request(endpoint, body);
  if (!request) {
    if (request.error().status != 400 || request.error().message.empty()) std::abort();
    if (!parse_json(gateway::openai_error_body(request.error()))) std::abort();
    return 0;
  }
  // Depth: the rebuilt body may be as deep as the client's.
  const auto json = parse_json(engine_body(*request, 0, false), kJsonDepthMax + 2);
  if (!json || !json->is_object()) std::abort();
  for (const auto& [key, value] : json->items()) {
    if (key == "id_slot" || key == "cache_prompt") continue;
    bool known = false;
    for (const FieldRule& rule : request_fields(endpoint)) known = known || rule.name == key;
    if (!known) std::abort();
  }
  if (!valid_name(request->model)) std::abort();
  return 0;
}
