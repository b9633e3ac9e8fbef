#include "vgpu/config.hpp"

#include <algorithm>
#include <charconv>

namespace aiv::vgpu {
namespace {

constexpr std::string_view kFirstLine = "aiv-vgpu-config 1";

std::string_view take_until(std::string_view& text, char separator) {
  const std::size_t end = std::min(text.find(separator), text.size());
  const std::string_view part = text.substr(0, end);
  text.remove_prefix(std::min(end + 1, text.size()));
  return part;
}

template <class T>
bool read_number(std::string_view text, T& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc{} && end == text.data() + text.size() && !text.empty();
}

}  // namespace

std::string format_config(const std::vector<DeviceConfig>& devices) {
  std::string text(kFirstLine);
  text += '\n';
  for (const DeviceConfig& device : devices) {
    text += "device\t" + format_uuid(device.uuid) + '\t' + std::to_string(device.vram_bytes) + '\t' +
            std::to_string(device.max_storage_buffer_range) + '\t' + device.name + '\n';
  }
  return text;
}

Result<std::vector<DeviceConfig>> parse_config(std::string_view text) {
  std::vector<DeviceConfig> devices;
  if (take_until(text, '\n') != kFirstLine) {
    return fail(ErrorCode::kCorrupt, "the first line is not \"" + std::string(kFirstLine) + "\"", "line 1");
  }
  for (std::size_t number = 2; !text.empty(); ++number) {
    std::string_view line = take_until(text, '\n');
    if (line.empty()) continue;
    const auto bad = [&](const char* reason) {
      return fail(ErrorCode::kCorrupt, reason, "line " + std::to_string(number));
    };
    if (take_until(line, '\t') != "device") return bad("does not begin with \"device\"");
    DeviceConfig device;
    const auto uuid = parse_uuid(take_until(line, '\t'));
    if (!uuid) return bad("the uuid is not 32 hex digits");
    device.uuid = *uuid;
    if (!read_number(take_until(line, '\t'), device.vram_bytes)) return bad("the size is not a number");
    if (!read_number(take_until(line, '\t'), device.max_storage_buffer_range)) {
      return bad("the storage buffer range is not a number below 2^32");
    }
    if (line.empty() || line.size() > kNameBytesMax) return bad("the name has not 1 to 255 bytes");
    device.name = line;
    for (const DeviceConfig& other : devices) {
      if (other.uuid == device.uuid) return bad("the uuid stands on two lines");
    }
    if (devices.size() == kDevicesMax) return bad("more than 64 devices");
    devices.push_back(std::move(device));
  }
  if (devices.empty()) return fail(ErrorCode::kCorrupt, "no device in it");
  return devices;
}

Result<std::vector<DeviceConfig>> select_devices(const std::vector<DeviceConfig>& devices,
                                                 std::string_view selection) {
  if (selection.empty()) return devices;
  std::vector<DeviceConfig> selected;
  while (!selection.empty()) {
    const std::string_view text = take_until(selection, ',');
    const auto uuid = parse_uuid(text);
    const auto found = uuid ? std::find_if(devices.begin(), devices.end(),
                                           [&](const DeviceConfig& device) { return device.uuid == *uuid; })
                            : devices.end();
    if (found == devices.end()) {
      return fail(ErrorCode::kNotFound, "no such device: \"" + std::string(text) + "\"", "AIV_VGPU_DEVICES");
    }
    selected.push_back(*found);
  }
  return selected;
}

}  // namespace aiv::vgpu
