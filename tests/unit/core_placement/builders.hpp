// Small clusters in one line each; sizes in GiB.
#pragma once
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "base/units.hpp"
#include "core/placement.hpp"
#include "plan_checker.hpp"

namespace aiv::test {

inline Bytes gib(double n) { return static_cast<Bytes>(n * static_cast<double>(kGiB)); }

inline PlanDevice device(double free_gib, double gb_per_s = 320, std::string backend = "cuda") {
  PlanDevice d;
  d.vram_bytes = d.free_bytes = gib(free_gib);
  d.bandwidth_bytes_per_s = gb_per_s * 1e9;
  d.backend = std::move(backend);
  return d;
}

inline PlanNode node(const std::string& id, std::vector<PlanDevice> devices, const std::string& domain = "") {
  PlanNode n;
  n.id = id;
  n.failure_domain = domain;
  n.devices = std::move(devices);
  for (std::size_t i = 0; i < n.devices.size(); ++i) n.devices[i].id = id + "/" + std::to_string(i);
  return n;
}

inline PlanModel model(const std::string& id, double size_gib, int max_replicas = 1, double weight = 1) {
  PlanModel m;
  m.id = id;
  m.weight = weight;
  m.max_replicas = max_replicas;
  PlanVariant v;
  v.id = "q4";
  v.bytes = gib(size_gib);
  v.splittable = true;
  v.backends = {"cuda", "vulkan"};
  m.variants.push_back(v);
  return m;
}

inline PlanPlacement runs(const std::string& model, const std::string& node, double size_gib, int device = 0) {
  PlanPlacement p;
  p.model = model;
  p.variant = "q4";
  p.node = node;
  p.parts = {{node + "/" + std::to_string(device), gib(size_gib)}};
  return p;
}

// What a plan places, as the next plan's `current`.
inline std::vector<PlanPlacement> as_current(const Plan& plan) {
  std::vector<PlanPlacement> list = plan.placements;
  for (auto& p : list) p.keep = false;
  return list;
}

inline std::vector<std::string> nodes_of(const Plan& plan, const std::string& model) {
  std::vector<std::string> list;
  for (const auto& p : plan.placements) {
    if (p.model == model) list.push_back(p.node);
  }
  return list;
}

// Plans, and fails the test if the plan breaks a rule.
inline Plan checked_plan(const PlanInput& input, std::int64_t steps = 0, std::uint64_t seed = 1) {
  EXPECT_TRUE(validate(input)) << validate(input).error().message();
  PlanOptions options;
  options.steps = steps;
  options.seed = seed;
  const Plan result = plan(input, options);
  for (const std::string& fault : check_plan(input, result)) ADD_FAILURE() << fault;
  return result;
}

}  // namespace aiv::test
