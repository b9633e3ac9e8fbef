// HTTP/1.1 as an engine needs it: requests on a Unix socket from one trusted peer, bodies with a length or
// chunked.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace aiv::fake {

inline constexpr std::size_t kHeadBytesMax = 64 * 1024;
inline constexpr std::size_t kBodyBytesMax = 256 * 1024 * 1024;

struct HttpRequest {
  std::string method;
  std::string path;           // without the query
  std::string authorization;  // Authorization without "Bearer ", or X-Api-Key
  std::string body;
  bool keep_alive = true;
};

// Takes one request from the front of `input` (and removes it there) once it is whole.
class RequestReader {
 public:
  enum class State { kNeedMore, kComplete, kBad };
  State read(std::string& input, HttpRequest& request);
  // The peer waits for "100 Continue" before it sends the body; true once per request.
  bool take_expects_continue();

 private:
  State read_head(std::string& input, HttpRequest& request);
  State read_chunks(std::string& input, HttpRequest& request);
  bool have_head_ = false;
  bool chunked_ = false;
  bool expects_continue_ = false;
  std::size_t body_bytes_ = 0;
};

// A whole answer with a length. `extra_headers` are complete lines.
std::string http_response(int status, std::string_view content_type, std::string_view body, bool keep_alive,
                          std::string_view extra_headers = {});
// The head of an event stream, in chunks.
std::string http_stream_head(bool keep_alive);
void append_chunk(std::string& out, std::string_view data);
inline constexpr std::string_view kLastChunk = "0\r\n\r\n";

}  // namespace aiv::fake
