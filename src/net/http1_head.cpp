#include "net/http1_head.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>

#include "base/units.hpp"

namespace aiv::net {
namespace {

constexpr std::size_t kChunkExtensionMax = 64;
constexpr std::size_t kTrailerMax = 4096;
constexpr std::uint64_t kLengthMax = std::uint64_t{1} << 62U;

// What each byte may be part of. A table, because a search for each byte of a head costs more than the rest of it.
enum CharClass : std::uint8_t { kTokenChar = 1, kPathChar = 2, kValueChar = 4, kHostChar = 8 };

constexpr std::array<std::uint8_t, 256> kClasses = [] {
  std::array<std::uint8_t, 256> out{};
  const auto mark = [&out](std::string_view chars, std::uint8_t as) {
    for (const char c : chars) out[static_cast<unsigned char>(c)] |= as;
  };
  mark("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!$%&'*+-.^_`|~", kTokenChar | kPathChar);
  mark("#", kTokenChar);  // in a path it begins a fragment, which is never sent
  mark("/:@(),;=[]", kPathChar);
  for (std::size_t c = 0x20; c < 256; ++c) {
    if (c != 0x7F) out[c] |= kValueChar;
  }
  mark("\t", kValueChar);
  for (std::size_t c = 0x21; c < 0x7F; ++c) {
    if (std::string_view("/?#@\\").find(static_cast<char>(c)) == std::string_view::npos) out[c] |= kHostChar;
  }
  return out;
}();

bool is_a(char c, CharClass what) { return (kClasses[static_cast<unsigned char>(c)] & what) != 0; }

bool all_are(std::string_view text, CharClass what) {
  return std::all_of(text.begin(), text.end(), [what](char c) { return is_a(c, what); });
}

// all_are(text, kValueChar), by eights: the bytes of a word that are below 0x20 or 0x7F are looked for at once, and the
// table is asked only where one may be (a tab is allowed).
bool is_value(std::string_view text) {
  constexpr std::uint64_t kOnes = 0x0101010101010101;
  constexpr std::uint64_t kHigh = kOnes * 0x80;
  while (text.size() >= 8) {
    std::uint64_t word = 0;
    std::memcpy(&word, text.data(), 8);
    const std::uint64_t del = word ^ (kOnes * 0x7F);
    const std::uint64_t suspect = (((word - kOnes * 0x20) & ~word) | ((del - kOnes) & ~del)) & kHigh;
    if (suspect != 0 && !all_are(text.substr(0, 8), kValueChar)) return false;
    text.remove_prefix(8);
  }
  return all_are(text, kValueChar);
}

bool is_token(std::string_view text) { return !text.empty() && all_are(text, kTokenChar); }

char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string lowered(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = lower(c);
  return out;
}

std::unexpected<HeadRefusal> refuse(int status, std::string reason) {
  return std::unexpected(HeadRefusal{status, std::move(reason)});
}

// Takes the next CRLF line; nullopt where a bare LF or CR stands.
std::optional<std::string_view> next_line(std::string_view& raw) {
  const auto end = raw.find('\r');
  if (end == std::string_view::npos || end + 1 >= raw.size() || raw[end + 1] != '\n') return std::nullopt;
  const std::string_view line = raw.substr(0, end);
  if (line.find('\n') != std::string_view::npos) return std::nullopt;
  raw.remove_prefix(end + 2);
  return line;
}

std::expected<Headers, HeadRefusal> parse_fields(std::string_view raw, std::size_t count_max) {
  Headers out;
  // Exactly: a head is kept while its answer streams.
  out.reserve(std::min(count_max, static_cast<std::size_t>(std::count(raw.begin(), raw.end(), '\n'))));
  for (;;) {
    const auto line = next_line(raw);
    if (!line) return refuse(400, "a line of the head does not end in CR LF");
    if (line->empty()) break;
    if (out.size() >= count_max) return refuse(431, fmt::format("more than {} header fields", count_max));
    const auto colon = line->find(':');
    if (colon == std::string_view::npos || !is_token(line->substr(0, colon))) {
      return refuse(400, "a header field's name is not a token followed by a colon");
    }
    const std::string_view value = trimmed(line->substr(colon + 1));
    if (!is_value(value)) return refuse(400, "a header field holds a control character");
    out.push_back({lowered(line->substr(0, colon)), std::string(value)});
  }
  if (!raw.empty()) return refuse(400, "bytes after the head");
  return out;
}

std::expected<BodyFraming, HeadRefusal> framing_of(const Headers& headers, bool http10) {
  const Header* length = nullptr;
  const Header* coding = nullptr;
  for (const Header& header : headers) {
    if (header.name == "content-length") {
      if (length != nullptr) return refuse(400, "Content-Length stands twice");
      length = &header;
    } else if (header.name == "transfer-encoding") {
      if (coding != nullptr) return refuse(400, "Transfer-Encoding stands twice");
      coding = &header;
    }
  }
  BodyFraming out;
  if (coding != nullptr) {
    if (length != nullptr) return refuse(400, "both Content-Length and Transfer-Encoding");
    if (http10) return refuse(400, "Transfer-Encoding in HTTP/1.0");
    if (lowered(coding->value) != "chunked") return refuse(501, "the only transfer coding here is chunked");
    out.kind = BodyFraming::Kind::kChunked;
  } else if (length != nullptr) {
    const std::string& text = length->value;
    if (text.empty() || text.find_first_not_of("0123456789") != std::string::npos || text.size() > 19) {
      return refuse(400, "Content-Length is not a plain number");
    }
    std::from_chars(text.data(), text.data() + text.size(), out.length);
    if (out.length > kLengthMax) return refuse(413, "Content-Length is too large");
    out.kind = out.length > 0 ? BodyFraming::Kind::kLength : BodyFraming::Kind::kNone;
  }
  return out;
}

bool wants_close(const Headers& headers) {
  const std::string* value = find_header(headers, "connection");
  return value != nullptr && lowered(*value).find("close") != std::string::npos;
}

bool wants_keep_alive(const Headers& headers) {
  const std::string* value = find_header(headers, "connection");
  return value != nullptr && lowered(*value).find("keep-alive") != std::string::npos;
}

// Decodes the path once; refuses what could name something else after a second decoding.
std::optional<std::string> decode_path(std::string_view raw) {
  std::string out;
  out.reserve(raw.size());
  for (std::size_t i = 0; i < raw.size(); ++i) {
    if (raw[i] != '%') {
      if (!is_a(raw[i], kPathChar)) return std::nullopt;
      out += raw[i];
      continue;
    }
    if (i + 2 >= raw.size()) return std::nullopt;
    const int high = hex_digit(raw[i + 1]);
    const int low = hex_digit(raw[i + 2]);
    if (high < 0 || low < 0) return std::nullopt;
    const char c = static_cast<char>(high * 16 + low);
    const auto byte = static_cast<unsigned char>(c);
    if (c == '/' || c == '\\' || c == '%' || byte < 0x20 || byte == 0x7F) return std::nullopt;
    out += c;
    i += 2;
  }
  if (out.find("//") != std::string::npos) return std::nullopt;
  if (out.find("/.") == std::string::npos) return out;
  if (out.find("/../") != std::string::npos || out.ends_with("/..") || out.find("/./") != std::string::npos ||
      out.ends_with("/.")) {
    return std::nullopt;
  }
  return out;
}

bool host_is_sound(std::string_view host) {
  if (host.empty()) return true;  // RFC 9112 3.2: empty where there is no authority
  return all_are(host, kHostChar);
}

std::expected<void, HeadRefusal> check_method(std::string_view method) {
  if (!is_token(method)) return refuse(400, "the method is not a token");
  if (method == "TRACE" || method == "CONNECT") return refuse(405, "this method is not served");
  return {};
}

// The path and the query of a target in origin form, into `head`, whose method is known.
std::expected<void, HeadRefusal> split_target(std::string_view target, RequestHead& head) {
  const auto mark = target.find('?');
  if (mark != std::string_view::npos) {
    for (const char c : target.substr(mark + 1)) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte <= 0x20 || byte >= 0x7F || c == '#') return refuse(400, "the query holds bytes that must be encoded");
    }
    head.query = std::string(target.substr(mark + 1));
  }
  if (!target.starts_with('/')) {
    if (target != "*" || head.method != "OPTIONS") return refuse(400, "the target is not a path");
    head.path = "*";
    return {};
  }
  auto decoded = decode_path(target.substr(0, mark));
  if (!decoded) return refuse(400, "the path holds bytes or segments that are not allowed");
  head.path = std::move(*decoded);
  return {};
}

}  // namespace

