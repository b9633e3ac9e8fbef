#include "node/software_gpu.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <thread>

#include "base/file.hpp"
#include "base/hash.hpp"
#include "base/json.hpp"
#include "base/units.hpp"
#include "vgpu/accounting.hpp"
#include "vgpu/config.hpp"

namespace aiv::node {
namespace {

namespace fs = std::filesystem;

constexpr const char* kLayerFile = "libVkLayer_aiv_vgpu.so";
constexpr const char* kLayerName = "VK_LAYER_AIV_vgpu";
constexpr std::size_t kIcdFileBytesMax = 64 * 1024;

// Lavapipe's worker threads of one software GPU; 0: it computes in the thread that submits. Small models spend their time
// in handing work over: with two workers on two cores the demo model took 169-194 ms per token, with none 53-121
// (same machine, interleaved, software GPU). Several GPUs share the cores, hence a quarter of them.
unsigned threads_per_gpu(unsigned cores) { return cores < 8 ? 0 : cores / 4; }

std::string_view trim(std::string_view text) {
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.front())) != 0) text.remove_prefix(1);
  while (!text.empty() && std::isspace(static_cast<unsigned char>(text.back())) != 0) text.remove_suffix(1);
  return text;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  for (;;) {
    const std::size_t end = text.find(separator);
    parts.push_back(trim(text.substr(0, end)));
    if (end == std::string_view::npos) return parts;
    text.remove_prefix(end + 1);
  }
}

Result<SoftwareGpuSpec> parse_gpu(std::string_view part, const std::string& where) {
  const auto bad = [&](std::string reason) { return fail(ErrorCode::kInvalidArgument, std::move(reason), where); };
  if (part.empty()) return bad("is empty; write it as NAME:SIZE, e.g. \"RTX 3060:12GiB\"");
  const std::size_t colon = part.rfind(':');
  if (colon == std::string_view::npos) return bad("has no size; write it as NAME:SIZE, e.g. \"RTX 3060:12GiB\"");
  const std::string_view name = trim(part.substr(0, colon));
  if (name.empty()) return bad("has no name before the ':'");
  if (name.size() > vgpu::kNameBytesMax) return bad("the name is longer than 255 bytes");
  const auto is_control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (std::any_of(name.begin(), name.end(), is_control)) return bad("the name holds a control character");
  const auto bytes = parse_bytes(trim(part.substr(colon + 1)));
  if (!bytes) return bad("the size after the ':' cannot be read: " + bytes.error().message());
  if (*bytes < kSoftwareGpuBytesMin || *bytes > kSoftwareGpuBytesMax) {
    return bad("the size must be from " + format_bytes(kSoftwareGpuBytesMin) + " to " +
               format_bytes(kSoftwareGpuBytesMax));
  }
  return SoftwareGpuSpec{.name = std::string(name), .vram_bytes = *bytes};
}

struct Card {
  std::string_view name;
  std::int64_t bandwidth_bytes_per_s;
};

constexpr Card kCards[] = {
#include "node/cards.inc"
};

std::string lower(std::string_view text) {
  std::string result(text);
  for (char& c : result) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return result;
}

// Takes the words that only say who made the card off the front: "NVIDIA GeForce GTX 1080" -> "gtx 1080".
std::string model_words(std::string_view name) {
  std::string words = lower(trim(name));
  constexpr std::array<std::string_view, 7> kPrefixes = {"nvidia ", "amd ", "geforce ", "radeon ",
                                                         "ati ",    "tesla ", "instinct "};
  for (bool again = true; again;) {
    again = false;
    for (const std::string_view prefix : kPrefixes) {
      if (words.starts_with(prefix)) {
        words.erase(0, prefix.size());
        again = true;
      }
    }
  }
  return words;
}

// ---- files -----------------------------------------------------------------------------------------------

std::string environment_or(const char* name, const std::string& fallback) {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? std::string(value) : fallback;
}

bool is_file(const fs::path& path) {
  std::error_code error;
  return fs::is_regular_file(path, error);
}

Result<std::string> find_layer(const std::string& layer_dir) {
  std::vector<fs::path> candidates;
  if (!layer_dir.empty()) {
    candidates = {layer_dir};
  } else if (const std::string dir = environment_or("AIV_VGPU_LAYER_DIR", ""); !dir.empty()) {
    candidates = {dir};
  } else {
    const fs::path beside = executable_dir();
    candidates = {beside, beside / ".." / "lib" / "aivailable"};
  }
  for (const fs::path& dir : candidates) {
    if (is_file(dir / kLayerFile)) return fs::absolute(dir / kLayerFile).lexically_normal().string();
  }
  return fail(ErrorCode::kNotFound,
              std::string(kLayerFile) + " is missing (the layer that makes software GPUs); build it with `make`, or "
              "name its folder in AIV_VGPU_LAYER_DIR",
              candidates.front().string());
}

