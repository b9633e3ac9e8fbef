// What the layer is told: a small text file named by AIV_VGPU_CONFIG,
//
//   aiv-vgpu-config 1
//   device <TAB> uuid <TAB> vram bytes <TAB> max storage buffer range <TAB> name
//
// one line per device. Tabs, because card names hold commas and blanks; the name is last, at most 255 bytes
// (VK_MAX_PHYSICAL_DEVICE_NAME_SIZE). AIV_VGPU_DEVICES="uuid,uuid" picks some, in that order; without it all.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "vgpu/accounting.hpp"

namespace aiv::vgpu {

struct DeviceConfig {
  DeviceUuid uuid{};
  std::uint64_t vram_bytes = 0;
  std::uint32_t max_storage_buffer_range = 0;  // 0: as the driver says
  std::string name;
  friend bool operator==(const DeviceConfig&, const DeviceConfig&) = default;
};

inline constexpr std::size_t kDevicesMax = 64;
inline constexpr std::size_t kNameBytesMax = 255;

std::string format_config(const std::vector<DeviceConfig>& devices);
// kCorrupt with the line's number in `where`.
Result<std::vector<DeviceConfig>> parse_config(std::string_view text);
// `selection` empty: all. kNotFound: a uuid that is not in the list.
Result<std::vector<DeviceConfig>> select_devices(const std::vector<DeviceConfig>& devices, std::string_view selection);

}  // namespace aiv::vgpu
