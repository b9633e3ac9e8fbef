#include "node/gpu_sysfs.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <filesystem>

#include "base/file.hpp"
#include "base/units.hpp"

namespace aiv::node {
namespace {

std::optional<std::string> read_trimmed(const std::string& path) {
  auto text = read_file(path, 4096);
  if (!text) return std::nullopt;
  while (!text->empty() && (text->back() == '\n' || text->back() == ' ')) text->pop_back();
  return *text;
}

std::optional<Bytes> read_bytes(const std::string& path) {
  const auto text = read_trimmed(path);
  if (!text) return std::nullopt;
  Bytes value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  if (error != std::errc{} || end != text->data() + text->size() || value < 0) return std::nullopt;
  return value;
}

// "PCI_SLOT_NAME=0000:03:00.0" of the device's uevent.
std::string pci_of(const std::string& device) {
  const auto text = read_trimmed(device + "/uevent");
  if (!text) return {};
  constexpr std::string_view kKey = "PCI_SLOT_NAME=";
  const std::size_t at = text->find(kKey);
  if (at == std::string::npos) return {};
  const std::size_t from = at + kKey.size();
  return text->substr(from, text->find('\n', from) - from);
}

}  // namespace

std::string sysfs_root() {
  const char* root = std::getenv("AIV_SYSFS_ROOT");
  return root != nullptr && *root != '\0' ? root : "/sys";
}

std::vector<SysfsGpu> amd_gpus(const std::string& root) {
  std::vector<SysfsGpu> out;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(root + "/class/drm", error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with("renderD")) continue;
    const std::string device = entry.path().string() + "/device";
    if (read_trimmed(device + "/vendor").value_or("") != "0x1002") continue;
    SysfsGpu gpu;
    gpu.pci = pci_of(device);
    gpu.render_node = "/dev/dri/" + name;
    gpu.vram_total = read_bytes(device + "/mem_info_vram_total");
    gpu.vram_used = read_bytes(device + "/mem_info_vram_used");
    gpu.gtt_total = read_bytes(device + "/mem_info_gtt_total");
    gpu.unique_id = read_trimmed(device + "/unique_id").value_or("");
    // The rule of ollama discover/amd.go: a carve-out of at most 4 GiB beside four times as much shared
    // memory.
    if (gpu.vram_total && gpu.gtt_total)
      gpu.apu =
          *gpu.vram_total <= 4 * kGiB && *gpu.gtt_total >= 8 * kGiB && *gpu.gtt_total / 4 >= *gpu.vram_total;
    out.push_back(std::move(gpu));
  }
  std::ranges::sort(out, {}, &SysfsGpu::pci);
  return out;
}

}  // namespace aiv::node
