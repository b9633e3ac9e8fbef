#include "vgpu/layer_state.hpp"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>

namespace aiv::vgpu {
namespace {

bool has_budget_extension(const Instance& instance, VkPhysicalDevice device) {
  std::uint32_t count = 0;
  if (instance.next.device_extensions(device, nullptr, &count, nullptr) != VK_SUCCESS) return false;
  std::vector<VkExtensionProperties> extensions(count);
  if (instance.next.device_extensions(device, nullptr, &count, extensions.data()) < 0) return false;
  return std::any_of(extensions.begin(), extensions.end(), [](const VkExtensionProperties& extension) {
    return std::strcmp(extension.extensionName, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME) == 0;
  });
}

}  // namespace

Registry<Instance>& instances() {
  static auto* registry = new Registry<Instance>;
  return *registry;
}

Registry<Device>& devices() {
  static auto* registry = new Registry<Device>;
  return *registry;
}

void complain(const std::string& text) { std::fprintf(stderr, "aiv-vgpu: %s\n", text.c_str()); }

Accounting* accounting() {
  static std::mutex mutex;
  static Accounting* opened = nullptr;
  const std::lock_guard lock(mutex);
  if (opened != nullptr) return opened;
  const char* path = std::getenv("AIV_VGPU_STATE");
  if (path == nullptr || *path == '\0') {
    complain("AIV_VGPU_STATE must name the accounting file of this node");
    return nullptr;
  }
  auto result = Accounting::open(path);
  if (!result) {
    complain(result.error().message());
    return nullptr;
  }
  opened = result->release();
  return opened;
}

std::vector<DeviceConfig> configured_devices() {
  const char* path = std::getenv("AIV_VGPU_CONFIG");
  if (path == nullptr || *path == '\0') {
    complain("AIV_VGPU_CONFIG must name the file with the virtual GPUs");
    return {};
  }
  std::ifstream file(path);
  std::stringstream text;
  if (!file || !(text << file.rdbuf())) {
    complain(std::string(path) + ": cannot be read");
    return {};
  }
  const auto all = parse_config(text.str());
  if (!all) {
    complain(std::string(path) + ": " + all.error().message());
    return {};
  }
  const char* selection = std::getenv("AIV_VGPU_DEVICES");
  auto selected = select_devices(*all, selection == nullptr ? "" : selection);
  if (!selected) {
    complain(selected.error().message());
    return {};
  }
  return *selected;
}

VkResult Instance::enumerate() {
  std::call_once(enumerated, [this] {
    std::uint32_t count = 0;
    enumerate_result_ = next.enumerate_physical_devices(handle, &count, nullptr);
    if (enumerate_result_ != VK_SUCCESS) return;
    std::vector<VkPhysicalDevice> handles(count);
    enumerate_result_ = next.enumerate_physical_devices(handle, &count, handles.data());
    if (enumerate_result_ != VK_SUCCESS) return;
    if (count < config.size()) {
      complain(std::to_string(config.size()) + " virtual GPUs are configured, but the drivers show only " +
               std::to_string(count) + "; each needs an ICD file and its own copy of libvulkan_lvp.so");
    }
    for (std::size_t i = 0; i < std::min<std::size_t>(count, config.size()); ++i) {
      devices.push_back({.handle = handles[i],
                         .config = config[i],
                         .driver_has_budget = has_budget_extension(*this, handles[i])});
    }
  });
  return enumerate_result_;
}

const PhysicalDevice* Instance::find(VkPhysicalDevice wanted) {
  enumerate();
  for (const PhysicalDevice& device : devices) {
    if (device.handle == wanted) return &device;
  }
  return nullptr;
}

}  // namespace aiv::vgpu
