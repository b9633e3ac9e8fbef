// The heads of HTTP messages, strictly: one pass over the raw bytes that refuses everything two parsers could
// read differently (docs/decisions/0004-own-http1-head.md). Pure: no sockets.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

#include "net/http.hpp"

namespace aiv::net {

struct BodyFraming {
  enum class Kind { kNone, kLength, kChunked, kUntilClose };
  Kind kind = Kind::kNone;
  std::uint64_t length = 0;
};

struct Http1Request {
  RequestHead head;
  BodyFraming body;
  bool keep_alive = true;
  bool expects_continue = false;
  bool http10 = false;
};

// A refusal: the status to answer with before the connection is closed, and why.
struct HeadRefusal {
  int status = 400;
  std::string reason;
};

// The body of the answer to a refusal, in OpenAI's words for an error.
std::string refusal_json(const HeadRefusal& refusal);

// Where the head ends (just past the empty line), npos if it is not complete yet.
std::size_t find_head_end(std::string_view raw);

// Whether `text` may stand as a header's value: no control characters but the tab.
bool is_field_value(std::string_view text);

// `raw` is the head including its empty line. RFC 9112, with no leniency: bare LF or CR, obs-fold, white space
// before the colon, control or 8-bit bytes, repeated or mixed Content-Length and Transfer-Encoding, any coding but
// exactly "chunked", TE on HTTP/1.0, no or two Hosts, path tricks ("..", %2f, %00) are refused.
std::expected<Http1Request, HeadRefusal> parse_request_head(std::string_view raw, std::size_t header_count_max);

// What HTTP/2 says in pseudo fields, held to the same rules; `authority` becomes the Host field.
std::expected<RequestHead, HeadRefusal> check_h2_request(std::string method, std::string_view target,
                                                         const std::string& authority, Headers headers);

struct Http1Response {
  ResponseHead head;
  BodyFraming body;
  bool keep_alive = true;
};
std::expected<Http1Response, HeadRefusal> parse_response_head(std::string_view raw, bool request_was_head);

// Undoes chunked framing incrementally.
class ChunkedDecoder {
 public:
  // Consumes from the front of `in`, appends the payload to `out`. False on a framing fault.
  // After done() nothing more is consumed.
  bool feed(std::string_view& in, std::string& out);
  [[nodiscard]] bool done() const { return state_ == State::kDone; }

 private:
  enum class State { kSize, kExtension, kSizeLf, kData, kDataCr, kDataLf, kTrailer, kDone };
  bool end_of_trailer_line();
  State state_ = State::kSize;
  std::uint64_t left_ = 0;
  int digits_ = 0;
  std::size_t extension_bytes_ = 0;
  std::size_t trailer_bytes_ = 0;
  std::size_t line_bytes_ = 0;
  bool saw_cr_ = false;
};

}  // namespace aiv::net
