#include "node/devices.hpp"

#include <unistd.h>

#include <algorithm>
#include <limits>
#include <map>

#include "base/file.hpp"
#include "base/hash.hpp"
#include "base/log.hpp"
#include "base/units.hpp"
#include "core/fake_model.hpp"
#include "node/gpu_nvml.hpp"
#include "node/gpu_sysfs.hpp"
#include "node/software_gpu.hpp"
#include "node/vulkan_probe.hpp"

namespace aiv::node {
namespace {

// Start values of what a process holds on a card beside its buffers (context, pipelines), until it is
// measured.
constexpr Bytes kVulkanOverhead = 100 * kMiB;
constexpr Bytes kCudaOverhead = 500 * kMiB;
// On a software GPU pinned host buffers count too (lavapipe has one heap); small devices get a share.
constexpr Bytes kSoftwareOverheadMax = 64 * kMiB;
constexpr Bytes kFakeOverhead = 0;

Bytes own_bytes(const std::vector<OwnUse>& own, const std::string& device_id) {
  Bytes sum = 0;
  for (const OwnUse& use : own)
    if (use.device_id == device_id) sum += use.bytes;
  return sum;
}

std::string device_id(const std::string& node, std::size_t index) {
  return node + "/" + std::to_string(index);
}

Result<std::vector<SoftwareGpuSpec>> one_node(const std::string& gpus) {
  auto nodes = parse_gpus(gpus);
  if (!nodes) return std::unexpected(nodes.error());
  if (nodes->size() != 1)
    return fail(ErrorCode::kInvalidArgument, "names GPUs of several nodes (';'); an agent is one node",
                "gpus");
  return nodes->front();
}

// Devices in the agent's books only: memory is what the specs say.
class FakeDevices : public DeviceSource {
 public:
  FakeDevices(const std::string& node, const std::vector<SoftwareGpuSpec>& gpus) {
    for (std::size_t i = 0; i < gpus.size(); ++i) {
      Device d;
      d.id = device_id(node, i);
      d.uuid = sha256_hex("fake:" + d.id).substr(0, 32);
      d.name = gpus[i].name;
      d.backend = "fake";
      d.kind = DeviceKind::kSoftware;
      d.vram_bytes = d.free_bytes = gpus[i].vram_bytes;
      d.overhead_bytes = kFakeOverhead;
      d.bandwidth_bytes_per_s = card_bandwidth_bytes_per_s(gpus[i].name).value_or(0);
      d.driver = "fake";
      devices_.push_back(std::move(d));
    }
  }
  net::Task<std::vector<Device>> measure(std::vector<OwnUse> own) override {
    std::vector<Device> out = devices_;
    for (Device& d : out) d.free_bytes = std::max<Bytes>(0, d.vram_bytes - own_bytes(own, d.id));
    co_return out;
  }
  Result<EngineView> view(const std::vector<std::string>& ids) override {
    EngineView view;
    std::int64_t slowest = std::numeric_limits<std::int64_t>::max();
    for (const std::string& id : ids) {
      const auto device = std::ranges::find(devices_, id, &Device::id);
      if (device == devices_.end()) return fail(ErrorCode::kNotFound, "this node has no such device", id);
      view.names.push_back("Vulkan" + std::to_string(view.names.size()));
      slowest = std::min(slowest, device->bandwidth_bytes_per_s);
    }
    if (!ids.empty()) view.environment = {std::string(kFakeBandwidthVariable) + "=" + std::to_string(slowest)};
    return view;
  }
  [[nodiscard]] std::string engine_name() const override { return "fake"; }

 private:
  std::vector<Device> devices_;
};

class SoftwareDevices : public DeviceSource {
 public:
  SoftwareDevices(const std::string& node, std::shared_ptr<SoftwareGpus> gpus, std::string engine)
      : gpus_(std::move(gpus)), engine_(std::move(engine)) {
    for (const SoftwareGpu& gpu : gpus_->devices()) {
      Device d;
      d.id = device_id(node, devices_.size());
      d.uuid = gpu.uuid;
      d.name = gpu.name;
      d.backend = "vulkan";
      d.kind = DeviceKind::kSoftware;
      d.vram_bytes = d.free_bytes = gpu.vram_bytes;
      d.max_storage_buffer_range = gpu.max_storage_buffer_range;
      d.overhead_bytes = std::min(kSoftwareOverheadMax, gpu.vram_bytes / 16);
      d.alignment = 16;  // lavapipe's minStorageBufferOffsetAlignment
      d.bandwidth_bytes_per_s = gpu.bandwidth_bytes_per_s;
      d.driver = "software GPU (lavapipe)";
      devices_.push_back(std::move(d));
    }
  }
  net::Task<std::vector<Device>> measure(std::vector<OwnUse> own) override {
    for (Device& d : devices_) {
      const auto use = gpus_->use_of(d.uuid);
      if (!use) continue;
      Bytes foreign = 0;
      for (const SoftwareGpuHolder& holder : use->holders)
        if (std::ranges::none_of(own,
                                 [&](const OwnUse& o) { return holder.pid != 0 && o.pid == holder.pid; }))
          foreign += holder.bytes;
      d.free_bytes = std::max<Bytes>(0, d.vram_bytes - use->total_bytes);
      d.foreign_bytes = foreign;
    }
    co_return devices_;
  }
  Result<EngineView> view(const std::vector<std::string>& ids) override {
    EngineView view;
    std::vector<std::string> uuids;
    for (const std::string& id : ids) {
      const auto found = std::ranges::find(devices_, id, &Device::id);
      if (found == devices_.end()) return fail(ErrorCode::kNotFound, "this node has no such device", id);
      uuids.push_back(found->uuid);
      view.names.push_back("Vulkan" + std::to_string(view.names.size()));
    }
    auto environment = gpus_->environment_for(uuids);
    if (!environment) return std::unexpected(environment.error());
    view.environment = std::move(*environment);
    return view;
  }
  [[nodiscard]] std::string engine_name() const override { return engine_; }

