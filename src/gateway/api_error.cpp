#include "gateway/api_error.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>

#include "base/json.hpp"
#include "base/units.hpp"

namespace aiv::gateway {
namespace {

constexpr std::size_t kModelsListed = 20;

void append_nullable(std::string& out, std::string_view text) {
  if (text.empty()) {
    out += "null";
  } else {
    append_json_string(out, text);
  }
}

// Bytes of the valid UTF-8 sequence at the front of `text`; 0 if there is none. Table 3-7 of the Unicode Standard.
std::size_t utf8_length(std::string_view text) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char first = at(0);
  if (first < 0x80) return 1;
  std::size_t length = 0;
  unsigned char low = 0x80;
  unsigned char high = 0xBF;
  if (first >= 0xC2 && first <= 0xDF) {
    length = 2;
  } else if (first >= 0xE0 && first <= 0xEF) {
    length = 3;
    if (first == 0xE0) low = 0xA0;
    if (first == 0xED) high = 0x9F;
  } else if (first >= 0xF0 && first <= 0xF4) {
    length = 4;
    if (first == 0xF0) low = 0x90;
    if (first == 0xF4) high = 0x8F;
  }
  if (length == 0 || text.size() < length) return 0;
  if (at(1) < low || at(1) > high) return 0;
  for (std::size_t i = 2; i < length; ++i) {
    if (at(i) < 0x80 || at(i) > 0xBF) return 0;
  }
  return length;
}

// llama-server answers 500 for whatever it throws while it reads a request; these say that the request is at fault, and
// every replica would say the same. (server.cpp ex_wrapper; server-common.cpp, common/chat.cpp, common/jinja.)
bool blames_the_request(std::string_view message) {
  for (const std::string_view sign : {"is too large to process", "input is not supported", "Failed to parse", "While executing",
                                      "[json.exception", "Unable to generate parser"}) {
    if (message.contains(sign)) return true;
  }
  return false;
}

// What stands in a JSON string as it is: ASCII but control characters, quote and backslash.
constexpr std::array<bool, 256> kPlainInJson = [] {
  std::array<bool, 256> out{};
  for (std::size_t c = 0x20; c < 0x80; ++c) out[c] = c != '"' && c != '\\';
  return out;
}();

// How many bytes from `at` on stand in a JSON string as they are, counted by eights: a prompt is mostly that. A byte b of a
// word is below n where (b - n) borrows and b has no high bit.
std::size_t plain_words(std::string_view text, std::size_t at) {
  constexpr std::uint64_t kOnes = 0x0101010101010101;
  constexpr std::uint64_t kHigh = kOnes * 0x80;
  const std::size_t start = at;
  while (at + 8 <= text.size()) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data() + at, 8);
    const std::uint64_t quote = word ^ (kOnes * '"');
    const std::uint64_t backslash = word ^ (kOnes * '\\');
    // A borrow may mark a byte too many, never one too few.
    if (((word | (word - kOnes * 0x20) | (quote - kOnes) | (backslash - kOnes)) & kHigh) != 0) break;
    at += 8;
  }
  return at - start;
}

bool status_invites_retry(int status) { return status == 408 || status == 409 || status == 429 || status >= 500; }

}  // namespace

void append_json_string(std::string& out, std::string_view text) {
  static constexpr std::string_view kHex = "0123456789abcdef";
  out += '"';
  std::size_t run = 0;  // start of what can be copied as it is
  std::size_t i = 0;
  std::size_t next_words = 0;  // where to look for words again
  const auto flush = [&] { out.append(text.substr(run, i - run)); };
  while (i < text.size()) {
    if (i >= next_words) {
      i += plain_words(text, i);
      next_words = i + 8;
      if (i == text.size()) break;
    }
    const auto c = static_cast<unsigned char>(text[i]);
    if (kPlainInJson[c]) {
      ++i;
      continue;
    }
    if (c >= 0x80) {
      const std::size_t length = utf8_length(text.substr(i));
      if (length > 0) {
        i += length;
        continue;
      }
    }
    flush();
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (c >= 0x80) {
          out += "\xEF\xBF\xBD";
        } else {
          out += "\\u00";
          out += kHex[c >> 4];
          out += kHex[c & 15];
        }
    }
    run = ++i;
  }
  flush();
  out += '"';
}

std::string openai_error_body(const ApiError& error) {
  std::string out = "{\"error\":{\"message\":";
  append_json_string(out, std::string_view(error.message).substr(0, kErrorMessageBytesMax));
  out += ",\"type\":";
  append_json_string(out, error.type);
  out += ",\"param\":";
  append_nullable(out, error.param);
  out += ",\"code\":";
  append_nullable(out, error.code);
  out += "}}";
  return out;
}

std::string openai_error_event(const ApiError& error) { return "data: " + openai_error_body(error) + "\n\n"; }

