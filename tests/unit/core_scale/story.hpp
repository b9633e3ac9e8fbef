// A world whose gateway counts requests, for stories of scale and eviction.
#pragma once
#include "../core_reconcile/reconcile_world.hpp"

namespace aiv::test {

struct Story : World {
  std::map<std::string, std::pair<int, int>> counts;  // deployment -> running on one of its replicas, waiting
  std::map<std::string, int> turned_away;             // a second
  std::size_t busy = 0;                               // which one, in order of their names

  void deploy_elastic(const std::string& name, int min, int max, Bytes weights, bool pinned = false) {
    add_model(name, weights);
    Deployment deployment;
    deployment.name = deployment.model = name;
    deployment.replicas_min = min;
    deployment.replicas_max = max;
    deployment.pinned = pinned;
    take(event::DeploymentPut{deployment});
    deliver();
  }
  // Seconds in which the gateway counts what `counts` says.
  void seconds(int count) {
    for (int i = 0; i < count; ++i) {
      event::Load load;
      for (const auto& [name, deployment] : state.deployments) {
        const auto [running, waiting] = counts[name];
        LoadSample sample;
        sample.deployment = name;
        sample.interval_ms = 1000;
        sample.running = running;
        sample.waiting = waiting;
        sample.turned_away = turned_away[name];
        sample.running_ms = 1000 * running;
        sample.waiting_ms = 1000 * waiting;
        for (const std::string& replica : routed(name)) {
          sample.replicas.push_back({replica, sample.replicas.size() == busy ? running : 0});
        }
        load.samples.push_back(std::move(sample));
      }
      take(load);
      run(1000);
    }
  }
  // Somebody waits until it is loaded, and then nobody asks for it for `idle_s`.
  void load_and_leave(const std::string& name, int idle_s) {
    counts[name] = {0, 1};
    seconds(3);
    counts[name] = {0, 0};
    seconds(idle_s);
  }
  std::string reason_of(const std::string& kind) const {
    std::string reason;
    for (const command::Tell& word : words) {
      if (word.kind == kind) reason = word.reason;
    }
    return reason;
  }
};

}  // namespace aiv::test
