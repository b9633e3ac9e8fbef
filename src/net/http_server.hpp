// A port that serves HTTP: HTTP/1.1, and HTTP/2 to TLS clients that choose it (ALPN "h2"). One connection's
// own affairs are in http1_connection.cpp and h2_served.cpp; here is what concerns all of them: limits, and
// the end.
#pragma once
#include "net/http.hpp"
#include "net/stream.hpp"

namespace aiv::net {

struct HttpLimits {
  std::size_t head_bytes_max = 16 * 1024;
  std::size_t header_count_max = 100;
  Clock::duration head_time_max = seconds(30);
  Clock::duration body_time_max = seconds(30);
  Clock::duration idle_time_max = seconds(75);
  Clock::duration write_stall_max = seconds(30);
  // How long a connection that ends waits for the peer to have read the answer, and for how long without a
  // byte.
  Clock::duration linger_max = seconds(10);
  Clock::duration linger_silence_max = seconds(2);
  std::size_t connections_per_address_max = 1024;  // one more is answered 503 and closed
  std::size_t connections_max = 20000;
  std::size_t h2_streams_max = 128;  // requests at once on one HTTP/2 connection
};

class HttpServer {
 public:
  // `address` as in dial(). The handler's exchange ends with its task; an exchange that was never answered is
  // answered 500.
  static Result<std::unique_ptr<HttpServer>> open(Executor executor, const std::string& address,
                                                  TlsContextPtr tls, Handler handler, HttpLimits limits = {});
  virtual ~HttpServer() = default;
  [[nodiscard]] virtual int port() const = 0;
  // Stops accepting; kept connections close after their present exchanges.
  virtual void drain() = 0;
  [[nodiscard]] virtual std::size_t connections() const = 0;
};

}  // namespace aiv::net
