#include "sim/controller.hpp"

#include "sim/world.hpp"

namespace aiv::sim {

namespace {

constexpr std::int64_t kTickMs = 250;
constexpr std::int64_t kAnswerLimitMs = 5'000;
constexpr std::size_t kWritesPerTxn = 64;

}  // namespace

void Controller::later(From from, std::function<void()> action) {
  if (!alive_) return;
  Backlog& backlog = backlog_[from];
  if (!stopped_ && backlog.actions.empty()) return action();
  backlog.actions.push_back(std::move(action));
}

void Controller::go_on() {
  if (!stopped_) return;
  stopped_ = false;
  for (const From from : {From::kGateway, From::kStore, From::kTimer}) drain(from);
}

void Controller::drain(From from) {
  if (backlog_[from].draining || backlog_[from].actions.empty()) return;
  backlog_[from].draining = true;
  const std::int64_t wait = world_.random().between(0, from == From::kTimer ? 20 : 2);
  world_.queue().after(wait, [this, from] {
    Backlog& backlog = backlog_[from];
    backlog.draining = false;
    if (stopped_ || !alive_ || backlog.actions.empty()) return;
    // All of one turn: a burst is read in one go, and what comes while it is worked on waits for its place.
    std::deque<std::function<void()>> turn;
    turn.swap(backlog.actions);
    for (auto& action : turn) {
      if (alive_) action();
    }
  });
}

void Controller::start() {
  if (!alive_) return;
  world_.store().take_lead(name_, [this](std::int64_t epoch) {
    if (!alive_) return;
    if (epoch == 0) {
      world_.queue().after(200, [this] { start(); });
      return;
    }
    load(epoch);
  });
}

void Controller::load(std::int64_t epoch) {
  const StoredState& stored = world_.store().state();
  if (stored.epoch != epoch) return fenced();
  DetectorSettings detector;
  if (!world_.scenario().replace) detector.replace_ms = detector.replace_closed_ms = std::int64_t{1} << 40;
  state_.detector = FailureDetector(detector);
  state_.settings.auth_required = false;
  if (world_.plant() == Plant::kScaleNervous) {
    AutoscaleSettings& scale = state_.settings.autoscale;
    scale.up_after_ms = scale.down_after_ms = scale.cooldown_ms = 0;
    scale.load_factor_down = scale.load_factor_cooldown = 0;
    scale.band_percent = 0;
    scale.down_percent = scale.up_percent;
  }
  state_.epoch = epoch;
  state_.models = stored.models;
  state_.deployments = stored.deployments;
  state_.placements = PlacedReplicas(stored.placements);
  state_.margins = stored.margins;
  for (const auto& [id, node] : stored.nodes) {
    NodeRecord& record = state_.nodes[id];
    record.id = id;
    record.draining = node.draining;
  }
  loaded_ = true;
  world_.say(name_, "leads with epoch " + std::to_string(epoch) + ", " +
                        std::to_string(stored.placements.size()) + " placements");
  take(event::Start{});
  for (const auto& node : world_.nodes()) {
    if (node->linked && world_.gateway().alive()) link_up(node->id());
  }
  tick(world_.now() + kTickMs);
}

void Controller::tick(std::int64_t due_ms) {
  world_.queue().at(due_ms, [this] {
    later(From::kTimer, [this] {
      if (!leads()) return;
      take(event::Tick{gateway_heard_});
      tick(world_.now() + kTickMs);
    });
  });
}

// ---- what it hears --------------------------------------------------------------------------------------

void Controller::link_up(const std::string& node) {
  later(From::kGateway, [this, node] {
    if (!leads()) return;
    sessions_[node] = Session{true, {}, false, next_session_++};
    take(event::LinkUp{node});
    for (const auto& each : world_.nodes()) {
      if (each->id() == node) each->link_opened();
    }
    push_desired(node);
  });
}

void Controller::link_down(const std::string& node, bool goodbye) {
  later(From::kGateway, [this, node, goodbye] {
    if (!leads() || sessions_.erase(node) == 0) return;
    take(event::LinkDown{node, goodbye});
  });
}

void Controller::heartbeat(const std::string& node) {
  later(From::kGateway, [this, node] {
    if (leads() && sessions_.contains(node)) take(event::Heartbeat{node});
  });
}

void Controller::observed(const std::shared_ptr<const NodeObserved>& document) {
  later(From::kGateway, [this, document] {
    if (!leads() || !sessions_.contains(document->node)) return;
    world_.checks().heard(state_.epoch, *document);
    take(event::Observed{*document});
  });
}

void Controller::load(const event::Load& load) {
  later(From::kGateway, [this, load] {
    if (leads()) take(load);
  });
}

void Controller::gateway_lost() {
  later(From::kGateway, [this] {
    gateway_heard_ = false;
    sessions_.clear();
    routes_in_flight_ = false;
  });
}

void Controller::gateway_back() {
  later(From::kGateway, [this] {
    gateway_heard_ = true;
    routes_sent_ = {};
    push_routes();
  });
}

// ---- deciding and doing ---------------------------------------------------------------------------------

void Controller::take(const Event& event) {
  if (fenced_) return;
  ++steps_;
  std::vector<Command> commands = step(state_, event, {world_.now(), 1'700'000'000'000 + world_.now()});
  plant(commands);
  world_.checks().decided(state_, commands, world_.now());
  for (Command& command : commands) {
    if (const auto* words = std::get_if<command::Tell>(&command)) {
      world_.told(*this, *words);
    } else {
      if (const auto* routes = std::get_if<command::PublishRoutes>(&command)) {
        world_.checks().routes_published(routes->table, state_, world_.now());
      }
      commands_.push_back(std::move(command));
    }
  }
  pump();
}

// Faults of our own that a check must find (tests alone).
void Controller::plant(std::vector<Command>& commands) {
  if (world_.plant() == Plant::kNone) return;
  if (world_.plant() == Plant::kDrainWhileObserving && state_.observing && !state_.placements.empty()) {
    Placement first = state_.placements.begin()->second;
    first.spec.draining = true;
    commands.push_back(command::SavePlacement{first});
  }
  for (Command& command : commands) {
    auto* routes = std::get_if<command::PublishRoutes>(&command);
    if (routes != nullptr && world_.plant() == Plant::kRouteUnready) {
      for (RouteModel& model : routes->table.models) {
        for (const auto& [id, placement] : state_.placements) {
          if (placement.spec.deployment == model.name)
            model.replicas.push_back({id, placement.node, 1, 1.0, false});
        }
      }
    }
    auto* desired = std::get_if<command::PublishDesired>(&command);
    if (desired != nullptr &&
        (world_.plant() == Plant::kOverfill || world_.plant() == Plant::kOverfillUnchecked) &&
        !desired->document.replicas.empty()) {
      for (int i = 0; i < 8; ++i) {
        ReplicaSpec more = desired->document.replicas.front();
        more.id += "-more" + std::to_string(i);
        desired->document.replicas.push_back(more);
      }
    }
  }
}

void Controller::pump() {
  while (leads() && !stopped_ && !writing_ && !commands_.empty()) {
    if (is_write(commands_.front())) return write_batch();
    const Command command = std::move(commands_.front());
    commands_.pop_front();
    perform(command);
  }
}

void Controller::write_batch() {
  writing_ = true;
  std::vector<Command> batch;
  for (const Command& command : commands_) {
    if (!is_write(command) || batch.size() >= kWritesPerTxn) break;
    batch.push_back(command);
  }
  const auto apply = [batch](StoredState& stored) {
    for (const Command& command : batch) {
      if (const auto* save = std::get_if<command::SavePlacement>(&command)) {
        stored.placements[save->placement.spec.id] = save->placement;
      } else if (const auto* margin = std::get_if<command::SaveMargin>(&command)) {
        stored.margins[margin->key] = margin->history;
      } else {
        stored.placements.erase(std::get<command::ErasePlacement>(command).id);
      }
    }
  };
  world_.store().txn(state_.epoch, apply, [this, count = batch.size()](Outcome outcome) {
    later(From::kStore, [this, count, outcome] {
      writing_ = false;
      if (fenced_) return;
      if (outcome == Outcome::kFenced) return fenced();
      if (outcome == Outcome::kCommitted) {
        commands_.erase(commands_.begin(),
                        commands_.begin() + static_cast<std::ptrdiff_t>(std::min(count, commands_.size())));
        if (read_only_) world_.say(name_, "the state takes writes again");
        read_only_ = false;
        state_.frozen_writes = false;
        return pump();
      }
      if (!read_only_)
        world_.say(name_, outcome == Outcome::kUnknown ? "a write may or may not be done"
                                                       : "the state takes no writes");
      read_only_ = true;
      state_.frozen_writes = true;
      writing_ = true;
      world_.queue().after(1000, [this] {
        later(From::kTimer, [this] {
          writing_ = false;
          pump();
        });
      });
    });
  });
}

void Controller::perform(const Command& command) {
  if (const auto* desired = std::get_if<command::PublishDesired>(&command)) {
    desired_[desired->document.node] = desired->document;
    push_desired(desired->document.node);
  } else if (const auto* routes = std::get_if<command::PublishRoutes>(&command)) {
    routes_ = routes->table;
    push_routes();
  }
}

void Controller::push_desired(const std::string& node) {
  if (world_.plant() == Plant::kControllerMute && node == "n1") return;
  const auto document = desired_.find(node);
  const auto found = sessions_.find(node);
  if (document == desired_.end() || found == sessions_.end() || found->second.in_flight) return;
  Session& session = found->second;
  if (!(session.acknowledged < document->second.version)) return;
  session.in_flight = true;
  const std::uint64_t no = session.no;
  const Version version = document->second.version;
  const auto settle = [this, node, no, version](bool settled) {
    later(From::kGateway, [this, node, no, version, settled] {
      const auto it = sessions_.find(node);
      if (it == sessions_.end() || it->second.no != no || !it->second.in_flight) return;
      it->second.in_flight = false;
      if (settled) it->second.acknowledged = std::max(it->second.acknowledged, version);
      if (leads()) push_desired(node);
    });
  };
  world_.send_document(*this, document->second, [this, settle, node](int status, Version highest) {
    if (status == 409) world_.say(name_, node + " refuses: it obeys epoch " + std::to_string(highest.epoch));
    settle(true);
  });
  world_.queue().after(kAnswerLimitMs, [this, settle, node, version] {
    const auto it = sessions_.find(node);
    if (it != sessions_.end() && it->second.acknowledged < version) settle(false);
  });
}

void Controller::push_routes() {
  if (!routes_ || !gateway_heard_ || routes_in_flight_ || !(routes_sent_ < routes_->version)) return;
  routes_in_flight_ = true;
  const RouteTable table = *routes_;
  world_.queue().after(world_.random().between(1, 5), [this, table] {
    const bool taken = world_.gateway().take_table(table);
    later(From::kGateway, [this, table, taken] {
      routes_in_flight_ = false;
      if (!world_.gateway().alive()) return;
      static_cast<void>(taken);
      routes_sent_ = table.version;
      push_routes();
    });
  });
}

void Controller::change(std::function<void(StoredState&)> change, std::vector<Event> events,
                        std::function<void(Outcome)> done) {
  if (!leads() || stopped_ || read_only_) return done(Outcome::kUnavailable);
  world_.store().txn(state_.epoch, std::move(change),
                     [this, events = std::move(events), done](Outcome outcome) {
                       if (!alive_) return done(Outcome::kUnknown);  // committed perhaps, but nobody was told
                       later(From::kStore, [this, events, done, outcome] {
                         if (outcome == Outcome::kFenced) fenced();
                         if (outcome == Outcome::kCommitted) {
                           for (const Event& event : events) take(event);
                         }
                         done(outcome);
                       });
                     });
}

void Controller::fenced() {
  if (fenced_) return;
  fenced_ = true;
  commands_.clear();
  world_.say(name_, "is fenced: a newer epoch is in the state");
}

}  // namespace aiv::sim
