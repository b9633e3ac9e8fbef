#include "node/gpu_nvml.hpp"

#include <dlfcn.h>

#include <cctype>
#include <cstdlib>
#include <cstring>

namespace aiv::node {
namespace {

// Own prototypes, after NVIDIA's NVML API reference. Only what is used; enums as int, handles as pointers.
using Return = int;
constexpr Return kSuccess = 0;
constexpr Return kDriverNotLoaded = 9;
constexpr Return kInsufficientSize = 7;
constexpr Return kLibraryMismatch = 18;
using DeviceHandle = struct NvmlDeviceOpaque*;

struct Memory {  // nvmlMemory_t
  unsigned long long total, free, used;
};
struct PciInfo {  // nvmlPciInfo_t
  char legacy_bus_id[16];
  unsigned domain, bus, device, pci_device_id, pci_subsystem_id;
  char bus_id[32];
};
struct ProcessInfoV1 {  // nvmlProcessInfo_v1_t, of ..RunningProcesses without suffix
  unsigned pid;
  unsigned long long used;
};
struct ProcessInfoV2 {  // nvmlProcessInfo_v2_t, of .._v2 and .._v3: MIG instances added
  unsigned pid;
  unsigned long long used;
  unsigned gpu_instance, compute_instance;
};
constexpr unsigned long long kNotAvailable = ~0ULL;
constexpr unsigned kGpusMax = 64;
constexpr unsigned kProcessesMax = 1024;

std::string normal_pci(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  // NVML writes eight digits of domain, the kernel and Vulkan four.
  if (text.size() > 12 && text.starts_with("0000")) text = text.substr(text.size() - 12);
  return text;
}

class NvmlLibrary : public Nvml {
 public:
  ~NvmlLibrary() override {
    if (initialised_ && shutdown_ != nullptr) shutdown_();
  }