std::expected<RequestHead, HeadRefusal> check_h2_request(std::string method, std::string_view target,
                                                         const std::string& authority, Headers headers) {
  if (auto sound = check_method(method); !sound) return std::unexpected(sound.error());
  RequestHead head{.method = std::move(method), .path = {}, .query = {}, .headers = std::move(headers)};
  if (auto split = split_target(target, head); !split) return std::unexpected(split.error());
  std::size_t hosts = 0;
  for (const Header& header : head.headers) {
    if (!is_value(header.value)) return refuse(400, "a header field holds a control character");
    if (header.name != "host") continue;
    if (++hosts > 1) return refuse(400, "Host stands twice");
    if (!authority.empty() && header.value != authority) return refuse(400, ":authority and Host differ");
    if (!host_is_sound(header.value)) return refuse(400, "Host is not an authority");
  }
  if (hosts == 0 && authority.empty()) return refuse(400, "Host is missing");
  if (!host_is_sound(authority)) return refuse(400, "Host is not an authority");
  if (hosts == 0) head.headers.push_back({"host", authority});
  return head;
}

std::string refusal_json(const HeadRefusal& refusal) {
  const std::string_view code = refusal.status == 408   ? "request_timeout"
                                : refusal.status == 413 ? "request_too_large"
                                : refusal.status == 431 ? "headers_too_large"
                                                        : "bad_request";
  return R"({"error":{"message":")" + refusal.reason +
         R"(","type":"invalid_request_error","param":null,"code":")" + std::string(code) + R"("}})";
}

