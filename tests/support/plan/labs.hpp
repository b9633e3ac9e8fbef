// Random clusters for tests and benchmarks: cards as labs own them, demand that bites, overload as an argument.
#pragma once
#include <cstdint>

#include "core/cluster.hpp"

namespace aiv::test {

struct LabShape {
  int nodes = 6;
  int models = 0;               // 0: as many as `load` asks for
  double load = 1.3;            // bytes wanted (two replicas of each model) / bytes there
  bool several_backends = true;
  bool shared_domains = true;   // some nodes share a failure domain
  bool closed_nodes = true;     // now and then one that is not schedulable
  bool current = false;         // first fit by hand, with some nonsense in it
  int devices_per_node_max = 4;
  double size_factor = 1;       // of all models; the largest stay at 42 GB
  bool two_devices = false;     // every node has 1-3 devices, two on average
};

[[nodiscard]] PlanInput random_lab(std::uint64_t seed, const LabShape& shape);

// A tiny cluster that brute force can take: 1-3 nodes, 1-2 devices, 1-4 models of small whole sizes.
[[nodiscard]] PlanInput tiny_lab(std::uint64_t seed);

}  // namespace aiv::test
