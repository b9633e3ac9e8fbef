// VK_LAYER_AIV_vgpu: makes each physical device of the driver below a virtual GPU with a name, a kind (discrete), a
// size and a uuid of its own, counts what is allocated on it across processes, and answers
// VK_ERROR_OUT_OF_DEVICE_MEMORY over the size. Told by environment: AIV_VGPU_CONFIG, AIV_VGPU_DEVICES (config.hpp),
// AIV_VGPU_STATE (accounting.hpp). It needs NODEVICE_SELECT=1 beside Mesa's implicit device-select layer.
//
// What is wrong in the environment ends vkCreateInstance with VK_ERROR_INITIALIZATION_FAILED and a line on stderr;
// the layer never aborts its host.
#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <string_view>

#include "vgpu/layer_state.hpp"

#define AIV_EXPORT extern "C" __attribute__((visibility("default")))

namespace aiv::vgpu {
namespace {

constexpr const char* kLayerName = "VK_LAYER_AIV_vgpu";

PFN_vkVoidFunction VKAPI_CALL get_instance_proc_addr(VkInstance instance, const char* name);
PFN_vkVoidFunction VKAPI_CALL get_device_proc_addr(VkDevice device, const char* name);

template <class Function>
Function resolve(const Instance& instance, const char* name, const char* alias = nullptr) {
  auto function = instance.next.get_instance_proc_addr(instance.handle, name);
  if (function == nullptr && alias != nullptr) {
    function = instance.next.get_instance_proc_addr(instance.handle, alias);
  }
  return reinterpret_cast<Function>(function);
}

// The loader's link to the next layer, in the pNext chain of both create calls.
template <class Link>
Link* find_link(const void* chain, VkStructureType type) {
  auto* link = static_cast<Link*>(const_cast<void*>(chain));
  while (link != nullptr && !(link->sType == type && link->function == VK_LAYER_LINK_INFO)) {
    link = static_cast<Link*>(const_cast<void*>(link->pNext));
  }
  return link;
}

template <class Struct>
Struct* find_in_chain(void* chain, VkStructureType type) {
  auto* item = static_cast<VkBaseOutStructure*>(chain);
  while (item != nullptr && item->sType != type) item = item->pNext;
  return reinterpret_cast<Struct*>(item);
}

// ---- instance --------------------------------------------------------------------------------------------

VkResult VKAPI_CALL create_instance(const VkInstanceCreateInfo* info, const VkAllocationCallbacks* allocator,
                                    VkInstance* out) {
  auto* link = find_link<VkLayerInstanceCreateInfo>(info->pNext, VK_STRUCTURE_TYPE_LOADER_INSTANCE_CREATE_INFO);
  if (link == nullptr) return VK_ERROR_INITIALIZATION_FAILED;
  auto instance = std::make_shared<Instance>();
  instance->config = configured_devices();
  if (instance->config.empty() || accounting() == nullptr) return VK_ERROR_INITIALIZATION_FAILED;

  instance->next.get_instance_proc_addr = link->u.pLayerInfo->pfnNextGetInstanceProcAddr;
  link->u.pLayerInfo = link->u.pLayerInfo->pNext;
  const auto next_create = resolve<PFN_vkCreateInstance>(*instance, "vkCreateInstance");
  if (next_create == nullptr) return VK_ERROR_INITIALIZATION_FAILED;
  if (const VkResult result = next_create(info, allocator, out); result != VK_SUCCESS) return result;

  instance->handle = *out;
  InstanceCalls& next = instance->next;
  next.destroy_instance = resolve<PFN_vkDestroyInstance>(*instance, "vkDestroyInstance");
  next.enumerate_physical_devices =
      resolve<PFN_vkEnumeratePhysicalDevices>(*instance, "vkEnumeratePhysicalDevices");
  next.enumerate_groups = resolve<PFN_vkEnumeratePhysicalDeviceGroups>(
      *instance, "vkEnumeratePhysicalDeviceGroups", "vkEnumeratePhysicalDeviceGroupsKHR");
  next.properties = resolve<PFN_vkGetPhysicalDeviceProperties>(*instance, "vkGetPhysicalDeviceProperties");
  next.properties2 = resolve<PFN_vkGetPhysicalDeviceProperties2>(*instance, "vkGetPhysicalDeviceProperties2",
                                                                 "vkGetPhysicalDeviceProperties2KHR");
  next.memory_properties =
      resolve<PFN_vkGetPhysicalDeviceMemoryProperties>(*instance, "vkGetPhysicalDeviceMemoryProperties");
  next.memory_properties2 = resolve<PFN_vkGetPhysicalDeviceMemoryProperties2>(
      *instance, "vkGetPhysicalDeviceMemoryProperties2", "vkGetPhysicalDeviceMemoryProperties2KHR");
  next.device_extensions =
      resolve<PFN_vkEnumerateDeviceExtensionProperties>(*instance, "vkEnumerateDeviceExtensionProperties");
  next.create_device = resolve<PFN_vkCreateDevice>(*instance, "vkCreateDevice");
  instances().add(dispatch_key(*out), std::move(instance));
  return VK_SUCCESS;
}

void VKAPI_CALL destroy_instance(VkInstance handle, const VkAllocationCallbacks* allocator) {
  if (handle == VK_NULL_HANDLE) return;
  if (const auto instance = instances().take(dispatch_key(handle))) {
    instance->next.destroy_instance(handle, allocator);
  }
}

VkResult VKAPI_CALL enumerate_physical_devices(VkInstance handle, std::uint32_t* count, VkPhysicalDevice* out) {
  const auto instance = instances().find(dispatch_key(handle));
  if (instance == nullptr) return VK_ERROR_INITIALIZATION_FAILED;
  if (const VkResult result = instance->enumerate(); result != VK_SUCCESS) return result;
  const auto available = static_cast<std::uint32_t>(instance->devices.size());
  if (out == nullptr) {
    *count = available;
    return VK_SUCCESS;
  }
  *count = std::min(*count, available);
  for (std::uint32_t i = 0; i < *count; ++i) out[i] = instance->devices[i].handle;
  return *count < available ? VK_INCOMPLETE : VK_SUCCESS;
}

// One group per device: the drivers below know nothing of linked cards, and a device that the configuration hides
// must not come back through its group.
VkResult VKAPI_CALL enumerate_groups(VkInstance handle, std::uint32_t* count,
                                     VkPhysicalDeviceGroupProperties* out) {
  const auto instance = instances().find(dispatch_key(handle));
  if (instance == nullptr) return VK_ERROR_INITIALIZATION_FAILED;
  if (const VkResult result = instance->enumerate(); result != VK_SUCCESS) return result;
  const auto available = static_cast<std::uint32_t>(instance->devices.size());
  if (out == nullptr) {
    *count = available;
    return VK_SUCCESS;
  }
  *count = std::min(*count, available);
  for (std::uint32_t i = 0; i < *count; ++i) {
    out[i].physicalDeviceCount = 1;
    out[i].physicalDevices[0] = instance->devices[i].handle;
    out[i].subsetAllocation = VK_FALSE;
  }
  return *count < available ? VK_INCOMPLETE : VK_SUCCESS;
}

// ---- physical device -------------------------------------------------------------------------------------

void disguise(const PhysicalDevice& device, VkPhysicalDeviceProperties& properties) {
  const std::size_t length = std::min(device.config.name.size(), sizeof(properties.deviceName) - 1);
  std::memset(properties.deviceName, 0, sizeof(properties.deviceName));
  std::memcpy(properties.deviceName, device.config.name.data(), length);
  properties.deviceType = VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU;
  if (device.config.max_storage_buffer_range != 0) {
    // ggml-vulkan leaves every operation on a larger tensor on the CPU, in silence (ggml-vulkan.cpp:15024 of
    // v0.5.0), and lavapipe says 128 MiB although its limit is the address space.
    properties.limits.maxStorageBufferRange = device.config.max_storage_buffer_range;
  }
}

void VKAPI_CALL get_properties(VkPhysicalDevice handle, VkPhysicalDeviceProperties* properties) {
  const auto instance = instances().find(dispatch_key(handle));
  if (instance == nullptr) return;
  instance->next.properties(handle, properties);
  if (const auto* device = instance->find(handle)) disguise(*device, *properties);
}

void VKAPI_CALL get_properties2(VkPhysicalDevice handle, VkPhysicalDeviceProperties2* properties) {
  const auto instance = instances().find(dispatch_key(handle));
  if (instance == nullptr || instance->next.properties2 == nullptr) return;
  instance->next.properties2(handle, properties);
  const auto* device = instance->find(handle);
  if (device == nullptr) return;
  disguise(*device, properties->properties);
  if (auto* ids = find_in_chain<VkPhysicalDeviceIDProperties>(properties->pNext,
                                                              VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES)) {
    std::memcpy(ids->deviceUUID, device->config.uuid.data(), VK_UUID_SIZE);
  }
  if (auto* core = find_in_chain<VkPhysicalDeviceVulkan11Properties>(
          properties->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_VULKAN_1_1_PROPERTIES)) {
    std::memcpy(core->deviceUUID, device->config.uuid.data(), VK_UUID_SIZE);
  }
}

bool is_device_local(const VkMemoryHeap& heap) { return (heap.flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) != 0; }

// Device-local heaps get the size; a heap of host memory stays as it is.
void resize_heaps(const PhysicalDevice& device, VkPhysicalDeviceMemoryProperties& memory) {
  for (std::uint32_t i = 0; i < memory.memoryHeapCount; ++i) {
    if (is_device_local(memory.memoryHeaps[i])) memory.memoryHeaps[i].size = device.config.vram_bytes;
  }
}

void VKAPI_CALL get_memory_properties(VkPhysicalDevice handle, VkPhysicalDeviceMemoryProperties* memory) {
  const auto instance = instances().find(dispatch_key(handle));
  if (instance == nullptr) return;
  instance->next.memory_properties(handle, memory);
  if (const auto* device = instance->find(handle)) resize_heaps(*device, *memory);
}

void VKAPI_CALL get_memory_properties2(VkPhysicalDevice handle, VkPhysicalDeviceMemoryProperties2* memory) {
  const auto instance = instances().find(dispatch_key(handle));
  if (instance == nullptr || instance->next.memory_properties2 == nullptr) return;
  instance->next.memory_properties2(handle, memory);
  const auto* device = instance->find(handle);
  if (device == nullptr) return;
  resize_heaps(*device, memory->memoryProperties);
  auto* budget = find_in_chain<VkPhysicalDeviceMemoryBudgetPropertiesEXT>(
      memory->pNext, VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT);
  if (budget == nullptr) return;
  const Usage usage = accounting()->usage(device->config.uuid);
  const std::uint64_t others = usage.total - usage.own;
  const std::uint64_t vram = device->config.vram_bytes;
  for (std::uint32_t i = 0; i < VK_MAX_MEMORY_HEAPS; ++i) {
    const bool exists = i < memory->memoryProperties.memoryHeapCount;
    if (exists && is_device_local(memory->memoryProperties.memoryHeaps[i])) {
      // The budget is what this process may hold in all, its own included (VK_EXT_memory_budget).
      budget->heapBudget[i] = vram > others ? vram - others : 0;
      budget->heapUsage[i] = usage.own;
    } else if (!device->driver_has_budget) {
      budget->heapBudget[i] = exists ? memory->memoryProperties.memoryHeaps[i].size : 0;
      budget->heapUsage[i] = 0;
    }
  }
}

VkResult VKAPI_CALL device_extensions(VkPhysicalDevice handle, const char* layer, std::uint32_t* count,
                                      VkExtensionProperties* out) {
  if (layer != nullptr && std::strcmp(layer, kLayerName) == 0) {
    *count = 0;
    return VK_SUCCESS;
  }
  const auto instance = instances().find(dispatch_key(handle));
  if (instance == nullptr) return VK_ERROR_INITIALIZATION_FAILED;
  const auto* device = instance->find(handle);
  if (device == nullptr || device->driver_has_budget || layer != nullptr) {
    return instance->next.device_extensions(handle, layer, count, out);
  }
  std::uint32_t below = 0;
  if (const VkResult result = instance->next.device_extensions(handle, nullptr, &below, nullptr);
      result != VK_SUCCESS) {
    return result;
  }
  if (out == nullptr) {
    *count = below + 1;
    return VK_SUCCESS;
  }
  const std::uint32_t room = *count;
  std::uint32_t filled = room;
  const VkResult result = instance->next.device_extensions(handle, nullptr, &filled, out);
  if (result != VK_SUCCESS || filled == room) {
    *count = filled;
    return result == VK_SUCCESS ? VK_INCOMPLETE : result;
  }
  VkExtensionProperties budget{};
  std::strncpy(budget.extensionName, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME, sizeof(budget.extensionName) - 1);
  budget.specVersion = VK_EXT_MEMORY_BUDGET_SPEC_VERSION;
  out[filled] = budget;
  *count = filled + 1;
  return VK_SUCCESS;
}

// ---- device ----------------------------------------------------------------------------------------------

std::uint32_t device_local_types(const Instance& instance, VkPhysicalDevice handle) {
  VkPhysicalDeviceMemoryProperties memory{};
  instance.next.memory_properties(handle, &memory);
  std::uint32_t mask = 0;
  for (std::uint32_t i = 0; i < memory.memoryTypeCount; ++i) {
    if (is_device_local(memory.memoryHeaps[memory.memoryTypes[i].heapIndex])) mask |= 1U << i;
  }
  return mask;
}

VkResult VKAPI_CALL create_device(VkPhysicalDevice physical, const VkDeviceCreateInfo* info,
                                  const VkAllocationCallbacks* allocator, VkDevice* out) {
  auto* link = find_link<VkLayerDeviceCreateInfo>(info->pNext, VK_STRUCTURE_TYPE_LOADER_DEVICE_CREATE_INFO);
  const auto instance = instances().find(dispatch_key(physical));
  if (link == nullptr || instance == nullptr) return VK_ERROR_INITIALIZATION_FAILED;
  const auto* configured = instance->find(physical);
  if (configured == nullptr) return VK_ERROR_INITIALIZATION_FAILED;
  const auto next_get_device = link->u.pLayerInfo->pfnNextGetDeviceProcAddr;
  link->u.pLayerInfo = link->u.pLayerInfo->pNext;

  // The driver would refuse an extension that only we know.
  std::vector<const char*> extensions;
  for (std::uint32_t i = 0; i < info->enabledExtensionCount; ++i) {
    const char* name = info->ppEnabledExtensionNames[i];
    if (configured->driver_has_budget || std::strcmp(name, VK_EXT_MEMORY_BUDGET_EXTENSION_NAME) != 0) {
      extensions.push_back(name);
    }
  }
  VkDeviceCreateInfo below = *info;
  below.enabledExtensionCount = static_cast<std::uint32_t>(extensions.size());
  below.ppEnabledExtensionNames = extensions.data();
  if (const VkResult result = instance->next.create_device(physical, &below, allocator, out);
      result != VK_SUCCESS) {
    return result;
  }

  auto device = std::make_shared<Device>();
  device->handle = *out;
  device->get_device_proc_addr = next_get_device;
  device->destroy_device = reinterpret_cast<PFN_vkDestroyDevice>(next_get_device(*out, "vkDestroyDevice"));
  device->allocate_memory = reinterpret_cast<PFN_vkAllocateMemory>(next_get_device(*out, "vkAllocateMemory"));
  device->free_memory = reinterpret_cast<PFN_vkFreeMemory>(next_get_device(*out, "vkFreeMemory"));
  device->get_fence_status = reinterpret_cast<PFN_vkGetFenceStatus>(next_get_device(*out, "vkGetFenceStatus"));
  device->wait_for_fences = reinterpret_cast<PFN_vkWaitForFences>(next_get_device(*out, "vkWaitForFences"));
  device->uuid = configured->config.uuid;
  device->vram_bytes = configured->config.vram_bytes;
  device->device_local_types = device_local_types(*instance, physical);
  devices().add(dispatch_key(*out), std::move(device));
  return VK_SUCCESS;
}

void VKAPI_CALL destroy_device(VkDevice handle, const VkAllocationCallbacks* allocator) {
  if (handle == VK_NULL_HANDLE) return;
  const auto device = devices().take(dispatch_key(handle));
  if (device == nullptr) return;
  device->destroy_device(handle, allocator);
  // What was not freed is gone with the device.
  std::uint64_t left = 0;
  for (const auto& [memory, bytes] : device->allocations) left += bytes;
  if (left != 0) accounting()->release(device->uuid, left);
}

// Imported memory is somebody else's: host pages, or bytes that their exporter was charged for.
bool is_import(const VkMemoryAllocateInfo& info) {
  auto* chain = const_cast<void*>(info.pNext);
  return find_in_chain<void>(chain, VK_STRUCTURE_TYPE_IMPORT_MEMORY_HOST_POINTER_INFO_EXT) != nullptr ||
         find_in_chain<void>(chain, VK_STRUCTURE_TYPE_IMPORT_MEMORY_FD_INFO_KHR) != nullptr;
}

VkResult VKAPI_CALL allocate_memory(VkDevice handle, const VkMemoryAllocateInfo* info,
                                    const VkAllocationCallbacks* allocator, VkDeviceMemory* out) {
  const auto device = devices().find(dispatch_key(handle));
  if (device == nullptr) return VK_ERROR_OUT_OF_HOST_MEMORY;
  const bool counted = ((device->device_local_types >> info->memoryTypeIndex) & 1U) != 0 && !is_import(*info);
  if (!counted) return device->allocate_memory(handle, info, allocator, out);
  switch (accounting()->charge(device->uuid, info->allocationSize, device->vram_bytes)) {
    case Charge::kOk: break;
    case Charge::kNoRoom: return VK_ERROR_OUT_OF_DEVICE_MEMORY;
    case Charge::kTableFull:
      complain("the accounting table is full (" + std::to_string(kEntriesMax) + " processes): allocation refused");
      return VK_ERROR_OUT_OF_HOST_MEMORY;
  }
  const VkResult result = device->allocate_memory(handle, info, allocator, out);
  if (result != VK_SUCCESS) {
    accounting()->release(device->uuid, info->allocationSize);
    return result;
  }
  const std::lock_guard lock(device->mutex);
  device->allocations[reinterpret_cast<std::uint64_t>(*out)] = info->allocationSize;
  return VK_SUCCESS;
}

void VKAPI_CALL free_memory(VkDevice handle, VkDeviceMemory memory, const VkAllocationCallbacks* allocator) {
  const auto device = devices().find(dispatch_key(handle));
  if (device == nullptr || memory == VK_NULL_HANDLE) return;
  std::uint64_t bytes = 0;
  {
    // Forgotten before the driver may hand out the same handle to another thread.
    const std::lock_guard lock(device->mutex);
    const auto it = device->allocations.find(reinterpret_cast<std::uint64_t>(memory));
    if (it != device->allocations.end()) {
      bytes = it->second;
      device->allocations.erase(it);
    }
  }
  device->free_memory(handle, memory, allocator);
  if (bytes != 0) accounting()->release(device->uuid, bytes);
}

// The engine asks again and again, without a pause, whether its device is done (ggml_vk_wait_for_fence of llama.cpp's
// ggml-vulkan.cpp). Here the device is this very processor, and the asking took half of it: so the answer waits a little.
VkResult VKAPI_CALL get_fence_status(VkDevice handle, VkFence fence) {
  constexpr std::uint64_t kWaitNs = 1'000'000;
  const auto device = devices().find(dispatch_key(handle));
  if (device == nullptr) return VK_ERROR_DEVICE_LOST;
  const VkResult status = device->get_fence_status(handle, fence);
  if (status != VK_NOT_READY) return status;
  const VkResult waited = device->wait_for_fences(handle, 1, &fence, VK_TRUE, kWaitNs);
  return waited == VK_TIMEOUT ? VK_NOT_READY : waited;
}

// ---- names -----------------------------------------------------------------------------------------------

struct Hook {
  std::string_view name;
  PFN_vkVoidFunction function;
};

template <class Function>
Hook hook(std::string_view name, Function function) {
  return {name, reinterpret_cast<PFN_vkVoidFunction>(function)};
}

template <std::size_t kCount>
PFN_vkVoidFunction find_hook(const std::array<Hook, kCount>& hooks, std::string_view name) {
  for (const Hook& hook : hooks) {
    if (hook.name == name) return hook.function;
  }
  return nullptr;
}

PFN_vkVoidFunction device_hook(std::string_view name) {
  static const std::array hooks = {
      hook("vkGetDeviceProcAddr", get_device_proc_addr),
      hook("vkDestroyDevice", destroy_device),
      hook("vkAllocateMemory", allocate_memory),
      hook("vkFreeMemory", free_memory),
      hook("vkGetFenceStatus", get_fence_status),
  };
  return find_hook(hooks, name);
}

PFN_vkVoidFunction instance_hook(std::string_view name) {
  static const std::array hooks = {
      hook("vkGetInstanceProcAddr", get_instance_proc_addr),
      hook("vkCreateInstance", create_instance),
      hook("vkDestroyInstance", destroy_instance),
      hook("vkEnumeratePhysicalDevices", enumerate_physical_devices),
      hook("vkEnumeratePhysicalDeviceGroups", enumerate_groups),
      hook("vkEnumeratePhysicalDeviceGroupsKHR", enumerate_groups),
      hook("vkGetPhysicalDeviceProperties", get_properties),
      hook("vkGetPhysicalDeviceProperties2", get_properties2),
      hook("vkGetPhysicalDeviceProperties2KHR", get_properties2),
      hook("vkGetPhysicalDeviceMemoryProperties", get_memory_properties),
      hook("vkGetPhysicalDeviceMemoryProperties2", get_memory_properties2),
      hook("vkGetPhysicalDeviceMemoryProperties2KHR", get_memory_properties2),
      hook("vkEnumerateDeviceExtensionProperties", device_extensions),
      hook("vkCreateDevice", create_device),
  };
  return find_hook(hooks, name);
}

PFN_vkVoidFunction VKAPI_CALL get_device_proc_addr(VkDevice handle, const char* name) {
  if (const auto function = device_hook(name)) return function;
  const auto device = devices().find(dispatch_key(handle));
  return device == nullptr ? nullptr : device->get_device_proc_addr(handle, name);
}

PFN_vkVoidFunction VKAPI_CALL get_instance_proc_addr(VkInstance handle, const char* name) {
  if (const auto function = instance_hook(name)) return function;
  if (const auto function = device_hook(name)) return function;
  if (handle == VK_NULL_HANDLE) return nullptr;
  const auto instance = instances().find(dispatch_key(handle));
  return instance == nullptr ? nullptr : instance->next.get_instance_proc_addr(handle, name);
}

}  // namespace
}  // namespace aiv::vgpu

AIV_EXPORT VKAPI_ATTR VkResult VKAPI_CALL vkNegotiateLoaderLayerInterfaceVersion(VkNegotiateLayerInterface* out) {
  if (out == nullptr || out->loaderLayerInterfaceVersion < 2) return VK_ERROR_INITIALIZATION_FAILED;
  out->loaderLayerInterfaceVersion = 2;
  out->pfnGetInstanceProcAddr = aiv::vgpu::get_instance_proc_addr;
  out->pfnGetDeviceProcAddr = aiv::vgpu::get_device_proc_addr;
  out->pfnGetPhysicalDeviceProcAddr = nullptr;
  return VK_SUCCESS;
}
