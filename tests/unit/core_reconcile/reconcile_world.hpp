// Nodes, agents and engines for tests of the reconcile step, under a virtual clock. After every step the world checks
// the rules that must hold at every instant (control.md's I1, I3, I4; never more replicas than wanted + 1).
#pragma once
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/units.hpp"
#include "core/footprint.hpp"
#include "core/reconcile.hpp"

namespace aiv::test {

class World {
 public:
  struct Engine {
    ReplicaSpec spec;
    ReplicaState state = ReplicaState::kLoading;
    std::int64_t ready_at = 0;
    std::int64_t gone_at = -1;  // once draining
    double progress = 0;        // as reported while it loads
  };
  struct Agent {
    NodeObserved facts;
    std::map<std::string, Engine> engines;
    NodeDesired document;  // newest received, applied
    bool linked = true;
    bool reports = true;
    bool changed = true;
    std::optional<NodeDesired> in_flight;
    std::int64_t arrives_at = 0;
    std::int64_t last_report = -1'000'000;
  };

  ControllerState state;
  std::map<std::string, Agent> agents;
  std::set<std::string> broken;  // nodes where every load fails
  bool broken_by_memory = false;  // for lack of device memory
  Bytes residual = 0;            // what an engine's buffers are larger than estimated
  std::vector<command::SaveMargin> margins;
  std::vector<command::Tell> words;
  std::int64_t now = 1'000;
  int loads = 0;
  int unloads = 0;
  std::int64_t load_ms = 500;
  std::int64_t unload_ms = 300;
  std::int64_t delivery_ms = 0;

  World() {
    state.epoch = 1;
    take(event::Start{});
  }

  // Above 1: one decision answers so many events that ask for one, and what is left is decided before time
  // goes on.
  int decide_each = 1;

  void take(const Event& event) {
    TakenIn taken = take_in(state, event, instant());
    carry_out(taken.commands);
    if (!taken.cause.empty()) cause_ = taken.cause;
    if (taken.decide) ++undecided_;
    if (undecided_ >= decide_each) decide_now();
    if (undecided_ == 0) check();
  }

  void decide_now() {
    if (undecided_ == 0) return;
    undecided_ = 0;
    carry_out(decide(state, std::exchange(cause_, {}), instant()));
    check();
  }

  void join(const std::string& node, const std::vector<Bytes>& devices, const std::string& backend = "fake") {
    Agent& agent = agents[node];
    agent.facts.node = node;
    agent.facts.incarnation = 1;
    for (std::size_t i = 0; i < devices.size(); ++i) {
      Device device;
      device.id = node + "/" + std::to_string(i);
      device.backend = backend;
      device.name = "card";
      device.vram_bytes = devices[i];
      device.free_bytes = devices[i];
      device.bandwidth_bytes_per_s = 200'000'000'000;
      agent.facts.devices.push_back(device);
    }
    take(event::LinkUp{node});
    report(agent);
  }

  void add_model(const std::string& id, Bytes weights) {
    ModelRecord model;
    model.id = id;
    model.engine = EngineKind::kFake;
    model.path = "fake:" + id + "?weights=" + std::to_string(weights / kMiB) + "MiB";
    model.fake = *parse_fake_model(model.path);
    take(event::ModelPut{model});
  }

  // A model whose bytes the estimator works out, for devices of a real backend.
  void add_real_model(const std::string& id, const std::string& architecture, Bytes layer_bytes = 500 * kMiB) {
    auto facts = std::make_shared<ModelFacts>();
    facts->architecture = architecture;
    facts->family = ModelFamily::kAttention;
    facts->known = true;
    facts->context_length = 4096;
    facts->n_blocks = facts->n_layers = 2;
    facts->n_embd = 512;
    facts->n_vocab = 1000;
    facts->v_width_widest = 512;
    facts->graph.heads = 8;
    facts->graph.q_width = facts->graph.kv_width = 512;
    facts->graph.feed_forward = 1024;
    for (std::int32_t i = 0; i < 2; ++i) {
      LayerFacts layer;
      layer.k_width = layer.v_width = 512;
      layer.heads = layer.kv_heads = 8;
      layer.head_k = layer.head_v = 64;
      facts->layers.push_back(layer);
      facts->tensors.push_back({layer_bytes, 0, i, TensorPlace::kLayer, false});
    }
    facts->tensors.push_back({kMiB, 0, -1, TensorPlace::kOutput, false});
    ModelRecord model;
    model.id = id;
    model.path = "/models/" + id + ".gguf";
    model.facts = std::move(facts);
    take(event::ModelPut{model});
  }

  void deploy(const std::string& name, int replicas, Bytes weights = kGiB) {
    if (!state.models.contains(name)) add_model(name, weights);
    Deployment deployment;
    if (state.deployments.contains(name)) deployment = state.deployments.at(name);
    deployment.name = name;
    deployment.model = name;
    deployment.replicas_min = deployment.replicas_max = replicas;
    take(event::DeploymentPut{deployment});
    deliver();
  }

