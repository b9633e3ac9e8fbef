#include "wire/plan_json.hpp"

#include <gtest/gtest.h>

#include "core/placement.hpp"
#include "labs.hpp"

namespace aiv::test {
namespace {

const char* const kCluster = R"({"nodes":[{"id":"n1","failure_domain":"n1","schedulable":true,
 "devices":[{"id":"n1/0","vram_bytes":8589934592,"free_bytes":7900000000,"overhead_bytes":314572800,
             "bandwidth_bytes_per_s":320000000000,"backend":"vulkan"}]}],
 "models":[{"id":"m1","weight":4,"min_replicas":1,"max_replicas":4,"demand_tokens_per_s":30.0,
   "variants":[{"id":"q4","bytes":5368709120,"splittable":true,"backends":["cuda","vulkan","rocm"],"quality":1.0}]}],
 "current":[{"model":"m1","variant":"q4","node":"n1","devices":[{"id":"n1/0","bytes":5368709120}]}],
 "policy":{"survive_node_losses":1}})";

Json cluster() { return *parse_json(kCluster); }

std::string fault_of(const Json& json) {
  const auto input = wire::plan_input_from_json(json);
  return input ? "accepted" : input.error().where;
}

TEST(PlanJsonTest, TheContractsExampleIsReadAndPlanned) {
  const auto input = wire::plan_input_from_json(cluster());
  ASSERT_TRUE(input) << input.error().message();
  const Json out = wire::to_json(plan(*input, {}));
  EXPECT_EQ(out["placements"].size(), 1U);
  EXPECT_EQ(out["placements"][0]["keep"], true);
  EXPECT_EQ(out["placements"][0]["devices"][0]["id"], "n1/0");
  EXPECT_TRUE(out["steps"].empty());
  EXPECT_EQ(out["bytes_moved"], 0);
}

TEST(PlanJsonTest, EachFaultIsNamedByItsPath) {
  const auto faulty = [](const char* pointer, Json value) {
    Json json = cluster();
    json[Json::json_pointer(pointer)] = std::move(value);
    return fault_of(json);
  };
  EXPECT_EQ(faulty("/models/0/variants/0/bytes", -1), "models[0].variants[0].bytes");
  EXPECT_EQ(faulty("/models/0/variants/0/bytes", 0), "models[0].variants[0].bytes");
  EXPECT_EQ(faulty("/models/0/variants/0/bytes", 1e300), "models[0].variants[0].bytes");
  EXPECT_EQ(faulty("/models/0/variants/0/bytes", std::uint64_t{1} << 63), "models[0].variants[0].bytes");
  EXPECT_EQ(faulty("/models/0/variants/0/bytes", (std::int64_t{1} << 62) + 1), "models[0].variants[0].bytes");
  EXPECT_EQ(faulty("/models/0/variants/0/bytes", 1.5), "models[0].variants[0].bytes");
  EXPECT_EQ(faulty("/models/0/variants/0/bytes", "5"), "models[0].variants[0].bytes");
  EXPECT_EQ(faulty("/models/0/variants/0/quality", -0.5), "models[0].variants[0].quality");
  EXPECT_EQ(faulty("/models/0/variants", Json::array()), "models[0].variants");
  EXPECT_EQ(faulty("/models/0/variants", Json::object()), "models[0].variants");
  EXPECT_EQ(faulty("/models/0/max_replicas", 0), "models[0].max_replicas");
  EXPECT_EQ(faulty("/models/0/demand_tokens_per_s", -1), "models[0].demand_tokens_per_s");
  EXPECT_EQ(faulty("/models/0/weight", "heavy"), "models[0].weight");
  EXPECT_EQ(faulty("/nodes/0/devices/0/bandwidth_bytes_per_s", 0), "nodes[0].devices[0].bandwidth_bytes_per_s");
  EXPECT_EQ(faulty("/nodes/0/devices/0/free_bytes", -1), "nodes[0].devices[0].free_bytes");
  EXPECT_EQ(faulty("/nodes/0/schedulable", 1), "nodes[0].schedulable");
  EXPECT_EQ(faulty("/nodes/0", 7), "nodes[0]");
  EXPECT_EQ(faulty("/nodes", "none"), "nodes");
  EXPECT_EQ(faulty("/current/0/devices/0/bytes", -5), "current[0].devices[0].bytes");
  EXPECT_EQ(faulty("/policy/survive_node_losses", "one"), "policy.survive_node_losses");
  EXPECT_EQ(fault_of(Json::array()), "");
}

TEST(PlanJsonTest, AMissingFieldIsNamedWhereverItIs) {
  for (const char* pointer : {"/nodes", "/models"}) {
    Json json = cluster();
    json.erase(std::string(pointer + 1));
    EXPECT_EQ(fault_of(json), std::string(pointer + 1));
  }
  for (const std::string key : {"id", "vram_bytes", "free_bytes", "overhead_bytes", "bandwidth_bytes_per_s", "backend"}) {
    Json json = cluster();
    json["nodes"][0]["devices"][0].erase(key);
    EXPECT_EQ(fault_of(json), "nodes[0].devices[0]." + key);
  }
  for (const std::string key : {"id", "bytes", "splittable", "backends", "quality"}) {
    Json json = cluster();
    json["models"][0]["variants"][0].erase(key);
    EXPECT_EQ(fault_of(json), "models[0].variants[0]." + key);
  }
  Json json = cluster();
  json.erase("current");
  json.erase("policy");
  EXPECT_EQ(fault_of(json), "accepted");
}

TEST(PlanJsonTest, DuplicateIdsAreRefused) {
  Json json = cluster();
  json["nodes"].push_back(json["nodes"][0]);
  EXPECT_EQ(fault_of(json), "nodes[1].id");
  json["nodes"][1]["id"] = "n2";
  EXPECT_EQ(fault_of(json), "nodes[1].devices[0].id");
  json = cluster();
  json["models"].push_back(json["models"][0]);
  EXPECT_EQ(fault_of(json), "models[1].id");
  json = cluster();
  json["models"][0]["variants"].push_back(json["models"][0]["variants"][0]);
  EXPECT_EQ(fault_of(json), "models[0].variants[1].id");
}

TEST(PlanJsonTest, AMillionDevicesAreRefusedByTheNameOfTheList) {
  Json json = cluster();
  json["nodes"][0]["devices"] = Json::array();
  for (int i = 0; i < 1'000'000; ++i) json["nodes"][0]["devices"].push_back(i);
  EXPECT_EQ(fault_of(json), "nodes[0].devices");
}

TEST(PlanJsonTest, WhatIsGoneOrUnknownIsAccepted) {
  Json json = cluster();
  json["current"][0]["node"] = "gone";
  json["something new"] = {{"x", 1}};
  EXPECT_EQ(fault_of(json), "accepted");
  json["nodes"] = Json::array();
  json["models"] = Json::array();
  EXPECT_EQ(fault_of(json), "accepted");
}

TEST(PlanJsonTest, AClusterSurvivesItsJsonForm) {
  for (std::uint64_t seed = 1; seed < 20; ++seed) {
    LabShape shape;
    shape.current = true;
    const PlanInput input = random_lab(seed, shape);
    const auto text = dump_json(wire::to_json(input));
    const auto again = wire::plan_input_from_json(*parse_json(text));
    ASSERT_TRUE(again) << again.error().message();
    EXPECT_EQ(dump_json(wire::to_json(*again)), text);
    PlanOptions options;
    options.steps = 50;
    EXPECT_EQ(plan(input, options).placements, plan(*again, options).placements);
  }
}

}  // namespace
}  // namespace aiv::test
