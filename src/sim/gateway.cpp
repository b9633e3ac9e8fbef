#include "sim/gateway.hpp"

#include <algorithm>

#include "sim/world.hpp"

namespace aiv::sim {

namespace {

constexpr std::int64_t kStallMs = 10'000;
constexpr std::int64_t kGapMaxMs = 15'000;  // 10 s to find a stall, and the time to go on elsewhere
constexpr std::int64_t kForEverMs = 600'000;
constexpr int kAttemptsMax = 8;
constexpr std::int64_t kWindowMs = 10'000;

}  // namespace

void Gateway::kill() {
  if (!alive_) return;
  alive_ = false;
  std::vector<std::uint64_t> all;
  for (const auto& [id, request] : requests_) all.push_back(id);
  for (const std::uint64_t id : all) {
    Request& request = requests_.at(id);
    note_progress(request);
    if (request.replica)
      leave_replica(request, false);
    else
      models_.at(request.model).queue.remove(id);
    end(id, request.delivered > 0 ? End::kBroken : End::kRefused, "the gateway died");
  }
  models_.clear();
  retries_running_ = 0;
  quotas_.lose();
}

void Gateway::start() {
  alive_ = true;
  quotas_.restore();
  if (!table_) return;
  const RouteTable table = *table_;  // from its disk
  table_.reset();
  take_table(table);
}

bool Gateway::take_table(const RouteTable& table) {
  if (!alive_) return false;
  if (table_ && table.version < table_->version && world_.plant() != Plant::kGatewayIgnoresVersions)
    return false;
  world_.checks().applied("gateway", table.version, world_.now());
  table_ = table;
  for (const RouteModel& route : table.models) {
    Model& model = models_[route.name];
    model.name = route.name;
    model.state = route.state;
    std::vector<ReplicaPtr> replicas;
    for (const RouteReplica& wanted : route.replicas) {
      const auto known = std::ranges::find_if(
          model.replicas, [&](const ReplicaPtr& r) { return r->id == wanted.id && r->node == wanted.node; });
      ReplicaPtr replica = known != model.replicas.end()
                               ? *known
                               : std::make_shared<Replica>(wanted.id, wanted.node, wanted.slots);
      if (known == model.replicas.end()) {
        const double speed = std::clamp(wanted.relative_speed, 0.01, 100.0);
        replica->speed = SpeedEstimate(600 * speed, 30 * speed);
      }
      replica->ledger.set_slots(wanted.slots);
      replica->suspect = wanted.suspect;
      replicas.push_back(std::move(replica));
    }
    model.replicas = std::move(replicas);
  }
  for (auto& [name, model] : models_) {
    const bool named =
        std::ranges::any_of(table.models, [&](const RouteModel& route) { return route.name == name; });
    if (named) continue;
    model.replicas.clear();
    model.state = "deleted";
    while (const auto ticket = model.queue.peek()) {
      model.queue.take(*ticket);
      end(*ticket, requests_.at(*ticket).delivered > 0 ? End::kBroken : End::kRefused,
          "its model was deleted");
    }
  }
  pump_all();
  return true;
}

bool Gateway::routes_to_node(const std::string& node) const {
  if (!table_) return false;
  for (const RouteModel& model : table_->models) {
    for (const RouteReplica& replica : model.replicas) {
      if (replica.node == node) return true;
    }
  }
  return false;
}

std::set<std::uint64_t> Gateway::on_node(const std::string& node) const {
  std::set<std::uint64_t> out;
  for (const auto& [id, request] : requests_) {
    if (request.replica && request.replica->node == node) out.insert(id);
  }
  return out;
}

void Gateway::count_window(std::int64_t at_ms, bool good) {
  auto& [good_count, all] = windows_[at_ms / kWindowMs];
  good_count += good ? 1 : 0;
  ++all;
}

double Gateway::worst_window() const {
  double worst = 1;
  for (const auto& [at, counts] : windows_) {
    worst = std::min(worst, static_cast<double>(counts.first) / static_cast<double>(counts.second));
  }
  return worst;
}

void Gateway::request(const std::string& model, std::int64_t prompt, std::int64_t tokens) {
  ++counts_.total;
  Request request;
  request.id = world_.next_no();
  request.model = model;
  request.prompt = prompt;
  request.tokens = std::max<std::int64_t>(1, tokens);
  request.arrived_ms = world_.now();
  if (!alive_) {
    // The client's connection is refused; it tries again for a second, as every SDK does.
    if (world_.gateway_back_ms() - world_.now() > 1000) {
      ++counts_.refused;
      count_window(world_.now(), false);
      return;
    }
    --counts_.total;
    world_.queue().at(world_.gateway_back_ms() + 1,
                      [this, model, prompt, tokens] { this->request(model, prompt, tokens); });
    return;
  }
  const auto found = models_.find(model);
  if (found == models_.end()) {
    ++counts_.refused;
    count_window(world_.now(), false);
    return;
  }
  const std::uint64_t id = request.id;
  if (!quotas_.admit(id, prompt + kAnswerTokensMax)) {
    --counts_.total;
    ++counts_.limited;
    return;
  }
  ++samples_[model].arrivals;
  enqueue(requests_.emplace(id, std::move(request)).first->second, false);
}

void Gateway::enqueue(Request& request, bool front) {
  Model& model = models_.at(request.model);
  int slots = 0;
  for (const ReplicaPtr& replica : model.replicas) slots += replica->ledger.slots();
  QueuedRequest queued{request.id, "key", request.prompt + request.tokens, world_.now() + kQueueDeadlineMs,
                       front};
  if (!model.queue.push(std::move(queued), queue_places(slots))) {
    return end(request.id, End::kRefused, "the queue is full");
  }
  pump(model);
}

RouteDecision Gateway::choose(const Model& model, const Request& request) {
  options_.clear();
  for (const ReplicaPtr& replica : model.replicas) {
    options_.push_back({replica->ledger.slots(), replica->ledger.busy(),
                        replica->ledger.wait_ms(world_.now()), replica->speed.prefill_per_s(),
                        replica->speed.decode_per_s(), 0, replica->ejection.until_ms(), replica->suspect,
                        world_.link_seen(replica->node), request.tried.contains(replica->id)});
  }
  terms_.assign(options_.size(), RouteTerms{});
  RouteAsk ask;
  ask.prompt_tokens = static_cast<double>(request.prompt);
  ask.output_tokens = model.output_tokens.value();
  ask.now_ms = world_.now();
  ask.random = world_.random().bits();
  ask.waiting = std::max(0, model.queue.size() - 1);
  return route(ask, options_, terms_);
}

void Gateway::pump(Model& model) {
  while (alive_) {
    const auto ticket = model.queue.peek();
    if (!ticket) return;
    Request& request = requests_.at(*ticket);
    const RouteDecision decision = choose(model, request);
    if (decision.outcome == RouteOutcome::kChosen) {
      model.queue.take(*ticket);
      dispatch(request, model.replicas[static_cast<std::size_t>(decision.index)], decision.finish_ms);
      continue;
    }
    if (decision.outcome == RouteOutcome::kNone && !request.tried.empty() && !model.replicas.empty()) {
      request.tried.clear();  // all were tried: from the start, until its deadline
    }
    return;
  }
}

void Gateway::pump_all() {
  for (auto& [name, model] : models_) pump(model);
}

void Gateway::dispatch(Request& request, const ReplicaPtr& replica, double finish_ms) {
  const bool from_start = request.delivered > 0 &&
                          (request.carried != request.delivered || world_.plant() == Plant::kResendFromStart);
  if (from_start) {
    world_.checks().violate("I6", world_.now(),
                            "request " + std::to_string(request.id) +
                                " is sent again without the text of its " +
                                std::to_string(request.delivered) + " tokens");
  }
  const bool routed =
      table_ && std::ranges::any_of(table_->models, [&](const RouteModel& m) {
        return std::ranges::any_of(m.replicas, [&](const RouteReplica& r) { return r.id == replica->id; });
      });
  if (!routed)
    world_.checks().violate("I4", world_.now(),
                            "a request is sent to " + replica->id + ", which no table names");
  ++request.attempts;
  request.replica = replica;
  request.slot = replica->ledger.take(world_.now(), world_.now() + static_cast<std::int64_t>(finish_ms), 0);
  request.batch = replica->ledger.busy();
  request.runs = false;
  request.frozen_ms = -1;
  const std::uint64_t generation = ++request.generation;
  const std::uint64_t id = request.id;
  world_.queue().after(kStallMs, [this, id, generation] { stalled(id, generation); });
  world_.send_down(replica->node, [this, id, generation] { arrive(id, generation); });
}

// At the node.
void Gateway::arrive(std::uint64_t id, std::uint64_t generation) {
  const auto found = requests_.find(id);
  if (!alive_ || found == requests_.end() || found->second.generation != generation || !found->second.replica)
    return;
  Request& request = found->second;
  Node* node = world_.find(request.replica->node);
  if (node == nullptr || !node->answers()) return;  // nothing comes back: the stall or the link tells
  const Served served = node->begin_request(request.replica->id, id, request.prompt + request.carried,
                                            request.tokens - request.carried);
  if (served == Served::kAccepted) return;
  broke(request, served == Served::kNoSlot ? "no slot" : "the replica is not ready",
        served != Served::kNoSlot);
}

void Gateway::started(std::uint64_t id, std::int64_t prefill_ms, std::int64_t decode_ms) {
  Request& request = requests_.at(id);
  request.runs = true;
  request.first_due_ms = world_.now() + prefill_ms;
  request.end_due_ms = request.first_due_ms + std::max<std::int64_t>(1, decode_ms);
  const std::uint64_t generation = ++request.generation;
  world_.queue().at(request.end_due_ms, [this, id, generation] { finish(id, generation); });
}

void Gateway::note_progress(Request& request) {
  if (!request.runs) return;
  const std::int64_t now = request.frozen_ms >= 0 ? request.frozen_ms : world_.now();
  if (now < request.first_due_ms) return;
  const std::int64_t span = std::max<std::int64_t>(1, request.end_due_ms - request.first_due_ms);
  const std::int64_t done =
      (request.tokens - request.carried) * std::min(now - request.first_due_ms, span) / span;
  request.delivered = std::max(request.delivered, request.carried + std::max<std::int64_t>(1, done));
  if (request.last_token_ms >= 0)
    request.longest_gap_ms = std::max(request.longest_gap_ms, request.first_due_ms - request.last_token_ms);
  if (request.first_token_ms < 0) request.first_token_ms = request.first_due_ms;
  request.last_token_ms = std::min(now, request.end_due_ms);
}

void Gateway::frozen(const std::set<std::uint64_t>& requests) {
  for (const std::uint64_t id : requests) {
    const auto found = requests_.find(id);
    if (found == requests_.end() || !found->second.runs || found->second.frozen_ms >= 0) continue;
    Request& request = found->second;
    request.frozen_ms = world_.now();
    const std::uint64_t generation = ++request.generation;
    world_.queue().after(kStallMs, [this, id, generation] { stalled(id, generation); });
  }
}

void Gateway::thawed(const std::set<std::uint64_t>& requests) {
  for (const std::uint64_t id : requests) {
    const auto found = requests_.find(id);
    if (found == requests_.end() || !found->second.runs || found->second.frozen_ms < 0) continue;
    Request& request = found->second;
    note_progress(request);
    const std::int64_t pause = world_.now() - request.frozen_ms;
    if (request.last_token_ms >= 0) request.longest_gap_ms = std::max(request.longest_gap_ms, pause);
    request.first_due_ms +=
        request.frozen_ms < request.first_due_ms || request.delivered == request.carried ? pause : 0;
    request.end_due_ms += pause;
    if (request.delivered > request.carried) {  // what is left runs on from here
      request.carried = request.delivered;
      request.first_due_ms = world_.now();
      request.last_token_ms = world_.now();
    }
    request.frozen_ms = -1;
    const std::uint64_t generation = ++request.generation;
    world_.queue().at(std::max(request.end_due_ms, world_.now() + 1),
                      [this, id, generation] { finish(id, generation); });
  }
}

void Gateway::broken(std::set<std::uint64_t> requests, const std::string& why) {
  for (const std::uint64_t id : requests) {
    const auto found = requests_.find(id);
    if (found != requests_.end() && found->second.replica) broke(found->second, why, true);
  }
}

void Gateway::node_link_lost(const std::string& node) {
  broken(on_node(node), "the link to its node closed");
}

void Gateway::stalled(std::uint64_t id, std::uint64_t generation) {
  const auto found = requests_.find(id);
  if (found == requests_.end() || found->second.generation != generation || !found->second.replica) return;
  broke(found->second, "no byte for 10 s", true);
}

// `ended`: the engine is through with it by itself; else it must be told.
void Gateway::leave_replica(Request& request, bool ended) {
  const ReplicaPtr replica = std::move(request.replica);
  request.replica = nullptr;
  request.runs = false;
  ++request.generation;
  replica->ledger.release(request.slot.ticket);
  const std::uint64_t id = request.id;
  const auto cancel = [this, node = replica->node, replica_id = replica->id, id] {
    if (Node* found = world_.find(node)) found->cancel_request(replica_id, id);
  };
  if (ended)
    cancel();
  else
    world_.send_down(replica->node, cancel);
}

void Gateway::broke(Request& request, const std::string& why, bool blame) {
  note_progress(request);
  if (blame) request.replica->ejection.failed(world_.now());
  request.tried.insert(request.replica->id);
  leave_replica(request, false);
  if (request.retrying) --retries_running_;
  request.retrying = false;
  const bool begun = request.delivered > 0;
  const bool may = world_.scenario().retry && request.attempts < kAttemptsMax &&
                   (begun || retry_within_budget(retries_running_, static_cast<int>(requests_.size())));
  if (world_.plant() == Plant::kLoseRequest) return;
  if (!may) return end(request.id, begun ? End::kBroken : End::kRefused, why);
  request.resumed = true;
  request.retrying = true;
  ++retries_running_;
  if (world_.plant() != Plant::kResendFromStart) request.carried = request.delivered;
  if (request.carried >= request.tokens) return end(request.id, End::kGood, {});
  const std::string name = request.model;
  enqueue(request, true);
  pump(models_.at(name));
}

void Gateway::finish(std::uint64_t id, std::uint64_t generation) {
  const auto found = requests_.find(id);
  if (found == requests_.end() || found->second.generation != generation || !found->second.runs) return;
  Request& request = found->second;
  note_progress(request);
  request.delivered = request.tokens;
  const ReplicaPtr replica = request.replica;
  replica->ejection.succeeded();
  if (!request.resumed) {
    const auto decode_ms = static_cast<double>(request.end_due_ms - request.first_due_ms);
    replica->speed.observe_decode(request.tokens, decode_ms, request.batch);
    replica->speed.observe_prefill(
        request.prompt, static_cast<double>(request.first_due_ms -
                                            (world_.now() - static_cast<std::int64_t>(decode_ms)) + 1));
  }
  Model& model = models_.at(request.model);
  samples_[request.model].prompt_tokens += request.prompt;
  samples_[request.model].output_tokens += request.tokens;
  model.output_tokens.observe(static_cast<double>(request.tokens));
  model.prompt_tokens.observe(static_cast<double>(request.prompt));
  leave_replica(request, true);
  end(id, End::kGood, {});
  pump(model);
}

void Gateway::end(std::uint64_t id, End how, const std::string& why) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) {
    return world_.checks().violate("I6", world_.now(), "request " + std::to_string(id) + " ends twice");
  }
  const Request request = found->second;
  requests_.erase(found);
  quotas_.settle(id, request.prompt + request.delivered);
  if (request.retrying) --retries_running_;
  const bool late = request.first_token_ms - request.arrived_ms > world_.scenario().ttft_ms ||
                    request.longest_gap_ms > kGapMaxMs;
  const bool good = how == End::kGood && !late;
  if (how == End::kGood && late) ++counts_.late;
  if (how == End::kRefused) ++counts_.refused;
  if (how == End::kBroken) ++counts_.broken;
  if (good) ++counts_.good;
  if (good && request.resumed) ++counts_.resumed;
  count_window(request.arrived_ms, good);
  if (!good) {
    world_.say("gateway", "request " + std::to_string(id) + " of " + request.model +
                              (late && how == End::kGood ? " was late" : " failed: " + why) + " (" +
                              std::to_string(request.delivered) + " of " + std::to_string(request.tokens) +
                              " tokens, " + std::to_string(request.attempts) + " tries)");
  }
}

