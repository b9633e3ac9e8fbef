// What the layer remembers of each VkInstance and VkDevice. A process may have several of both at once.
#pragma once
#include <vulkan/vk_layer.h>
#include <vulkan/vulkan.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "vgpu/accounting.hpp"
#include "vgpu/config.hpp"

namespace aiv::vgpu {

// The loader puts a pointer to its dispatch table first into every dispatchable object; a physical device carries
// its instance's (vulkan loader, docs/LoaderLayerInterface.md, "Creating New Dispatchable Objects").
template <class Handle>
void* dispatch_key(Handle handle) {
  return *reinterpret_cast<void**>(handle);
}

// The next layer's functions, asked for inside vkCreateInstance: asked later, Debian's loader (1.3.239) answers
// with the layer's own, and the call never ends.
struct InstanceCalls {
  PFN_vkGetInstanceProcAddr get_instance_proc_addr = nullptr;
  PFN_vkDestroyInstance destroy_instance = nullptr;
  PFN_vkEnumeratePhysicalDevices enumerate_physical_devices = nullptr;
  PFN_vkEnumeratePhysicalDeviceGroups enumerate_groups = nullptr;
  PFN_vkGetPhysicalDeviceProperties properties = nullptr;
  PFN_vkGetPhysicalDeviceProperties2 properties2 = nullptr;
  PFN_vkGetPhysicalDeviceMemoryProperties memory_properties = nullptr;
  PFN_vkGetPhysicalDeviceMemoryProperties2 memory_properties2 = nullptr;
  PFN_vkEnumerateDeviceExtensionProperties device_extensions = nullptr;
  PFN_vkCreateDevice create_device = nullptr;
};

struct PhysicalDevice {
  VkPhysicalDevice handle = VK_NULL_HANDLE;
  DeviceConfig config;
  bool driver_has_budget = false;  // the driver below answers VK_EXT_memory_budget itself
};

struct Instance {
  VkInstance handle = VK_NULL_HANDLE;
  InstanceCalls next;
  std::vector<DeviceConfig> config;
  std::once_flag enumerated;
  std::vector<PhysicalDevice> devices;  // in the driver's order; the n-th plays the n-th of the config

  const PhysicalDevice* find(VkPhysicalDevice handle);
  VkResult enumerate();

 private:
  VkResult enumerate_result_ = VK_SUCCESS;
};

struct Device {
  VkDevice handle = VK_NULL_HANDLE;
  PFN_vkGetDeviceProcAddr get_device_proc_addr = nullptr;
  PFN_vkDestroyDevice destroy_device = nullptr;
  PFN_vkAllocateMemory allocate_memory = nullptr;
  PFN_vkFreeMemory free_memory = nullptr;
  PFN_vkGetFenceStatus get_fence_status = nullptr;
  PFN_vkWaitForFences wait_for_fences = nullptr;
  DeviceUuid uuid{};
  std::uint64_t vram_bytes = 0;
  std::uint32_t device_local_types = 0;  // bit n: memory type n lies in a device-local heap
  std::mutex mutex;
  std::map<std::uint64_t, std::uint64_t> allocations;  // VkDeviceMemory -> bytes that we charged
};

// The objects of one kind that are alive, by dispatch key. Handed out as shared_ptr, so that an object that
// another thread destroys stays whole for the call in progress.
template <class T>
class Registry {
 public:
  void add(void* key, std::shared_ptr<T> object) {
    const std::unique_lock lock(mutex_);
    objects_[key] = std::move(object);
  }
  std::shared_ptr<T> find(void* key) {
    const std::shared_lock lock(mutex_);
    const auto it = objects_.find(key);
    return it == objects_.end() ? nullptr : it->second;
  }
  std::shared_ptr<T> take(void* key) {
    const std::unique_lock lock(mutex_);
    const auto it = objects_.find(key);
    if (it == objects_.end()) return nullptr;
    auto object = std::move(it->second);
    objects_.erase(it);
    return object;
  }

 private:
  std::shared_mutex mutex_;
  std::map<void*, std::shared_ptr<T>> objects_;
};

// Never destroyed: an application's static destructors may still call Vulkan after ours would have run.
Registry<Instance>& instances();
Registry<Device>& devices();
// Opened at the first instance from AIV_VGPU_STATE, then the same for the whole process. nullptr: said on stderr.
Accounting* accounting();
// The selected devices of AIV_VGPU_CONFIG; empty: said on stderr.
std::vector<DeviceConfig> configured_devices();
void complain(const std::string& text);

}  // namespace aiv::vgpu