  void cut(const std::string& node) { agents.at(node).linked = false; }
  void heal(const std::string& node) {
    Agent& agent = agents.at(node);
    agent.linked = true;
    agent.changed = true;
    take(event::LinkUp{node});
    if (state.nodes.at(node).sent) {
      agent.in_flight = state.nodes.at(node).sent;  // pushed again on a new link
      agent.arrives_at = now + delivery_ms;
    }
  }
  void silence_reports(const std::string& node) { agents.at(node).reports = false; }
  void allow_reports(const std::string& node) { agents.at(node).reports = agents.at(node).changed = true; }
  void foreign(const std::string& node, Bytes bytes) {
    for (Device& device : agents.at(node).facts.devices) device.foreign_bytes = bytes;
    agents.at(node).changed = true;
  }

  // A new controller over the same stored state (or none), with a new epoch.
  void restart_controller(bool forget_state = false) {
    ControllerState fresh;
    fresh.epoch = state.epoch + 1;
    fresh.settings = state.settings;
    fresh.detector = FailureDetector(state.detector.settings());
    if (!forget_state) {
      fresh.models = state.models;
      fresh.deployments = state.deployments;
      fresh.placements = state.placements;
      fresh.margins = state.margins;
    }
    state = std::move(fresh);
    undecided_ = 0;
    take(event::Start{});
    for (auto& [node, agent] : agents) {
      agent.changed = true;
      agent.in_flight.reset();
      if (agent.linked) take(event::LinkUp{node});
    }
  }

