#include "sim/node.hpp"

#include <algorithm>

#include "base/units.hpp"
#include "sim/world.hpp"

namespace aiv::sim {

namespace {

constexpr std::int64_t kHeartbeatMs = 250;
constexpr std::int64_t kWholeReportMs = 5'000;

bool same_process(ReplicaSpec a, const ReplicaSpec& b) {
  a.draining = b.draining;
  return a == b;
}

// What the engine really takes: off the estimate by up to 8 MiB either way, always the same for a model on a sort of card.
std::vector<DeviceBytes> measured_of(const ReplicaSpec& spec, const std::vector<Device>& devices) {
  constexpr std::int64_t kMostMib = 8;
  std::vector<DeviceBytes> out = spec.devices;
  for (DeviceBytes& bytes : out) {
    const auto device = std::ranges::find(devices, bytes.device_id, &Device::id);
    std::uint32_t mixed = 0;
    for (const char c : spec.model + (device == devices.end() ? "" : device->name)) {
      mixed = mixed * 31 + static_cast<unsigned char>(c);
    }
    const Bytes off = (static_cast<Bytes>(mixed % (2 * kMostMib + 1)) - kMostMib) * kMiB;
    bytes.compute = std::max<Bytes>(0, bytes.compute + off);
  }
  return out;
}

}  // namespace

Node::Node(World& world, std::string id, std::vector<Device> devices)
    : world_(world), id_(std::move(id)), devices_(std::move(devices)) {
  disk_bytes_per_ms_ = world_.random().between(150, 1500) * 1000;
  world_.queue().after(world_.random().between(0, 500), [this] { start_agent(); });
}

// ---- faults ---------------------------------------------------------------------------------------------

void Node::power_off() {
  if (!power_) return;
  power_ = agent_ = agent_stopped_ = false;
  ++incarnation_;
  replicas_.clear();
  loading_.clear();
  while_stopped_.clear();
  for (const Engine& engine : engines_) world_.gateway().frozen(engine.requests);
  engines_.clear();
  for (Device& device : devices_) device.foreign_bytes = 0;
}

void Node::power_on() {
  if (power_) return;
  power_ = true;
  ++boot_;
  world_.queue().after(world_.random().between(500, 3000), [this] { start_agent(); });
}

void Node::kill_agent(std::int64_t restart_ms) {
  if (!agent_) return;
  agent_ = agent_stopped_ = false;
  ++incarnation_;
  replicas_.clear();
  loading_.clear();
  while_stopped_.clear();
  for (const Engine& engine : engines_) world_.gateway().broken(engine.requests, "its agent died");
  for (Engine& engine : engines_) engine.requests.clear();
  world_.link_reset(*this);
  world_.queue().after(restart_ms, [this] { start_agent(); });
}

void Node::stop_agent() {
  if (!agent_ || agent_stopped_) return;
  agent_stopped_ = true;
  for (const Engine& engine : engines_) world_.gateway().frozen(engine.requests);
}

void Node::continue_agent() {
  if (!agent_stopped_) return;
  agent_stopped_ = false;
  std::vector<std::function<void()>> actions;
  actions.swap(while_stopped_);
  for (const auto& action : actions) world_.queue().after(0, action);
  for (const Engine& engine : engines_) resume_requests(engine);
}

bool Node::kill_engine() {
  std::vector<std::uint64_t> alive;
  for (const Engine& engine : engines_) {
    if (engine.alive) alive.push_back(engine.no);
  }
  if (alive.empty()) return false;
  engine_exited(alive[world_.random().index(alive.size())], "killed by signal 9", false);
  return true;
}

bool Node::stop_engine(std::int64_t for_ms) {
  std::vector<std::size_t> alive;
  for (std::size_t i = 0; i < engines_.size(); ++i) {
    if (engines_[i].alive && !engines_[i].stopped) alive.push_back(i);
  }
  if (alive.empty()) return false;
  Engine& engine = engines_[alive[world_.random().index(alive.size())]];
  engine.stopped = true;
  freeze_requests(engine);
  world_.queue().after(for_ms, [this, no = engine.no] {
    Engine* found = find_engine(no);
    if (found == nullptr || !found->alive) return;
    found->stopped = false;
    resume_requests(*found);
  });
  return true;
}

void Node::steal(Bytes bytes) {
  for (Device& device : devices_) device.foreign_bytes = std::clamp<Bytes>(bytes, 0, device.vram_bytes);
  if (agent_) agent_later(world_.random().between(0, 1000), [this] { changed(); });
}

// ---- the agent ------------------------------------------------------------------------------------------

void Node::agent_later(std::int64_t delay_ms, std::function<void()> action) {
  world_.queue().after(delay_ms, [this, at = incarnation_, action = std::move(action)] {
    if (!agent_ || at != incarnation_) return;
    if (!agent_stopped_) return action();
    while_stopped_.push_back([this, at, action] {
      if (agent_ && at == incarnation_) action();
    });
  });
}

void Node::start_agent() {
  if (!power_ || agent_) return;
  agent_ = true;
  agent_stopped_ = false;
  incarnation_ = (world_.random().bits() | 1U);
  seq_ = 1;
  replicas_.clear();
  loading_.clear();
  world_.say(id_, "agent: starts");
  if (desired_) {
    end_strangers();
    reconcile();
  }
  world_.connect(*this);
  heartbeat();
  whole_report();
}

void Node::heartbeat() {
  world_.send_up(*this, [this](Controller& controller) { controller.heartbeat(id_); });
  agent_later(kHeartbeatMs, [this] { heartbeat(); });
}

void Node::whole_report() {
  send_observed();
  agent_later(kWholeReportMs, [this] { whole_report(); });
}

void Node::link_opened() {
  agent_later(0, [this] { send_observed(); });
}

void Node::send_observed() {
  if (!linked) return;
  const auto document = std::make_shared<const NodeObserved>(observed());
  world_.send_up(*this, [document](Controller& controller) { controller.observed(document); });
}

void Node::changed() {
  ++seq_;
  if (change_noted_) return;
  change_noted_ = true;
  world_.queue().after(1, [this] {
    change_noted_ = false;
    if (answers()) send_observed();
  });
}

Bytes Node::held_on(const std::string& device) const {
  Bytes held = 0;
  for (const Engine& engine : engines_) {
    for (const DeviceBytes& bytes : engine.takes)
      held += bytes.device_id == device ? bytes.total() : 0;
  }
  return held;
}

NodeObserved Node::observed() const {
  NodeObserved out;
  out.node = id_;
  out.boot_id = std::to_string(boot_);
  out.incarnation = incarnation_;
  out.seq = seq_;
  if (desired_) out.applied = desired_->version;
  out.agent_version = "sim";
  out.devices = devices_;
  for (Device& device : out.devices)
    device.free_bytes = std::max<Bytes>(0, device.vram_bytes - device.foreign_bytes - held_on(device.id));
  for (const auto& [id, replica] : replicas_) {
    ReplicaStatus status;
    status.id = id;
    status.deployment = replica.spec.deployment;
    status.model = replica.spec.model;
    status.state = replica.life.state();
    status.reason = replica.life.reason();
    status.pid = static_cast<std::int64_t>(replica.engine);
    status.slots = replica.spec.slots;
    status.restarts = replica.life.restarts();
    if (status.state == ReplicaState::kReady || status.state == ReplicaState::kDraining)
      status.measured = measured_of(replica.spec, devices_);
    status.out_of_memory =
        status.state == ReplicaState::kFailed && status.reason.contains("out of device memory");
    out.replicas.push_back(std::move(status));
  }
  return out;
}

void Node::take_document(const NodeDesired& document, const Answer& answer) {
  agent_later(0, [this, document, answer] {
    if (desired_ && document.version < desired_->version && world_.plant() != Plant::kAgentIgnoresVersions) {
      return answer(409, desired_->version);
    }
    if (desired_ && document == *desired_) return answer(200, document.version);
    agent_later(world_.random().between(2, 25), [this, document, answer] {  // fsync
      if (desired_ && document.version < desired_->version &&
          world_.plant() != Plant::kAgentIgnoresVersions) {
        return answer(409, desired_->version);
      }
      world_.checks().applied(id_, document.version, world_.now());
      const bool first = !desired_;
      desired_ = document;
      if (first) end_strangers();
      reconcile();
      changed();
      answer(200, document.version);
    });
  });
}

void Node::end_strangers() {
  for (const Engine& engine : engines_) {
    const auto wanted = std::ranges::find(desired_->replicas, engine.spec.id, &ReplicaSpec::id);
    const bool same = wanted != desired_->replicas.end() && same_process(*wanted, engine.spec);
    if (!same && engine.alive)
      exit_later(engine.no, world_.random().between(50, 400), "no longer wanted", false);
  }
}

void Node::reconcile() {
  if (!desired_) return;
  std::vector<std::string> ids;
  for (const auto& [id, replica] : replicas_) ids.push_back(id);
  for (const std::string& id : ids) {
    const auto found = replicas_.find(id);
    if (found == replicas_.end()) continue;
    const auto wanted = std::ranges::find(desired_->replicas, id, &ReplicaSpec::id);
    if (wanted == desired_->replicas.end() || !same_process(*wanted, found->second.spec)) {
      if (!found->second.stopping) {
        found->second.stopping = true;
        push(id, LifeEvent::kStop, {});
      }
    } else if (found->second.spec.draining != wanted->draining) {
      found->second.spec.draining = wanted->draining;
      push(id, wanted->draining ? LifeEvent::kDrain : LifeEvent::kUndrain, {});
    }
  }
  const std::vector<ReplicaSpec> wanted = desired_->replicas;
  for (const ReplicaSpec& spec : wanted) {
    if (world_.plant() == Plant::kAgentForgets && spec.id.back() < 'g') continue;
    if (!replicas_.contains(spec.id)) start_replica(spec);
  }
}

void Node::start_replica(const ReplicaSpec& spec) {
  LifeLimits limits;
  Bytes bytes = 0;
  for (const DeviceBytes& device : spec.devices) bytes += device.weights;
  limits.load_ms = 120'000 + 3 * bytes / 100'000;  // as the agent's: a floor and three times a slow disk
  const auto [it, added] = replicas_.emplace(spec.id, Replica(spec, limits));
  Engine* engine = engine_of(spec.id);
  if (engine != nullptr && same_process(engine->spec, spec)) {
    it->second.engine = engine->no;
    world_.say(id_, "agent: adopts " + spec.id);
    drive(spec.id, engine->ready ? LifeEvent::kBeginAdopted : LifeEvent::kBeginLoading, {});
    if (spec.draining) push(spec.id, LifeEvent::kDrain, {});
    return;
  }
  if (spec.draining) it->second.life.resume(LifeEvent::kDrain, world_.now());
  drive(spec.id, LifeEvent::kBegin, {});
}

void Node::push(const std::string& id, LifeEvent event, std::string detail) {
  agent_later(0, [this, id, event, detail = std::move(detail)] { drive(id, event, detail); });
}

// ---- one replica ----------------------------------------------------------------------------------------

void Node::drive(const std::string& id, LifeEvent event, std::string detail) {
  const auto found = replicas_.find(id);
  if (found == replicas_.end()) return;
  Replica& replica = found->second;
  if (replica.releasing && event != LifeEvent::kReleased) {
    replica.queue.emplace_back(event, std::move(detail));
    return;
  }
  if (event == LifeEvent::kReleased) {
    if (!replica.releasing) return;
    replica.releasing = false;
  }
  const ReplicaState before = replica.life.state();
  std::optional<LifeAction> action = replica.life.resume(event, world_.now(), std::move(detail));
  while (action) action = perform(id, replica, *action);
  const auto still = replicas_.find(id);
  const ReplicaState after = still == replicas_.end() ? ReplicaState::kStopped : still->second.life.state();
  if (after != before || still == replicas_.end()) {
    const std::string reason = still == replicas_.end() ? "" : still->second.life.reason();
    world_.say(id_, id + ": " + std::string(state_word(after)) + (reason.empty() ? "" : ", " + reason));
    changed();
  }
}

std::optional<LifeAction> Node::perform(const std::string& id, Replica& replica, LifeAction action) {
  const std::int64_t now = world_.now();
  switch (action.what) {
    case LifeDo::kWait:
      wait(id, replica, action);
      return std::nullopt;
    case LifeDo::kAskRoom: {
      auto [event, detail] = ask_room(replica.spec);
      return replica.life.resume(event, now, std::move(detail));
    }
    case LifeDo::kStart:
      start_engine(id, replica);
      return replica.life.resume(LifeEvent::kTick, now);
    case LifeDo::kProve:
      return replica.life.resume(LifeEvent::kProved, now);
    case LifeDo::kCanary:
      agent_later(world_.random().between(20, 400), [this, id, no = replica.engine] { canary(id, no); });
      return replica.life.resume(LifeEvent::kTick, now);
    case LifeDo::kTerm: {
      const Engine* engine = find_engine(replica.engine);
      if (engine != nullptr) world_.gateway().broken(engine->requests, "cancelled by a stop");
      if (engine != nullptr && !engine->stopped)
        exit_later(replica.engine, world_.random().between(30, 400), "stopped", false);
      return replica.life.resume(LifeEvent::kTick, now);
    }
    case LifeDo::kKill:
      exit_later(replica.engine, world_.random().between(2, 20), "killed by signal 9", false);
      return replica.life.resume(LifeEvent::kTick, now);
    case LifeDo::kRelease: {
      std::erase_if(loading_, [&](const auto& entry) { return entry.second == id; });
      replica.releasing = true;
      const Engine* engine = find_engine(replica.engine);
      if (engine == nullptr)
        release(id, replica.engine);
      else
        agent_later(10'000, [this, id, no = replica.engine] { release(id, no); });
      return std::nullopt;
    }
    case LifeDo::kEnd:
      std::erase_if(loading_, [&](const auto& entry) { return entry.second == id; });
      replicas_.erase(id);
      agent_later(0, [this] { reconcile(); });
      return std::nullopt;
  }
  return std::nullopt;
}

void Node::wait(const std::string& id, Replica& replica, LifeAction action) {
  const ReplicaState state = replica.life.state();
  if (state == ReplicaState::kReady)
    std::erase_if(loading_, [&](const auto& entry) { return entry.second == id; });
  if (state != ReplicaState::kDraining) replica.idle_told = false;
  const Engine* engine = find_engine(replica.engine);
  const bool idle = engine == nullptr || engine->requests.empty();
  if (state == ReplicaState::kDraining && idle && !replica.idle_told) {
    replica.idle_told = true;
    push(id, LifeEvent::kIdle, {});
  }
  if (!replica.queue.empty()) {
    auto [event, detail] = std::move(replica.queue.front());
    replica.queue.pop_front();
    push(id, event, std::move(detail));
  }
  if (action.wake_ms <= 0) return;
  const std::uint64_t timer = ++replica.timer;
  agent_later(std::max<std::int64_t>(1, action.wake_ms - world_.now()), [this, id, timer] {
    const auto found = replicas_.find(id);
    if (found != replicas_.end() && found->second.timer == timer) drive(id, LifeEvent::kTick, {});
  });
}

std::pair<LifeEvent, std::string> Node::ask_room(const ReplicaSpec& spec) {
  if (world_.plant() == Plant::kOverfillUnchecked) return {LifeEvent::kRoom, {}};
  for (const DeviceBytes& want : spec.devices) {
    const auto taken = loading_.find(want.device_id);
    if (taken != loading_.end() && taken->second != spec.id)
      return {LifeEvent::kNotYet, taken->second + " is loading on " + want.device_id};
  }
  for (const DeviceBytes& want : spec.devices) {
    const auto device = std::ranges::find(devices_, want.device_id, &Device::id);
    if (device == devices_.end()) return {LifeEvent::kUnfit, "this node has no device " + want.device_id};
    const Bytes free = device->vram_bytes - device->foreign_bytes - held_on(device->id);
    if (want.total() > free) {
      return {LifeEvent::kNoRoom, "needs " + format_bytes(want.total()) + " on " + want.device_id + ", " +
                                      format_bytes(std::max<Bytes>(0, free)) + " free"};
    }
  }
  for (const DeviceBytes& want : spec.devices) loading_[want.device_id] = spec.id;
  return {LifeEvent::kRoom, {}};
}

void Node::start_engine(const std::string& id, Replica& replica) {
  Engine engine;
  engine.no = world_.next_no();
  engine.spec = replica.spec;
  engine.takes = measured_of(replica.spec, devices_);
  replica.engine = engine.no;
  Bytes bytes = 0;
  for (const DeviceBytes& part : replica.spec.devices) bytes += part.weights;
  const bool oom = world_.now() < load_oom_until;
  const bool exits = world_.now() < load_exit_until;
  const bool hangs = world_.now() < load_hang_until;
  const std::uint64_t no = engine.no;
  engines_.push_back(std::move(engine));
  for (const DeviceBytes& part : replica.spec.devices) {
    const auto device = std::ranges::find(devices_, part.device_id, &Device::id);
    const Bytes held = held_on(part.device_id);
    if (device == devices_.end() || held > device->vram_bytes) {
      world_.checks().violate(
          "I3", world_.now(),
          "engines of ours hold " + format_bytes(held) + " on " + part.device_id + " with " + id);
    }
  }
  std::int64_t load = 1000 + world_.random().between(0, 2000) + bytes / disk_bytes_per_ms_;
  if (world_.now() < slow_load_until) load *= 10;
  world_.say(id_, id + ": engine " + std::to_string(no) + " starts");
  if (oom) {
    exit_later(no, load * 7 / 10, "out of device memory for the compute buffers", true);
  } else if (exits) {
    exit_later(no, load / 2, "the engine ended while loading: exit status 1", false);
  } else if (!hangs) {
    world_.queue().after(load, [this, no] { engine_loaded(no); });
  }
}

void Node::engine_loaded(std::uint64_t no) {
  Engine* engine = find_engine(no);
  if (engine == nullptr || !engine->alive) return;
  if (engine->stopped) return world_.queue().after(500, [this, no] { engine_loaded(no); });
  engine->ready = true;
  const std::string id = engine->spec.id;
  if (!agent_) return;
  agent_later(1, [this, id, no] {
    const auto found = replicas_.find(id);
    if (found != replicas_.end() && found->second.engine == no) drive(id, LifeEvent::kEngineReady, {});
  });
}

void Node::canary(const std::string& id, std::uint64_t no) {
  const auto found = replicas_.find(id);
  const Engine* engine = find_engine(no);
  if (found == replicas_.end() || found->second.engine != no || engine == nullptr || !engine->alive) return;
  if (engine->stopped) return agent_later(500, [this, id, no] { canary(id, no); });
  if (found->second.life.state() == ReplicaState::kReady) return;
  drive(id, LifeEvent::kCanaryPassed, {});
}

void Node::exit_later(std::uint64_t no, std::int64_t delay_ms, const std::string& why, bool for_good) {
  world_.queue().after(delay_ms, [this, no, why, for_good] { engine_exited(no, why, for_good); });
}

void Node::engine_exited(std::uint64_t no, const std::string& why, bool for_good) {
  Engine* engine = find_engine(no);
  if (engine == nullptr || !engine->alive) return;
  engine->alive = false;
  engine->ready = false;
  const std::string id = engine->spec.id;
  world_.say(id_, id + ": engine " + std::to_string(no) + " is gone: " + why);
  if (answers())
    world_.gateway().broken(engine->requests, "the engine ended");
  else
    world_.gateway().frozen(engine->requests);
  engine->requests.clear();
  world_.queue().after(world_.random().between(10, 300), [this, no] { memory_back(no); });
  if (!agent_) return;
  agent_later(1, [this, id, no, why, for_good] {
    const auto found = replicas_.find(id);
    if (found == replicas_.end() || found->second.engine != no) return;
    drive(id, for_good ? LifeEvent::kExitedForGood : LifeEvent::kExited, why);
  });
}

void Node::memory_back(std::uint64_t no) {
  std::string id;
  for (const Engine& engine : engines_) {
    if (engine.no == no) id = engine.spec.id;
  }
  std::erase_if(engines_, [&](const Engine& engine) { return engine.no == no; });
  if (agent_ && !id.empty()) agent_later(world_.random().between(1, 50), [this, id, no] { release(id, no); });
}

void Node::release(const std::string& id, std::uint64_t engine) {
  const auto found = replicas_.find(id);
  if (found == replicas_.end() || found->second.engine != engine || !found->second.releasing) return;
  push(id, LifeEvent::kReleased, {});
}

Node::Engine* Node::find_engine(std::uint64_t no) {
  for (Engine& engine : engines_) {
    if (engine.no == no) return &engine;
  }
  return nullptr;
}

Node::Engine* Node::engine_of(const std::string& replica) {
  for (Engine& engine : engines_) {
    if (engine.spec.id == replica && engine.alive) return &engine;
  }
  return nullptr;
}

// ---- requests -------------------------------------------------------------------------------------------

Served Node::begin_request(const std::string& replica, std::uint64_t request, std::int64_t prompt,
                           std::int64_t tokens) {
  const auto found = replicas_.find(replica);
  if (found == replicas_.end()) return Served::kUnknown;
  Engine* engine = find_engine(found->second.engine);
  if (!found->second.life.accepts_requests() || engine == nullptr || !engine->alive) return Served::kNotReady;
  if (static_cast<int>(engine->requests.size()) >= engine->spec.slots) return Served::kNoSlot;
  engine->requests.insert(request);
  Bytes bytes = 0;
  std::int64_t bandwidth = 0;
  for (const DeviceBytes& part : engine->spec.devices) {
    bytes += part.weights;
    const auto device = std::ranges::find(devices_, part.device_id, &Device::id);
    if (device != devices_.end() && (bandwidth == 0 || device->bandwidth_bytes_per_s < bandwidth))
      bandwidth = device->bandwidth_bytes_per_s;
  }
  // Assumed, not measured: decoding reads all weights per token at 0.6 of the bandwidth, a prompt goes 15
  // times faster.
  const double decode = 0.6 * static_cast<double>(bandwidth) / static_cast<double>(std::max<Bytes>(bytes, 1));
  const double alone_ms =
      1000.0 / std::max(0.1, decode * batch_factor(static_cast<int>(engine->requests.size())));
  const double prefill_ms = 30 + static_cast<double>(prompt) * 1000.0 / (decode * 15);
  world_.gateway().started(request, static_cast<std::int64_t>(prefill_ms),
                           static_cast<std::int64_t>(alone_ms * static_cast<double>(tokens)));
  if (engine->stopped) world_.gateway().frozen(engine->requests);
  return Served::kAccepted;
}

void Node::cancel_request(const std::string& replica, std::uint64_t request) {
  for (Engine& engine : engines_) {
    if (engine.spec.id == replica) engine.requests.erase(request);
  }
  const auto found = replicas_.find(replica);
  if (found == replicas_.end() || !answers()) return;
  if (found->second.life.state() == ReplicaState::kDraining) push(replica, LifeEvent::kTick, {});
}

void Node::link_closed() {
  for (Engine& engine : engines_) engine.requests.clear();
  std::vector<std::string> ids;
  for (const auto& [id, replica] : replicas_) {
    if (replica.life.state() == ReplicaState::kDraining) ids.push_back(id);
  }
  for (const std::string& id : ids) push(id, LifeEvent::kTick, {});
}

void Node::cut_healed() {
  for (const Engine& engine : engines_) resume_requests(engine);
}

void Node::freeze_requests(const Engine& engine) {
  world_.gateway().frozen(engine.requests);
}

void Node::resume_requests(const Engine& engine) {
  if (engine.alive && !engine.stopped && answers() && !cut_up) world_.gateway().thawed(engine.requests);
}

}  // namespace aiv::sim
