// The controller process: keeps the wanted state, hears the nodes through the gateway, places replicas by VRAM,
// and serves /aiv/v1 on DIR/run/controller.sock. It is never on the way of a token: while it is away the gateway
// and the agents go on from the last documents they persisted.
#pragma once
#include <cstdint>
#include <string>

namespace aiv::controller {

struct ControllerOptions {
  std::string data_dir;               // holds state.db, run/, admin.key (created 0700)
  bool auth_required = true;          // false: `--no-auth`, the gateway then lets everybody in as admin
  std::string server_id = "srv-1";    // holder of the leader record
  bool accept_older_state = false;    // go on although revision.mark says that newer changes were acknowledged
  std::string link_host;              // where nodes reach the gateway, for the line that joins one
  std::int64_t node_certificate_s = 7 * 86'400;
  std::int64_t replace_after_ms = 10'000;  // silence after which a node's replicas are placed elsewhere
};

// Runs until SIGTERM or SIGINT. 0 after a clean stop; 1 with one line on stderr when the data directory is in use
// (the line names the pid), its state is of a newer version, or the socket cannot be opened. A damaged state is
// not an exit: the process stays up read-only and says why.
int run_controller(const ControllerOptions& options);

}  // namespace aiv::controller
