#include "node/replica_files.hpp"

#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <fstream>

#include "base/file.hpp"
#include "base/hash.hpp"
#include "core/engine_flags.hpp"
#include "net/process.hpp"

namespace aiv::node {
namespace {

constexpr std::size_t kSocketNameBytes = 5 + 16 + 5;  // "/run/" HASH ".sock"
constexpr std::size_t kStateBytesMax = 4096;

std::string socket_name(const std::string& replica_id) {
  return sha256_hex(replica_id).substr(0, 16);
}

std::int64_t to_number(std::string_view text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() ? value : -1;
}

}  // namespace

ReplicaPaths replica_paths(const std::string& data_dir, const std::string& replica_id) {
  const std::string socket = data_dir + "/run/" + socket_name(replica_id);
  return {.dir = data_dir + "/replicas/" + replica_id,
          .engine_socket = socket + ".sock",
          .shim_socket = socket + ".shim"};
}

Result<> check_data_dir(const std::string& data_dir) {
  if (data_dir.empty() || data_dir.front() != '/')
    return fail(ErrorCode::kInvalidArgument, "must be an absolute path", "data");
  const std::size_t room = kSocketPathBytesMax - kSocketNameBytes;
  if (data_dir.size() > room)
    return fail(ErrorCode::kInvalidArgument,
                "the path has " + std::to_string(data_dir.size()) +
                    " bytes; Unix sockets below it leave room for " + std::to_string(room) +
                    ": choose a shorter one",
                "data");
  return {};
}

std::string boot_id() {
  auto text = read_file("/proc/sys/kernel/random/boot_id", 128);
  if (!text) return {};
  while (!text->empty() && text->back() == '\n') text->pop_back();
  return *text;
}

std::optional<ShimState> read_shim_state(const ReplicaPaths& paths) {
  const auto text = read_file(paths.state(), kStateBytesMax);
  if (!text) return std::nullopt;
  ShimState state;
  std::string_view rest = *text;
  while (!rest.empty()) {
    const std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    const std::size_t equals = line.find('=');
    if (equals == std::string_view::npos) return std::nullopt;
    const std::string_view key = line.substr(0, equals);
    const std::string_view value = line.substr(equals + 1);
    if (key == "replica")
      state.replica = value;
    else if (key == "spec_hash")
      state.spec_hash = value;
    else if (key == "boot_id")
      state.boot_id = value;
    else if (key == "epoch")
      state.version.epoch = to_number(value);
    else if (key == "rev")
      state.version.rev = to_number(value);
    else if (key == "shim_pid")
      state.shim_pid = to_number(value);
    else if (key == "shim_start")
      state.shim_start = to_number(value);
    else if (key == "engine_pid")
      state.engine_pid = to_number(value);
    else if (key == "engine_start")
      state.engine_start = to_number(value);
  }
  if (state.shim_pid <= 0 || state.shim_start <= 0 || state.engine_pid <= 0) return std::nullopt;
  return state;
}

bool shim_alive(const ShimState& state) {
  if (state.boot_id != boot_id()) return false;
  const auto start = net::process_start_time(static_cast<pid_t>(state.shim_pid));
  return start && *start == state.shim_start;
}

std::vector<std::string> replica_ids(const std::string& data_dir) {
  std::vector<std::string> ids;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(data_dir + "/replicas", error))
    if (entry.is_directory(error)) ids.push_back(entry.path().filename().string());
  return ids;
}

std::vector<ShimState> living_shims(const std::string& data_dir) {
  std::vector<ShimState> out;
  for (const std::string& id : replica_ids(data_dir))
    if (auto state = read_shim_state(replica_paths(data_dir, id)); state && shim_alive(*state))
      out.push_back(std::move(*state));
  return out;
}

std::string tail_of_log(const ReplicaPaths& paths, std::size_t bytes_max) {
  std::string out;
  // The older half first, so that a rotation a moment ago does not hide what came before it.
  for (const std::string& name : {paths.log() + ".1", paths.log()}) {
    std::ifstream file(name, std::ios::binary | std::ios::ate);
    if (!file) continue;
    const auto size = static_cast<std::size_t>(std::max<std::streamoff>(0, file.tellg()));
    const std::size_t take = std::min(size, bytes_max);
    file.seekg(static_cast<std::streamoff>(size - take));
    std::string part(take, '\0');
    file.read(part.data(), static_cast<std::streamsize>(take));
    part.resize(static_cast<std::size_t>(file.gcount()));
    out += part;
  }
  if (out.size() <= bytes_max) return out;
  out.erase(0, out.size() - bytes_max);
  const std::size_t line = out.find('\n');
  return line == std::string::npos ? out : out.substr(line + 1);
}

void remove_replica_files(const ReplicaPaths& paths) {
  std::error_code error;
  std::filesystem::remove_all(paths.dir, error);
  std::filesystem::remove(paths.engine_socket, error);
  std::filesystem::remove(paths.shim_socket, error);
}

}  // namespace aiv::node
