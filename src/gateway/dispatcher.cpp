#include "gateway/dispatcher.hpp"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/hash.hpp"

namespace aiv::gateway {
namespace {

constexpr net::milliseconds kTick{100};

double expected_output(const Demand& demand) {
  const double mean = demand.model->output_tokens.value();
  return demand.max_tokens > 0 ? std::min(mean, static_cast<double>(demand.max_tokens)) : mean;
}

double expected_prompt(const Demand& demand) {
  return static_cast<double>(demand.prompt_bytes) * demand.model->tokens_per_byte.value();
}

constexpr double kUnknownLoadMs = 4'000;  // said for a load of which nothing is known yet

}  // namespace

std::int64_t monotonic_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

ApiError not_ready(Model& model, std::int64_t now_ms, std::uint64_t random) {
  if (model.replicas.empty()) model.turned_away += 1;
  if (model.state == "failed") {
    return overloaded("The model '" + model.name + "' failed to load: " + model.reason, "failed", 60);
  }
  const auto rest_ms = model.load.rest_ms(now_ms);
  const int wait_s = retry_after_s(rest_ms.value_or(kUnknownLoadMs), random);
  // The reason often begins with the state's own word.
  std::string why = model.reason.empty() ? "no replica is ready" : model.reason;
  if (rest_ms) why += ", about " + std::to_string(wait_s) + " s to go";
  const std::string state = model.state.empty() ? "not ready" : model.state;
  return overloaded("The model '" + model.name + "' is " + (why.starts_with(state) ? why : state + ": " + why) + ".",
                    model.state == "ready" ? "overloaded" : "loading", wait_s);
}

Lease::Lease(Dispatcher& dispatcher, ModelPtr model, ReplicaPtr replica, SlotLease slot, RouteTerms terms)
    : dispatcher_(dispatcher), alive_(dispatcher.alive_), model_(std::move(model)), replica_(std::move(replica)), slot_(slot), terms_(terms) {}

Lease::~Lease() {
  if (!alive_.expired()) dispatcher_.released(model_, *replica_, slot_.ticket);
}

Dispatcher::Dispatcher(net::Executor executor, Reachable reachable, Reachable has_room)
    : executor_(executor),
      reachable_(std::move(reachable)),
      has_room_(std::move(has_room)),
      random_(random_u64()),
      someone_waits_(executor) {}

ModelPtr Dispatcher::find(const std::string& name) const {
  const auto found = models_.find(name);
  return found == models_.end() ? nullptr : found->second;
}

void Dispatcher::update_model(const RouteModel& route) {
  ModelPtr& model = models_[route.name];
  if (!model) model = std::make_shared<Model>();
  model->name = route.name;
  model->state = route.state;
  model->reason = route.reason;
  model->ctx_per_slot = route.ctx_per_slot;
  if (route.replicas.empty() && route.state == "loading") {
    model->load.loading(monotonic_ms(), route.load_percent);
  } else {
    model->load.stop();
  }
  std::vector<ReplicaPtr> replicas;
  for (const RouteReplica& wanted : route.replicas) {
    const auto same = [&](const ReplicaPtr& r) { return r->id == wanted.id && r->node == wanted.node; };
    const auto known = std::find_if(model->replicas.begin(), model->replicas.end(), same);
    ReplicaPtr replica;
    if (known != model->replicas.end()) {
      replica = *known;
      replica->ledger.set_slots(wanted.slots);
    } else {
      replica = std::make_shared<Replica>(wanted.id, wanted.node, wanted.slots);
      const double speed = std::clamp(wanted.relative_speed, 0.01, 100.0);
      replica->speed = SpeedEstimate(kSeedPrefillPerS * speed, kSeedDecodePerS * speed);
    }
    replica->suspect = wanted.suspect;
    replica->software = wanted.software;
    replicas.push_back(std::move(replica));
  }
  for (const ReplicaPtr& old : model->replicas) {
    if (std::find(replicas.begin(), replicas.end(), old) == replicas.end()) old->routed = false;
  }
  model->replicas = std::move(replicas);
}

void Dispatcher::apply(const RouteTable& table) {
  for (auto it = models_.begin(); it != models_.end();) {
    const auto same = [&](const RouteModel& route) { return route.name == it->first; };
    if (std::any_of(table.models.begin(), table.models.end(), same)) {
      ++it;
      continue;
    }
    Model& gone = *it->second;
    while (const auto ticket = gone.queue.peek()) {
      gone.queue.take(*ticket);
      settle(gone, *ticket, nullptr, model_not_found(gone.name, {}));
    }
    it = models_.erase(it);
  }
  for (const RouteModel& route : table.models) update_model(route);
  pump_all();
}

Dispatcher::Choice Dispatcher::choose(const Demand& demand) {
  const Model& model = *demand.model;
  const std::int64_t now = monotonic_ms();
  options_.clear();
  bool all_unreachable = !model.replicas.empty();
  for (const ReplicaPtr& replica : model.replicas) {
    const bool excluded =
        std::find(demand.excluded.begin(), demand.excluded.end(), replica.get()) != demand.excluded.end();
    const bool reachable = reachable_(replica->node);
    if (reachable || excluded) all_unreachable = false;
    // Behind a full link it is as if all its slots were taken, until a place becomes free (asked again each tick).
    const bool full = reachable && has_room_ && !has_room_(replica->node);
    const double wait_ms = replica->ledger.wait_ms(now);
    options_.push_back({.slots = replica->ledger.slots(),
                        .busy = full ? replica->ledger.slots() : replica->ledger.busy(),
                        .wait_ms = full ? std::max(wait_ms, static_cast<double>(kTick.count())) : wait_ms,
                        .prefill_per_s = replica->speed.prefill_per_s(),
                        .decode_per_s = replica->speed.decode_per_s(),
                        .ejected_until_ms = replica->hung ? now + kEjectMaxMs : replica->ejection.until_ms(),
                        .suspect = replica->suspect,
                        .reachable = reachable,
                        .excluded = excluded});
  }
  terms_.assign(options_.size(), RouteTerms{});
  random_ = random_ * 6364136223846793005ULL + 1442695040888963407ULL;
  const RouteAsk ask{.prompt_tokens = expected_prompt(demand),
                     .output_tokens = expected_output(demand),
                     .now_ms = now,
                     .random = random_,
                     .waiting = std::max(0, model.queue.size() - 1)};
  const RouteDecision decision = route(ask, options_, terms_);
  return {decision.outcome, decision.index, all_unreachable};
}

LeasePtr Dispatcher::bind(const Demand& demand, int index) {
  const auto i = static_cast<std::size_t>(index);
  const ReplicaPtr& replica = demand.model->replicas[i];
  const std::int64_t now = monotonic_ms();
  const auto end = now + static_cast<std::int64_t>(terms_[i].finish_ms);
  const SlotLease slot = replica->ledger.take(now, end, demand.tenant);
  replica->requests += 1;
  demand.model->running += 1;
  requests_running_ += 1;
  return std::make_unique<Lease>(*this, demand.model, replica, slot, terms_[i]);
}

LeasePtr Dispatcher::try_bind(const Demand& demand) {
  if (!demand.model->queue.empty() && !demand.front) return nullptr;
  const Choice choice = choose(demand);
  return choice.outcome == RouteOutcome::kChosen ? bind(demand, choice.index) : nullptr;
}

std::expected<WaiterPtr, ApiError> Dispatcher::enqueue(Demand demand) {
  Model& model = *demand.model;
  const Choice choice = choose(demand);
  if (choice.outcome == RouteOutcome::kNone && !choice.only_unreachable) {
    // Nothing to wait for, unless the model is on its way.
    // One that is idle is loaded because somebody waits for it.
    const bool coming =
        model.replicas.empty() && (model.state == "loading" || model.state == "pending" || model.state == "idle");
    if (!coming) return std::unexpected(not_ready(model, monotonic_ms(), draw()));
  }
  int slots = 0;
  for (const ReplicaPtr& replica : model.replicas) slots += replica->ledger.slots();
  const double wait = predicted_wait_ms(model);
  if (wait > static_cast<double>(kQueueDeadlineMs) && !demand.front) {
    random_ += 1;
    return std::unexpected(overloaded("The model '" + model.name + "' is overloaded: the wait for a slot would be about " +
                                          std::to_string(static_cast<int>(wait / 1000)) + " s.",
                                      "overloaded", retry_after_s(wait, random_)));
  }
  auto waiter = std::make_shared<Waiter>(executor_);
  waiter->ticket = next_ticket_++;
  const double cost = expected_prompt(demand) + expected_output(demand);
  QueuedRequest request{.ticket = waiter->ticket,
                        .key_id = demand.key_id,
                        .cost_tokens = static_cast<std::int64_t>(std::min(cost, 1e9)),
                        .deadline_ms = monotonic_ms() + kQueueDeadlineMs,
                        .front = demand.front};
  const int places = queue_places(slots);
  if (model.queue.size() >= places && !request.front) {
    if (const auto displaced = model.queue.displaced_by(demand.key_id)) {
      model.queue.remove(*displaced);
      settle(model, *displaced, nullptr,
             overloaded("The queue of the model '" + model.name + "' is full, and this key has the most in it.", "overloaded",
                        retry_after_s(wait, draw())));
    }
  }
  if (!model.queue.push(std::move(request), places)) {
    return std::unexpected(overloaded("The queue of the model '" + model.name + "' is full.", "overloaded",
                                      retry_after_s(wait, draw())));
  }
  waiter->demand = std::move(demand);
  waiters_.emplace(waiter->ticket, waiter);
  someone_waits_.notify();
  pump(model);
  return waiter;
}

void Dispatcher::cancel(const WaiterPtr& waiter) {
  if (waiters_.erase(waiter->ticket) == 0) return;
  Model& model = *waiter->demand.model;
  model.queue.remove(waiter->ticket);
  pump(model);
}

void Dispatcher::settle(Model& model, std::uint64_t ticket, LeasePtr lease, std::optional<ApiError> error) {
  static_cast<void>(model);
  const auto found = waiters_.find(ticket);
  AIV_ASSERT(found != waiters_.end());
  const WaiterPtr waiter = found->second;
  waiters_.erase(found);
  waiter->lease = std::move(lease);
  waiter->error = std::move(error);
  waiter->signal.notify();
}

void Dispatcher::pump(Model& model) {
  while (const auto ticket = model.queue.peek()) {
    const Demand& demand = waiters_.at(*ticket)->demand;
    const Choice choice = choose(demand);
    if (choice.outcome == RouteOutcome::kChosen) {
      LeasePtr lease = bind(demand, choice.index);
      model.queue.take(*ticket);
      settle(model, *ticket, std::move(lease), std::nullopt);
      continue;
    }
    // Somebody who has tried every replica must not hold up those behind him.
    if (choice.outcome == RouteOutcome::kNone && !choice.only_unreachable && !model.replicas.empty()) {
      model.queue.take(*ticket);
      settle(model, *ticket, nullptr, not_ready(model, monotonic_ms(), draw()));
      continue;
    }
    return;
  }
}

void Dispatcher::pump_all() {
  const auto models = models_;  // pumping wakes nobody at once, but a table may drop a model
  for (const auto& [name, model] : models) pump(*model);
}

void Dispatcher::released(const ModelPtr& model, Replica& replica, std::uint64_t ticket) {
  replica.ledger.release(ticket);
  model->running -= 1;
  requests_running_ -= 1;
  pump(*model);
}

net::Task<> Dispatcher::run() {
  while (true) {
    if (waiters_.empty()) {
      co_await someone_waits_.wait();
      continue;
    }
    co_await net::sleep_for(kTick);
    const std::int64_t now = monotonic_ms();
    for (const auto& [name, model] : models_) {
      for (const std::uint64_t ticket : model->queue.expire(now)) {
        ApiError error = model->replicas.empty()
                             ? not_ready(*model, now, draw())
                             : overloaded("No slot of the model '" + name + "' became free within " +
                                              std::to_string(kQueueDeadlineMs / 1000) + " s.",
                                          "overloaded", retry_after_s(predicted_wait_ms(*model), draw()));
        settle(*model, ticket, nullptr, std::move(error));
      }
      pump(*model);
    }
  }
}

Dispatcher::RetryToken Dispatcher::retry_token() const {
  const std::shared_ptr<int> count = retries_running_;
  *count += 1;
  return {count.get(), [count](const void*) { *count -= 1; }};
}

bool Dispatcher::has_alternative(const Demand& demand, const Replica& than) const {
  const std::int64_t now = monotonic_ms();
  for (const ReplicaPtr& replica : demand.model->replicas) {
    const bool tried = std::find(demand.excluded.begin(), demand.excluded.end(), replica.get()) != demand.excluded.end();
    if (replica.get() == &than || tried || replica->hung || replica->ejection.until_ms() > now) continue;
    if (reachable_(replica->node)) return true;
  }
  return false;
}

double Dispatcher::predicted_wait_ms(const Model& model) const {
  if (model.answers < kAnswersToPredict) return 0;
  double answers_per_ms = 0;
  for (const ReplicaPtr& replica : model.replicas) {
    if (!reachable_(replica->node)) continue;
    const int slots = replica->ledger.slots();
    const double prefill_ms = model.prompt_tokens.value() * 1000.0 / replica->speed.prefill_per_s();
    const double decode_ms =
        model.output_tokens.value() * 1000.0 / (replica->speed.decode_per_s() * batch_factor(slots));
    answers_per_ms += slots / std::max(1.0, prefill_ms + decode_ms);
  }
  return answers_per_ms > 0 ? (model.queue.size() + 1) / answers_per_ms : 0;
}

}  // namespace aiv::gateway
