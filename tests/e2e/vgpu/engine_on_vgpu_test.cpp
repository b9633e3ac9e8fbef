// The real llama-server on software GPUs: what the layer promises, seen from outside. Skipped where the engine or a
// model is missing.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <regex>
#include <thread>

#include "base/file.hpp"
#include "node/engine_dir.hpp"
#include "node/software_gpu.hpp"

namespace aiv::node {
namespace {

namespace fs = std::filesystem;
using namespace std::chrono_literals;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr Bytes kMib = 1024 * 1024;

// A small model with a trained tokenizer: optional test data, or the demo model of this repository.
std::string find_model() {
  const char* data = std::getenv("AIV_TEST_DATA");
  const fs::path source = AIV_SOURCE_DIR;
  for (const fs::path& path : {fs::path(data == nullptr ? "" : data) / "models/stories260K.gguf",
                               source / "../shared/models/stories260K.gguf", source / "models/demo.gguf"}) {
    std::error_code error;
    if (fs::is_regular_file(path, error)) return fs::canonical(path).string();
  }
  return "";
}

// One run of the engine, its output in a file. Killed at the latest by the destructor.
class Engine {
 public:
  Engine(const std::string& program, std::vector<std::string> arguments, std::vector<std::string> environment,
         std::string log_file)
      : log_file_(std::move(log_file)) {
    arguments.insert(arguments.begin(), program);
    environment.push_back("PATH=/usr/bin:/bin");
    environment.push_back("GGML_NO_BACKTRACE=1");
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, 1, log_file_.c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600);
    posix_spawn_file_actions_adddup2(&actions, 1, 2);
    const auto pointers = [](std::vector<std::string>& strings) {
      std::vector<char*> result;
      for (std::string& text : strings) result.push_back(text.data());
      result.push_back(nullptr);
      return result;
    };
    const int error = ::posix_spawn(&pid_, program.c_str(), &actions, nullptr, pointers(arguments).data(),
                                    pointers(environment).data());
    posix_spawn_file_actions_destroy(&actions);
    EXPECT_EQ(error, 0) << program;
  }
  ~Engine() { kill_9(); }
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] std::string log() const { return read_file(log_file_, 64 * kMib).value_or(""); }
  void kill_9() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    wait();
  }
  int wait() {
    int status = -1;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  // True once the log holds the text; false if the engine ends first or after a minute.
  bool wait_for_log(const std::string& text) {
    const auto deadline = std::chrono::steady_clock::now() + 60s;
    while (std::chrono::steady_clock::now() < deadline) {
      if (log().find(text) != std::string::npos) return true;
      siginfo_t info{};
      ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOHANG | WNOWAIT);
      if (info.si_pid != 0) return log().find(text) != std::string::npos;
      std::this_thread::sleep_for(5ms);
    }
    return false;
  }

 private:
  std::string log_file_;
  pid_t pid_ = -1;
};

class EngineOnVgpu : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto engine = find_engine_dir("");
    if (!engine) GTEST_SKIP() << engine.error().message();
    program_ = *engine + "/llama-server";
    model_ = find_model();
    if (model_.empty()) GTEST_SKIP() << "no small model: set AIV_TEST_DATA to a folder with models/stories260K.gguf";
    std::string pattern = (fs::temp_directory_path() / "aiv-vgpu-e2e-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override {
    if (!dir_.empty()) fs::remove_all(dir_);
  }

  std::shared_ptr<SoftwareGpus> prepare(std::vector<SoftwareGpuSpec> specs, Bytes storage_range = 2147483647) {
    auto gpus = SoftwareGpus::prepare({.dir = dir_ + "/gpus",
                                       .node = "n1",
                                       .gpus = std::move(specs),
                                       .max_storage_buffer_range = storage_range,
                                       .layer_dir = "",
                                       .shader_cache_dir = ""});
    EXPECT_TRUE(gpus.has_value()) << (gpus ? "" : gpus.error().message());
    return gpus ? *gpus : nullptr;
  }

  std::string list_devices(const SoftwareGpus& gpus, const std::vector<std::string>& uuids) {
    Engine engine(program_, {"--list-devices"}, gpus.environment_for(uuids).value(), dir_ + "/list.log");
    EXPECT_EQ(engine.wait(), 0);
    return engine.log();
  }

  std::unique_ptr<Engine> serve(const SoftwareGpus& gpus, const std::vector<std::string>& uuids, int ctx,
                                std::vector<std::string> more = {}) {
    const std::string name = dir_ + "/engine" + std::to_string(++engines_);
    std::vector<std::string> arguments = {"-m",   model_,         "--host", name + ".sock", "-ngl", "all",
                                          "--fit", "off",         "-c",     std::to_string(ctx),
                                          "-np", "1",             "-ub",    "64",           "-fa",  "on",
                                          "-lv", "4",             "--no-ui", "--cache-ram", "0",    "--offline",
                                          "-t",  "1",             "--no-kv-unified"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return std::make_unique<Engine>(program_, arguments, gpus.environment_for(uuids).value(), name + ".log");
  }

  // The model is loaded and the server takes requests.
  static constexpr const char* kListening = "listening on unix";

  std::string program_;
  std::string model_;
  std::string dir_;
  int engines_ = 0;
};

