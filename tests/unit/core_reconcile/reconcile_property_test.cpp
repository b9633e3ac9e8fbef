// Random lives of a cluster: the rules hold at every instant (the world checks them after each step), and when the
// events stop the cluster comes to rest where it should.
#include <gtest/gtest.h>
#include <rapidcheck.h>
#include <rapidcheck/gtest.h>

#include "core/prng.hpp"
#include "reconcile_world.hpp"

namespace aiv {
namespace {

using test::World;

struct Life {
  World world;
  Prng prng;
  int nodes = 0;
  explicit Life(std::uint64_t seed) : prng(seed) {
    // Short waits, so that a life comes to rest soon; the stories test the real ones.
    DetectorSettings detector;
    detector.quarantine_ms = 5'000;
    detector.quarantine_max_ms = 20'000;
    detector.calm_ms = 30'000;
    detector.flap_window_ms = 60'000;
    world.state.detector = FailureDetector(detector);
    world.state.settings.backoff_max_ms = 20'000;
    nodes = 1 + static_cast<int>(prng.below(4));
    for (int i = 1; i <= nodes; ++i) {
      std::vector<Bytes> devices;
      for (std::uint32_t d = 0; d < 1 + prng.below(3); ++d) devices.push_back(static_cast<Bytes>(2 + prng.below(14)) * kGiB);
      world.join("n" + std::to_string(i), devices);
    }
  }
  std::string some_node() { return "n" + std::to_string(1 + prng.below(static_cast<std::uint32_t>(nodes))); }
  std::string some_deployment() { return std::string(1, static_cast<char>('a' + prng.below(5))); }

  void happen() {
    const std::string node = some_node();
    const std::string name = some_deployment();
    switch (prng.below(12)) {
      case 0:
      case 1:
      case 2: world.deploy(name, static_cast<int>(prng.below(4)), static_cast<Bytes>(1 + prng.below(9)) * kGiB / 2); break;
      case 3: world.take(event::DeploymentErased{name}); break;
      case 4: world.cut(node); break;
      case 5:
        if (!world.agents.at(node).linked) world.heal(node);
        break;
      case 6:
        if (world.broken.contains(node)) {
          world.broken.erase(node);
        } else {
          world.broken.insert(node);
        }
        break;
      case 7: {
        if (!world.state.deployments.contains(name)) break;
        Deployment changed = world.state.deployments.at(name);
        changed.slots = 1 + static_cast<int>(prng.below(3));
        ++changed.generation;
        world.take(event::DeploymentPut{changed});
        break;
      }
      case 8: world.take(event::NodePut{node, prng.chance(1, 2), ""}); break;
      case 9: world.restart_controller(); break;
      case 10: world.delivery_ms = prng.below(1'000); break;
      case 11: world.unload_ms = 100 + prng.below(3'000); break;
      default: break;
    }
    world.run(static_cast<std::int64_t>(prng.below(40)) * 250);
  }

  void calm_down() {
    world.broken.clear();
    world.delivery_ms = 0;
    for (auto& [id, agent] : world.agents) {
      if (!agent.linked) world.heal(id);
      world.take(event::NodePut{id, false, ""});
    }
    world.run(90'000);  // longer than any back-off and quarantine of such a life
  }
};

RC_GTEST_PROP(ReconcileProperty, RulesHoldAndTheClusterComesToRestAsDesired, ()) {
  const auto seed = *rc::gen::arbitrary<std::uint64_t>();
  Life life(seed);
  const int events = *rc::gen::inRange(1, 25);
  for (int i = 0; i < events; ++i) life.happen();
  life.calm_down();
  World& world = life.world;
  RC_ASSERT(!::testing::Test::HasFatalFailure());
  RC_ASSERT(!::testing::Test::HasNonfatalFailure());
  // Desired == observed: each node runs exactly what its document names, all of it ready.
  for (const auto& [node, agent] : world.agents) {
    std::set<std::string> wanted;
    for (const auto& [id, placement] : world.state.placements) {
      RC_ASSERT(!placement.spec.draining);
      if (placement.node == node) wanted.insert(id);
    }
    std::set<std::string> running;
    for (const auto& [id, engine] : agent.engines) {
      RC_ASSERT(engine.state == ReplicaState::kReady);
      running.insert(id);
    }
    RC_ASSERT(running == wanted);
  }
  // What could be placed is: a deployment below its wish has a reason.
  for (const auto& [name, deployment] : world.state.deployments) {
    const int ready = static_cast<int>(world.routed(name).size());
    RC_ASSERT(ready == world.placed(name));
    RC_ASSERT(ready <= deployment.replicas_min);
    if (ready < deployment.replicas_min) RC_ASSERT(!world.state.status.at(name).reason.empty());
  }
  // At rest nothing moves.
  const int loads = world.loads;
  const int unloads = world.unloads;
  world.run(30'000);
  RC_ASSERT(world.loads == loads);
  RC_ASSERT(world.unloads == unloads);
}

}  // namespace
}  // namespace aiv