std::size_t find_head_end(std::string_view raw) {
  for (std::size_t at = raw.find('\n'); at != std::string_view::npos; at = raw.find('\n', at + 1)) {
    const std::string_view rest = raw.substr(at + 1);
    // A bare LF LF ends a head for lenient parsers: let the strict pass see and refuse it at once.
    if (rest.starts_with('\n')) return at + 2;
    if (at > 0 && raw[at - 1] == '\r' && rest.starts_with("\r\n")) return at + 3;
  }
  return std::string_view::npos;
}

bool is_field_value(std::string_view text) { return is_value(text); }

std::expected<Http1Request, HeadRefusal> parse_request_head(std::string_view raw, std::size_t header_count_max) {
  const auto line = next_line(raw);
  if (!line) return refuse(400, "the request line does not end in CR LF");
  const auto first = line->find(' ');
  const auto last = line->rfind(' ');
  if (first == std::string_view::npos || first == last) return refuse(400, "the request line has not three parts");
  const std::string_view method = line->substr(0, first);
  const std::string_view target = line->substr(first + 1, last - first - 1);
  const std::string_view version = line->substr(last + 1);
  if (method == "PRI") return refuse(400, "HTTP/2 is not spoken on this port");
  if (auto sound = check_method(method); !sound) return std::unexpected(sound.error());
  Http1Request out;
  if (version == "HTTP/1.0") {
    out.http10 = true;
  } else if (version != "HTTP/1.1") {
    return refuse(version.starts_with("HTTP/") ? 505 : 400, "the HTTP version is not 1.1 or 1.0");
  }
  out.head.method = std::string(method);

  auto fields = parse_fields(raw, header_count_max);
  if (!fields) return std::unexpected(fields.error());
  out.head.headers = std::move(*fields);

  const Header* host = nullptr;
  for (const Header& header : out.head.headers) {
    if (header.name != "host") continue;
    if (host != nullptr) return refuse(400, "Host stands twice");
    host = &header;
  }
  if (host == nullptr && !out.http10) return refuse(400, "Host is missing");
  if (host != nullptr && !host_is_sound(host->value)) return refuse(400, "Host is not an authority");

  std::string_view path = target;
  if (target.starts_with("http://") || target.starts_with("https://")) {
    // Absolute form: must name the host that Host names, or two parties see two requests.
    const auto authority = target.substr(target.find("//") + 2);
    const auto slash = authority.find('/');
    if (host == nullptr || authority.substr(0, slash) != host->value) return refuse(400, "target and Host differ");
    path = slash == std::string_view::npos ? std::string_view("/") : authority.substr(slash);
  }
  if (auto split = split_target(path, out.head); !split) return std::unexpected(split.error());

  const auto body = framing_of(out.head.headers, out.http10);
  if (!body) return std::unexpected(body.error());
  out.body = *body;
  out.keep_alive = out.http10 ? wants_keep_alive(out.head.headers) : !wants_close(out.head.headers);
  if (const std::string* expect = find_header(out.head.headers, "expect")) {
    if (lowered(*expect) != "100-continue") return refuse(417, "the only expectation served is 100-continue");
    out.expects_continue = !out.http10 && out.body.kind != BodyFraming::Kind::kNone;
  }
  return out;
}

