// Any bytes as what a stranger sends: a head that is accepted can be read in one way only, and a chunked body is the same
// whatever the pieces it comes in.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "net/http1_head.hpp"
#include "net/task.hpp"

// Of the loop, which is not built here and whose coroutines nothing here runs.
void* aiv::net::detail::allocate_frame(std::size_t) { std::abort(); }
void aiv::net::detail::free_frame(void*, std::size_t) noexcept {}

namespace {

using namespace aiv::net;

void require(bool holds) {
  if (!holds) std::abort();
}

std::size_t count(const Headers& headers, std::string_view name) {
  std::size_t out = 0;
  for (const Header& header : headers) out += header.name == name ? 1 : 0;
  return out;
}

void check_request(const Http1Request& request) {
  const Headers& headers = request.head.headers;
  require(headers.size() <= 100);
  require(count(headers, "content-length") + count(headers, "transfer-encoding") <= 1);
  require(count(headers, "host") <= 1);
  require((request.body.kind == BodyFraming::Kind::kChunked) == (count(headers, "transfer-encoding") == 1));
  require(request.body.kind != BodyFraming::Kind::kUntilClose);
  for (const Header& header : headers) {
    require(!header.name.empty() && is_field_value(header.value));
    require(header.value.find_first_of(std::string_view("\r\n\0", 3)) == std::string::npos);
  }
  const std::string& path = request.head.path;
  require(path.find("/../") == std::string::npos && path.find("//") == std::string::npos && path.find('\0') == std::string::npos);
}

std::string decode(std::string_view wire, std::size_t step, bool& sound, bool& done) {
  ChunkedDecoder decoder;
  std::string out;
  sound = true;
  while (!wire.empty() && sound && !decoder.done()) {
    std::string_view piece = wire.substr(0, step);
    wire.remove_prefix(piece.size());
    sound = decoder.feed(piece, out);
  }
  done = decoder.done();
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  // Copies of exactly their size, so that the sanitizer sees any byte read behind them.
  const std::string raw(reinterpret_cast<const char*>(data), size);
  const std::size_t end = find_head_end(raw);
  require(end == std::string::npos || end <= raw.size());
  const std::string head = raw.substr(0, end == std::string::npos ? raw.size() : end);
  if (const auto request = parse_request_head(head, 100)) check_request(*request);
  static_cast<void>(parse_response_head(head, false));
  if (const auto request = check_h2_request("GET", raw, "localhost", {})) require(request->path.starts_with('/'));

  bool sound = false;
  bool done = false;
  const std::string whole = decode(raw, raw.size() + 1, sound, done);
  bool sound_in_pieces = false;
  bool done_in_pieces = false;
  const std::string pieces = decode(raw, 1, sound_in_pieces, done_in_pieces);
  require(sound == sound_in_pieces && done == done_in_pieces && whole == pieces);
  return 0;
}
