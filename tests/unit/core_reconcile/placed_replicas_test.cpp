// The lists by deployment and by node follow whatever is done to the placements.
#include "core/placed_replicas.hpp"

#include <gtest/gtest.h>

#include "core/prng.hpp"

namespace aiv {
namespace {

Placement placement(const std::string& id, const std::string& deployment, const std::string& node) {
  Placement out;
  out.node = node;
  out.spec.id = id;
  out.spec.deployment = deployment;
  return out;
}

std::vector<std::string> ids(std::span<const Placement* const> placements) {
  std::vector<std::string> out;
  for (const Placement* each : placements) out.push_back(each->spec.id);
  return out;
}

// What the lists must say, by a look through all.
void check(const PlacedReplicas& placements) {
  for (int i = 0; i < 4; ++i) {
    const std::string deployment = "d" + std::to_string(i);
    const std::string node = "n" + std::to_string(i);
    std::vector<std::string> of_it;
    std::vector<std::string> on_it;
    for (const auto& [id, each] : placements) {
      if (each.spec.deployment == deployment) of_it.push_back(id);
      if (each.node == node) on_it.push_back(id);
    }
    ASSERT_EQ(ids(placements.of_deployment(deployment)), of_it);
    ASSERT_EQ(ids(placements.on_node(node)), on_it);
  }
}

TEST(PlacedReplicas, TheListsSayWhatALookThroughAllWouldSay) {
  PlacedReplicas placements;
  Prng prng(7);
  for (int round = 0; round < 2000; ++round) {
    const std::string id = "r" + std::to_string(prng.below(40));
    if (prng.below(3) == 0) {
      placements.erase(id);
    } else {
      placements.put(placement(id, "d" + std::to_string(prng.below(4)), "n" + std::to_string(prng.below(4))));
    }
    if (round % 50 == 0) erase_if(placements, [&](const auto& entry) { return entry.second.node == "n1"; });
    check(placements);
  }
}

TEST(PlacedReplicas, ACopyIsNotChangedByWhatHappensToTheOther) {
  PlacedReplicas one;
  one.put(placement("a", "d0", "n0"));
  PlacedReplicas other = one;
  one.of_deployment("d0").front()->spec.draining = true;
  EXPECT_FALSE(other.of_deployment("d0").front()->spec.draining);
  one.erase("a");
  check(one);
  check(other);
  EXPECT_EQ(other.size(), 1u);
  one = other;
  other.erase("a");
  check(one);
  EXPECT_EQ(one.on_node("n0").size(), 1u);
}

}  // namespace
}  // namespace aiv