// ---- counters -------------------------------------------------------------------------------------------

void Gateway::count(std::int64_t ms) {
  std::map<std::string, std::int64_t> busy;
  std::map<std::string, std::int64_t> active;
  const auto since = [this](const std::map<std::string, std::int64_t>& before, const std::string& name) {
    const auto found = before.find(name);
    return found == before.end() ? world_.now() : found->second;
  };
  for (const auto& [name, model] : models_) samples_[name].running = samples_[name].waiting = 0;
  for (const auto& [id, request] : requests_) {
    LoadSample& sample = samples_[request.model];
    active[request.model] = since(active_since_, request.model);
    if (request.replica) {
      sample.running_ms += ms;
      ++sample.running;
      busy[request.replica->id] = since(busy_since_, request.replica->id);
    } else {
      sample.waiting_ms += ms;
      ++sample.waiting;
    }
  }
  busy_since_ = std::move(busy);
  active_since_ = std::move(active);
}

std::vector<LoadSample> Gateway::take_samples(std::int64_t interval_ms) {
  std::vector<LoadSample> out;
  for (auto& [name, sample] : samples_) {
    const auto model = models_.find(name);
    if (model == models_.end() || model->second.state == "deleted") continue;
    sample.deployment = name;
    sample.interval_ms = interval_ms;
    for (const ReplicaPtr& replica : model->second.replicas)
      sample.replicas.push_back({replica->id, replica->ledger.busy()});
    out.push_back(std::move(sample));
  }
  samples_.clear();
  return out;
}

std::int64_t Gateway::busy_since(const std::string& replica) const {
  const auto found = busy_since_.find(replica);
  return found == busy_since_.end() ? -1 : found->second;
}

std::int64_t Gateway::active_since(const std::string& model) const {
  const auto found = active_since_.find(model);
  return found == active_since_.end() ? -1 : found->second;
}

void Gateway::tick() {
  if (!alive_) return;
  quotas_.write();
  for (auto& [name, model] : models_) {
    for (const std::uint64_t ticket : model.queue.expire(world_.now())) {
      end(ticket, requests_.at(ticket).delivered > 0 ? End::kBroken : End::kRefused, "no slot within 30 s");
    }
    pump(model);
  }
  if (requests_.empty()) return;
  const Request& oldest = requests_.begin()->second;
  if (world_.now() - oldest.arrived_ms < kForEverMs) return;
  world_.checks().violate("L3", world_.now(),
                          "request " + std::to_string(oldest.id) + " of " + oldest.model + " waits since " +
                              std::to_string(oldest.arrived_ms) + " ms");
  requests_.erase(requests_.begin());
}

}  // namespace aiv::sim
