// The command line and environment of one engine process (llama-server v0.5.0), as a pure function of its
// spec.
//
// Rules:
//  - Every flag that decides where memory lies is said, none is left to the engine's defaults. Rationale:
//  -ngl auto
//    and --fit on serve from the CPU on a card that is too small; -np auto takes a unified cache of 4;
//    --cache-ram takes 8 GiB of host memory per process.
//  - An allow-list: nothing reaches the command line but what is written here, and each value is checked.
//  - The environment is whole: nothing is inherited. Rationale: LLAMA_ARG_* changes any flag, and
//    GGML_CUDA_ENABLE_UNIFIED_MEMORY or GGML_VK_ALLOW_SYSMEM_FALLBACK put weights into host memory.
#pragma once
#include <string>
#include <vector>

#include "base/result.hpp"
#include "core/documents.hpp"

namespace aiv {

// What the node adds to a spec: paths, and how the engine sees the spec's devices.
struct EngineSite {
  std::string program;       // absolute path of the engine
  std::string library_dir;   // its libraries; the engine dlopens its backends from its own directory
  std::string home;          // HOME and the driver's shader cache; writable
  std::string socket;        // Unix socket the engine listens on; must end in ".sock" (server-http.cpp:483)
  std::string api_key_file;  // 0600, one key
  std::vector<std::string> device_names;        // in the order of spec.devices: "Vulkan0", ...
  std::vector<std::string> device_environment;  // "GGML_VK_VISIBLE_DEVICES=0": exactly these devices
};

struct EngineCommand {
  std::string program;
  std::vector<std::string> arguments;
  std::vector<std::string> environment;
  friend bool operator==(const EngineCommand&, const EngineCommand&) = default;
};

// kInvalidArgument with the field in `where` for a spec that no engine may be started with.
Result<> check_spec(const ReplicaSpec& spec);

// The command for `spec` at `site`; check_spec's errors, and kInvalidArgument where the site does not match.
Result<EngineCommand> engine_command(const ReplicaSpec& spec, const EngineSite& site);

// Room of a Unix socket's address on Linux, without the terminating zero (sun_path is 108 bytes).
inline constexpr std::size_t kSocketPathBytesMax = 107;
inline constexpr int kEngineSlotsMax = 256;  // llama.cpp's LLAMA_MAX_SEQ
inline constexpr int kUbatchMax = 8192;
inline constexpr std::int64_t kEngineCtxMax = std::int64_t{1} << 26;
inline constexpr std::size_t kReplicaIdBytesMax = 96;
inline constexpr std::size_t kDevicesPerReplicaMax = 16;  // GGML_SCHED_MAX_BACKENDS less the CPU

}  // namespace aiv
