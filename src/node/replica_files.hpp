// Where a node keeps what belongs to a replica, and what its shim wrote there.
//
//   DATA/run/HASH.sock      the engine's Unix socket        HASH = 16 hex digits of the replica's id: a Unix
//   DATA/run/HASH.shim      its shim's                       socket's address has room for 107 bytes only
//   DATA/replicas/ID/state  key=value lines, by the shim     (pids, start times, boot id, spec hash)
//   DATA/replicas/ID/exit   how the engine ended             ("exit 1", "killed by SIGKILL")
//   DATA/replicas/ID/engine.log[.1]   shim.log   api.key
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "core/documents.hpp"

namespace aiv::node {

struct ReplicaPaths {
  std::string dir;
  std::string engine_socket;
  std::string shim_socket;
  [[nodiscard]] std::string state() const { return dir + "/state"; }
  [[nodiscard]] std::string exit() const { return dir + "/exit"; }
  [[nodiscard]] std::string log() const { return dir + "/engine.log"; }
  [[nodiscard]] std::string shim_log() const { return dir + "/shim.log"; }
  [[nodiscard]] std::string api_key() const { return dir + "/api.key"; }
};

ReplicaPaths replica_paths(const std::string& data_dir, const std::string& replica_id);

// kInvalidArgument when sockets below `data_dir` would not fit a Unix socket's address; says how much is too
// much.
Result<> check_data_dir(const std::string& data_dir);

struct ShimState {
  std::string replica;
  std::string spec_hash;
  Version version;
  std::string boot_id;
  std::int64_t shim_pid = 0;
  std::int64_t shim_start = 0;
  std::int64_t engine_pid = 0;
  std::int64_t engine_start = 0;
};

// nullopt if there is none or it is not whole.
std::optional<ShimState> read_shim_state(const ReplicaPaths& paths);
// The shim of `state` lives: this boot, and pid and start time match.
bool shim_alive(const ShimState& state);
std::string boot_id();
// Ids of all replicas that have a folder.
std::vector<std::string> replica_ids(const std::string& data_dir);
// Shims and engines that live below `data_dir`, whoever started them (for `aiv dev kill` and for the last
// look of `aiv dev` before it goes).
std::vector<ShimState> living_shims(const std::string& data_dir);

// The last `bytes_max` bytes of the replica's log, from a line's beginning.
std::string tail_of_log(const ReplicaPaths& paths, std::size_t bytes_max);
// Removes the replica's folder and sockets.
void remove_replica_files(const ReplicaPaths& paths);

}  // namespace aiv::node
