#include "http.hpp"

#include <fmt/format.h>

#include <charconv>
#include <optional>

namespace aiv::fake {
namespace {

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  if (a.size() != b.size()) return false;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto lower = [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; };
    if (lower(a[i]) != lower(b[i])) return false;
  }
  return true;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::optional<std::size_t> to_size(std::string_view text, int base) {
  std::size_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  return value;
}

const char* reason_of(int status) {
  switch (status) {
    case 200:
      return "OK";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 404:
      return "Not Found";
    case 501:
      return "Not Implemented";
    case 503:
      return "Service Unavailable";
    default:
      return "Internal Server Error";
  }
}

}  // namespace

RequestReader::State RequestReader::read(std::string& input, HttpRequest& request) {
  if (!have_head_) {
    const auto state = read_head(input, request);
    if (state != State::kComplete) return state;
    have_head_ = true;
  }
  if (chunked_) {
    const auto state = read_chunks(input, request);
    if (state != State::kComplete) return state;
  } else {
    if (input.size() < body_bytes_) return State::kNeedMore;
    request.body = input.substr(0, body_bytes_);
    input.erase(0, body_bytes_);
  }
  have_head_ = false;
  expects_continue_ = false;
  return State::kComplete;
}

bool RequestReader::take_expects_continue() {
  const bool expected = have_head_ && expects_continue_;
  expects_continue_ = false;
  return expected;
}

RequestReader::State RequestReader::read_head(std::string& input, HttpRequest& request) {
  const auto end = input.find("\r\n\r\n");
  if (end == std::string::npos) return input.size() > kHeadBytesMax ? State::kBad : State::kNeedMore;
  request = {};
  chunked_ = false;
  expects_continue_ = false;
  body_bytes_ = 0;
  std::string_view head = std::string_view(input).substr(0, end);
  const auto line = head.substr(0, head.find("\r\n"));
  const auto first = line.find(' ');
  const auto second = line.rfind(' ');
  if (first == std::string_view::npos || second <= first) return State::kBad;
  request.method = std::string(line.substr(0, first));
  const auto target = line.substr(first + 1, second - first - 1);
  request.path = std::string(target.substr(0, target.find('?')));
  request.keep_alive = line.substr(second + 1) == "HTTP/1.1";
  head.remove_prefix(std::min(head.size(), line.size() + 2));
  while (!head.empty()) {
    const auto field = head.substr(0, head.find("\r\n"));
    head.remove_prefix(std::min(head.size(), field.size() + 2));
    const auto colon = field.find(':');
    if (colon == std::string_view::npos) return State::kBad;
    const auto name = field.substr(0, colon);
    auto value = trimmed(field.substr(colon + 1));
    if (equals_ignoring_case(name, "content-length")) {
      const auto size = to_size(value, 10);
      if (!size || *size > kBodyBytesMax) return State::kBad;
      body_bytes_ = *size;
    } else if (equals_ignoring_case(name, "transfer-encoding")) {
      if (!equals_ignoring_case(value, "chunked")) return State::kBad;
      chunked_ = true;
    } else if (equals_ignoring_case(name, "connection")) {
      if (equals_ignoring_case(value, "close")) request.keep_alive = false;
    } else if (equals_ignoring_case(name, "expect")) {
      expects_continue_ = equals_ignoring_case(value, "100-continue");
    } else if (equals_ignoring_case(name, "authorization") || equals_ignoring_case(name, "x-api-key")) {
      if (value.starts_with("Bearer ")) value.remove_prefix(7);
      request.authorization = std::string(value);
    }
  }
  input.erase(0, end + 4);
  return State::kComplete;
}

RequestReader::State RequestReader::read_chunks(std::string& input, HttpRequest& request) {
  while (true) {
    const auto line_end = input.find("\r\n");
    if (line_end == std::string::npos) return input.size() > kHeadBytesMax ? State::kBad : State::kNeedMore;
    const auto size = to_size(std::string_view(input).substr(0, std::min(line_end, input.find(';'))), 16);
    if (!size || request.body.size() + *size > kBodyBytesMax) return State::kBad;
    if (input.size() < line_end + 2 + *size + 2) return State::kNeedMore;
    request.body.append(input, line_end + 2, *size);
    input.erase(0, line_end + 2 + *size + 2);
    if (*size == 0) return State::kComplete;
  }
}

std::string http_response(int status, std::string_view content_type, std::string_view body, bool keep_alive,
                          std::string_view extra_headers) {
  return fmt::format(
      "HTTP/1.1 {} {}\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: \r\n{}Content-Type: "
      "{}\r\nContent-Length: "
      "{}\r\n{}\r\n\r\n{}",
      status, reason_of(status), extra_headers, content_type, body.size(),
      keep_alive ? "Keep-Alive: timeout=5, max=100" : "Connection: close", body);
}

std::string http_stream_head(bool keep_alive) {
  return fmt::format(
      "HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nAccess-Control-Allow-Origin: \r\nX-Accel-Buffering: "
      "no\r\nContent-Type: "
      "text/event-stream\r\nTransfer-Encoding: chunked\r\n{}\r\n\r\n",
      keep_alive ? "Keep-Alive: timeout=5, max=100" : "Connection: close");
}

void append_chunk(std::string& out, std::string_view data) {
  char size[16];
  const auto end = std::to_chars(size, size + sizeof size, data.size(), 16).ptr;
  out.append(size, end);
  out += "\r\n";
  out += data;
  out += "\r\n";
}

}  // namespace aiv::fake
