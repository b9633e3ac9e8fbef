#include "load.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>

#include "base/json.hpp"

namespace aiv::fake {
namespace {

constexpr int kLayers = 24;
constexpr int kStages = 4;  // progress reports; llama-server sends one every 200 ms at most
constexpr std::int64_t kNsPerMs = 1'000'000;
constexpr std::int64_t kHangStepNs = 200 * kNsPerMs;

// Pinned host memory is named after the backend: "Vulkan0" -> "Vulkan_Host".
std::string host_buffer_name(const std::vector<std::string>& devices) {
  if (devices.empty()) return "CPU";
  return devices[0].substr(0, devices[0].find_last_not_of("0123456789") + 1) + "_Host";
}

double mib(Bytes bytes) {
  return static_cast<double>(bytes) / 1048576.0;
}

}  // namespace

std::int64_t monotonic_ns() {
  timespec t{};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return std::int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec;
}

Result<EngineLog> EngineLog::open(const std::string& path, int verbosity) {
  EngineLog log;
  log.verbosity_ = verbosity;
  log.start_ns_ = monotonic_ns();
  if (!path.empty()) {
    log.file_.reset(std::fopen(path.c_str(), "we"));
    if (!log.file_) return fail(ErrorCode::kIo, "cannot write the log file", path);
  }
  return log;
}

void EngineLog::write(char level, std::string_view text, int needed) {
  if (verbosity_ < needed) return;
  const auto us = (monotonic_ns() - start_ns_) / 1000;
  const auto line = fmt::format("{}.{:02}.{:03}.{:03} {} {}\n", us / 60'000'000, us / 1'000'000 % 60,
                                us / 1000 % 1000, us % 1000, level, text);
  std::fputs(line.c_str(), stderr);
  if (file_) {
    std::fputs(line.c_str(), file_.get());
    std::fflush(file_.get());
  }
}

void tell_router(const std::string& state, const std::string& payload_json) {
  std::printf("\ncmd_child_to_router:state:{\"state\":\"%s\",\"payload\":%s}\n", state.c_str(),
              payload_json.c_str());
  std::fflush(stdout);
}

void Load::begin(std::int64_t now_ns) {
  start_ns_ = now_ns;
  log_.server("srv  llama_server: initializing ...");
  log_devices();
  log_.server(fmt::format("srv    load_model: loading model '{}'", options_.model_path));
  report_progress(0.0);
}

void Load::report_progress(double value) {
  if (!options_.router_child) return;
  tell_router("loading",
              fmt::format(R"({{"stages":["text_model"],"current":"text_model","value":{:.2f}}})", value));
}

Load::Outcome Load::step(std::int64_t now_ns) {
  const auto& model = options_.model;
  const auto stage_ns = std::max<std::int64_t>(model.load_ms * kNsPerMs / kStages, 0);
  if (model.hang_load && stage_ >= 1) return {.next_ns = now_ns + kHangStepNs};
  while (stage_ < kStages && now_ns >= start_ns_ + (stage_ + 1) * stage_ns) {
    ++stage_;
    if (stage_ == 1) log_tensors();
    if (stage_ == 1 && model.oom == FakeOom::kWeights)
      return {.exit_status =
                  fail_to_allocate("model", model.weights_bytes,
                                   "error loading model: unable to allocate " +
                                       (options_.devices.empty() ? "CPU" : options_.devices[0]) + " buffer")};
    if (stage_ == 2 && model.load_exit) return {.exit_status = model.load_exit};
    if (stage_ == 3) {
      if (const auto status = log_context()) return {.exit_status = status};
    }
    report_progress(static_cast<double>(stage_) / kStages);
    if (model.hang_load) return {.next_ns = now_ns + kHangStepNs};
  }
  if (stage_ < kStages) return {.next_ns = start_ns_ + (stage_ + 1) * stage_ns};
  log_.server(fmt::format("srv    load_model: initializing, n_slots = {}, n_ctx_slot = {}, kv_unified = '{}'",
                          options_.slots, options_.ctx_per_slot(), options_.kv_unified));
  log_.server("srv  llama_server: model loaded");
  log_.server(fmt::format("srv  llama_server: listening on unix://{}", options_.socket_path));
  return {.done = true};
}

std::optional<int> Load::fail_to_allocate(const std::string& what, Bytes bytes,
                                          const std::string& consequence) {
  const auto& device = options_.devices.empty() ? std::string("CPU") : options_.devices[0];
  log_.error(fmt::format("alloc_tensor_range: failed to allocate {} buffer of size {}", device, bytes));
  if (what == "model") {
    log_.error("llama_model_load: " + consequence);
    log_.error("llama_model_load_from_file_impl: failed to load model");
    log_.error(fmt::format("srv    load_model: failed to load model, '{}'", options_.model_path));
  } else {
    log_.error("llama_init_from_model: failed to initialize the context: " + consequence);
    log_.error(
        fmt::format("cmn  common_init_: failed to create context with model '{}'", options_.model_path));
  }
  log_.error("srv  llama_server: exiting due to model loading error");
  return 1;
}

void Load::log_devices() {
  log_.info("cmn  common_param: device_info:");
  const Bytes shown = 64LL << 30;
  for (const auto& device : options_.devices)
    log_.info(fmt::format("cmn  common_param:   - {:<8}: fake device ({:.0f} MiB, {:.0f} MiB free)", device,
                          mib(shown), mib(shown)));
  if (options_.devices.empty()) log_.info("cmn  common_param:   - CPU     : fake processor");
  for (const auto& device : options_.devices)
    log_.info(fmt::format(
        "llama_prepare_model_devices: using device {} (fake device) (unknown id) - {:.0f} MiB free", device,
        mib(shown)));
}

void Load::log_buffer(const char* function, const std::string& device, const char* what, Bytes bytes) {
  if (options_.model.garbled_log) {
    log_.info(fmt::format("{}: {}: {} buffer takes {} bytes", function, device, what, bytes));
    return;
  }
  const int width = std::string_view(function) == "load_tensors" ? 12 : 10;
  log_.info(
      fmt::format("{}: {:>{}} {} buffer size = {:8.2f} MiB", function, device, width, what, mib(bytes)));
}

// Where llama-server puts the weights for these flags: tools/server at 0.5.0, tried with -ngl, -nkvo, -ot and
// -dev none.
void Load::log_tensors() {
  const auto& model = options_.model;
  const auto offloaded = options_.gpu_layers < 0 ? kLayers + 1 : options_.gpu_layers;
  log_.info("load_tensors: loading model tensors, this can take a while... (load_mode = mmap)");
  log_.info("load_tensors: offloading output layer to GPU");
  log_.info(fmt::format("load_tensors: offloading {} repeating layers to GPU", std::max(0, offloaded - 1)));
  log_.info(fmt::format("load_tensors: offloaded {}/{} layers to GPU", offloaded, kLayers + 1));
  auto devices = fake_device_bytes(model, options_.ctx, options_.devices.size());
  Bytes on_cpu = model.cpu_weights_bytes + (options_.token_embd_on_device ? 0 : model.host_bytes);
  if (options_.devices.empty()) on_cpu += model.weights_bytes;
  if (options_.token_embd_on_device && !devices.empty()) devices.front().weights += model.host_bytes;
  Bytes moved = model.cpu_weights_bytes;
  for (auto& device : devices) {
    if (options_.gpu_layers >= 0) {
      const auto kept = device.weights / (kLayers + 1) * options_.gpu_layers;
      on_cpu += device.weights - kept;
      device.weights = kept;
    }
    if (options_.tensors_on_cpu) {
      on_cpu += device.weights / 4;
      device.weights -= device.weights / 4;
    }
    const auto less = std::min(moved, device.weights);
    device.weights -= less;
    moved -= less;
  }
  if (on_cpu > 0) log_buffer("load_tensors", "CPU_Mapped", "model", on_cpu);
  for (std::size_t i = 0; i < devices.size(); ++i)
    log_buffer("load_tensors", options_.devices[i], "model", devices[i].weights);
}

std::optional<int> Load::log_context() {
  const auto& model = options_.model;
  const auto n = options_.devices.size();
  const auto devices = fake_device_bytes(model, options_.ctx, n);
  log_.info("llama_context: constructing llama_context");
  log_.info(fmt::format("llama_context: n_seq_max             = {}", options_.slots));
  log_.info(fmt::format("llama_context: n_ctx                 = {}", options_.ctx));
  log_.info(fmt::format("llama_context: n_ctx_seq             = {}", options_.ctx_per_slot()));
  log_.info(fmt::format("llama_context: n_ubatch              = {}", options_.ubatch));
  log_.info(fmt::format("llama_context: kv_unified            = {}", options_.kv_unified));
  log_buffer("llama_context", host_buffer_name(options_.devices), " output", 0);
  const Bytes kv = model.kv_bytes_per_cell * options_.ctx;
  if (model.oom == FakeOom::kKv) return fail_to_allocate("kv", kv, "failed to allocate buffer for kv cache");
  if (model.kind != ModelKind::kChat && kv == 0) {
    // A model without a cache prints no line for it.
  } else if (n == 0 || !options_.kv_offload || model.cpu_kv) {
    log_buffer("llama_kv_cache", "CPU", "KV", kv);
  } else {
    for (std::size_t i = 0; i < n; ++i)
      log_buffer("llama_kv_cache", options_.devices[i], "KV", devices[i].kv);
  }
  log_.info(fmt::format(
      "llama_kv_cache: size = {:7.2f} MiB ({:6} cells, {:3} layers, {:2}/{} seqs), K (f16): {:7.2f} MiB, V "
      "(f16): {:7.2f} MiB",
      mib(kv), options_.ctx_per_slot(), kLayers, options_.slots, options_.slots, mib(kv) / 2, mib(kv) / 2));
  log_.info("sched_reserve: reserving ...");
  if (model.oom == FakeOom::kCompute)
    return fail_to_allocate("compute", model.compute_bytes, "failed to allocate compute buffers");
  for (const auto& device : options_.devices)
    log_buffer("sched_reserve", device, "compute", model.compute_bytes);
  log_buffer("sched_reserve", host_buffer_name(options_.devices), "compute",
             n == 0 ? model.compute_bytes : 786'432);
  const bool on_cpu =
      model.cpu_weights_bytes > 0 || model.cpu_kv || !options_.kv_offload || options_.tensors_on_cpu;
  const int usual = on_cpu && n > 0
                        ? 2 * kLayers + 2
                        : static_cast<int>(std::max<std::size_t>(n, 1)) +
                              (n > 0 && model.host_bytes > 0 && !options_.token_embd_on_device ? 1 : 0);
  log_.info(fmt::format("sched_reserve: graph: nodes = {}, splits = {}, input objects = 4, input tensors = 6",
                        kLayers * 34, model.splits.value_or(usual)));
  return std::nullopt;
}

}  // namespace aiv::fake
