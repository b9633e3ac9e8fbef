#include "cli/gpu_check.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <iostream>
#include <optional>
#include <thread>

#include "base/file.hpp"
#include "base/units.hpp"
#include "cli/api_client.hpp"
#include "cli/install_paths.hpp"
#include "core/residency.hpp"
#include "make-model/random_model.hpp"
#include "node/desired_store.hpp"
#include "node/engine_dir.hpp"
#include "node/replica_files.hpp"

namespace aiv::cli {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;
using namespace std::chrono_literals;

constexpr const char* kDeployment = "gpu-check";
constexpr std::int64_t kCtx = 4096;
constexpr int kTokens = 128;
// Of the random model: 8 GiB of cache for the small shape, 412 GiB for the large one.
constexpr std::int64_t kTooLargeCtx = std::int64_t{1} << 24;
constexpr std::size_t kLogBytesMax = 64 * 1024 * 1024;
// What driver and engine may hold beyond the estimate before the figure is called wrong (vram.md's margin).
constexpr Bytes kComputeMargin = 64 * kMiB;
constexpr Bytes kDriverMargin = 700 * kMiB;

void progress(const std::string& text) {
  std::cerr << "[gpu-check] " << text << "\n";
}

double seconds_since(steady_clock::time_point start) {
  return std::chrono::duration<double>(steady_clock::now() - start).count();
}

// The engine's own list of devices ("Vulkan0: NAME (n MiB, m MiB free)"), without a cluster.
std::vector<std::string> engine_devices(const std::string& engine_dir) {
  std::vector<std::string> devices;
  const std::string command = "timeout 60 '" + engine_dir + "/llama-server' --list-devices 2>/dev/null";
  FILE* pipe = ::popen(command.c_str(), "r");
  if (pipe == nullptr) return devices;
  std::array<char, 512> line{};
  while (::fgets(line.data(), static_cast<int>(line.size()), pipe) != nullptr) {
    std::string text = line.data();
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    if (text.starts_with("  ") && text.find("(none)") == std::string::npos) devices.push_back(text.substr(2));
  }
  ::pclose(pipe);
  return devices;
}

// `aiv dev` as a child: everything that runs is what a user runs.
class Cluster {
 public:
  // The address once it is ready; the reason (last lines of its log) otherwise.
  Result<std::string> start(const std::string& data, const std::string& software) {
    std::vector<std::string> words = {
        executable_dir() + "/aiv", "dev", "--no-models", "--port", "0", "--data", data};
    if (software.empty()) {
      words.emplace_back("--real-gpus");
    } else {
      words.insert(words.end(), {"--gpus", software});
    }
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    std::array<int, 2> out{};
    if (::pipe2(out.data(), O_CLOEXEC) != 0) return fail(ErrorCode::kIo, "no pipe");
    log_ = data + ".dev.log";
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_addopen(&actions, 2, log_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    const int error = ::posix_spawn(&pid_, arguments[0], &actions, nullptr, arguments.data(), environ);
    posix_spawn_file_actions_destroy(&actions);
    ::close(out[1]);
    if (error != 0) {
      ::close(out[0]);
      pid_ = -1;
      return fail(ErrorCode::kIo, "cannot be started", words[0]);
    }
    // Reads to the line "ready URL"; the child's end closes the pipe.
    std::string text;
    std::array<char, 1024> buffer{};
    for (ssize_t n = 0; (n = ::read(out[0], buffer.data(), buffer.size())) > 0;) {
      text.append(buffer.data(), static_cast<std::size_t>(n));
      const std::size_t at = text.find("ready http");
      const std::size_t end = at == std::string::npos ? at : text.find('\n', at);
      if (end != std::string::npos) {
        out_ = out[0];
        return text.substr(at + 6, end - at - 6);
      }
    }
    ::close(out[0]);
    const std::string log = read_file(log_, kLogBytesMax).value_or("");
    return fail(
        ErrorCode::kUnavailable,
        "the cluster did not start: " + printable(log.substr(log.size() > 600 ? log.size() - 600 : 0), 600));
  }
  Cluster() = default;
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;
  ~Cluster() { stop(); }
  void stop() {
    if (out_ >= 0) ::close(out_);
    out_ = -1;
    if (pid_ <= 0) return;
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
  int out_ = -1;
  std::string log_;
};

class GpuCheck {
 public:
  explicit GpuCheck(const GpuCheckOptions& options) : options_(options) {}

  GpuCheckReport run() {
    report_.body["report"] =
        options_.software.empty() ? "real GPU" : "software GPU (the check itself on trial)";
    report_.body["version"] = AIV_VERSION;
    make_folder();
    if (find_engine() && start_cluster() && find_devices()) {
      if (deploy()) {
        prove();
        measure_speed();
      }
      try_too_big();
      unload();
    }
    cluster_.stop();
    if (options_.data_dir.empty()) {
      std::error_code ignored;
      fs::remove_all(folder_, ignored);
    }
    return std::move(report_);
  }

 private:
  bool step(std::string name, bool held, std::string detail) {
    progress((held ? "ok      " : "FAILED  ") + name + ": " + printable(detail, 400));
    report_.steps.push_back({std::move(name), held, std::move(detail)});
    return held;
  }

  void make_folder() {
    folder_ = options_.data_dir;
    if (folder_.empty()) {
      std::string pattern = (fs::temp_directory_path() / "aiv-gpu-check-XXXXXX").string();
      const char* made = ::mkdtemp(pattern.data());
      folder_ = made != nullptr ? made : pattern;
    }
    std::error_code error;
    fs::create_directories(folder_, error);
  }

  bool find_engine() {
    const auto engine = node::find_engine_dir("");
    if (!engine) return step("engine", false, engine.error().message());
    report_.body["engine"] = *engine;
    if (options_.software.empty()) {
      const auto seen = engine_devices(*engine);
      report_.body["engine_devices"] = seen;
      if (seen.empty()) {
        // Not a failure of the product: there is nothing to check.
        progress("the engine sees no GPU here (driver missing? the user not in groups render and video?)");
        return false;
      }
      report_.gpu_found = true;
      step("the engine sees a GPU", true, seen.front());
    }
    return true;
  }

  bool start_cluster() {
    progress("starting a cluster with one agent");
    const auto url = cluster_.start(folder_ + "/data", options_.software);
    if (!url) return step("cluster", false, url.error().message());
    auto api = ApiClient::connect({.server = *url, .key_file = folder_ + "/data/admin.key", .json = true});
    if (!api) return step("cluster", false, api.error().message());
    api_.emplace(std::move(*api));
    return true;
  }

  Json items(const std::string& path) {
    const auto answer = api_->call("GET", "/aiv/v1/" + path);
    return answer ? answer->value("items", Json::array()) : Json::array();
  }

  // The first device the agent can use: found by NVML or sysfs, matched with what Vulkan shows.
  bool find_devices() {
    const Json devices = items("devices");
    report_.body["devices"] = devices;
    for (const Json& device : devices) {
      if (!device.value("refused", "").empty()) continue;
      device_id_ = device.value("id", "");
      vram_ = device.value("vram_bytes", Bytes{0});
      free_before_ = device.value("free_bytes", Bytes{0});
      report_.gpu_found = true;
      return step("the agent offers a GPU", true,
                  fmt::format("{} {}, {} of {} free", device_id_, device.value("name", ""),
                              format_bytes(free_before_), format_bytes(vram_)));
    }
    return step("the agent offers a GPU", false,
                devices.empty() ? "it found none" : devices[0].value("refused", "no reason given"));
  }

  Bytes free_now() {
    for (const Json& device : items("devices")) {
      if (device.value("id", "") == device_id_) return device.value("free_bytes", Bytes{0});
    }
    return 0;
  }

  bool deploy() {
    std::string model = options_.model;
    if (model.empty()) {
      model = folder_ + "/random.gguf";
      RandomModelShape shape = {.name = "gpu-check", .ctx_train = kTooLargeCtx};
      if (options_.software.empty()) {
        shape = {.name = "gpu-check",
                 .layers = 12,
                 .embd = 1024,
                 .heads = 8,
                 .kv_heads = 4,
                 .feed_forward = 4096,
                 .ctx_train = kTooLargeCtx,
                 .vocab = 32768,
                 .f16 = true};
      }
      progress("writing a random model of " + format_bytes(random_model_bytes(shape).value_or(0)));
      if (auto written = write_random_model(shape, model); !written) {
        return step("model", false, written.error().message());
      }
    }
    model_ = fs::absolute(model).string();
    const auto start = steady_clock::now();
    const auto made = api_->call(
        "POST", "/aiv/v1/deployments",
        Json{{"model", model_}, {"name", kDeployment}, {"replicas", 1}, {"ctx", kCtx}, {"slots", 1}});
    if (!made) return step("placed and loaded", false, made.error().message());
    std::string state;
    std::string reason;
    while (seconds_since(start) < 300) {
      const auto now = api_->call("GET", std::string("/aiv/v1/deployments/") + kDeployment);
      if (now) {
        state = now->value("state", "");
        reason = now->value("reason", "");
        if (state == "ready" || state == "failed") break;
      }
      std::this_thread::sleep_for(100ms);
    }
    report_.body["load_ms"] = std::llround(seconds_since(start) * 1000);
    return step(
        "placed, loaded and proved by the agent", state == "ready",
        state == "ready" ? fmt::format("ready after {:.1f} s", seconds_since(start)) : state + ": " + reason);
  }

  // The proof once more, by this process, from the document the agent was given and the log the engine wrote;
  // then the driver's figures.
  void prove() {
    const std::string node_dir = folder_ + "/data/nodes/n1";
    const auto desired = node::load_desired(node_dir + "/desired.json");
    if (!desired || !*desired || (*desired)->replicas.empty()) {
      step("residency from the engine's log", false, "the agent's desired document cannot be read");
      return;
    }
    const ReplicaSpec spec = (*desired)->replicas.front();
    const std::string log =
        read_file(node::replica_paths(node_dir, spec.id).log(), kLogBytesMax).value_or("");
    ResidencyParser parser;
    std::vector<std::string> names;
    for (std::size_t at = 0; at < log.size();) {
      const std::size_t end = std::min(log.find('\n', at), log.size());
      const std::string line = log.substr(at, end - at);
      parser.line(line);
      constexpr std::string_view kUsing = "using device ";
      if (const std::size_t using_at = line.find(kUsing); using_at != std::string::npos) {
        const std::size_t name_at = using_at + kUsing.size();
        names.push_back(line.substr(name_at, line.find(' ', name_at) - name_at));
      }
      at = end + 1;
    }
    const auto proof = parser.prove(residency_expectation(spec, names));
    step("residency from the engine's log", proof.has_value(),
         proof ? fmt::format("{} graph splits, {} on the host", proof->splits,
                             format_bytes(proof->host_weights))
               : proof.error().message());
    if (!proof) return;
    compare(spec.devices.front(), proof->measured.front());
  }

  void compare(const DeviceBytes& estimate, const DeviceBytes& measured) {
    const Bytes driver = free_before_ - free_now();
    driver_bytes_ = std::max<Bytes>(driver, 0);
    const auto figures = [](const DeviceBytes& b) {
      return Json{{"weights_bytes", b.weights}, {"kv_bytes", b.kv}, {"compute_bytes", b.compute}};
    };
    report_.body["estimated"] = figures(estimate);
    report_.body["measured"] = figures(measured);
    report_.body["estimated_total_bytes"] = estimate.total();
    report_.body["driver_bytes"] = driver;
    const Bytes engine_total = measured.weights + measured.kv + measured.compute;
    const Bytes estimate_total = estimate.total() - estimate.overhead;
    step("the estimate covers the engine's buffers", engine_total <= estimate_total + kComputeMargin,
         fmt::format("estimated {}, measured {}", format_bytes(estimate_total), format_bytes(engine_total)));
    step("the driver shows the bytes on the GPU", driver >= measured.weights + measured.kv,
         fmt::format("{} gone from the device's free memory", format_bytes(driver)));
    step("the driver shows no more than estimate, overhead and margin",
         driver <= estimate.total() + kDriverMargin,
         fmt::format("{} of {} estimated", format_bytes(driver), format_bytes(estimate.total())));
  }

  // Tokens per second from outside, with the time of a one-token request taken off.
  void measure_speed() {
    const auto complete = [&](int tokens) -> Result<Json> {
      Json request = {{"model", kDeployment},
                      {"prompt", "once upon a time the old moon saw the sea"},
                      {"max_tokens", tokens},
                      {"temperature", 0},
                      {"ignore_eos", true}};
      return api_->call("POST", "/v1/completions", request);
    };
    const auto warm = complete(8);
    if (!warm) {
      step("answers", false, warm.error().message());
      return;
    }
    auto start = steady_clock::now();
    const auto one = complete(1);
    const double one_s = seconds_since(start);
    start = steady_clock::now();
    const auto many = complete(kTokens);
    const double many_s = seconds_since(start);
    if (!one || !many) {
      step("answers", false, one ? many.error().message() : one.error().message());
      return;
    }
    const Json usage = many->value("usage", Json::object());
    const auto tokens = usage.value("completion_tokens", std::int64_t{0});
    const double speed = many_s > one_s ? static_cast<double>(tokens - 1) / (many_s - one_s) : 0;
    report_.body["tokens_per_s"] = std::round(speed * 10) / 10;
    report_.body["first_token_ms"] = std::llround(one_s * 1000);
    step("answers", tokens > 1,
         fmt::format("{} tokens at {:.1f} tokens/s, first after {:.0f} ms", tokens, speed, one_s * 1000));
  }

  // A context whose cache is larger than any card: refused with a reason, and what runs is left alone.
  void try_too_big() {
    const auto answer = api_->exchange("POST", "/aiv/v1/deployments",
                                       Json{{"model", model_},
                                            {"name", "gpu-check-too-big"},
                                            {"replicas", 1},
                                            {"ctx", kTooLargeCtx},
                                            {"slots", 1}});
    if (!answer) {
      step("a model that is too big is refused", false, answer.error().message());
      return;
    }
    const std::string words = answer->body.is_object() ? dump_json(answer->body) : "";
    const bool refused = answer->status == 422 && answer->body.is_object() &&
                         answer->body.value("error", Json::object()).value("code", "") == "does_not_fit";
    step("a model that is too big is refused", refused, words);
    report_.body["too_big"] = {{"status", answer->status}, {"answer", answer->body}};
    const auto still = api_->call("GET", std::string("/aiv/v1/deployments/") + kDeployment);
    step("what runs is left alone by it", still && still->value("state", "") == "ready",
         still ? still->value("state", "") : still.error().message());
  }

  void unload() {
    const auto gone = api_->call("DELETE", std::string("/aiv/v1/deployments/") + kDeployment);
    if (!gone) {
      step("unloading frees the GPU", false, gone.error().message());
      return;
    }
    const auto start = steady_clock::now();
    // Other programs come and go on a real card; a tenth of a small load is still told from nothing freed.
    const Bytes allowed = std::min<Bytes>(64 * kMiB, driver_bytes_ / 10);
    Bytes left = 0;
    do {
      std::this_thread::sleep_for(200ms);
      left = free_before_ - free_now();
    } while (left > allowed && seconds_since(start) < 30);
    step("unloading frees the GPU", left <= allowed,
         fmt::format("{} still held after {:.1f} s", format_bytes(std::max<Bytes>(left, 0)),
                     seconds_since(start)));
  }

  GpuCheckOptions options_;
  GpuCheckReport report_;
  std::string folder_;
  Cluster cluster_;
  std::optional<ApiClient> api_;
  std::string device_id_;
  std::string model_;
  Bytes vram_ = 0;
  Bytes free_before_ = 0;
  Bytes driver_bytes_ = 64 * kMiB;  // gone from the device's free memory while the model was loaded
};

}  // namespace

bool GpuCheckReport::held() const {
  if (!gpu_found || steps.empty()) return false;
  for (const GpuCheckStep& step : steps) {
    if (!step.held) return false;
  }
  return true;
}

Json GpuCheckReport::to_json() const {
  Json out = body;
  out["gpu_found"] = gpu_found;
  Json checks = Json::array();
  for (const GpuCheckStep& step : steps) {
    checks.push_back({{"name", step.name}, {"ok", step.held}, {"detail", step.detail}});
  }
  out["checks"] = checks;
  out["ok"] = held();
  return out;
}

GpuCheckReport run_gpu_check(const GpuCheckOptions& options) {
  return GpuCheck(options).run();
}

}  // namespace aiv::cli
