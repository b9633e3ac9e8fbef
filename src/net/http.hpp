// HTTP as the other parts see it: heads, and the two ends of one exchange, whatever carries them
// (HTTP/1.1 on the public port, HTTP/2 on node links and on the socket between gateway and controller).
#pragma once
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "net/async.hpp"

namespace aiv::net {

struct Header {
  std::string name;  // lower case
  std::string value;
};
using Headers = std::vector<Header>;

// First value of `name` (lower case), or nullptr.
const std::string* find_header(const Headers& headers, std::string_view name);
std::string header_or(const Headers& headers, std::string_view name, std::string fallback);

struct RequestHead {
  std::string method;
  std::string path;   // decoded once, absolute, without query; never contains "..", NUL or "//"
  std::string query;  // raw, without '?'
  Headers headers;
  // A watch, whose answer has no end. A link that drains does not wait for it, and counts it among no limit.
  bool endless = false;
};

struct ResponseHead {
  int status = 200;
  Headers headers;
};

// Value of a hexadecimal digit of either case; -1: it is none.
int hex_digit(char c);

// Value of `key` in a query string, percent-decoded.
std::optional<std::string> query_value(std::string_view query, std::string_view key);

// The server's end of one exchange. All calls from the connection's executor. After an error the peer is gone.
class ServerExchange {
 public:
  virtual ~ServerExchange() = default;
  [[nodiscard]] virtual const RequestHead& request() const = 0;
  [[nodiscard]] virtual std::string peer() const = 0;  // "127.0.0.1:40312", "unix", "node n1"

  // Appends what has arrived to `out`; waits if nothing has. False at the end of the body.
  virtual Task<Result<bool>> read_some(std::string& out) = 0;
  // Head of a streaming answer; then write() any number of times, then finish(). On HTTP/1.1 the head leaves with
  // the first write(); write("") sends it alone.
  virtual Task<Result<>> start(ResponseHead head) = 0;
  // Returns when the bytes are handed on and the peer's window or socket has room for more; kTimeout when the
  // peer took nothing for 30 s.
  virtual Task<Result<>> write(std::string_view bytes) = 0;
  virtual Task<Result<>> finish(Headers trailers = {}) = 0;
  // Cuts the exchange so that the peer cannot take it for complete.
  virtual void abort() = 0;
  // True as soon as the peer has left (reset, closed, or half-closed on HTTP/1.1).
  [[nodiscard]] virtual bool gone() const = 0;
  // Called once when the peer leaves before finish(); replaces an earlier callback. Cleared by finish().
  virtual void on_gone(std::function<void()> callback) = 0;
  // From now on request() has no headers: for an answer that streams for long.
  virtual void forget_request_headers() = 0;

  // The whole body; kTooLarge above `max_bytes`.
  Task<Result<std::string>> read_body(std::size_t max_bytes);
  // A whole answer with content-length.
  Task<Result<>> respond(ResponseHead head, std::string body);
  Task<Result<>> respond_json(int status, std::string json, Headers extra = {});
};

using ExchangePtr = std::shared_ptr<ServerExchange>;
using Handler = std::function<Task<>(ExchangePtr)>;

// The client's end of one exchange. Destroying it cancels what is still running.
class ClientExchange {
 public:
  virtual ~ClientExchange() = default;
  // Had once; after a kTimeout it may be asked for again.
  virtual Task<Result<ResponseHead>> head(Clock::time_point deadline) = 0;
  // Appends what has arrived to `out`; waits if nothing has, at most until `deadline` (kTimeout). False at the
  // clean end of the body. A connection that broke, a reset, or a missing terminator is an error, never an end.
  virtual Task<Result<bool>> read_some(std::string& out, Clock::time_point deadline) = 0;
  // Valid after read_some returned false.
  [[nodiscard]] virtual const Headers& trailers() const = 0;
  virtual void cancel() = 0;

  Task<Result<std::string>> read_body(std::size_t max_bytes, Clock::time_point deadline);
};

using ClientExchangePtr = std::shared_ptr<ClientExchange>;

// Where requests can be sent: a node link, a Unix socket of an engine, the controller.
class HttpClient {
 public:
  virtual ~HttpClient() = default;
  virtual Task<Result<ClientExchangePtr>> open(RequestHead head, std::string body) = 0;
};

}  // namespace aiv::net