std::string uuid_of(const SoftwareGpus& gpus, std::size_t index) { return gpus.devices().at(index).uuid; }

TEST_F(EngineOnVgpu, shows_exactly_the_devices_it_was_given_with_name_size_and_order) {
  const auto gpus = prepare({{.name = "GTX 1080, Founders", .vram_bytes = 8192 * kMib},
                             {.name = "RX 580", .vram_bytes = 4096 * kMib},
                             {.name = "RX 580", .vram_bytes = 2048 * kMib}});
  const std::string all = list_devices(*gpus, {uuid_of(*gpus, 0), uuid_of(*gpus, 1), uuid_of(*gpus, 2)});
  EXPECT_THAT(all, HasSubstr("Vulkan0: GTX 1080, Founders (8192 MiB, 8192 MiB free)"));
  EXPECT_THAT(all, HasSubstr("Vulkan1: RX 580 (4096 MiB, 4096 MiB free)"));
  EXPECT_THAT(all, HasSubstr("Vulkan2: RX 580 (2048 MiB, 2048 MiB free)"));
  const std::string swapped = list_devices(*gpus, {uuid_of(*gpus, 2), uuid_of(*gpus, 0)});
  EXPECT_THAT(swapped, HasSubstr("Vulkan0: RX 580 (2048 MiB"));
  EXPECT_THAT(swapped, HasSubstr("Vulkan1: GTX 1080, Founders"));
  EXPECT_THAT(swapped, Not(HasSubstr("Vulkan2")));
}

TEST_F(EngineOnVgpu, loads_onto_the_device_is_counted_seen_by_others_and_freed_by_kill_9) {
  const auto gpus = prepare({{.name = "GTX 1080", .vram_bytes = 256 * kMib}});
  const std::string gpu = uuid_of(*gpus, 0);
  const auto engine = serve(*gpus, {gpu}, 4096);
  ASSERT_TRUE(engine->wait_for_log(kListening)) << engine->log();
  EXPECT_THAT(engine->log(), ContainsRegex("Vulkan0 KV buffer size"));
  EXPECT_THAT(engine->log(), ContainsRegex("graph.*splits = 2[,\n]"));

  const auto use = gpus->use_of(gpu).value();
  ASSERT_EQ(use.holders.size(), 1U);
  EXPECT_EQ(use.holders[0].pid, engine->pid());
  EXPECT_GT(use.total_bytes, 1 * kMib);
  EXPECT_LT(use.total_bytes, 64 * kMib);

  // Rounded down by the engine, as the driver's figure is.
  const auto free_mib = std::to_string((256 * kMib - use.total_bytes) / kMib);
  EXPECT_THAT(list_devices(*gpus, {gpu}), HasSubstr("GTX 1080 (256 MiB, " + free_mib + " MiB free)"));

  engine->kill_9();
  EXPECT_EQ(gpus->use_of(gpu)->total_bytes, 0);
  EXPECT_THAT(list_devices(*gpus, {gpu}), HasSubstr("(256 MiB, 256 MiB free)"));
}

TEST_F(EngineOnVgpu, a_clean_exit_leaves_nothing_in_the_accounts) {
  const auto gpus = prepare({{.name = "GTX 1080", .vram_bytes = 256 * kMib}});
  const auto engine = serve(*gpus, {uuid_of(*gpus, 0)}, 1024);
  ASSERT_TRUE(engine->wait_for_log(kListening)) << engine->log();
  ::kill(engine->pid(), SIGTERM);
  EXPECT_EQ(engine->wait(), 0);
  EXPECT_TRUE(gpus->use_of(uuid_of(*gpus, 0))->holders.empty());
}

