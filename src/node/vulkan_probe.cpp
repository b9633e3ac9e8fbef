#include "node/vulkan_probe.hpp"

#include <dlfcn.h>
#include <vulkan/vulkan_core.h>

#include <array>
#include <charconv>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <optional>

#include "base/units.hpp"
#include "net/process.hpp"

namespace aiv::node {
namespace {

constexpr std::size_t kDevicesMax = 64;
constexpr std::size_t kFields = 13;

std::string hex(const std::uint8_t* bytes, std::size_t count) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  for (std::size_t i = 0; i < count; ++i) {
    out += kDigits[bytes[i] >> 4];
    out += kDigits[bytes[i] & 15];
  }
  return out;
}

std::string one_field(std::string_view text) {
  std::string out = printable(text, 120);
  for (char& c : out)
    if (c == '\t' || c == '\n') c = ' ';
  return out.empty() ? "-" : out;
}

class Loader {
 public:
  ~Loader() {
    if (instance_ != VK_NULL_HANDLE) call<PFN_vkDestroyInstance>("vkDestroyInstance")(instance_, nullptr);
    // Not dlclosed: some drivers crash when they are unloaded.
  }

  const char* open() {
    void* library = ::dlopen("libvulkan.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return "no Vulkan loader (libvulkan.so.1): install the package libvulkan1";
    get_ = reinterpret_cast<PFN_vkGetInstanceProcAddr>(::dlsym(library, "vkGetInstanceProcAddr"));
    if (get_ == nullptr) return "libvulkan.so.1 has no vkGetInstanceProcAddr";
    VkApplicationInfo app{};
    app.sType = VK_STRUCTURE_TYPE_APPLICATION_INFO;
    app.apiVersion = VK_API_VERSION_1_2;
    VkInstanceCreateInfo info{};
    info.sType = VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO;
    info.pApplicationInfo = &app;
    const auto create = call<PFN_vkCreateInstance>("vkCreateInstance");
    if (create == nullptr || create(&info, nullptr, &instance_) != VK_SUCCESS)
      return "no Vulkan driver could be opened: install the card's driver (Mesa: mesa-vulkan-drivers)";
    return nullptr;
  }

  template <class F>
  F call(const char* name) {
    return reinterpret_cast<F>(get_(instance_, name));
  }
  [[nodiscard]] VkInstance instance() const { return instance_; }

 private:
  PFN_vkGetInstanceProcAddr get_ = nullptr;
  VkInstance instance_ = VK_NULL_HANDLE;
};

struct Extensions {
  bool pci = false;
  bool budget = false;
};

Extensions extensions_of(Loader& loader, VkPhysicalDevice device) {
  Extensions found;
  const auto list =
      loader.call<PFN_vkEnumerateDeviceExtensionProperties>("vkEnumerateDeviceExtensionProperties");
  std::uint32_t count = 0;
  if (list(device, nullptr, &count, nullptr) != VK_SUCCESS || count > 4096) return found;
  std::vector<VkExtensionProperties> all(count);
  if (list(device, nullptr, &count, all.data()) < 0) return found;
  for (std::uint32_t i = 0; i < count; ++i) {
    const std::string_view name = all[i].extensionName;
    if (name == VK_EXT_PCI_BUS_INFO_EXTENSION_NAME) found.pci = true;
    if (name == VK_EXT_MEMORY_BUDGET_EXTENSION_NAME) found.budget = true;
  }
  return found;
}

const char* type_word(VkPhysicalDeviceType type) {
  switch (type) {
    case VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU:
      return "integrated";
    case VK_PHYSICAL_DEVICE_TYPE_DISCRETE_GPU:
      return "discrete";
    case VK_PHYSICAL_DEVICE_TYPE_VIRTUAL_GPU:
      return "virtual";
    case VK_PHYSICAL_DEVICE_TYPE_CPU:
      return "cpu";
    default:
      return "other";
  }
}

void print_device(Loader& loader, VkPhysicalDevice device, int index) {
  const Extensions extensions = extensions_of(loader, device);
  VkPhysicalDevicePCIBusInfoPropertiesEXT pci{};
  pci.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PCI_BUS_INFO_PROPERTIES_EXT;
  VkPhysicalDeviceDriverProperties driver{};
  driver.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_DRIVER_PROPERTIES;
  driver.pNext = extensions.pci ? &pci : nullptr;
  VkPhysicalDeviceIDProperties id{};
  id.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES;
  id.pNext = &driver;
  VkPhysicalDeviceProperties2 properties{};
  properties.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2;
  properties.pNext = &id;
  loader.call<PFN_vkGetPhysicalDeviceProperties2>("vkGetPhysicalDeviceProperties2")(device, &properties);

  VkPhysicalDevice16BitStorageFeatures storage{};
  storage.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_16BIT_STORAGE_FEATURES;
  VkPhysicalDeviceFeatures2 features{};
  features.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2;
  features.pNext = &storage;
  loader.call<PFN_vkGetPhysicalDeviceFeatures2>("vkGetPhysicalDeviceFeatures2")(device, &features);

  VkPhysicalDeviceMemoryBudgetPropertiesEXT budget{};
  budget.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_BUDGET_PROPERTIES_EXT;
  VkPhysicalDeviceMemoryProperties2 memory{};
  memory.sType = VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_MEMORY_PROPERTIES_2;
  memory.pNext = extensions.budget ? &budget : nullptr;
  loader.call<PFN_vkGetPhysicalDeviceMemoryProperties2>("vkGetPhysicalDeviceMemoryProperties2")(device,
                                                                                                &memory);
  std::uint64_t total = 0;
  std::uint64_t left = 0;
  for (std::uint32_t i = 0; i < memory.memoryProperties.memoryHeapCount; ++i) {
    if ((memory.memoryProperties.memoryHeaps[i].flags & VK_MEMORY_HEAP_DEVICE_LOCAL_BIT) == 0) continue;
    const std::uint64_t size = memory.memoryProperties.memoryHeaps[i].size;
    total += size;
    if (!extensions.budget)
      left += size;
    else if (budget.heapBudget[i] > budget.heapUsage[i])
      left += budget.heapBudget[i] - budget.heapUsage[i];
  }
  const VkPhysicalDeviceProperties& p = properties.properties;
  const bool usable = p.apiVersion >= VK_API_VERSION_1_2 && storage.storageBuffer16BitAccess == VK_TRUE;
  char address[32] = "-";
  if (extensions.pci)
    std::snprintf(address, sizeof address, "%04x:%02x:%02x.%x", pci.pciDomain, pci.pciBus, pci.pciDevice,
                  pci.pciFunction);
  const std::string driver_text = std::string(driver.driverName) + " " + driver.driverInfo;
  std::printf("%d\t%s\t%s\t%s\t%u\t%s\t%s\t%llu\t%llu\t%d\t%u\t%llu\t%d\n", index, type_word(p.deviceType),
              hex(id.deviceUUID, VK_UUID_SIZE).c_str(), address, p.vendorID, one_field(p.deviceName).c_str(),
              one_field(driver_text).c_str(), static_cast<unsigned long long>(total),
              static_cast<unsigned long long>(left), extensions.budget ? 1 : 0,
              p.limits.maxStorageBufferRange,
              static_cast<unsigned long long>(p.limits.minStorageBufferOffsetAlignment), usable ? 1 : 0);
}

template <class T>
bool number(std::string_view text, T& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size() && out >= 0;
}

std::optional<VulkanDevice> parse_line(std::string_view line) {
  std::array<std::string_view, kFields> f{};
  for (std::size_t i = 0; i < kFields; ++i) {
    const std::size_t tab = line.find('\t');
    f[i] = line.substr(0, tab);
    if ((tab == std::string_view::npos) != (i + 1 == kFields)) return std::nullopt;
    line = tab == std::string_view::npos ? std::string_view{} : line.substr(tab + 1);
  }
  VulkanDevice d;
  int budget = 0;
  int usable = 0;
  if (!number(f[0], d.index) || !number(f[4], d.vendor) || !number(f[7], d.total) || !number(f[8], d.free) ||
      !number(f[9], budget) || !number(f[10], d.max_storage_buffer_range) || !number(f[11], d.alignment) ||
      !number(f[12], usable) || f[2].size() != 32)
    return std::nullopt;
  if (f[1] == "integrated")
    d.type = VulkanType::kIntegrated;
  else if (f[1] == "discrete")
    d.type = VulkanType::kDiscrete;
  else if (f[1] == "virtual")
    d.type = VulkanType::kVirtual;
  else if (f[1] == "cpu")
    d.type = VulkanType::kCpu;
  else if (f[1] != "other")
    return std::nullopt;
  d.uuid = f[2];
  d.pci = f[3] == "-" ? "" : std::string(f[3]);
  d.name = f[5];
  d.driver = f[6];
  d.budget_known = budget != 0;
  d.usable = usable != 0;
  return d;
}

}  // namespace

int vulkan_probe_main() {
  Loader loader;
  if (const char* reason = loader.open()) {
    std::fprintf(stderr, "%s\n", reason);
    return 1;
  }
  const auto enumerate = loader.call<PFN_vkEnumeratePhysicalDevices>("vkEnumeratePhysicalDevices");
  std::uint32_t count = 0;
  if (enumerate(loader.instance(), &count, nullptr) != VK_SUCCESS || count > kDevicesMax) {
    std::fprintf(stderr, "the Vulkan driver does not list its devices\n");
    return 1;
  }
  std::vector<VkPhysicalDevice> devices(count);
  if (enumerate(loader.instance(), &count, devices.data()) < 0) return 1;
  for (std::uint32_t i = 0; i < count; ++i) print_device(loader, devices[i], static_cast<int>(i));
  return 0;
}

Result<std::vector<VulkanDevice>> parse_vulkan_probe(std::string_view text) {
  std::vector<VulkanDevice> out;
  int line_number = 0;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text = end == std::string_view::npos ? std::string_view{} : text.substr(end + 1);
    ++line_number;
    if (line.empty()) continue;
    auto device = parse_line(line);
    if (!device || out.size() >= kDevicesMax)
      return fail(ErrorCode::kCorrupt, "not a line of the Vulkan probe",
                  "line " + std::to_string(line_number));
    out.push_back(std::move(*device));
  }
  return out;
}

