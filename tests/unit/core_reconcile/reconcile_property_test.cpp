// Random lives of a cluster: the rules hold at every instant (the world checks them after each step), and
// when the events stop the cluster comes to rest where it should.
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
    world.state.settings.evict_ready_ms = 1'000;
    world.state.settings.evict_idle_ms = 500;
    world.state.settings.autoscale.up_after_ms = 2'000;
    world.state.settings.autoscale.down_after_ms = 5'000;
    world.state.settings.autoscale.cooldown_ms = 5'000;
    world.state.settings.autoscale.load_factor_cooldown = world.state.settings.autoscale.load_factor_down = 0;
    nodes = 1 + static_cast<int>(prng.below(4));
    for (int i = 1; i <= nodes; ++i) {
      std::vector<Bytes> devices;
      for (std::uint32_t d = 0; d < 1 + prng.below(3); ++d)
        devices.push_back(static_cast<Bytes>(2 + prng.below(14)) * kGiB);
      world.join("n" + std::to_string(i), devices);
    }
  }
  std::string some_node() { return "n" + std::to_string(1 + prng.below(static_cast<std::uint32_t>(nodes))); }
  std::string some_deployment() { return std::string(1, static_cast<char>('a' + prng.below(5))); }

  std::set<std::string> busy;  // replicas, by the newest counts
  std::size_t words_seen = 0;

  void make_elastic(const std::string& name) {
    if (!world.state.deployments.contains(name)) return;
    Deployment changed = world.state.deployments.at(name);
    changed.replicas_min = static_cast<int>(prng.below(2));
    changed.replicas_max = changed.replicas_min + 1 + static_cast<int>(prng.below(3));
    changed.pinned = prng.chance(1, 5);
    world.take(event::DeploymentPut{changed});
  }

  // What a gateway would count in a second: some replicas busy, some requests waiting.
  void count() {
    event::Load load;
    busy.clear();
    for (const auto& [name, deployment] : world.state.deployments) {
      LoadSample sample;
      sample.deployment = name;
      sample.interval_ms = 1000;
      for (const std::string& replica : world.routed(name)) {
        const int running = static_cast<int>(prng.below(3));
        if (running > 0) busy.insert(replica);
        sample.running += running;
        sample.replicas.push_back({replica, running});
      }
      sample.waiting = prng.chance(1, 3) ? static_cast<int>(prng.below(4)) : 0;
      sample.running_ms = 1000 * sample.running;
      sample.waiting_ms = 1000 * sample.waiting;
      sample.arrivals = sample.running + sample.waiting > 0 ? 1 : 0;
      load.samples.push_back(std::move(sample));
    }
    world.take(load);
    check_evictions();
  }

  // I9: what runs requests is not unloaded for others, nor what is pinned.
  void check_evictions() {
    for (; words_seen < world.words.size(); ++words_seen) {
      const command::Tell& word = world.words[words_seen];
      if (word.kind != "replica.evicted") continue;
      const std::string id = word.subject.substr(word.subject.find('/') + 1);
      EXPECT_FALSE(busy.contains(id)) << id << " is busy and evicted: " << word.reason;
      const auto placement = world.state.placements.find(id);
      if (placement == world.state.placements.end()) continue;
      const Deployment& deployment = world.state.deployments.at(placement->second.spec.deployment);
      EXPECT_FALSE(deployment.pinned) << id << " is pinned and evicted";
      EXPECT_GE(world.placed(deployment.name), deployment.replicas_min) << id << " was needed and evicted";
    }
  }

  void happen() {
    const std::string node = some_node();
    const std::string name = some_deployment();
    switch (prng.below(17)) {
      case 0:
      case 1:
      case 2:
        world.deploy(name, static_cast<int>(prng.below(4)), static_cast<Bytes>(1 + prng.below(9)) * kGiB / 2);
        break;
      case 3:
        world.take(event::DeploymentErased{name});
        break;
      case 4:
        world.cut(node);
        break;
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
      case 8:
        world.take(event::NodePut{node, {prng.chance(1, 2), ""}});
        break;
      case 9:
        world.restart_controller();
        break;
      case 10:
        world.delivery_ms = prng.below(1'000);
        break;
      case 11:
        world.unload_ms = 100 + prng.below(3'000);
        break;
      case 12:
        make_elastic(name);
        break;
      default:
        for (std::uint32_t i = 0; i < 1 + prng.below(12); ++i) {
          count();
          world.run(1'000);
          check_evictions();
        }
        break;
    }
    check_evictions();
    world.run(static_cast<std::int64_t>(prng.below(40)) * 250);
  }

  void calm_down() {
    world.broken.clear();
    world.delivery_ms = 0;
    for (auto& [id, agent] : world.agents) {
      if (!agent.linked) world.heal(id);
      world.take(event::NodePut{id, {false, ""}});
    }
    world.run(90'000);  // longer than any back-off and quarantine of such a life
  }
};

void live(Life& life) {
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
    const int wanted = wanted_replicas(world.state, deployment);
    RC_ASSERT(wanted >= deployment.replicas_min);
    RC_ASSERT(wanted <= std::max(deployment.replicas_min, deployment.replicas_max));
    RC_ASSERT(ready <= wanted);
    if (ready < wanted) RC_ASSERT(!world.state.status.at(name).reason.empty());
  }
  // At rest nothing moves.
  const int loads = world.loads;
  const int unloads = world.unloads;
  world.run(30'000);
  RC_ASSERT(world.loads == loads);
  RC_ASSERT(world.unloads == unloads);
}

RC_GTEST_PROP(ReconcileProperty, RulesHoldAndTheClusterComesToRestAsDesired, ()) {
  Life life(*rc::gen::arbitrary<std::uint64_t>());
  live(life);
}

RC_GTEST_PROP(ReconcileProperty, TheSameHoldsWhenOneDecisionAnswersABurstOfEvents, ()) {
  Life life(*rc::gen::arbitrary<std::uint64_t>());
  life.world.decide_each = *rc::gen::inRange(2, 30);
  live(life);
}

}  // namespace
}  // namespace aiv