TEST_F(EngineOnVgpu, what_does_not_fit_is_refused_by_the_device_itself) {
  const auto gpus = prepare({{.name = "tiny", .vram_bytes = 16 * kMib}});
  const auto engine = serve(*gpus, {uuid_of(*gpus, 0)}, 65536);  // 40 MiB of KV
  EXPECT_EQ(engine->wait(), 1) << engine->log();
  EXPECT_THAT(engine->log(), HasSubstr("failed to allocate buffer for kv cache"));
  EXPECT_EQ(gpus->use_of(uuid_of(*gpus, 0))->total_bytes, 0);
}

TEST_F(EngineOnVgpu, memory_of_another_program_cannot_be_had) {
  const auto gpus = prepare({{.name = "shared", .vram_bytes = 128 * kMib}});
  const std::string gpu = uuid_of(*gpus, 0);
  ASSERT_TRUE(gpus->set_foreign(gpu, 120 * kMib, "student7"));
  EXPECT_THAT(list_devices(*gpus, {gpu}), HasSubstr("(128 MiB, 8 MiB free)"));
  const auto refused = serve(*gpus, {gpu}, 16384);
  EXPECT_EQ(refused->wait(), 1) << refused->log();
  ASSERT_TRUE(gpus->set_foreign(gpu, 0, "student7"));
  const auto accepted = serve(*gpus, {gpu}, 16384);
  EXPECT_TRUE(accepted->wait_for_log(kListening)) << accepted->log();
}

TEST_F(EngineOnVgpu, a_device_with_a_small_storage_range_sends_work_to_the_cpu_which_the_graph_splits_show) {
  const auto gpus = prepare({{.name = "old card", .vram_bytes = 256 * kMib}}, 100 * 1024);
  const auto engine = serve(*gpus, {uuid_of(*gpus, 0)}, 256);
  ASSERT_TRUE(engine->wait_for_log("splits = ")) << engine->log();
  const std::string log = engine->log();
  // The line that claims all is well, and the one that tells the truth.
  EXPECT_TRUE(std::regex_search(log, std::regex("offloaded ([0-9]+)/\\1 layers to GPU"))) << log;
  std::smatch match;
  ASSERT_TRUE(std::regex_search(log, match, std::regex("splits = ([0-9]+)"))) << log;
  EXPECT_GT(std::stoi(match[1]), 2);
}

TEST_F(EngineOnVgpu, two_devices_share_a_model_by_the_tensor_split) {
  const auto gpus = prepare(
      {{.name = "GTX 1080", .vram_bytes = 256 * kMib}, {.name = "RX 580", .vram_bytes = 256 * kMib}});
  const auto engine = serve(*gpus, {uuid_of(*gpus, 0), uuid_of(*gpus, 1)}, 4096,
                            {"-dev", "Vulkan0,Vulkan1", "-sm", "layer", "-ts", "1,1"});
  ASSERT_TRUE(engine->wait_for_log(kListening)) << engine->log();
  EXPECT_THAT(engine->log(), ContainsRegex("Vulkan0 KV buffer size"));
  EXPECT_THAT(engine->log(), ContainsRegex("Vulkan1 KV buffer size"));
  EXPECT_GT(gpus->use_of(uuid_of(*gpus, 0))->total_bytes, 0);
  EXPECT_GT(gpus->use_of(uuid_of(*gpus, 1))->total_bytes, 0);
}

TEST_F(EngineOnVgpu, a_broken_configuration_is_told_and_gives_no_device_instead_of_a_crash) {
  const auto gpus = prepare({{.name = "GTX 1080", .vram_bytes = 256 * kMib}});
  ASSERT_TRUE(write_file_durably(dir_ + "/gpus/devices.conf", "nonsense"));
  const std::string out = list_devices(*gpus, {uuid_of(*gpus, 0)});
  EXPECT_THAT(out, HasSubstr("aiv-vgpu: "));
  EXPECT_THAT(out, Not(HasSubstr("Vulkan0")));
}

}  // namespace
}  // namespace aiv::node