  void run(std::int64_t ms) {
    for (const std::int64_t end = now + ms; now < end;) {
      decide_now();
      now += 250;
      for (auto& [node, agent] : agents) {
        if (agent.linked && agent.reports) take(event::Heartbeat{node});
      }
      take(event::Tick{});
      // Documents are taken, engines go on, and what changed is reported, until nothing moves.
      for (int i = 0; i < 4; ++i) {
        deliver();
        advance();
        for (auto& [node, agent] : agents) {
          if (agent.changed || now - agent.last_report >= 5'000) report(agent);
        }
        decide_now();
      }
    }
  }

  [[nodiscard]] int placed(const std::string& deployment) const {
    int n = 0;
    for (const auto& [id, placement] : state.placements) {
      n += placement.spec.deployment == deployment && !placement.spec.draining ? 1 : 0;
    }
    return n;
  }
  [[nodiscard]] std::set<std::string> nodes_of(const std::string& deployment) const {
    std::set<std::string> nodes;
    for (const auto& [id, placement] : state.placements) {
      if (placement.spec.deployment == deployment && !placement.spec.draining) nodes.insert(placement.node);
    }
    return nodes;
  }
  [[nodiscard]] std::vector<std::string> routed(const std::string& deployment) const {
    std::vector<std::string> out;
    if (!state.routes) return out;
    for (const RouteModel& model : state.routes->models) {
      if (model.name != deployment) continue;
      for (const RouteReplica& replica : model.replicas) out.push_back(replica.id);
    }
    return out;
  }
  [[nodiscard]] int processes() const {
    int n = 0;
    for (const auto& [node, agent] : agents) {
      for (const auto& [id, engine] : agent.engines) n += holds(engine) ? 1 : 0;
    }
    return n;
  }
  [[nodiscard]] bool told(const std::string& kind) const {
    for (const command::Tell& word : words) {
      if (word.kind == kind) return true;
    }
    return false;
  }

  void deliver() {
    for (auto& [node, agent] : agents) {
      if (!agent.in_flight || now < agent.arrives_at || !agent.linked) continue;
      const NodeDesired document = *std::exchange(agent.in_flight, std::nullopt);
      if (document.version < agent.document.version) continue;
      agent.document = document;
      apply(agent);
      agent.changed = true;
    }
  }

 private:
  [[nodiscard]] Instant instant() const { return {now, 1'700'000'000'000 + now}; }

  void carry_out(const std::vector<Command>& commands) {
    for (const Command& command : commands) {
      if (const auto* desired = std::get_if<command::PublishDesired>(&command)) {
        Agent& agent = agents.at(desired->document.node);
        agent.in_flight = desired->document;
        agent.arrives_at = now + delivery_ms;
      } else if (const auto* routes = std::get_if<command::PublishRoutes>(&command)) {
        EXPECT_GT(routes->table.version, routes_version_) << "I1";
        routes_version_ = routes->table.version;
      } else if (const auto* tell = std::get_if<command::Tell>(&command)) {
        words.push_back(*tell);
      } else if (const auto* margin = std::get_if<command::SaveMargin>(&command)) {
        margins.push_back(*margin);
      }
    }
  }

  static bool holds(const Engine& engine) {
    return engine.state != ReplicaState::kStopped && engine.state != ReplicaState::kFailed;
  }

  void apply(Agent& agent) {
    for (const ReplicaSpec& spec : agent.document.replicas) {
      const auto found = agent.engines.find(spec.id);
      if (found == agent.engines.end()) {
        Engine engine{spec, ReplicaState::kLoading, now + load_ms, -1};
        if (spec.draining) engine.state = ReplicaState::kStopped;
        if (!spec.draining) ++loads;
        agent.engines.emplace(spec.id, engine);
      } else if (spec.draining && holds(found->second) && found->second.gone_at < 0) {
        found->second.state = ReplicaState::kDraining;
        found->second.gone_at = now + unload_ms;
        ++unloads;
      }
    }
    for (auto it = agent.engines.begin(); it != agent.engines.end();) {
      bool named = false;
      for (const ReplicaSpec& spec : agent.document.replicas) named = named || spec.id == it->first;
      Engine& engine = it->second;
      if (!named && !holds(engine)) {
        it = agent.engines.erase(it);
        continue;
      }
      if (!named && engine.gone_at < 0) {
        engine.state = ReplicaState::kDraining;
        engine.gone_at = now + unload_ms;
        ++unloads;
      }
      ++it;
    }
  }

  void advance() {
    for (auto& [node, agent] : agents) {
      for (auto& [id, engine] : agent.engines) {
        if (engine.state == ReplicaState::kLoading && now >= engine.ready_at) {
          engine.state = broken.contains(node) ? ReplicaState::kFailed : ReplicaState::kReady;
          agent.changed = true;
        }
        if (engine.state == ReplicaState::kDraining && now >= engine.gone_at) {
          engine.state = ReplicaState::kStopped;
          agent.changed = true;
        }
      }
      apply(agent);
    }
  }

  void report(Agent& agent) {
    if (!agent.linked || !agent.reports) return;
    agent.changed = false;
    agent.last_report = now;
    NodeObserved document = agent.facts;
    document.seq = ++agent.facts.seq;
    document.applied = agent.document.version;
    for (const auto& [id, engine] : agent.engines) {
      ReplicaStatus status;
      status.id = id;
      status.deployment = engine.spec.deployment;
      status.state = engine.state;
      status.progress = engine.progress;
      status.slots = engine.spec.slots;
      if (engine.state == ReplicaState::kFailed) {
        status.reason = broken_by_memory ? "out of device memory for the weights" : "no such device";
        status.out_of_memory = broken_by_memory;
      }
      if (holds(engine)) {
        status.measured = engine.spec.devices;
        for (DeviceBytes& bytes : status.measured) {
          bytes.compute += residual;
          bytes.overhead = 0;  // the engine's own figures do not hold it
        }
      }
      document.replicas.push_back(status);
    }
    take(event::Observed{document});
  }

  void check() const {
    // I3: neither what is decided nor what really runs ever overfills a device.
    for (const auto& [node, agent] : agents) {
      for (const Device& device : agent.facts.devices) {
        Bytes really = 0;
        for (const auto& [id, engine] : agent.engines) {
          if (!holds(engine)) continue;
          for (const DeviceBytes& bytes : engine.spec.devices) really += bytes.device_id == device.id ? bytes.total() : 0;
        }
        ASSERT_LE(really, device.vram_bytes) << device.id << " is overfilled";
        ASSERT_LE(used_bytes(state, device.id), device.vram_bytes) << device.id << " is promised twice";
      }
    }
    std::map<std::string, int> active;
    std::set<std::pair<std::string, std::string>> places;
    for (const auto& [id, placement] : state.placements) {
      if (placement.spec.draining) continue;
      ++active[placement.spec.deployment];
      ASSERT_TRUE(places.emplace(placement.spec.deployment, placement.node).second) << "two on one node";
    }
    for (const auto& [name, count] : active) {
      const auto deployment = state.deployments.find(name);
      if (deployment == state.deployments.end() || state.observing || state.frozen_writes) continue;
      ASSERT_LE(count, std::max({deployment->second.replicas_min, deployment->second.replicas_max, 0}) + 1) << name;
    }
    // I4: routes name only what the newest report of a living node says is ready.
    if (!state.routes || state.observing) return;
    for (const RouteModel& model : state.routes->models) {
      for (const RouteReplica& replica : model.replicas) {
        const auto placement = state.placements.find(replica.id);
        ASSERT_TRUE(placement != state.placements.end());
        if (replica.suspect && state.detector.frozen()) continue;  // kept after a mass failure
        const ReplicaStatus* seen = observed_replica(state, placement->second);
        ASSERT_TRUE(seen != nullptr && seen->state == ReplicaState::kReady) << replica.id;
      }
    }
  }

  Version routes_version_;
  int undecided_ = 0;
  std::string cause_;
};

}  // namespace aiv::test
