// The agent with the real llama-server on software GPUs. Skipped, with the reason, where the engine or a
// model is missing.
#include <gmock/gmock.h>
#include <signal.h>

#include <cstdlib>
#include <filesystem>

#include "base/file.hpp"
#include "base/units.hpp"
#include "core/vram.hpp"
#include "harness.hpp"
#include "node/engine_dir.hpp"
#include "node/replica_files.hpp"

namespace aiv::node::test {
namespace {

namespace fs = std::filesystem;
using net::seconds;
using testing::HasSubstr;

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

class LlamaNode : public NodeTest {
 protected:
  void SetUp() override {
    const auto engine = find_engine_dir("");
    if (!engine) GTEST_SKIP() << engine.error().message();
    engine_dir_ = *engine;
    model_ = find_model();
    if (model_.empty())
      GTEST_SKIP() << "no small model: set AIV_TEST_DATA to a folder with models/stories260K.gguf";
    const auto bytes = read_file(model_, 64 * 1024 * 1024);
    ASSERT_TRUE(bytes);
    MemorySource source{std::string_view(*bytes)};
    auto facts = read_model(source);
    ASSERT_TRUE(facts) << facts.error().message();
    facts_ = *facts;
  }
  AgentOptions options() const {
    AgentOptions o;
    o.engine_dir = engine_dir_;
    o.gpus = "GTX 1080:256MiB,RX 580:128MiB";
    return o;
  }
  // As the planner makes it, for these devices.
  ReplicaSpec spec(const std::string& id, std::vector<std::string> devices) const {
    ReplicaSpec s;
    s.id = id;
    s.deployment = "tiny";
    s.model = "tiny";
    s.model_path = model_;
    s.ctx = 512;
    s.slots = 2;
    s.token_embd_on_device = prefer_token_embd_on_device(facts_, static_cast<int>(devices.size()));
    s.tied_output = facts_.tied_output;
    EstimateOptions e;
    e.ctx = s.ctx;
    e.parallel = s.slots;
    e.devices = static_cast<int>(devices.size());
    e.backend = EstimateBackend::kVulkan;
    e.alignment = 16;
    e.token_embd_on_device = s.token_embd_on_device;
    const auto figures = estimate(facts_, e);
    EXPECT_TRUE(figures);
    s.host_weights = figures->host_weights;
    s.largest_tensor = figures->largest_operand;
    for (std::size_t i = 0; i < devices.size(); ++i)
      s.devices.push_back(figures->devices[i].device_bytes(devices[i], 4 * kMiB));
    return s;
  }
  std::string engine_dir_;
  std::string model_;
  ModelFacts facts_;
};

TEST_F(LlamaNode, IsProvedOnASoftwareGpuAndStreams) {
  start_agent(options());
  const auto since = net::Clock::now();
  ASSERT_EQ(desire({spec("tiny-1", {"n1/0"})}).status, 200);
  const ReplicaStatus ready = await_state("tiny-1", ReplicaState::kReady, seconds(120));
  std::printf("ready after %lld ms\n",
              static_cast<long long>(
                  std::chrono::duration_cast<net::milliseconds>(net::Clock::now() - since).count()));
  ASSERT_EQ(ready.measured.size(), 1U) << ready.reason;
  EXPECT_NEAR(static_cast<double>(ready.measured[0].weights),
              static_cast<double>(spec("x", {"n1/0"}).devices[0].weights), 10486);
  ASSERT_TRUE(run_until([this] { return observed().devices[0].free_bytes < 256 * kMiB; }, seconds(5)));
  const NodeObserved seen = observed();
  EXPECT_LT(seen.devices[0].free_bytes, seen.devices[0].vram_bytes);
  EXPECT_EQ(seen.devices[0].foreign_bytes, 0) << "our own engine is not a stranger";
  EXPECT_EQ(seen.devices[1].free_bytes, seen.devices[1].vram_bytes);
  const Answer answer = request(
      "POST", "/node/v1/replicas/tiny-1/v1/chat/completions",
      R"({"messages":[{"role":"user","content":"Once upon a time"}],"max_tokens":16,"stream":true,"temperature":0})");
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.body, HasSubstr("data: [DONE]"));
  EXPECT_EQ(answer.end(), "complete");
  EXPECT_THAT(net::header_or(answer.headers, "content-type", ""), HasSubstr("text/event-stream"));
  desire({});
  EXPECT_TRUE(await_gone("tiny-1"));
  EXPECT_TRUE(await_free(0, 256 * kMiB));
}

TEST_F(LlamaNode, IsProvedOverTwoSoftwareGpus) {
  start_agent(options());
  desire({spec("wide-1", {"n1/0", "n1/1"})});
  const ReplicaStatus ready = await_state("wide-1", ReplicaState::kReady, seconds(120));
  ASSERT_EQ(ready.measured.size(), 2U) << ready.reason;
  EXPECT_GT(ready.measured[1].weights, 0);
  EXPECT_EQ(
      request("POST", "/node/v1/replicas/wide-1/completion", R"({"prompt":"Once","n_predict":4})").end(),
      "complete");
}

TEST_F(LlamaNode, BytesThatAreNotWhereTheyWerePlannedAreNeverReady) {
  start_agent(options());
  ReplicaSpec wrong = spec("wrong-1", {"n1/0"});
  wrong.devices[0].weights += kMiB;
  desire({wrong});
  const ReplicaStatus failed = await_state("wrong-1", ReplicaState::kFailed, seconds(120));
  EXPECT_THAT(failed.reason, HasSubstr("weights on Vulkan0 are"));
  EXPECT_TRUE(living_shims(data_dir_).empty());
}

TEST_F(LlamaNode, ATensorThatTheDriverWouldLeaveToTheCpuIsRefusedBeforeTheLoad) {
  start_agent(options());
  ReplicaSpec huge = spec("huge-1", {"n1/0"});
  huge.largest_tensor = 4 * kGiB;
  desire({huge});
  const ReplicaStatus failed = await_state("huge-1", ReplicaState::kFailed);
  EXPECT_THAT(failed.reason, HasSubstr("would compute it on the CPU"));
}

TEST_F(LlamaNode, ATruncatedModelIsRefusedWithTheEnginesWords) {
  start_agent(options());
  const auto whole = read_file(model_, 64 * 1024 * 1024);
  ASSERT_TRUE(whole);
  ReplicaSpec cut = spec("cut-1", {"n1/0"});
  cut.model_path = dir_ + "/cut.gguf";
  ASSERT_TRUE(
      write_file_durably(cut.model_path, std::string_view(*whole).substr(0, whole->size() / 2), 0600));
  desire({cut});
  const ReplicaStatus failed = await_state("cut-1", ReplicaState::kFailed);
  EXPECT_THAT(failed.reason, HasSubstr("cannot load the model"));
  EXPECT_EQ(failed.restarts, 0);
}

TEST_F(LlamaNode, AnAgentThatWasKilledAdoptsWithoutAReload) {
  start_agent(options());
  desire({spec("tiny-1", {"n1/0"})});
  const ReplicaStatus before = await_state("tiny-1", ReplicaState::kReady, seconds(120));
  kill_agent(SIGKILL);
  start_agent(options());
  const ReplicaStatus after = await_state("tiny-1", ReplicaState::kReady, seconds(20));
  EXPECT_EQ(after.pid, before.pid);
  EXPECT_EQ(after.measured, before.measured);
  ::kill(static_cast<pid_t>(after.pid), SIGKILL);
  ASSERT_TRUE(await_dead(before.pid, seconds(5)));
  run_until([&] { return replica("tiny-1").pid != before.pid; }, seconds(10));
  EXPECT_NE(await_state("tiny-1", ReplicaState::kReady, seconds(60)).pid, before.pid);
}

}  // namespace
}  // namespace aiv::node::test
