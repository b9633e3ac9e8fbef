// What the Vulkan loader says about this machine's GPUs, asked in a child process of our own: a driver that
// hangs or crashes must not take the agent with it.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "core/documents.hpp"
#include "net/async.hpp"

namespace aiv::node {

enum class VulkanType { kOther, kIntegrated, kDiscrete, kVirtual, kCpu };

struct VulkanDevice {
  int index = 0;  // as vkEnumeratePhysicalDevices counts: what GGML_VK_VISIBLE_DEVICES means
  VulkanType type = VulkanType::kOther;
  std::string uuid;  // 32 hex digits
  std::string pci;   // "0000:01:00.0", empty if the driver does not tell
  std::uint32_t vendor = 0;
  std::string name;
  std::string driver;  // "NVIDIA 535.247", "radv Mesa 22.3.6"
  Bytes total = 0;     // sum of the device-local heaps
  Bytes free = 0;      // by VK_EXT_memory_budget; equal to total where it is missing
  bool budget_known = false;
  Bytes max_storage_buffer_range = 0;
  Bytes alignment = 0;
  bool usable = false;  // Vulkan 1.2 and 16-bit storage, without which the engine skips it
  friend bool operator==(const VulkanDevice&, const VulkanDevice&) = default;
};

// The child: prints one line of tab-separated fields per device on stdout. Exit 1 and a line on stderr if
// there is no Vulkan loader or it has no driver.
int vulkan_probe_main();

// Reads the child's lines. kCorrupt names the line.
Result<std::vector<VulkanDevice>> parse_vulkan_probe(std::string_view text);

// Runs the child (`command` = program and first arguments) for at most `limit`. kUnavailable with the child's
// words.
net::Task<Result<std::vector<VulkanDevice>>> probe_vulkan(std::vector<std::string> command,
                                                          std::vector<std::string> environment,
                                                          net::Clock::duration limit);

}  // namespace aiv::node
