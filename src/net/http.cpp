#include "net/http.hpp"

#include <fmt/format.h>

namespace aiv::net {

const std::string* find_header(const Headers& headers, std::string_view name) {
  for (const Header& header : headers) {
    if (header.name == name) return &header.value;
  }
  return nullptr;
}

std::string header_or(const Headers& headers, std::string_view name, std::string fallback) {
  const std::string* value = find_header(headers, name);
  return value != nullptr ? *value : std::move(fallback);
}

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

namespace {

std::string decode_component(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+') {
      out += ' ';
    } else if (text[i] == '%' && i + 2 < text.size() && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
      out += static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

}  // namespace

std::optional<std::string> query_value(std::string_view query, std::string_view key) {
  while (!query.empty()) {
    const auto end = query.find('&');
    const std::string_view pair = query.substr(0, end);
    const auto equals = pair.find('=');
    if (decode_component(pair.substr(0, equals)) == key) {
      return equals == std::string_view::npos ? std::string{} : decode_component(pair.substr(equals + 1));
    }
    if (end == std::string_view::npos) break;
    query.remove_prefix(end + 1);
  }
  return std::nullopt;
}

Task<Result<std::string>> ServerExchange::read_body(std::size_t max_bytes) {
  std::string body;
  for (;;) {
    const Result<bool> more = co_await read_some(body);
    if (!more) co_return std::unexpected(more.error());
    if (body.size() > max_bytes) {
      co_return fail(ErrorCode::kTooLarge, fmt::format("the body is larger than {} bytes", max_bytes));
    }
    if (!*more) co_return body;
  }
}

Task<Result<>> ServerExchange::respond(ResponseHead head, std::string body) {
  head.headers.push_back({"content-length", std::to_string(body.size())});
  const Result<> started = co_await start(std::move(head));
  if (!started) co_return started;
  if (!body.empty()) {
    const Result<> written = co_await write(body);
    if (!written) co_return written;
  }
  co_return co_await finish();
}

Task<Result<>> ServerExchange::respond_json(int status, std::string json, Headers extra) {
  ResponseHead head{status, std::move(extra)};
  head.headers.push_back({"content-type", "application/json"});
  co_return co_await respond(std::move(head), std::move(json));
}

Task<Result<std::string>> ClientExchange::read_body(std::size_t max_bytes, Clock::time_point deadline) {
  std::string body;
  for (;;) {
    const Result<bool> more = co_await read_some(body, deadline);
    if (!more) co_return std::unexpected(more.error());
    if (body.size() > max_bytes) {
      cancel();
      co_return fail(ErrorCode::kTooLarge, fmt::format("the answer is larger than {} bytes", max_bytes));
    }
    if (!*more) co_return body;
  }
}

}  // namespace aiv::net
