// The logs are what llama-server v0.5.0 wrote at -lv 4 on a virtual GPU, with the flags named at each test,
// cut to the lines between start and "listening". The model has 5 layers, tied output, F32: 131,072 bytes of
// embedding, 181,760 per layer, 256 of output norm; 512 cells in 2 slots take 65,536 bytes of cache per
// layer.
#include "core/residency.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>

namespace aiv {
namespace {

using testing::HasSubstr;

constexpr Bytes kEmbedding = 131'072;
constexpr Bytes kLayer = 181'760;
constexpr Bytes kNorm = 256;
constexpr Bytes kCacheLayer = 65'536;

std::string log_text(const std::string& name) {
  std::ifstream file(std::string(AIV_LOGS_DIR) + "/" + name + ".log");
  EXPECT_TRUE(file) << name;
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

ResidencyParser parsed(const std::string& text) {
  ResidencyParser parser;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) parser.line(line);
  return parser;
}

ResidencyExpectation one_device() {
  return {
      .device_names = {"Vulkan0"},
      .devices = {{.device_id = "n1/0", .weights = kEmbedding + 5 * kLayer + kNorm, .kv = 5 * kCacheLayer}},
      .host_weights = kEmbedding,
      .token_embd_on_device = false};
}

std::string refusal(const std::string& log, const ResidencyExpectation& expected) {
  const auto proof = parsed(log_text(log)).prove(expected);
  return proof ? std::string("PROVED") : proof.error().reason;
}

TEST(Residency, EverythingOnTheDeviceIsProvedAndMeasured) {
  const auto proof = parsed(log_text("all")).prove(one_device());
  ASSERT_TRUE(proof) << proof.error().reason;
  EXPECT_EQ(proof->splits, 2);
  ASSERT_EQ(proof->measured.size(), 1U);
  EXPECT_EQ(proof->measured[0].device_id, "n1/0");
  EXPECT_NEAR(static_cast<double>(proof->measured[0].weights), 1'040'128.0, 10'486.0);
  EXPECT_NEAR(static_cast<double>(proof->measured[0].kv), 327'680.0, 10'486.0);
  EXPECT_NEAR(static_cast<double>(proof->measured[0].compute), 1'591'312.0, 10'486.0);
  EXPECT_GT(proof->host_weights, 0);
}

TEST(Residency, WithTheEmbeddingOverrideOneSplitAndNoHostBufferAreProved) {
  auto expected = one_device();
  expected.token_embd_on_device = true;
  expected.host_weights = 0;
  const auto proof = parsed(log_text("override")).prove(expected);
  ASSERT_TRUE(proof) << proof.error().reason;
  EXPECT_EQ(proof->splits, 1);
  EXPECT_EQ(proof->host_weights, 0);
}

TEST(Residency, AnOverrideThatTheEngineDidNotFollowIsRefused) {
  auto expected = one_device();
  expected.token_embd_on_device = true;
  expected.host_weights = 0;
  EXPECT_THAT(refusal("all", expected), HasSubstr("weights on the CPU: 0.12 MiB"));
}

TEST(Residency, TwoLayersOnTheDeviceOnlyIsRefused) {  // -ngl 2
  const std::string reason = refusal("ngl2", one_device());
  EXPECT_THAT(reason, HasSubstr("weights on the CPU: 0.82 MiB"));
  EXPECT_THAT(reason, HasSubstr("KV cache on the CPU: 0.25 MiB"));
  EXPECT_THAT(reason, HasSubstr("46 graph splits"));
}

TEST(Residency, TheCacheOnTheCpuIsRefusedThoughAllLayersAreOffloaded) {  // -nkvo
  const std::string reason = refusal("nkvo", one_device());
  EXPECT_THAT(log_text("nkvo"), HasSubstr("offloaded 6/6 layers to GPU"));
  EXPECT_THAT(reason, HasSubstr("KV cache on the CPU: 0.31 MiB"));
  EXPECT_THAT(reason, HasSubstr("12 graph splits"));
}

TEST(Residency, SomeTensorsOnTheCpuAreRefusedThoughAllLayersAreOffloaded) {  // -ot ffn_up=CPU
  EXPECT_THAT(log_text("ot_cpu"), HasSubstr("offloaded 6/6 layers to GPU"));
  EXPECT_THAT(refusal("ot_cpu", one_device()), HasSubstr("weights on the CPU: 0.99 MiB"));
}

TEST(Residency, NoDeviceAtAllIsRefusedThoughAllLayersAreOffloaded) {  // -dev none
  EXPECT_THAT(log_text("dev_none"), HasSubstr("offloaded 6/6 layers to GPU"));
  const std::string reason = refusal("dev_none", one_device());
  EXPECT_THAT(reason, HasSubstr("weights on the CPU: 0.99 MiB"));
  EXPECT_THAT(reason, HasSubstr("the engine does not use Vulkan0"));
}

TEST(Residency, TensorsOverTheStorageRangeAreRefused) {  // maxStorageBufferRange 100,000 bytes
  EXPECT_THAT(log_text("low_range"), HasSubstr("offloaded 6/6 layers to GPU"));
  const std::string reason = refusal("low_range", one_device());
  EXPECT_THAT(reason, HasSubstr("weights on the CPU"));
  EXPECT_THAT(reason, HasSubstr("37 graph splits"));
}

TEST(Residency, ATiedOutputOnTheCpuIsFoundWhereTheHostBufferLooksRight) {
  // What Vulkan leaves when only the output tensor is over the range: the host holds just the embedding, as
  // it should; the device lacks its copy and the graph has one split more.
  std::string log = log_text("all");
  log.replace(log.find("0.99 MiB"), 8, "0.87 MiB");
  log.replace(log.find("splits = 2"), 10, "splits = 3");
  const auto proof = parsed(log).prove(one_device());
  ASSERT_FALSE(proof);
  EXPECT_THAT(proof.error().reason, HasSubstr("weights on Vulkan0 are 0.87 MiB, not the 0.99 MiB"));
  EXPECT_THAT(proof.error().reason, HasSubstr("3 graph splits instead of at most 2"));
  EXPECT_THAT(proof.error().reason, testing::Not(HasSubstr("weights on the CPU")));
}

TEST(Residency, FitOnASmallCardThatChoosesTheCpuIsRefused) {  // --fit on, 2 MiB card
  EXPECT_THAT(refusal("fit_small", one_device()), HasSubstr("weights on the CPU: 0.99 MiB"));
}

TEST(Residency, TheEmbeddingInPinnedMemoryCountsAsHost) {  // -lm none calls it "Vulkan_Host"
  EXPECT_EQ(refusal("lm_none", one_device()), "PROVED");
  auto none_allowed = one_device();
  none_allowed.host_weights = 0;
  EXPECT_THAT(refusal("lm_none", none_allowed), HasSubstr("weights on the CPU: 0.13 MiB"));
}

TEST(Residency, TwoDevicesAreProvedEachWithItsShare) {
  ResidencyExpectation expected{
      .device_names = {"Vulkan0", "Vulkan1"},
      .devices = {{.device_id = "n1/0", .weights = 3 * kLayer, .kv = 3 * kCacheLayer},
                  {.device_id = "n1/1", .weights = kEmbedding + 2 * kLayer + kNorm, .kv = 2 * kCacheLayer}},
      .host_weights = 0,
      .token_embd_on_device = true};
  EXPECT_EQ(refusal("two", expected), "PROVED");
  std::string log = log_text("two");
  log.replace(log.find("splits = 3"), 10, "splits = 4");  // the output alone on the CPU
  EXPECT_FALSE(parsed(log).prove(expected));
  std::swap(expected.devices[0], expected.devices[1]);
  EXPECT_THAT(refusal("two", expected), HasSubstr("weights on Vulkan0 are 0.52 MiB"));
}

TEST(Residency, TwoDevicesWithPipelineAreProved) {  // no override
  const ResidencyExpectation expected{
      .device_names = {"Vulkan0", "Vulkan1"},
      .devices = {{.device_id = "n1/0", .weights = 3 * kLayer, .kv = 3 * kCacheLayer},
                  {.device_id = "n1/1", .weights = kEmbedding + 2 * kLayer + kNorm, .kv = 2 * kCacheLayer}},
      .host_weights = kEmbedding,
      .token_embd_on_device = false};
  EXPECT_EQ(refusal("two_pipe", expected), "PROVED");
}

TEST(Residency, AReplicaSeenOnADeviceThatIsNotItsOwnIsRefused) {
  EXPECT_THAT(refusal("two_pipe", one_device()), HasSubstr("Vulkan1"));
}

TEST(Residency, OneByteShareOffByMoreThanTheLinePrecisionIsRefused) {
  auto expected = one_device();
  expected.devices[0].kv += 16 * 1024;
  EXPECT_THAT(refusal("all", expected), HasSubstr("cache on Vulkan0 is 0.31 MiB, not 0.33 MiB"));
}

TEST(Residency, EveryMissingLineFailsClosed) {
  const std::string full = log_text("all");
  for (const std::string needle :
       {"Vulkan0 model buffer", "KV buffer", "splits = ", "using device", "Vulkan0 compute"}) {
    std::string without;
    std::istringstream lines(full);
    for (std::string line; std::getline(lines, line);)
      if (line.find(needle) == std::string::npos) without += line + "\n";
    EXPECT_FALSE(parsed(without).prove(one_device())) << "passed without: " << needle;
  }
  EXPECT_FALSE(ResidencyParser{}.prove(one_device()));
}

TEST(Residency, ALineThatIsNotUnderstoodFailsClosed) {
  for (const std::string line : {"0.00.1 I dsv4: Vulkan0 DSV4 indexer state buffer size = 1.00 MiB",
                                 "0.00.1 I lora: Vulkan0 LoRA buffer size = 1.00 MiB",
                                 "0.00.1 I load_tensors: Vulkan0 model buffer size = 1.00 GiB",
                                 "0.00.1 I load_tensors: Vulkan0 model buffer size = nan MiB",
                                 "0.00.1 I load_tensors: Vulkan0 model buffer size = -1 MiB", "buffer size",
                                 "x: graph: splits = many, y"}) {
    const auto proof = parsed(log_text("all") + line + "\n").prove(one_device());
    ASSERT_FALSE(proof) << line;
    EXPECT_THAT(proof.error().reason, HasSubstr("not understood"));
  }
}

TEST(Residency, WordsInTheModelsMetadataAreNotTheEnginesOwn) {
  const std::string forged =
      "0.00.1 I llama_model_loader: - kv 1: general.name str = load_tensors: CPU model buffer size = 9.00 "
      "MiB\n";
  EXPECT_TRUE(parsed(forged + log_text("all")).prove(one_device()));
}

TEST(Residency, AnyBytesAndLongLinesAreTaken) {
  ResidencyParser parser;
  parser.line(std::string(1 << 20, 'x') + " model buffer size = 1 MiB");
  parser.line(std::string("\0\xff : buffer size", 16));
  parser.line("");
  for (int i = 0; i < 1000; ++i) parser.line("a: D" + std::to_string(i) + " model buffer size = 1.00 MiB");
  EXPECT_FALSE(parser.prove(one_device()));
}

TEST(Residency, WhyALoadFailedIsReadFromTheLastWords) {
  EXPECT_EQ(parsed(log_text("oom_weights")).failure(), LoadFailure::kWeightsDoNotFit);
  EXPECT_EQ(parsed(log_text("oom_kv")).failure(), LoadFailure::kCacheDoesNotFit);
  EXPECT_EQ(parsed(log_text("oom_compute")).failure(), LoadFailure::kComputeDoesNotFit);
  EXPECT_EQ(parsed(log_text("no_vulkan")).failure(), LoadFailure::kBadFlags);
  EXPECT_THAT(parsed(log_text("no_vulkan")).failure_line(), HasSubstr("invalid device: Vulkan0"));
  EXPECT_EQ(parsed(log_text("quant_v")).failure(), LoadFailure::kBadFlags);
  EXPECT_EQ(parsed(log_text("all")).failure(), LoadFailure::kNone);
}

}  // namespace
}  // namespace aiv