 private:
  std::shared_ptr<SoftwareGpus> gpus_;
  std::string engine_;
  std::vector<Device> devices_;
};

struct RealCard {
  Device device;
  std::string pci;
  int vulkan_index = -1;
};

// Cards of this machine, by Vulkan, with the vendors' own figures where they are better: without
// VK_EXT_memory_budget Vulkan says that everything is free.
class RealDevices : public DeviceSource {
 public:
  RealDevices(std::string node, bool cuda, std::shared_ptr<Nvml> nvml, std::string engine)
      : node_(std::move(node)), cuda_(cuda), nvml_(std::move(nvml)), engine_(std::move(engine)) {}

  void add_vulkan(const std::vector<VulkanDevice>& found) {
    for (const VulkanDevice& v : found) {
      if (v.type == VulkanType::kCpu) continue;
      // One card may appear under two drivers: the first that can serve stands for it.
      const bool known = std::ranges::any_of(cards_, [&](const RealCard& c) {
        return c.device.uuid == v.uuid || (!v.pci.empty() && c.pci == v.pci);
      });
      if (known) continue;
      RealCard card;
      card.pci = v.pci;
      card.vulkan_index = v.index;
      Device& d = card.device;
      d.id = device_id(node_, cards_.size());
      d.uuid = v.uuid;
      d.name = v.name;
      d.backend = "vulkan";
      d.vram_bytes = v.total;
      d.free_bytes = v.free;
      d.overhead_bytes = kVulkanOverhead;
      d.max_storage_buffer_range = v.max_storage_buffer_range;
      d.alignment = std::max<Bytes>(1, v.alignment);
      d.bandwidth_bytes_per_s = card_bandwidth_bytes_per_s(v.name).value_or(0);
      d.driver = v.driver;
      if (v.type == VulkanType::kIntegrated)
        d.refused = "integrated GPU: shares the host's memory, off by default";
      else if (!v.usable)
        d.refused =
            "its Vulkan driver lacks version 1.2 or 16-bit storage, which the engine needs: update the "
            "driver";
      cards_.push_back(std::move(card));
    }
  }

  // NVIDIA cards for an engine with the CUDA backend; Vulkan is not asked then.
  void add_cuda() {
    if (!nvml_) return;
    const NvmlReport report = nvml_->read();
    for (const NvmlGpu& gpu : report.gpus) {
      RealCard card;
      card.pci = gpu.pci;
      Device& d = card.device;
      d.id = device_id(node_, cards_.size());
      d.uuid = gpu.uuid;
      d.name = gpu.name;
      d.backend = "cuda";
      d.vram_bytes = gpu.total.value_or(0);
      d.free_bytes = gpu.free.value_or(0);
      d.overhead_bytes = kCudaOverhead;
      d.alignment = 128;
      d.bandwidth_bytes_per_s = card_bandwidth_bytes_per_s(gpu.name).value_or(0);
      d.driver = "NVIDIA " + report.driver;
      cards_.push_back(std::move(card));
    }
  }

  net::Task<std::vector<Device>> measure(std::vector<OwnUse> own) override {
    // Drivers can hang, so their answers are fetched off the loop; only copies cross.
    struct Fetched {
      std::vector<SysfsGpu> amd;
      NvmlReport nvidia;
    };
    auto fetched = std::make_shared<Fetched>();
    std::function<void()> fetch = [fetched, nvml = nvml_] {
      fetched->amd = amd_gpus(sysfs_root());
      if (nvml) fetched->nvidia = nvml->read();
    };
    co_await net::run_blocking(fetch);
    for (RealCard& card : cards_) {
      for (const NvmlGpu& gpu : fetched->nvidia.gpus)
        if (!gpu.pci.empty() && gpu.pci == card.pci) take_nvidia(card.device, gpu, own);
      for (const SysfsGpu& gpu : fetched->amd)
        if (!gpu.pci.empty() && gpu.pci == card.pci) take_amd(card.device, gpu, own);
    }
    std::vector<Device> out;
    for (const RealCard& card : cards_) out.push_back(card.device);
    co_return out;
  }

