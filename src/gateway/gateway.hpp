// The gateway process: the public port, the ends of the node links, and the socket the controller uses.
//
// It takes no decision that outlives a request. What it serves from is the route table, which it persists before
// using it, so it starts and serves with the controller away.
#pragma once
#include <cstddef>
#include <functional>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace aiv::gateway {

struct GatewayOptions {
  std::string data_dir;                                  // holds run/, gateway/, logs/
  std::string public_address = "tcp:127.0.0.1:8080";     // port 0: any free one
  std::string link_address = "tcp:127.0.0.1:0";          // node links: mTLS
  std::string link_cert_file;                            // server certificate (PEM)
  std::string link_key_file;
  std::string link_ca_file;                              // who signs nodes
  std::string cluster = "aiv";                           // authority of the node certificates' URI
  std::string public_cert_file;                          // both set: TLS on the public port
  std::string public_key_file;
  bool auth = true;                                      // off: loopback only, everybody is admin
  bool open_without_auth = false;                        // auth off on another address all the same
  std::vector<std::string> cors_origins;                 // pages that may use the API from a browser (cors.hpp)
  std::size_t connections_per_address = 1024;            // of clients
  bool access_log = true;                                // DIR/logs/access.log, JSON lines without prompts
  std::size_t body_bytes_max = 4 * 1024 * 1024;
  int head_hold_ms = 5'000;                              // a stream's head waits that long for the first event
  int keep_alive_ms = 10'000;                            // silence after which a comment is sent
  int stall_ms_min = 10'000;                             // no token for so long: the replica is given up, if another can take over
  int stall_alone_ms = 120'000;                          // the same where no other replica could
  int survivor_wait_ms = 10'000;                         // a broken stream waits that long for a replica to go on with
  // Called once both ports are open, with their numbers: the parent prints the address, `aiv dev` starts agents.
  // They are also written to DIR/run/gateway.ports as {"public":N,"link":N}.
  std::function<void(int public_port, int link_port)> on_listening;
};

// Serves until SIGTERM or SIGINT (drains up to 30 s; a second signal ends at once). Returns the exit code; a start
// that fails says why on stderr with what to do.
int run_gateway(GatewayOptions options);

}  // namespace aiv::gateway