net::Headers error_headers(const ApiError& error) {
  net::Headers headers{{"content-type", "application/json"}};
  if (error.status == 401) headers.push_back({"www-authenticate", "Bearer"});
  if (error.retry_after_s > 0) {
    headers.push_back({"retry-after", std::to_string(error.retry_after_s)});
    headers.push_back({"retry-after-ms", std::to_string(error.retry_after_s * 1000)});
  }
  if (error.never_retry || !status_invites_retry(error.status)) headers.push_back({"x-should-retry", "false"});
  if (error.close) headers.push_back({"connection", "close"});
  return headers;
}

ApiError bad_request(std::string message, std::string param) {
  return {.status = 400, .type = "invalid_request_error", .param = std::move(param), .message = std::move(message)};
}

ApiError unauthorized() {
  return {.status = 401,
          .type = "invalid_request_error",
          .code = "invalid_api_key",
          .message = "No valid API key was given. Send it as 'Authorization: Bearer aiv-...'; an administrator makes "
                     "one with 'aiv key create'."};
}

ApiError forbidden(std::string message) {
  return {.status = 403, .type = "invalid_request_error", .code = "forbidden", .message = std::move(message)};
}

ApiError not_found(std::string_view method, std::string_view path) {
  return {.status = 404,
          .type = "invalid_request_error",
          .code = "not_found",
          .message = "There is no route " + printable(method, 16) + " " + printable(path, 120) + "."};
}

ApiError method_not_allowed(std::string_view method, std::string_view path, std::string_view allowed) {
  return {.status = 405,
          .type = "invalid_request_error",
          .code = "method_not_allowed",
          .message = printable(method, 16) + " is not possible on " + printable(path, 120) + "; use " +
                     std::string(allowed) + "."};
}

ApiError body_too_large(std::size_t limit_bytes) {
  return {.status = 413,
          .type = "invalid_request_error",
          .code = "body_too_large",
          .message = "The body is larger than " + format_bytes(static_cast<std::int64_t>(limit_bytes)) + ".",
          .close = true};
}

ApiError model_not_found(std::string_view model, const std::vector<std::string>& available) {
  std::string message = "The model '" + printable(model, 128) + "' does not exist or this key may not use it. ";
  if (available.empty()) {
    message += "No model is deployed that this key may use; an operator deploys one with 'aiv up'.";
  } else {
    message += "Available: ";
    for (std::size_t i = 0; i < std::min(available.size(), kModelsListed); ++i) {
      if (i > 0) message += ", ";
      message += available[i];
    }
    message += available.size() > kModelsListed ? ", ..." : ".";
  }
  return {.status = 404,
          .type = "invalid_request_error",
          .code = "model_not_found",
          .param = "model",
          .message = std::move(message)};
}

ApiError overloaded(std::string message, std::string code, int retry_after_s) {
  return {.status = 503,
          .type = "service_unavailable",
          .code = std::move(code),
          .message = std::move(message),
          .retry_after_s = retry_after_s};
}

ApiError replica_failed(std::string message) {
  return {.status = 502,
          .type = "api_error",
          .code = "replica_failed",
          .message = std::move(message),
          .never_retry = true};
}

ApiError timed_out(std::string message) {
  return {.status = 504, .type = "api_error", .code = "timeout", .message = std::move(message), .never_retry = true};
}

ApiError from_engine_error(int status, std::string_view body) {
  ApiError error{.status = status < 400 ? 502 : status, .message = "The engine refused the request."};
  error.type = error.status < 500 ? "invalid_request_error" : "api_error";
  const auto json = parse_json(body);
  if (!json || !json->is_object() || !json->contains("error")) return error;
  const Json& inner = (*json)["error"];
  if (inner.is_string()) error.message = inner.get<std::string>();
  if (!inner.is_object()) return error;
  std::string type;
  if (inner.contains("message") && inner["message"].is_string()) error.message = inner["message"].get<std::string>();
  if (inner.contains("type") && inner["type"].is_string()) type = inner["type"].get<std::string>();
  if (inner.contains("param") && inner["param"].is_string()) error.param = inner["param"].get<std::string>();
  if (inner.contains("code") && inner["code"].is_string()) error.code = inner["code"].get<std::string>();
  if (inner.contains("code") && inner["code"].is_number_integer() && status < 400) {
    const auto code = inner["code"].get<std::int64_t>();  // an error event carries its status here
    if (code >= 400 && code < 600) error.status = static_cast<int>(code);
    error.type = error.status < 500 ? "invalid_request_error" : "api_error";
  }
  if (status == 500 && blames_the_request(error.message)) {
    error.status = 400;
    error.type = "invalid_request_error";
    if (error.message.contains("too large to process")) error.code = "context_length_exceeded";
  }
  if (type == "exceed_context_size_error") {
    error.status = 400;
    error.type = "invalid_request_error";
    error.code = "context_length_exceeded";
  } else if (type == "not_supported_error") {
    error.type = "invalid_request_error";
    error.code = "not_supported";
  }
  return error;
}

}  // namespace aiv::gateway