  Result<EngineView> view(const std::vector<std::string>& ids) override {
    EngineView view;
    std::string list;
    for (const std::string& id : ids) {
      const auto found = std::ranges::find_if(cards_, [&](const RealCard& c) { return c.device.id == id; });
      if (found == cards_.end()) return fail(ErrorCode::kNotFound, "this node has no such device", id);
      if (!found->device.refused.empty()) return fail(ErrorCode::kRefused, found->device.refused, id);
      list += (list.empty() ? "" : ",") + (cuda_ ? found->device.uuid : std::to_string(found->vulkan_index));
      view.names.push_back((cuda_ ? "CUDA" : "Vulkan") + std::to_string(view.names.size()));
    }
    view.environment = {(cuda_ ? "CUDA_VISIBLE_DEVICES=" : "GGML_VK_VISIBLE_DEVICES=") + list};
    return view;
  }
  [[nodiscard]] std::string engine_name() const override { return engine_; }

 private:
  static void take_nvidia(Device& d, const NvmlGpu& gpu, const std::vector<OwnUse>& own) {
    if (gpu.total) d.vram_bytes = *gpu.total;
    if (gpu.free) d.free_bytes = *gpu.free;
    if (!gpu.total || !gpu.free) return;
    Bytes ours = own_bytes(own, d.id);
    if (gpu.processes_known) {
      ours = 0;
      for (const auto& [pid, bytes] : gpu.processes)
        if (std::ranges::any_of(own, [&](const OwnUse& o) { return o.pid == pid && o.device_id == d.id; }))
          ours += bytes;
    }
    d.foreign_bytes = std::max<Bytes>(0, *gpu.total - *gpu.free - ours);
  }
  static void take_amd(Device& d, const SysfsGpu& gpu, const std::vector<OwnUse>& own) {
    if (gpu.apu) d.refused = "APU: shares the host's memory, off by default";
    if (!gpu.vram_total || !gpu.vram_used) return;
    d.vram_bytes = *gpu.vram_total;
    d.free_bytes = std::max<Bytes>(0, *gpu.vram_total - *gpu.vram_used);
    d.foreign_bytes = std::max<Bytes>(0, *gpu.vram_used - own_bytes(own, d.id));
  }

  std::string node_;
  bool cuda_;
  std::shared_ptr<Nvml> nvml_;
  std::string engine_;
  std::vector<RealCard> cards_;
};

bool exists(const std::string& path) {
  return ::access(path.c_str(), F_OK) == 0;
}

// Which backend the engine in `dir` will use; find_engine_dir has seen that there is one.
std::string backend_of(const std::string& dir) {
  return exists(dir + "/libggml-cuda.so") ? "cuda" : "vulkan";
}

std::vector<std::string> probe_command(const AgentOptions& options) {
  std::vector<std::string> command = options.shim_command;
  if (command.empty()) return {"/proc/self/exe", "vulkan-probe"};
  command.back() = "vulkan-probe";
  return command;
}

}  // namespace

net::Task<Result<std::unique_ptr<DeviceSource>>> make_device_source(AgentOptions options) {
  if (options.engine == EngineKind::kFake) {
    auto gpus = one_node(options.gpus);
    if (!gpus) co_return std::unexpected(gpus.error());
    std::unique_ptr<DeviceSource> source = std::make_unique<FakeDevices>(options.node_id, *gpus);
    co_return source;
  }
  const std::string backend = backend_of(options.engine_dir);
  const std::string engine = "llama.cpp v0.5.0 " + backend;
  if (!options.gpus.empty()) {
    auto gpus = one_node(options.gpus);
    if (!gpus) co_return std::unexpected(gpus.error());
    SoftwareGpuOptions software;
    software.dir = options.data_dir + "/gpus";
    software.node = options.node_id;
    software.gpus = std::move(*gpus);
    software.layer_dir = options.vgpu_layer_dir;
    auto prepared = SoftwareGpus::prepare(std::move(software));
    if (!prepared) co_return std::unexpected(prepared.error());
    std::unique_ptr<DeviceSource> source =
        std::make_unique<SoftwareDevices>(options.node_id, *prepared, engine);
    co_return source;
  }
  std::shared_ptr<Nvml> nvml;
  if (auto opened = Nvml::open())
    nvml = *opened;
  else if (opened.error().code != ErrorCode::kNotFound)
    log_warn("gpu.nvml_failed", {{"reason", opened.error().reason}});
  auto source = std::make_unique<RealDevices>(options.node_id, backend == "cuda", nvml, engine);
  if (backend == "cuda") {
    source->add_cuda();
  } else {
    std::vector<std::string> environment = {"PATH=/usr/bin:/bin", "NODEVICE_SELECT=1",
                                            "HOME=" + options.data_dir};
    auto found = co_await probe_vulkan(probe_command(options), environment, net::seconds(20));
    if (found)
      source->add_vulkan(*found);
    else
      log_warn("gpu.vulkan_failed", {{"reason", found.error().reason}});
  }
  std::unique_ptr<DeviceSource> out = std::move(source);
  co_return out;
}

}  // namespace aiv::node