namespace {

net::Task<> kill_after(net::ProcessPtr process, std::shared_ptr<net::Signal> over, net::Clock::duration limit) {
  const bool ended = co_await over->wait_until(net::Clock::now() + limit);
  if (!ended) process->signal(SIGKILL);
}

}  // namespace

net::Task<Result<std::vector<VulkanDevice>>> probe_vulkan(std::vector<std::string> command,
                                                          std::vector<std::string> environment,
                                                          net::Clock::duration limit) {
  const net::Executor executor = co_await net::this_executor();
  net::SpawnOptions options;
  options.program = command.front();
  options.arguments.assign(command.begin() + 1, command.end());
  options.environment = std::move(environment);
  options.pipe_stdout = true;
  options.stderr_file = "/dev/null";
  options.die_with_parent = true;
  auto started = net::Process::spawn(executor, std::move(options));
  if (!started) co_return std::unexpected(started.error());
  const net::ProcessPtr process = *started;
  // Killing it ends its stdout, so that the loop below ends too.
  auto over = std::make_shared<net::Signal>();
  net::spawn(executor, kill_after(process, over, limit), "vulkan.limit");
  std::string text;
  while (true) {
    auto line = co_await process->read_line();
    if (!line) break;
    if (text.size() < 256 * 1024) text += *line + "\n";
  }
  const net::ExitStatus status = co_await process->wait();
  over->notify();
  if (status.signalled || status.code != 0)
    co_return fail(
        ErrorCode::kUnavailable,
        "Vulkan found no driver (" + status.describe() +
            "): install the card's driver, and check that this user may open /dev/dri (group 'render')");
  co_return parse_vulkan_probe(text);
}

}  // namespace aiv::node
