// AMD cards by the kernel's own files (amdgpu), without ROCm and without root.
// All paths lie below AIV_SYSFS_ROOT (default "/sys"), so that recorded trees of real cards are tests.
#pragma once
#include <optional>
#include <string>
#include <vector>

#include "core/documents.hpp"

namespace aiv::node {

struct SysfsGpu {
  std::string pci;          // "0000:03:00.0"
  std::string render_node;  // "/dev/dri/renderD128"
  std::optional<Bytes> vram_total;
  std::optional<Bytes> vram_used;
  std::optional<Bytes> gtt_total;
  std::string unique_id;  // of the card where the driver tells it
  bool apu = false;       // small carve-out, most memory shared with the host: not used by default
};

std::string sysfs_root();
// Cards of vendor 0x1002 with a render node, in the order of their PCI addresses. Figures that are absent
// stay empty.
std::vector<SysfsGpu> amd_gpus(const std::string& root);

}  // namespace aiv::node
