#include "wire/documents.hpp"

#include <gtest/gtest.h>

namespace aiv::wire {
namespace {

ReplicaSpec spec() {
  ReplicaSpec s;
  s.id = "demo-1";
  s.deployment = "demo";
  s.model = "demo";
  s.model_path = "/models/demo.gguf";
  s.ctx = 4096;
  s.slots = 2;
  s.devices = {{.device_id = "n1/0", .weights = 100, .kv = 20, .compute = 3, .overhead = 4}};
  return s;
}

TEST(Documents, WhatIsWrittenIsReadBackEqual) {
  const NodeDesired desired{.node = "n1", .version = {3, 7}, .replicas = {spec()}};
  EXPECT_EQ(node_desired_from_json(to_json(desired)).value(), desired);

  NodeObserved observed;
  observed.node = "n1";
  observed.incarnation = 0xFFFFFFFFFFFFFFFEULL;
  observed.applied = {3, 7};
  observed.devices = {{.id = "n1/0", .name = "GTX 1080", .backend = "vulkan", .kind = DeviceKind::kSoftware}};
  observed.replicas = {{.id = "demo-1", .state = ReplicaState::kReady, .progress = 1.0, .pid = 42}};
  EXPECT_EQ(node_observed_from_json(to_json(observed)).value(), observed);

  RouteTable table;
  table.version = {3, 8};
  table.models = {{.name = "demo", .state = "ready", .replicas = {{.id = "demo-1", .node = "n1", .slots = 2, .software = true}}}};
  table.keys = {{.id = "abc", .secret_sha256 = "00", .role = Role::kAdmin}};
  EXPECT_EQ(route_table_from_json(to_json(table)).value(), table);
}

TEST(Documents, HowFarALoadIsGoesAlongAndATableOfBeforeSaysNothingOfIt) {
  RouteTable table;
  table.version = {1, 1};
  table.models = {{.name = "demo", .state = "loading", .reason = "loading on n1, 40 % done", .load_percent = 40}};
  Json json = to_json(table);
  EXPECT_EQ(route_table_from_json(json).value(), table);
  json["models"][0]["load_percent"] = 101;
  EXPECT_EQ(route_table_from_json(json).error().where, "models[0].load_percent");
  json["models"][0].erase("load_percent");
  EXPECT_EQ(route_table_from_json(json).value().models[0].load_percent, std::nullopt);
  table.models[0].load_percent.reset();
  EXPECT_FALSE(to_json(table)["models"][0].contains("load_percent")) << "read by older gateways too";
}

TEST(Documents, AnUnknownEnumRefusesTheDocumentByFieldName) {
  Json json = to_json(NodeDesired{.node = "n1", .version = {1, 1}, .replicas = {spec()}});
  json["replicas"][0]["engine"] = "quantum";
  EXPECT_EQ(node_desired_from_json(json).error().where, "replicas[0].engine");
}

TEST(Documents, AFieldOfANewerPeerIsIgnoredAndAMissingOneIsNot) {
  Json json = to_json(NodeDesired{.node = "n1", .version = {1, 1}, .replicas = {}});
  json["colour"] = "blue";
  EXPECT_TRUE(node_desired_from_json(json));
  json.erase("version");
  EXPECT_EQ(node_desired_from_json(json).error().where, "version");
}

TEST(Documents, DrainingDoesNotChangeTheHashAndTheContextDoes) {
  ReplicaSpec other = spec();
  other.draining = true;
  EXPECT_EQ(spec_hash(other), spec_hash(spec()));
  other.ctx = 8192;
  EXPECT_NE(spec_hash(other), spec_hash(spec()));
}

}  // namespace
}  // namespace aiv::wire
