#include "core/engine_flags.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace aiv {
namespace {

using testing::Contains;
using testing::HasSubstr;
using testing::Not;

ReplicaSpec good_spec() {
  ReplicaSpec spec;
  spec.id = "tiny-1";
  spec.deployment = "tiny";
  spec.model = "tiny";
  spec.model_path = "/models/tiny.gguf";
  spec.ctx = 4096;
  spec.slots = 4;
  spec.devices = {{.device_id = "n1/0", .weights = 1, .kv = 1}};
  return spec;
}

EngineSite good_site() {
  return {.program = "/engine/llama-server",
          .library_dir = "/engine",
          .home = "/data/home",
          .socket = "/data/run/a.sock",
          .api_key_file = "/data/replicas/tiny-1/api.key",
          .device_names = {"Vulkan0"},
          .device_environment = {"GGML_VK_VISIBLE_DEVICES=0"}};
}

// The value after `flag`, or "(absent)".
std::string value_of(const EngineCommand& command, const std::string& flag) {
  const auto at = std::ranges::find(command.arguments, flag);
  if (at == command.arguments.end()) return "(absent)";
  return at + 1 == command.arguments.end() ? "" : *(at + 1);
}

TEST(EngineFlags, EveryFlagThatDecidesWhereMemoryLiesIsSaid) {
  const auto command = engine_command(good_spec(), good_site());
  ASSERT_TRUE(command) << command.error().message();
  EXPECT_EQ(command->program, "/engine/llama-server");
  EXPECT_EQ(value_of(*command, "-m"), "/models/tiny.gguf");
  EXPECT_EQ(value_of(*command, "--host"), "/data/run/a.sock");
  EXPECT_EQ(value_of(*command, "-dev"), "Vulkan0");
  EXPECT_EQ(value_of(*command, "-ngl"), "all");
  EXPECT_EQ(value_of(*command, "--fit"), "off");
  EXPECT_EQ(value_of(*command, "-sm"), "none");
  EXPECT_EQ(value_of(*command, "-c"), "4096");
  EXPECT_EQ(value_of(*command, "-np"), "4");
  EXPECT_EQ(value_of(*command, "-fa"), "on");
  EXPECT_EQ(value_of(*command, "-ub"), "512");
  EXPECT_EQ(value_of(*command, "-ctk"), "f16");
  EXPECT_EQ(value_of(*command, "-ctv"), "f16");
  EXPECT_EQ(value_of(*command, "-lv"), "4");
  EXPECT_EQ(value_of(*command, "--cache-ram"), "0");
  EXPECT_EQ(value_of(*command, "--api-key-file"), "/data/replicas/tiny-1/api.key");
  for (const char* flag : {"-kvo", "--no-kv-unified", "--no-ui", "--metrics", "--slots", "--offline"})
    EXPECT_THAT(command->arguments, Contains(flag));
  for (const char* flag :
       {"-ot", "-ts", "--embeddings", "--rerank", "--rpc", "--kv-unified", "-nkvo", "--log-file"})
    EXPECT_THAT(command->arguments, Not(Contains(flag)));
}

TEST(EngineFlags, TheEnvironmentIsWholeAndNamesOnlyTheReplicasDevices) {
  const auto command = engine_command(good_spec(), good_site());
  ASSERT_TRUE(command);
  EXPECT_THAT(command->environment, Contains("GGML_VK_VISIBLE_DEVICES=0"));
  EXPECT_THAT(command->environment, Contains("GGML_NO_BACKTRACE=1"));
  EXPECT_THAT(command->environment, Contains("LLAMA_SERVER_ROUTER_PORT=1"));
  EXPECT_THAT(command->environment, Contains("HOME=/data/home"));
  for (const std::string& entry : command->environment) {
    EXPECT_THAT(entry, Not(HasSubstr("LLAMA_ARG")));
    EXPECT_THAT(entry, Not(HasSubstr("SYSMEM")));
    EXPECT_THAT(entry, Not(HasSubstr("UNIFIED_MEMORY")));
  }
}

TEST(EngineFlags, SeveralDevicesAreSplitByLayersInTheGivenShares) {
  ReplicaSpec spec = good_spec();
  spec.devices = {{.device_id = "n1/0", .split = 2}, {.device_id = "n1/1", .split = 1}};
  spec.token_embd_on_device = true;
  EngineSite site = good_site();
  site.device_names = {"Vulkan0", "Vulkan1"};
  const auto command = engine_command(spec, site);
  ASSERT_TRUE(command) << command.error().message();
  EXPECT_EQ(value_of(*command, "-dev"), "Vulkan0,Vulkan1");
  EXPECT_EQ(value_of(*command, "-sm"), "layer");
  EXPECT_EQ(value_of(*command, "-ts"), "2,1");
  EXPECT_EQ(value_of(*command, "-ot"), "token_embd.weight=Vulkan1");
}

TEST(EngineFlags, EmbeddingAndRerankingAreModesOfTheirOwn) {
  ReplicaSpec spec = good_spec();
  spec.kind = ModelKind::kEmbedding;
  EXPECT_THAT(engine_command(spec, good_site())->arguments, Contains("--embeddings"));
  spec.kind = ModelKind::kRerank;
  EXPECT_THAT(engine_command(spec, good_site())->arguments, Contains("--rerank"));
}

TEST(EngineFlags, TheFakeEngineTakesTheSameCommandLine) {
  ReplicaSpec spec = good_spec();
  spec.engine = EngineKind::kFake;
  spec.model_path = "";
  spec.model = "fake-small";
  EXPECT_EQ(value_of(*engine_command(spec, good_site()), "-m"), "fake:fake-small");
  spec.model_path = "fake:fake-small?load_ms=5";
  EXPECT_EQ(value_of(*engine_command(spec, good_site()), "-m"), "fake:fake-small?load_ms=5");
}

struct BadSpec {
  const char* name;
  void (*spoil)(ReplicaSpec&);
  const char* field;
};

TEST(EngineFlags, ASpecThatMustNotRunIsRefusedByItsField) {
  const BadSpec cases[] = {
      {"no device", [](ReplicaSpec& s) { s.devices.clear(); }, "devices"},
      {"a path in the id", [](ReplicaSpec& s) { s.id = "../x"; }, "id"},
      {"a flag as id", [](ReplicaSpec& s) { s.id = "-x"; }, "id"},
      {"empty id", [](ReplicaSpec& s) { s.id = ""; }, "id"},
      {"relative model", [](ReplicaSpec& s) { s.model_path = "tiny.gguf"; }, "model_path"},
      {"a flag as model", [](ReplicaSpec& s) { s.model_path = "--rpc"; }, "model_path"},
      {"zero context", [](ReplicaSpec& s) { s.ctx = 0; }, "ctx"},
      {"huge context", [](ReplicaSpec& s) { s.ctx = kEngineCtxMax + 1; }, "ctx"},
      {"less context than slots", [](ReplicaSpec& s) { s.ctx = 3; }, "ctx"},
      {"no slot", [](ReplicaSpec& s) { s.slots = 0; }, "slots"},
      {"unknown cache type", [](ReplicaSpec& s) { s.cache_type_k = "q8_0 --rpc x"; }, "cache_type_k"},
      {"quantised V without flash attention",
       [](ReplicaSpec& s) {
         s.cache_type_v = "q8_0";
         s.flash_attn = false;
       },
       "cache_type_v"},
      {"one device twice", [](ReplicaSpec& s) { s.devices.push_back(s.devices.front()); },
       "devices[1].device_id"},
      {"negative bytes", [](ReplicaSpec& s) { s.devices[0].kv = -1; }, "devices[0]"},
  };
  for (const BadSpec& c : cases) {
    ReplicaSpec spec = good_spec();
    c.spoil(spec);
    const auto command = engine_command(spec, good_site());
    ASSERT_FALSE(command) << c.name;
    EXPECT_EQ(command.error().where, c.field) << c.name;
    EXPECT_EQ(command.error().code, ErrorCode::kInvalidArgument) << c.name;
  }
}

TEST(EngineFlags, ASocketPathThatTheKernelWouldCutIsRefused) {
  EngineSite site = good_site();
  site.socket = "/" + std::string(kSocketPathBytesMax - 6, 'a') + ".sock";
  EXPECT_TRUE(engine_command(good_spec(), site));
  site.socket = "/" + std::string(kSocketPathBytesMax - 5, 'a') + ".sock";
  EXPECT_FALSE(engine_command(good_spec(), site));
}

}  // namespace
}  // namespace aiv
