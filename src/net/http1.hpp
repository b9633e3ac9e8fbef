// HTTP/1.1: the public server with a strict pass over the raw head before the parser, and a client for engines
// (Unix sockets) and for the command line (TCP).
#pragma once
#include "net/http.hpp"
#include "net/stream.hpp"

namespace aiv::net {

struct Http1Limits {
  std::size_t head_bytes_max = 16 * 1024;
  std::size_t header_count_max = 100;
  Clock::duration head_time_max = seconds(30);
  Clock::duration body_time_max = seconds(30);
  Clock::duration idle_time_max = seconds(75);
  Clock::duration write_stall_max = seconds(30);
  std::size_t connections_per_address_max = 1024;
  std::size_t connections_max = 20000;
};

class Http1Server {
 public:
  // `address` as in dial(). The handler's exchange ends with its task; an exchange that was never answered is
  // answered 500.
  static Result<std::unique_ptr<Http1Server>> open(Executor executor, const std::string& address, TlsContextPtr tls,
                                                   Handler handler, Http1Limits limits = {});
  virtual ~Http1Server() = default;
  [[nodiscard]] virtual int port() const = 0;
  // Stops accepting; kept connections close after their present exchange.
  virtual void drain() = 0;
  [[nodiscard]] virtual std::size_t connections() const = 0;
};

// Requests over `address` ("unix:PATH", "tcp:HOST:PORT"), one connection each, or a kept idle one when
// `keep_alive`. Leaving an exchange before its end closes its connection, which frees an engine's slot.
std::shared_ptr<HttpClient> make_http1_client(std::string address, bool keep_alive = false,
                                              Clock::duration connect_timeout = seconds(5), TlsContextPtr tls = nullptr);

}  // namespace aiv::net
