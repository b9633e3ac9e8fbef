// One failure of a request as its client is told about it, and its OpenAI form. Pure.
//
// Rules: all four keys (message, type, param, code) always; `code` a string or null; bodies say what to do, never
// what is inside (no path, no stack, no version). 4xx except 408, 409 and 429 tell SDKs not to retry.
#pragma once
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "net/http.hpp"

namespace aiv::gateway {

inline constexpr std::size_t kErrorMessageBytesMax = 2000;

struct ApiError {
  int status = 500;
  std::string type = "api_error";
  std::string code{};  // empty: null
  std::string param{};  // empty: null
  std::string message{};
  int retry_after_s = 0;     // > 0: said to the client
  bool never_retry = false;  // x-should-retry: false where the status alone would invite a retry
  bool close = false;
};

// {"error":{"message":..,"type":..,"param":..,"code":..}}
std::string openai_error_body(const ApiError& error);
// data: {"error":{...}}\n\n : the last event of a stream that broke. No [DONE] follows it.
std::string openai_error_event(const ApiError& error);
// content-type, www-authenticate, retry-after, retry-after-ms, x-should-retry as the case needs.
net::Headers error_headers(const ApiError& error);

ApiError bad_request(std::string message, std::string param = {});
ApiError unauthorized();  // the same for a missing, unknown, wrong, expired or disabled key
ApiError forbidden(std::string message);
ApiError not_found(std::string_view method, std::string_view path);
ApiError method_not_allowed(std::string_view method, std::string_view path, std::string_view allowed);
ApiError body_too_large(std::size_t limit_bytes);
ApiError model_not_found(std::string_view model, const std::vector<std::string>& available);
ApiError overloaded(std::string message, std::string code, int retry_after_s);
ApiError replica_failed(std::string message);
ApiError timed_out(std::string message);

// An error answer of an engine (its JSON body, any status) in our form. llama-server sends numbers as `code`, no
// `param`, and types of its own (tools/server/server-common.cpp, format_error_response).
ApiError from_engine_error(int status, std::string_view body);

// Appends `text` as a JSON string with its quotes. Invalid UTF-8 becomes U+FFFD.
void append_json_string(std::string& out, std::string_view text);

}  // namespace aiv::gateway
