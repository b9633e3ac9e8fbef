// One HTTP/2 connection over any byte stream, either role (nghttp2 does not care who dialled).
//
// Flow control: connection credit goes back at once, stream credit when the reader took the bytes, so one
// slow reader holds back nobody else. Writes of many streams that are due together leave in one write to the
// socket.
#pragma once
#include "net/http.hpp"
#include "net/stream.hpp"

namespace aiv::net {

// A peer that is gone without a word (a pulled cable, a frozen machine): with `ping_every` set, silence of
// that length is asked about with a PING, and without any byte for `ping_limit` after it the connection ends.
//
// A peer that said GOAWAY gets no new request; when the last open one has ended the client closes, so that
// the peer can dial anew at once. Watches (RequestHead::endless) are cut then.
struct H2Limits {
  std::size_t max_concurrent_streams = 1024;  // of the peer, announced to it
  std::size_t stream_window_bytes = 256 * 1024;
  std::size_t connection_window_bytes = 16 * 1024 * 1024;
  std::size_t max_header_bytes = 16 * 1024;
  Clock::duration ping_every = Clock::duration::zero();  // zero: never
  Clock::duration ping_limit = seconds(3);
  // Bytes a writer may have waiting in one stream before write() makes it wait, and for how long.
  std::size_t stream_buffer_bytes = 256 * 1024;
  Clock::duration write_stall_max = seconds(30);
  // The peer is somebody we do not know. Its heads are held to the rules of HTTP/1.1's (http1_head.hpp), its
  // resets are rationed, and what it lets lie for `write_stall_max` is given up, an unused connection after
  // `idle_max`.
  bool strangers = false;
  Clock::duration idle_max = seconds(75);
  Clock::duration body_time_max = Clock::duration::zero();  // of a request; zero: any
};

// For links between machines, both ends: streams for more slots than a node will have.
inline constexpr H2Limits kNodeLinkLimits{.max_concurrent_streams = 16 * 1024, .ping_every = seconds(1)};

class H2Connection : public HttpClient, public std::enable_shared_from_this<H2Connection> {
 public:
  // Server role: `handler` gets each request. Client role: pass no handler and use open().
  static std::shared_ptr<H2Connection> server(StreamPtr stream, Handler handler, H2Limits limits = {});
  static std::shared_ptr<H2Connection> client(StreamPtr stream, H2Limits limits = {});
  // Reads and writes until the connection ends; then every open exchange fails. Returns why it ended.
  virtual Task<Error> run() = 0;
  // GOAWAY, then close once the open exchanges have ended or `grace` passed.
  virtual Task<> shutdown(Clock::duration grace) = 0;
  virtual void close(std::string reason) = 0;
  [[nodiscard]] virtual bool open_for_requests() const = 0;
  [[nodiscard]] virtual std::size_t active_streams() const = 0;
  // How many more requests the peer takes now, by its SETTINGS_MAX_CONCURRENT_STREAMS. Without room open()
  // fails with kRefused: nothing was sent.
  [[nodiscard]] virtual std::size_t room() const = 0;
  [[nodiscard]] virtual const ByteStream& stream() const = 0;
  // When the last byte arrived: any byte proves the link.
  [[nodiscard]] virtual Clock::time_point last_read() const = 0;
};
using H2Ptr = std::shared_ptr<H2Connection>;

}  // namespace aiv::net