// The library a Vulkan driver's manifest names; a bare name is looked up where the dynamic linker would.
Result<std::string> driver_of_manifest(const fs::path& manifest) {
  const auto text = read_file(manifest.string(), kIcdFileBytesMax);
  if (!text) return std::unexpected(text.error());
  const auto json = parse_json(*text);
  if (!json) return fail(json.error().code, json.error().message(), manifest.string());
  JsonReader top(*json, "icd file");
  JsonReader icd(top.object("ICD"), "ICD");
  const fs::path library = icd.string("library_path");
  if (!top.ok()) return fail(top.error().code, top.error().message(), manifest.string());
  if (!icd.ok()) return fail(icd.error().code, icd.error().message(), manifest.string());
  if (library.is_absolute()) return library.string();
  if (library.has_parent_path()) return (manifest.parent_path() / library).lexically_normal().string();
  for (const char* dir : {"/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib/aarch64-linux-gnu", "/usr/lib"}) {
    if (is_file(fs::path(dir) / library)) return (fs::path(dir) / library).string();
  }
  return fail(ErrorCode::kNotFound, "names a library that is nowhere: " + library.string(), manifest.string());
}

Result<std::string> find_lavapipe() {
  for (const char* dir : {"/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d", "/etc/vulkan/icd.d"}) {
    std::error_code error;
    std::vector<fs::path> manifests;
    for (const auto& entry : fs::directory_iterator(dir, error)) {
      if (entry.path().filename().string().starts_with("lvp_icd")) manifests.push_back(entry.path());
    }
    std::sort(manifests.begin(), manifests.end());
    for (const fs::path& manifest : manifests) {
      auto library = driver_of_manifest(manifest);
      if (library && is_file(*library)) return library;
    }
  }
  return fail(ErrorCode::kNotFound,
              "Mesa's software Vulkan driver (lavapipe) is not installed; apt-get install mesa-vulkan-drivers "
              "libvulkan1",
              "/usr/share/vulkan/icd.d");
}

// The loader opens a library once per file, so each further device of a process needs a driver file of its own
// (copied by reflink where the file system can).
Result<> copy_driver(const std::string& from, const fs::path& to) {
  std::error_code error;
  const auto wanted = fs::file_size(from, error);
  if (!error && is_file(to) && fs::file_size(to, error) == wanted && !error &&
      fs::last_write_time(to, error) >= fs::last_write_time(from, error)) {
    return {};
  }
  const fs::path temporary = to.string() + ".tmp" + std::to_string(::getpid());
  if (!fs::copy_file(from, temporary, fs::copy_options::overwrite_existing, error)) {
    return fail(ErrorCode::kIo, "cannot copy the driver " + from + ": " + error.message(), to.string());
  }
  fs::rename(temporary, to, error);
  if (error) return fail(ErrorCode::kIo, "cannot place the driver: " + error.message(), to.string());
  return {};
}

Result<> write_manifest(const fs::path& path, const Json& json) {
  return write_file_durably(path.string(), dump_json(json, 2) + "\n", 0600);
}

std::string default_shader_cache_dir(const std::string& fallback_dir) {
  if (auto dir = environment_or("AIV_SHADER_CACHE", ""); !dir.empty()) return dir;
  if (auto dir = environment_or("XDG_CACHE_HOME", ""); !dir.empty()) return dir + "/aivailable/shaders";
  if (auto dir = environment_or("HOME", ""); !dir.empty()) return dir + "/.cache/aivailable/shaders";
  return fallback_dir + "/shaders";
}

vgpu::DeviceUuid uuid_of(const std::string& node, std::size_t index) {
  const std::string digest = sha256_hex("aiv software gpu\n" + node + "\n" + std::to_string(index));
  const auto uuid = vgpu::parse_uuid(std::string_view(digest).substr(0, 32));
  AIV_ASSERT(uuid.has_value());
  return *uuid;
}

// ---- the set of devices ----------------------------------------------------------------------------------

class PreparedGpus final : public SoftwareGpus {
 public:
  PreparedGpus(SoftwareGpuOptions options, std::string shader_cache_dir)
      : options_(std::move(options)), shader_cache_dir_(std::move(shader_cache_dir)) {
    for (std::size_t i = 0; i < options_.gpus.size(); ++i) {
      const SoftwareGpuSpec& spec = options_.gpus[i];
      devices_.push_back({.uuid = vgpu::format_uuid(uuid_of(options_.node, i)),
                          .name = spec.name,
                          .vram_bytes = spec.vram_bytes,
                          .max_storage_buffer_range = options_.max_storage_buffer_range,
                          .bandwidth_bytes_per_s = card_bandwidth_bytes_per_s(spec.name).value_or(0)});
    }
  }

