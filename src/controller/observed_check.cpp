#include "controller/observed_check.hpp"

#include <algorithm>
#include <set>

namespace aiv::controller {

namespace {

bool is_text(const std::string& text, std::size_t max) {
  return text.size() <= max &&
         std::ranges::none_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

Result<> check_device(const Device& device, const std::string& at, const std::string& node) {
  if (!device.id.starts_with(node + "/") || !is_text(device.id, 256)) {
    return fail(ErrorCode::kInvalidArgument, "is not an id of this node's", at + ".id");
  }
  if (!is_text(device.name, 256)) return fail(ErrorCode::kInvalidArgument, "is not a plain name", at + ".name");
  for (const Bytes bytes : {device.vram_bytes, device.free_bytes, device.foreign_bytes, device.overhead_bytes,
                            device.max_storage_buffer_range, device.alignment}) {
    if (bytes < 0 || bytes > kVramMax * 4) return fail(ErrorCode::kInvalidArgument, "a size is out of range", at);
  }
  if (device.vram_bytes > kVramMax) return fail(ErrorCode::kInvalidArgument, "is above 4 TiB", at + ".vram_bytes");
  return {};
}

}  // namespace

Result<> check_observed(const NodeObserved& document, const std::string& node) {
  if (document.node != node) return fail(ErrorCode::kInvalidArgument, "is not the node of this link", "node");
  if (document.devices.size() > kDevicesMax) return fail(ErrorCode::kTooLarge, "more than 64 devices", "devices");
  if (document.replicas.size() > kReplicasMax) return fail(ErrorCode::kTooLarge, "more than 1024 replicas", "replicas");
  std::set<std::string> ids;
  for (std::size_t i = 0; i < document.devices.size(); ++i) {
    const std::string at = "devices[" + std::to_string(i) + "]";
    if (auto sound = check_device(document.devices[i], at, node); !sound) return sound;
    if (!ids.insert(document.devices[i].id).second) return fail(ErrorCode::kInvalidArgument, "appears twice", at + ".id");
  }
  for (std::size_t i = 0; i < document.replicas.size(); ++i) {
    const ReplicaStatus& replica = document.replicas[i];
    const std::string at = "replicas[" + std::to_string(i) + "]";
    if (!is_text(replica.id, 256) || replica.id.empty() || !ids.insert(replica.id).second) {
      return fail(ErrorCode::kInvalidArgument, "is empty, not plain, or appears twice", at + ".id");
    }
    for (const DeviceBytes& bytes : replica.measured) {
      if (bytes.total() < 0 || bytes.total() > kVramMax) {
        return fail(ErrorCode::kInvalidArgument, "a size is out of range", at + ".measured");
      }
    }
  }
  return {};
}

}  // namespace aiv::controller
