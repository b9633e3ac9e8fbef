// What one event costs the reconcile step in a large lab: `controller_bench [DEPLOYMENTS] [NODES]`, 1,000 and
// 200 unless said otherwise. Nodes and engines are played here (fake GPUs, everything ready at once); no
// store, no sockets. Prints p50 and max in milliseconds of CPU time of one step per kind of event, and how
// many documents it publishes.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>
#include <vector>

#include "base/units.hpp"
#include "core/reconcile.hpp"

namespace {

using aiv::Event;
namespace event = aiv::event;

// Of this process: what others do on the machine does not count.
double cpu_ms() {
  return 1000.0 * static_cast<double>(std::clock()) / CLOCKS_PER_SEC;
}

class Lab {
 public:
  int desired = 0;
  int routes = 0;
  double spent_ms = 0;

  Lab() {
    state_.epoch = 1;
    take(event::Start{});
  }

  void join(int nodes) {
    for (int i = 0; i < nodes; ++i) {
      aiv::NodeObserved facts;
      facts.node = "n" + std::to_string(1000 + i);
      facts.incarnation = 1;
      aiv::Device device;
      device.id = facts.node + "/0";
      device.backend = "fake";
      device.name = "card";
      device.vram_bytes = device.free_bytes = 8 * aiv::kGiB;
      facts.devices.push_back(device);
      take(event::LinkUp{facts.node});
      observed_[facts.node] = facts;
      take(event::Observed{facts});
    }
  }

  aiv::Deployment deployment(int i) {
    const std::string model =
        "fake:m" + std::to_string(i % 8) + "?weights=" + std::to_string(64 + i % 8 * 32) + "MiB";
    if (!state_.models.contains(model)) {
      aiv::ModelRecord record;
      record.id = record.path = model;
      record.engine = aiv::EngineKind::kFake;
      record.fake = *aiv::parse_fake_model(model);
      take(event::ModelPut{record});
    }
    aiv::Deployment out;
    out.name = "d" + std::to_string(10'000 + i);
    out.model = model;
    out.ctx = 1024;
    out.slots = 1;
    return out;
  }

  double put(int i) { return timed(event::DeploymentPut{deployment(i)}); }
  // The agents have applied what they were told, and all of it is ready.
  void settle() {
    while (!waiting_.empty()) {
      auto documents = std::move(waiting_);
      waiting_.clear();
      for (auto& [node, document] : documents) acknowledge(document);
      tick();
    }
  }
  double tick() {
    now_ += 250;
    for (const auto& [node, facts] : observed_) take(event::Heartbeat{node});
    return timed(event::Tick{true});
  }
  // The first load of all: a document for each node that something waits for.
  double acknowledge_one() {
    if (waiting_.empty()) return 0;
    const aiv::NodeDesired document = std::move(waiting_.begin()->second);
    waiting_.erase(waiting_.begin());
    return acknowledge(document);
  }
  double repeat_report() {
    auto& facts = std::next(observed_.begin(), 3)->second;
    ++facts.seq;
    return timed(event::Observed{facts});
  }
  double load() {
    event::Load load;
    for (const auto& [name, deployment] : state_.deployments) {
      aiv::LoadSample sample;
      sample.deployment = name;
      sample.interval_ms = 1000;
      load.samples.push_back(std::move(sample));
    }
    return timed(load);
  }
  double key() {
    event::KeysPut put;
    put.keys.resize(static_cast<std::size_t>(++keys_));
    return timed(put);
  }
  [[nodiscard]] std::size_t placed() const { return state_.placements.size(); }
  [[nodiscard]] long ready() const {
    return std::ranges::count_if(state_.status,
                                 [](const auto& entry) { return entry.second.state == "ready"; });
  }
  double lose() {
    const std::string node = observed_.begin()->first;
    observed_.erase(node);
    double worst = 0;
    for (int i = 0; i < 60; ++i) worst = std::max(worst, tick());
    return worst;
  }

 private:
  double timed(const Event& event) {
    const double before = spent_ms;
    take(event);
    return spent_ms - before;
  }
  double acknowledge(const aiv::NodeDesired& document) {
    aiv::NodeObserved& facts = observed_[document.node];
    facts.applied = document.version;
    ++facts.seq;
    facts.replicas.clear();
    for (const aiv::ReplicaSpec& spec : document.replicas) {
      if (spec.draining) continue;
      aiv::ReplicaStatus status;
      status.id = spec.id;
      status.deployment = spec.deployment;
      status.state = aiv::ReplicaState::kReady;
      status.measured = spec.devices;
      facts.replicas.push_back(std::move(status));
    }
    return timed(event::Observed{facts});
  }
  void take(const Event& event) {
    const double from = cpu_ms();
    auto commands = step(state_, event, {now_, 1'700'000'000'000 + now_});
    spent_ms += cpu_ms() - from;
    for (const aiv::Command& command : commands) {
      if (const auto* sent = std::get_if<aiv::command::PublishDesired>(&command)) {
        ++desired;
        if (observed_.contains(sent->document.node)) waiting_[sent->document.node] = sent->document;
      }
      routes += std::holds_alternative<aiv::command::PublishRoutes>(command) ? 1 : 0;
    }
  }

  aiv::ControllerState state_;
  std::map<std::string, aiv::NodeObserved> observed_;
  std::map<std::string, aiv::NodeDesired> waiting_;
  std::int64_t now_ = 1000;
  int keys_ = 0;
};

template <class Once>
void row(Lab& lab, const char* what, int times, Once&& once) {
  std::vector<double> took;
  lab.desired = lab.routes = 0;
  for (int i = 0; i < times; ++i) took.push_back(once(i));
  std::ranges::sort(took);
  std::printf("  %-52s p50 %8.2f ms, max %8.2f ms (n = %d; %d node documents, %d route tables)\n", what,
              took[took.size() / 2], took.back(), times, lab.desired, lab.routes);
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  const int deployments = argc > 1 ? std::atoi(argv[1]) : 1000;
  const int nodes = argc > 2 ? std::atoi(argv[2]) : 200;
  Lab lab;
  lab.join(nodes);
  for (int i = 0; i < 20; ++i) lab.tick();  // the observation window
  std::printf("%d deployments on %d nodes with one fake GPU each:\n", deployments, nodes);
  const double before = lab.spent_ms;
  for (int i = 0; i < deployments; ++i) {
    lab.put(i);
    if (i % 100 == 99) lab.settle();
  }
  lab.settle();
  std::printf("  %-52s %.1f s of steps; %zu placed, %ld ready\n", "all posted one by one",
              (lab.spent_ms - before) / 1000, lab.placed(), lab.ready());
  row(lab, "a deployment is put", 20, [&](int i) {
    const double took = lab.put(deployments + i);
    lab.settle();
    return took;
  });
  row(lab, "an agent says that its new replica is ready", 20, [&](int i) {
    lab.put(deployments + 20 + i);
    return lab.acknowledge_one();
  });
  lab.settle();
  row(lab, "a report that says nothing new", 100, [&](int) { return lab.repeat_report(); });
  row(lab, "a tick", 100, [&](int) { return lab.tick(); });
  row(lab, "the gateway's counts of all deployments", 20, [&](int) { return lab.load(); });
  row(lab, "a key is made", 20, [&](int) { return lab.key(); });
  row(lab, "a node is lost and replaced: the worst step", 3, [&](int) { return lab.lose(); });
}