  Result<> write_files() {
    if (auto made = make_directories(options_.dir, 0700); !made) return made;
    if (auto made = make_directories(shader_cache_dir_, 0700); !made) return made;
    const auto layer = find_layer(options_.layer_dir);
    if (!layer) return std::unexpected(layer.error());
    const auto driver = find_lavapipe();
    if (!driver) return std::unexpected(driver.error());

    Json manifest = {{"file_format_version", "1.2.0"},
                     {"layer",
                      {{"name", kLayerName},
                       {"type", "GLOBAL"},
                       {"library_path", *layer},
                       {"api_version", "1.3.230"},
                       {"implementation_version", "1"},
                       {"description", "AIvailable software GPUs"}}}};
    if (auto made = make_directories(layer_path(), 0700); !made) return made;
    if (auto ok = write_manifest(fs::path(layer_path()) / "VkLayer_aiv_vgpu.json", manifest); !ok) return ok;

    for (std::size_t i = 0; i < devices_.size(); ++i) {
      std::string library = *driver;
      if (i > 0) {
        library = options_.dir + "/libvulkan_lvp" + std::to_string(i) + ".so";
        if (auto copied = copy_driver(*driver, library); !copied) return copied;
      }
      const Json icd = {{"file_format_version", "1.0.0"},
                        {"ICD", {{"library_path", library}, {"api_version", "1.3.230"}}}};
      if (auto ok = write_manifest(icd_file(i), icd); !ok) return ok;
    }

    std::vector<vgpu::DeviceConfig> config;
    for (const SoftwareGpu& device : devices_) {
      config.push_back({.uuid = *vgpu::parse_uuid(device.uuid),
                        .vram_bytes = static_cast<std::uint64_t>(device.vram_bytes),
                        .max_storage_buffer_range = static_cast<std::uint32_t>(device.max_storage_buffer_range),
                        .name = device.name});
    }
    if (auto ok = write_file_durably(config_file(), vgpu::format_config(config), 0600); !ok) return ok;
    auto accounting = vgpu::Accounting::open(state_file());
    if (!accounting) return std::unexpected(accounting.error());
    accounting_ = std::move(*accounting);
    return {};
  }

  const std::vector<SoftwareGpu>& devices() const override { return devices_; }

  Result<std::vector<std::string>> environment_for(const std::vector<std::string>& uuids) const override {
    if (uuids.empty()) return fail(ErrorCode::kInvalidArgument, "an engine needs at least one device");
    std::string selection;
    std::string icd_files;
    for (std::size_t i = 0; i < uuids.size(); ++i) {
      if (auto known = require(uuids[i]); !known) return std::unexpected(known.error());
      if (std::count(uuids.begin(), uuids.end(), uuids[i]) != 1) {
        return fail(ErrorCode::kInvalidArgument, "the device is named twice", uuids[i]);
      }
      selection += (i == 0 ? "" : ",") + uuids[i];
      icd_files += (i == 0 ? "" : ":") + icd_file(i);
    }
    return std::vector<std::string>{
        "VK_ICD_FILENAMES=" + icd_files,
        "VK_LAYER_PATH=" + layer_path(),
        std::string("VK_INSTANCE_LAYERS=") + kLayerName,
        // Mesa's implicit layer and ours would call each other without end.
        "NODEVICE_SELECT=1",
        "AIV_VGPU_CONFIG=" + config_file(),
        "AIV_VGPU_DEVICES=" + selection,
        "AIV_VGPU_STATE=" + state_file(),
        // Compiling the shaders takes 15 s of CPU at the very first start, next to nothing from the cache.
        "MESA_SHADER_CACHE_DIR=" + shader_cache_dir_,
        "LP_NUM_THREADS=" + std::to_string(threads_per_gpu(std::thread::hardware_concurrency())),
    };
  }

  Result<SoftwareGpuUse> use_of(const std::string& uuid) override {
    const auto device = require(uuid);
    if (!device) return std::unexpected(device.error());
    SoftwareGpuUse use;
    for (const vgpu::Holder& holder : accounting_->holders(*device)) {
      use.total_bytes += static_cast<Bytes>(holder.bytes);
      use.holders.push_back({.pid = holder.pid,
                             .start_time = static_cast<std::int64_t>(holder.start_time),
                             .bytes = static_cast<Bytes>(holder.bytes),
                             .label = holder.label});
    }
    return use;
  }