std::expected<Http1Response, HeadRefusal> parse_response_head(std::string_view raw, bool request_was_head) {
  const auto line = next_line(raw);
  if (!line || line->size() < 12 || !line->starts_with("HTTP/1.")) return refuse(502, "not an HTTP/1 answer");
  Http1Response out;
  const std::string_view code = line->substr(9, 3);
  const auto [end, error] = std::from_chars(code.data(), code.data() + 3, out.head.status);
  if (error != std::errc{} || end != code.data() + 3 || out.head.status < 100) return refuse(502, "bad status");
  auto fields = parse_fields(raw, 200);
  if (!fields) return std::unexpected(fields.error());
  out.head.headers = std::move(*fields);
  const auto body = framing_of(out.head.headers, false);
  if (!body) return std::unexpected(body.error());
  out.body = *body;
  const bool http10 = line->starts_with("HTTP/1.0");
  out.keep_alive = !http10 && !wants_close(out.head.headers);
  const bool bodiless = request_was_head || out.head.status < 200 || out.head.status == 204 || out.head.status == 304;
  if (bodiless) {
    out.body = {};
  } else if (out.body.kind == BodyFraming::Kind::kNone && find_header(out.head.headers, "content-length") == nullptr) {
    out.body.kind = BodyFraming::Kind::kUntilClose;
    out.keep_alive = false;
  }
  return out;
}

bool ChunkedDecoder::end_of_trailer_line() {
  if (line_bytes_ == 0) {
    state_ = State::kDone;
  }
  line_bytes_ = 0;
  saw_cr_ = false;
  return true;
}

bool ChunkedDecoder::feed(std::string_view& in, std::string& out) {
  while (!in.empty() && state_ != State::kDone) {
    if (state_ == State::kData) {
      const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(left_, in.size()));
      out.append(in.substr(0, count));
      in.remove_prefix(count);
      left_ -= count;
      if (left_ == 0) state_ = State::kDataCr;
      continue;
    }
    const char c = in.front();
    in.remove_prefix(1);
    switch (state_) {
      case State::kSize: {
        const int digit = hex_digit(c);
        if (digit >= 0) {
          if (++digits_ > 15) return false;
          left_ = left_ * 16 + static_cast<std::uint64_t>(digit);
        } else if (digits_ == 0) {
          return false;
        } else if (c == ';') {
          state_ = State::kExtension;
        } else if (c == '\r') {
          state_ = State::kSizeLf;
        } else {
          return false;
        }
        break;
      }
      case State::kExtension:
        if (c == '\r') {
          state_ = State::kSizeLf;
        } else if (c == '\n' || ++extension_bytes_ > kChunkExtensionMax) {
          return false;
        }
        break;
      case State::kSizeLf:
        if (c != '\n') return false;
        digits_ = 0;
        extension_bytes_ = 0;
        state_ = left_ == 0 ? State::kTrailer : State::kData;
        break;
      case State::kDataCr:
        if (c != '\r') return false;
        state_ = State::kDataLf;
        break;
      case State::kDataLf:
        if (c != '\n') return false;
        state_ = State::kSize;
        break;
      case State::kTrailer:
        if (++trailer_bytes_ > kTrailerMax) return false;
        if (saw_cr_) {
          if (c != '\n') return false;
          end_of_trailer_line();
        } else if (c == '\r') {
          saw_cr_ = true;
        } else if (c == '\n') {
          return false;
        } else {
          ++line_bytes_;
        }
        break;
      case State::kData:
      case State::kDone: break;
    }
  }
  return true;
}

}  // namespace aiv::net
