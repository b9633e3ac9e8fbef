#include "gateway/api/family.hpp"

namespace aiv::gateway {
namespace {

// The words of Anthropic's API reference, "Errors".
std::string_view anthropic_type(const ApiError& error) {
  switch (error.status) {
    case 400:
    case 405:
    case 408:
    case 415:
      return "invalid_request_error";
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
    case 529:
      return "overloaded_error";
    case 504:
      return "timeout_error";
    default:
      return error.status < 500 ? "invalid_request_error" : "api_error";
  }
}

}  // namespace

ApiFamily family_of(std::string_view path, const net::Headers& headers) {
  if (path == "/api" || path.starts_with("/api/")) return ApiFamily::kOllama;
  if (path == "/v1/messages" || path.starts_with("/v1/messages/")) return ApiFamily::kAnthropic;
  if (path.starts_with("/v1/") && net::find_header(headers, "anthropic-version") != nullptr)
    return ApiFamily::kAnthropic;
  return ApiFamily::kOpenAi;
}

int error_status(ApiFamily family, const ApiError& error) {
  return family == ApiFamily::kAnthropic && error.status == 503 ? 529 : error.status;
}

std::string error_body(ApiFamily family, const ApiError& error, std::string_view request_id) {
  if (family == ApiFamily::kOpenAi) return openai_error_body(error);
  const std::string_view message = std::string_view(error.message).substr(0, kErrorMessageBytesMax);
  std::string out;
  if (family == ApiFamily::kOllama) {
    out = "{\"error\":";
    append_json_string(out, message);
    return out + "}";
  }
  out = "{\"type\":\"error\",\"error\":{\"type\":\"";
  out += anthropic_type(error);
  out += "\",\"message\":";
  append_json_string(out, message);
  out += "},\"request_id\":";
  append_json_string(out, request_id);
  return out + "}";
}

std::string error_event(ApiFamily family, const ApiError& error, std::string_view request_id) {
  const std::string body = error_body(family, error, request_id);
  switch (family) {
    case ApiFamily::kOpenAi:
      return "data: " + body + "\n\n";
    case ApiFamily::kAnthropic:
      return "event: error\ndata: " + body + "\n\n";
    case ApiFamily::kOllama:
      return body + "\n";
  }
  return {};
}

}  // namespace aiv::gateway