  Result<> set_foreign(const std::string& uuid, Bytes bytes, const std::string& label) override {
    const auto device = require(uuid);
    if (!device) return std::unexpected(device.error());
    if (bytes < 0) return fail(ErrorCode::kInvalidArgument, "bytes must not be negative", label);
    return accounting_->set_foreign(*device, static_cast<std::uint64_t>(bytes), label);
  }

 private:
  Result<vgpu::DeviceUuid> require(const std::string& uuid) const {
    const auto same = [&](const SoftwareGpu& device) { return device.uuid == uuid; };
    if (std::none_of(devices_.begin(), devices_.end(), same)) {
      return fail(ErrorCode::kNotFound, "no software GPU with this uuid on node " + options_.node, uuid);
    }
    return vgpu::parse_uuid(uuid);
  }
  std::string icd_file(std::size_t i) const { return options_.dir + "/icd" + std::to_string(i) + ".json"; }
  // Its own folder: the loader reads every .json in it.
  std::string layer_path() const { return options_.dir + "/layer"; }
  std::string config_file() const { return options_.dir + "/devices.conf"; }
  std::string state_file() const { return options_.dir + "/accounting"; }

  SoftwareGpuOptions options_;
  std::string shader_cache_dir_;
  std::vector<SoftwareGpu> devices_;
  std::unique_ptr<vgpu::Accounting> accounting_;
};

}  // namespace

Result<std::vector<std::vector<SoftwareGpuSpec>>> parse_gpus(std::string_view text) {
  const auto bad = [](std::string reason, std::string where) {
    return fail(ErrorCode::kInvalidArgument, std::move(reason), std::move(where));
  };
  std::vector<std::vector<SoftwareGpuSpec>> nodes;
  std::vector<std::string_view> node_texts = split(text, ';');
  if (node_texts.size() > 1 && node_texts.back().empty()) node_texts.pop_back();  // a ';' at the end is harmless
  if (node_texts.size() > kSoftwareNodesMax) return bad("more than 64 nodes", "--gpus");
  for (const std::string_view node_text : node_texts) {
    const std::string node_name = "node " + std::to_string(nodes.size() + 1);
    if (node_text.empty()) return bad("has no GPU; write it as NAME:SIZE, e.g. \"RTX 3060:12GiB\"", node_name);
    std::vector<SoftwareGpuSpec> gpus;
    for (const std::string_view part : split(node_text, ',')) {
      const std::string where =
          node_name + ", GPU " + std::to_string(gpus.size() + 1) + " (\"" + printable(part, 60) + "\")";
      auto gpu = parse_gpu(part, where);
      if (!gpu) return std::unexpected(gpu.error());
      if (gpus.size() == kSoftwareGpusPerNodeMax) return bad("more than 16 GPUs", node_name);
      gpus.push_back(std::move(*gpu));
    }
    nodes.push_back(std::move(gpus));
  }
  return nodes;
}

std::optional<std::int64_t> card_bandwidth_bytes_per_s(std::string_view name) {
  const std::string wanted = model_words(name);
  for (const Card& card : kCards) {
    if (model_words(card.name) == wanted) return card.bandwidth_bytes_per_s;
  }
  return std::nullopt;
}

Result<std::shared_ptr<SoftwareGpus>> SoftwareGpus::prepare(SoftwareGpuOptions options) {
  if (options.gpus.empty() || options.gpus.size() > kSoftwareGpusPerNodeMax) {
    return fail(ErrorCode::kInvalidArgument, "a node has 1 to 16 software GPUs", options.node);
  }
  if (options.max_storage_buffer_range < 0 || options.max_storage_buffer_range > 0xffffffffLL) {
    return fail(ErrorCode::kInvalidArgument, "the storage buffer range must fit 32 bits", options.node);
  }
  std::error_code error;
  options.dir = fs::absolute(options.dir, error).lexically_normal().string();
  if (error || options.dir.find_first_of(":,") != std::string::npos) {
    // The loader's path lists know no quoting.
    return fail(ErrorCode::kInvalidArgument, "the folder of software GPUs must not hold ':' or ','", options.dir);
  }
  std::string cache =
      options.shader_cache_dir.empty() ? default_shader_cache_dir(options.dir) : options.shader_cache_dir;
  auto gpus = std::make_shared<PreparedGpus>(std::move(options), std::move(cache));
  if (auto written = gpus->write_files(); !written) return std::unexpected(written.error());
  return std::shared_ptr<SoftwareGpus>(std::move(gpus));
}

}  // namespace aiv::node