  Result<> load() {
    const char* path = std::getenv("AIV_NVML_PATH");
    // Without ".1" the name comes only with the CUDA toolkit.
    library_ = ::dlopen(path != nullptr && *path != '\0' ? path : "libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library_ == nullptr) return fail(ErrorCode::kNotFound, "no NVIDIA driver on this machine");
    const auto init = find<Return (*)()>("nvmlInit_v2");
    shutdown_ = find<Return (*)()>("nvmlShutdown");
    count_ = find<Return (*)(unsigned*)>("nvmlDeviceGetCount_v2");
    handle_ = find<Return (*)(unsigned, DeviceHandle*)>("nvmlDeviceGetHandleByIndex_v2");
    if (init == nullptr || count_ == nullptr || handle_ == nullptr)
      return fail(ErrorCode::kUnavailable, "the NVIDIA management library is too old (no nvmlInit_v2)");
    const Return result = init();
    if (result == kLibraryMismatch)
      return fail(
          ErrorCode::kUnavailable,
          "driver/library version mismatch: the NVIDIA driver was upgraded since the last boot; reboot");
    if (result == kDriverNotLoaded)
      return fail(ErrorCode::kUnavailable,
                  "the NVIDIA kernel driver is not loaded: modprobe nvidia, or reboot");
    if (result != kSuccess)
      return fail(ErrorCode::kUnavailable, "NVML does not start (error " + std::to_string(result) + ")");
    initialised_ = true;
    return {};
  }

  NvmlReport read() override {
    NvmlReport report;
    char text[96] = {};
    if (const auto version = find<Return (*)(char*, unsigned)>("nvmlSystemGetDriverVersion");
        version != nullptr && version(text, sizeof text) == kSuccess)
      report.driver = text;
    unsigned count = 0;
    if (count_(&count) != kSuccess) return report;
    for (unsigned i = 0; i < count && i < kGpusMax; ++i) {
      DeviceHandle device = nullptr;
      if (handle_(i, &device) == kSuccess) report.gpus.push_back(read_gpu(device));
    }
    return report;
  }

 private:
  template <class F>
  F find(const char* name) {
    return reinterpret_cast<F>(::dlsym(library_, name));
  }

  std::string text_of(const char* function, DeviceHandle device) {
    char text[96] = {};
    const auto call = find<Return (*)(DeviceHandle, char*, unsigned)>(function);
    return call != nullptr && call(device, text, sizeof text) == kSuccess ? text : "";
  }

  NvmlGpu read_gpu(DeviceHandle device) {
    NvmlGpu gpu;
    gpu.uuid = text_of("nvmlDeviceGetUUID", device);
    gpu.name = text_of("nvmlDeviceGetName", device);
    PciInfo pci{};
    const auto pci_info = find<Return (*)(DeviceHandle, PciInfo*)>("nvmlDeviceGetPciInfo_v3");
    if (pci_info != nullptr && pci_info(device, &pci) == kSuccess) {
      pci.bus_id[sizeof pci.bus_id - 1] = '\0';
      gpu.pci = normal_pci(pci.bus_id);
    }
    Memory memory{};
    const auto memory_info = find<Return (*)(DeviceHandle, Memory*)>("nvmlDeviceGetMemoryInfo");
    if (memory_info != nullptr && memory_info(device, &memory) == kSuccess) {
      gpu.total = static_cast<Bytes>(memory.total);
      gpu.free = static_cast<Bytes>(memory.free);
    }
    int major = 0;
    int minor = 0;
    const auto capability = find<Return (*)(DeviceHandle, int*, int*)>("nvmlDeviceGetCudaComputeCapability");
    if (capability != nullptr && capability(device, &major, &minor) == kSuccess)
      gpu.compute_capability = {major, minor};
    read_processes(device, gpu);
    return gpu;
  }

  // Three ABIs; which one a driver has follows from the newest name it exports.
  void read_processes(DeviceHandle device, NvmlGpu& gpu) {
    for (const char* kind : {"Compute", "Graphics"}) {
      const std::string base = std::string("nvmlDeviceGet") + kind + "RunningProcesses";
      using V2 = Return (*)(DeviceHandle, unsigned*, ProcessInfoV2*);
      using V1 = Return (*)(DeviceHandle, unsigned*, ProcessInfoV1*);
      V2 newer = find<V2>((base + "_v3").c_str());
      if (newer == nullptr) newer = find<V2>((base + "_v2").c_str());
      if (newer != nullptr)
        read_list<ProcessInfoV2>(newer, device, gpu);
      else if (V1 oldest = find<V1>(base.c_str()); oldest != nullptr)
        read_list<ProcessInfoV1>(oldest, device, gpu);
    }
  }

  template <class Info, class Call>
  static void read_list(Call call, DeviceHandle device, NvmlGpu& gpu) {
    unsigned count = kProcessesMax;
    std::vector<Info> infos(count);
    const Return result = call(device, &count, infos.data());
    if (result != kSuccess || result == kInsufficientSize || count > kProcessesMax) return;
    gpu.processes_known = true;
    for (unsigned i = 0; i < count; ++i) {
      if (infos[i].used == kNotAvailable) {
        gpu.processes_known = false;  // under WSL, and on cards of the desktop line under Windows drivers
        continue;
      }
      gpu.processes.emplace_back(static_cast<std::int64_t>(infos[i].pid), static_cast<Bytes>(infos[i].used));
    }
  }

  void* library_ = nullptr;
  bool initialised_ = false;
  Return (*shutdown_)() = nullptr;
  Return (*count_)(unsigned*) = nullptr;
  Return (*handle_)(unsigned, DeviceHandle*) = nullptr;
};

}  // namespace

Result<std::shared_ptr<Nvml>> Nvml::open() {
  auto library = std::make_shared<NvmlLibrary>();
  if (auto loaded = library->load(); !loaded) return std::unexpected(loaded.error());
  return std::static_pointer_cast<Nvml>(library);
}

}  // namespace aiv::node
