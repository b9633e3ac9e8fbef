// The API families of the public port and how each of them says that something went wrong. Pure.
//
//   OpenAI     {"error":{"message":..,"type":..,"param":..,"code":..}}
//   Anthropic  {"type":"error","error":{"type":..,"message":..},"request_id":..}   overloaded is 529
//   Ollama     {"error":"text"}
//
// A stream that broke ends with such an error as its last event and never with the family's own end.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "gateway/api_error.hpp"
#include "net/http.hpp"

namespace aiv::gateway {

enum class ApiFamily : std::uint8_t { kOpenAi, kAnthropic, kOllama };

// By the path; "/v1/models" and unknown paths under "/v1" also by the header that only Anthropic's clients
// send.
[[nodiscard]] ApiFamily family_of(std::string_view path, const net::Headers& headers);

// The status as the family has it: Anthropic says 529 for "overloaded", the others 503.
[[nodiscard]] int error_status(ApiFamily family, const ApiError& error);
// The body of an error answer.
[[nodiscard]] std::string error_body(ApiFamily family, const ApiError& error, std::string_view request_id);
// The last event of a stream of that family.
[[nodiscard]] std::string error_event(ApiFamily family, const ApiError& error, std::string_view request_id);

}  // namespace aiv::gateway
