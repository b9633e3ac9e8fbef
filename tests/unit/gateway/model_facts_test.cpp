#include "gateway/api/model_facts.hpp"

#include <gtest/gtest.h>

namespace aiv::gateway {
namespace {

TEST(ModelFacts, AreWhatTheControllerSaysOfEachFile) {
  const auto facts = read_model_facts(
      R"({"items":[{"id":"qwen","digest":"sha256:ab12","size_bytes":4096,"architecture":"qwen3","quantisation":"Q4_K_M","parameters":7600000000},)"
      R"({"id":"new","digest":"","size_bytes":5,"architecture":""},7,{"id":"odd","size_bytes":-3,"digest":9}],"revision":4})");
  ASSERT_EQ(facts.size(), 3u);
  const ModelFacts& qwen = facts.at("qwen");
  EXPECT_EQ(qwen.digest, "ab12");
  EXPECT_EQ(qwen.size_bytes, 4096);
  EXPECT_EQ(qwen.architecture, "qwen3");
  EXPECT_EQ(qwen.quantisation, "Q4_K_M");
  EXPECT_EQ(qwen.parameters, 7'600'000'000);
  EXPECT_EQ(facts.at("new").parameters, 0);
  EXPECT_EQ(facts.at("odd").size_bytes, 0);
  for (const char* nonsense : {"", "[]", "{}", "not json", R"({"items":3})"})
    EXPECT_TRUE(read_model_facts(nonsense).empty()) << nonsense;
}

TEST(ModelFacts, VideoMemoryIsThatOfTheLargestReplica) {
  const auto bytes = read_replica_bytes(
      R"({"items":[{"deployment":"a","devices":[{"id":"n1/0","bytes":100},{"id":"n1/1","bytes":50}]},)"
      R"({"deployment":"a","devices":[{"id":"n2/0","bytes":120}]},{"deployment":"b","devices":[]},{"deployment":"c"}]})");
  EXPECT_EQ(bytes.at("a"), 150);
  EXPECT_EQ(bytes.at("b"), 0);
  EXPECT_FALSE(bytes.contains("c"));
}

TEST(ModelFacts, ParametersArePrintedAsOllamaDoes) {
  EXPECT_EQ(parameter_size(8'000'000'000), "8B");
  EXPECT_EQ(parameter_size(7'615'616'512), "7.6B");
  EXPECT_EQ(parameter_size(494'032'768), "494.03M");
  EXPECT_EQ(parameter_size(260'000), "260K");
  EXPECT_EQ(parameter_size(12), "12");
  EXPECT_EQ(parameter_size(0), "");
}

}  // namespace
}  // namespace aiv::gateway
