// HTTP/1.1 as a client: for engines (Unix sockets) and for the command line (TCP). The server is
// http_server.hpp.
#pragma once
#include "net/http.hpp"
#include "net/stream.hpp"

namespace aiv::net {

// Requests over `address` ("unix:PATH", "tcp:HOST:PORT"), one connection each, or a kept idle one when
// `keep_alive`. Leaving an exchange before its end closes its connection, which frees an engine's slot.
std::shared_ptr<HttpClient> make_http1_client(std::string address, bool keep_alive = false,
                                              Clock::duration connect_timeout = seconds(5),
                                              TlsContextPtr tls = nullptr);

}  // namespace aiv::net
