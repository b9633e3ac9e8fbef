// Software GPUs: Mesa's lavapipe under our Vulkan layer (tools/vgpu). Each has a name, a size, a stable uuid and
// memory accounting across processes, so the real engine runs on it as on a card. For development, tests and
// demos; wherever a person looks they are labelled "software GPU" (DeviceKind::kSoftware).
#pragma once
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "core/documents.hpp"

namespace aiv::node {

struct SoftwareGpuSpec {
  std::string name;  // of the card it plays; may repeat
  Bytes vram_bytes = 0;
  friend bool operator==(const SoftwareGpuSpec&, const SoftwareGpuSpec&) = default;
};

// Bounds on what `aiv dev --gpus` may ask for.
inline constexpr std::size_t kSoftwareGpusPerNodeMax = 16;
inline constexpr std::size_t kSoftwareNodesMax = 64;
inline constexpr Bytes kSoftwareGpuBytesMin = 16LL * 1024 * 1024;
inline constexpr Bytes kSoftwareGpuBytesMax = 1024LL * 1024 * 1024 * 1024;

// "GTX 1080:8GiB,RX 580:8GiB;RTX 3060:12GiB": nodes by ';', GPUs of a node by ',', size after the last ':'.
// Blanks around a part are ignored, names may repeat. kInvalidArgument names the part at fault
// ("node 2, GPU 1 (\"RTX 3060\"): ...").
Result<std::vector<std::vector<SoftwareGpuSpec>>> parse_gpus(std::string_view text);

// Memory bandwidth the vendor publishes for this card, in bytes/s (data/cards.toml, each value with its source);
// the vendor's and family's words ("NVIDIA GeForce") may be missing. nullopt for a card not in the table.
std::optional<std::int64_t> card_bandwidth_bytes_per_s(std::string_view name);

struct SoftwareGpu {
  std::string uuid;  // 32 hex digits, stable for (node, index)
  std::string name;
  Bytes vram_bytes = 0;
  Bytes max_storage_buffer_range = 0;
  std::int64_t bandwidth_bytes_per_s = 0;  // of the card it plays, for planning; 0 = unknown. Not its real speed.
};

struct SoftwareGpuHolder {
  std::int64_t pid = 0;         // 0: a foreign entry
  std::int64_t start_time = 0;  // as net::process_start_time
  Bytes bytes = 0;
  std::string label;  // of a foreign entry
};

struct SoftwareGpuUse {
  Bytes total_bytes = 0;  // of all holders
  std::vector<SoftwareGpuHolder> holders;
};

struct SoftwareGpuOptions {
  std::string dir;   // of the node's own (0700); config, ICD files and the accounting file go there
  std::string node;  // uuids are made from it
  std::vector<SoftwareGpuSpec> gpus;
  // Largest tensor the device takes. lavapipe itself says 128 MiB, with which nearly every real model would fall
  // to the CPU in silence; a test lowers it on purpose.
  Bytes max_storage_buffer_range = 2147483647;
  std::string layer_dir;         // folder of libVkLayer_aiv_vgpu.so; empty: AIV_VGPU_LAYER_DIR, else beside `aiv`
  std::string shader_cache_dir;  // empty: AIV_SHADER_CACHE, else ~/.cache/aivailable/shaders (first start: 15 s CPU)
};

class SoftwareGpus {
 public:
  // Writes everything below options.dir; may be repeated (an agent's restart) and keeps the accounting of engines
  // that live on. kNotFound: lavapipe, the Vulkan loader or our layer is missing, with the fix in words.
  static Result<std::shared_ptr<SoftwareGpus>> prepare(SoftwareGpuOptions options);
  virtual ~SoftwareGpus() = default;

  [[nodiscard]] virtual const std::vector<SoftwareGpu>& devices() const = 0;
  // "NAME=value" pairs for an engine that shall see exactly these devices, in this order, as Vulkan0, Vulkan1, ...
  // (added to the caller's clean environment; HOME is not needed). kNotFound: unknown uuid.
  [[nodiscard]] virtual Result<std::vector<std::string>> environment_for(const std::vector<std::string>& uuids) const = 0;
  // What is held on a device now, dead processes not counted. Free = vram_bytes - total_bytes (not below 0).
  virtual Result<SoftwareGpuUse> use_of(const std::string& uuid) = 0;
  // "Another program holds `bytes`" until set to 0; what remains on a device is what engines can get.
  virtual Result<> set_foreign(const std::string& uuid, Bytes bytes, const std::string& label) = 0;
};

}  // namespace aiv::node
