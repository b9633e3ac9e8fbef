// What a server asks of one of its connections, whatever that speaks. For the sources of net only.
#pragma once
#include "net/http_server.hpp"

namespace aiv::net::detail {

// What all connections of one server share.
struct ServerTerms {
  HttpLimits limits;
  Handler handler;
  bool draining = false;
};
using ServerTermsPtr = std::shared_ptr<const ServerTerms>;

class ServedConnection {
 public:
  virtual ~ServedConnection() = default;
  // Until the connection is over.
  virtual Task<> serve() = 0;
  // Called about once a second: ends what took too long.
  virtual void sweep(Clock::time_point now) = 0;
  virtual void kill() = 0;
};
using ServedPtr = std::shared_ptr<ServedConnection>;

ServedPtr serve_http1(StreamPtr stream, ServerTermsPtr terms);
ServedPtr serve_h2(StreamPtr stream, ServerTermsPtr terms);

}  // namespace aiv::net::detail
