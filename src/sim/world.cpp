#include "sim/world.hpp"

#include <algorithm>
#include <charconv>
#include <iterator>

#include "base/file.hpp"
#include "base/units.hpp"
#include "core/footprint.hpp"
#include "sim/hardware.hpp"

namespace aiv::sim {

namespace {

constexpr std::int64_t kHousekeepingMs = 500;
constexpr std::int64_t kClientsStartMs = 90'000;  // the first loads are done by then
constexpr std::int64_t kCountMs = 250;
constexpr int kCountsPerReport = 4;
constexpr std::int64_t kCountsOldMs = 3'000;  // a decision may rest on counts of that age
constexpr std::size_t kTraceBytesMax = 64U << 20U;
constexpr std::size_t kTraceRowsMax = 2'000'000;

}  // namespace

std::string_view state_word(ReplicaState state) {
  switch (state) {
    case ReplicaState::kPending:
      return "pending";
    case ReplicaState::kLoading:
      return "loading";
    case ReplicaState::kReady:
      return "ready";
    case ReplicaState::kDraining:
      return "draining";
    case ReplicaState::kStopped:
      return "stopped";
    case ReplicaState::kFailed:
      return "failed";
  }
  return "unknown";
}

World::World(Scenario scenario, std::uint64_t seed, EventLog::Sink sink, Plant plant)
    : scenario_(std::move(scenario)),
      log_(std::move(sink)),
      plant_(plant),
      random_(seed),
      store_(*this),
      gateway_(*this) {}

Node* World::find(const std::string& node) {
  for (const auto& each : nodes_) {
    if (each->id() == node) return each.get();
  }
  return nullptr;
}

Result<> World::build() {
  Bytes largest_node = 0;
  for (int i = 0; i < scenario_.nodes; ++i) {
    const std::string id = "n" + std::to_string(i + 1);
    auto devices = make_devices(id, scenario_.gpus[static_cast<std::size_t>(i) % scenario_.gpus.size()]);
    if (!devices)
      return std::unexpected(
          Error{devices.error().code, "cluster.gpus: " + devices.error().reason, devices.error().where});
    Bytes sum = 0;
    for (const Device& device : *devices) sum += budget_of(device) - device.overhead_bytes;
    largest_node = std::max(largest_node, sum);
    nodes_.push_back(std::make_unique<Node>(*this, id, *std::move(devices)));
  }
  if (!scenario_.trace.empty()) {
    if (auto read = read_trace(); !read) return read;
  }
  StoredState& setup = store_.setup();
  std::size_t next = random_.index(catalogue_size());
  if (scenario_.first_model >= 0) next = static_cast<std::size_t>(scenario_.first_model);
  std::size_t tried = 0;
  while (setup.deployments.size() < static_cast<std::size_t>(scenario_.models)) {
    ModelRecord model = make_model(next++);
    // Models that could never run teach nothing; the first of the catalogue is small enough for any card.
    if (model.size_bytes + model.size_bytes / 4 > largest_node && ++tried < 10 * catalogue_size()) continue;
    Deployment deployment;
    deployment.name = model.id;
    deployment.model = model.id;
    deployment.replicas_min = deployment.replicas_max =
        std::min(1 + scenario_.spare_replicas, scenario_.nodes);
    deployment.slots = scenario_.slots;
    if (scenario_.replicas_max >= 0) {
      deployment.replicas_min = scenario_.replicas_min;
      deployment.replicas_max = scenario_.replicas_max;
    }
    checks_.acknowledged(deployment.name, row_of(deployment));
    setup.models[model.id] = std::move(model);
    setup.deployments[deployment.name] = std::move(deployment);
  }
  for (int i = 0; i < 1; ++i)
    controllers_.push_back(
        std::make_unique<Controller>(*this, "controller-" + std::to_string(++controller_no_)));
  controllers_.front()->start();
  return {};
}

// AzurePublicDataset: TIMESTAMP,ContextTokens,GeneratedTokens. Lengths are taken from it, in its order; times
// are drawn.
Result<> World::read_trace() {
  auto text = read_file(scenario_.trace, kTraceBytesMax);
  if (!text) return std::unexpected(text.error());
  std::size_t from = text->find('\n');
  while (from != std::string::npos && lengths_.size() < kTraceRowsMax) {
    const std::size_t begin = from + 1;
    from = text->find('\n', begin);
    const std::string_view row =
        std::string_view(*text).substr(begin, from == std::string::npos ? from : from - begin);
    const std::size_t first = row.find(',');
    const std::size_t second = first == std::string_view::npos ? first : row.find(',', first + 1);
    if (second == std::string_view::npos) continue;
    std::int64_t prompt = 0;
    std::int64_t answer = 0;
    std::from_chars(row.data() + first + 1, row.data() + second, prompt);
    std::from_chars(row.data() + second + 1, row.data() + row.size(), answer);
    if (prompt > 0 && answer > 0) lengths_.emplace_back(prompt, answer);
  }
  if (lengths_.empty())
    return fail(ErrorCode::kInvalidArgument,
                "load.trace: holds no requests (TIMESTAMP,ContextTokens,GeneratedTokens)", scenario_.trace);
  next_length_ = random_.index(lengths_.size());
  return {};
}

// ---- clients --------------------------------------------------------------------------------------------

void World::start_clients() {
  rates_[0].rps = scenario_.rps;
  queue_.at(kClientsStartMs, [this] { next_request(0, 0); });
  for (const LoadPhase& phase : scenario_.phases) {
    queue_.at(std::max(phase.at_ms, kClientsStartMs), [this, phase] {
      Rate& rate = rates_[phase.model];
      rate.rps = phase.rps;
      next_request(phase.model, ++rate.generation);
    });
  }
  if (elastic()) count_load(1);
}

double World::noise_now(Rate& rate) {
  if (scenario_.noise <= 0) return 1;
  if (rate.minute != now() / 60'000) {
    rate.minute = now() / 60'000;
    rate.noise = std::max(0.01, 1 + scenario_.noise * (2 * random_.unit() - 1));
  }
  return rate.noise;
}

// Of one model, or by Zipf with exponent 1 over the deployments that the state holds.
std::string World::draw_model(int model) {
  const auto& deployments = store_.state().deployments;
  if (model > 0) {
    if (static_cast<std::size_t>(model) > deployments.size()) return {};
    return std::next(deployments.begin(), model - 1)->first;
  }
  double sum = 0;
  for (std::size_t i = 1; i <= deployments.size(); ++i) sum += 1.0 / static_cast<double>(i);
  double point = random_.unit() * sum;
  std::string name;
  std::size_t rank = 1;
  for (const auto& [each, deployment] : deployments) {
    name = each;
    point -= 1.0 / static_cast<double>(rank++);
    if (point <= 0) break;
  }
  return name;
}

void World::request_for(const std::string& name) {
  std::int64_t prompt =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(random_.exponential(scenario_.mean_prompt)));
  std::int64_t tokens =
      std::max<std::int64_t>(1, static_cast<std::int64_t>(random_.exponential(scenario_.mean_tokens)));
  if (!lengths_.empty()) {
    prompt = lengths_[next_length_ % lengths_.size()].first;
    tokens = lengths_[next_length_ % lengths_.size()].second;
    ++next_length_;
  }
  prompt = std::min<std::int64_t>(prompt, 3500);
  tokens = std::min<std::int64_t>(tokens, kAnswerTokensMax);
  if (!name.empty()) gateway_.request(name, prompt, tokens);
}

// A Poisson process for each rate; another phase of the same model begins another generation of it.
void World::next_request(int model, std::uint64_t generation) {
  Rate& rate = rates_[model];
  if (rate.generation != generation || rate.rps <= 0) return;
  const auto wait = static_cast<std::int64_t>(random_.exponential(1000.0 / (rate.rps * noise_now(rate))));
  // What is loaded for the last one is ready before the run ends.
  if (now() + wait >= scenario_.duration_ms + scenario_.settle_ms - 60'000) return;
  queue_.after(wait, [this, model, generation] {
    if (rates_[model].generation != generation) return;
    request_for(draw_model(model));
    next_request(model, generation);
  });
}

// The gateway's counters, read four times a second and told once a second.
void World::count_load(int turn) {
  queue_.after(kCountMs, [this, turn] {
    gateway_.count(kCountMs);
    if (turn % kCountsPerReport == 0 && gateway_.alive() && plant_ != Plant::kScaleDeaf) {
      auto samples = gateway_.take_samples(kCountMs * kCountsPerReport);
      if (plant_ == Plant::kEvictBusy) {
        for (LoadSample& sample : samples)
          sample = {.deployment = sample.deployment, .interval_ms = sample.interval_ms, .waiting = sample.waiting};
      }
      const event::Load load{std::move(samples)};
      for (const auto& controller : controllers_) controller->load(load);
    }
    count_load(turn + 1);
  });
}

// I9: what runs requests, or is the last that could, is not unloaded for others. The counts are a second old.
void World::evicted(const std::string& replica) {
  ++evicted_;
  const std::int64_t busy_since = gateway_.busy_since(replica);
  if (busy_since >= 0 && now() - busy_since > kCountsOldMs) {
    checks_.violate("I9", now(),
                    replica + " is unloaded for another although it is busy for " +
                        format_duration_ms(now() - busy_since));
  }
  const auto& placements = store_.state().placements;
  const auto found = placements.find(replica);
  if (found == placements.end()) return;
  const std::string& name = found->second.spec.deployment;
  const std::int64_t active_since = gateway_.active_since(name);
  const bool last = std::ranges::count_if(placements, [&](const auto& entry) {
                      return entry.second.spec.deployment == name && !entry.second.spec.draining;
                    }) <= 1;
  if (last && active_since >= 0 && now() - active_since > kCountsOldMs) {
    checks_.violate("I9", now(),
                    replica + ", the last of " + name + ", is unloaded although requests are there for " +
                        format_duration_ms(now() - active_since));
  }
}

void World::judge_expectations() {
  const Expectation& expect = scenario_.expect;
  const auto within = [this](const char* what, std::int64_t count, int low, int high) {
    if ((low >= 0 && count < low) || (high >= 0 && count > high)) {
      checks_.violate("L6", now(),
                      std::to_string(count) + " " + what + ", expected " +
                          (low >= 0 ? std::to_string(low) : "0") + " to " +
                          (high >= 0 ? std::to_string(high) : "any"));
    }
  };
  within("replicas placed after the first loads", moves_, expect.moves_min, expect.moves_max);
  within("decisions of the autoscaler", scaled_, expect.scaled_min, expect.scaled_max);
  within("replicas unloaded for others", evicted_, expect.evicted_min, expect.evicted_max);
  const RequestCounts& counts = gateway_.counts();
  if (expect.good_min >= 0 &&
      static_cast<double>(counts.good) < expect.good_min * static_cast<double>(counts.total)) {
    checks_.violate(
        "L6", now(),
        std::to_string(counts.good) + " of " + std::to_string(counts.total) + " requests were good");
  }
}

// ---- network --------------------------------------------------------------------------------------------

void World::connect(Node& node) {
  if (!node.agent_runs() || node.linked) return;
  const std::int64_t wait = random_.between(20, 60);
  const std::uint64_t no = ++node.link_no;
  queue_.after(wait, [this, &node, no] {
    if (node.linked || node.link_no != no || !node.agent_runs()) return;
    if (!gateway_.alive() || node.cut_up || node.cut_down || !node.answers()) {
      queue_.after(random_.between(50, 1000), [this, &node, no] {
        if (node.link_no == no) connect(node);
      });
      return;
    }
    node.linked = true;
    say(node.id(), "link: opened");
    for (const auto& controller : controllers_) controller->link_up(node.id());
    gateway_.links_changed();
  });
}

void World::break_link(Node& node, const std::string& why) {
  if (!node.linked) return;
  node.linked = false;
  ++node.link_no;
  node.waiting_up.clear();
  node.waiting_down.clear();
  node.link_closed();
  say(node.id(), "link: closed, " + why);
  if (gateway_.alive()) {
    for (const auto& controller : controllers_) controller->link_down(node.id(), false);
    gateway_.node_link_lost(node.id());
  }
  queue_.after(random_.between(0, 50), [this, &node] { connect(node); });
}

void World::link_reset(Node& node) {
  if (!node.linked) return;
  if (!node.cut_up) return break_link(node, "reset by its end");
  const std::uint64_t no = node.link_no;
  queue_.after(3000, [this, &node, no] {
    if (node.linked && node.link_no == no) break_link(node, "nothing was heard for 3 s");
  });
}

void World::send_up(Node& node, std::function<void(Controller&)> message) {
  if (!node.linked) return;
  const std::uint64_t no = node.link_no;
  std::int64_t delay = scenario_.delay_ms + random_.between(0, scenario_.jitter_ms);
  if (now() < node.slow_network_until) delay += random_.between(0, 4000);
  const auto deliver = [this, &node, no, message = std::move(message)] {
    if (!node.linked || node.link_no != no || !gateway_.alive()) return;
    log_.mark(now(), no);
    for (const auto& controller : controllers_) message(*controller);
  };
  if (node.cut_up) {
    node.waiting_up.emplace_back(deliver);
    return;
  }
  queue_.after(delay, [&node, deliver] {
    if (node.cut_up)
      node.waiting_up.emplace_back(deliver);
    else
      deliver();
  });
}

void World::send_down(const std::string& id, std::function<void()> message) {
  Node* node = find(id);
  if (node == nullptr || !node->linked || !gateway_.alive()) return;
  const std::uint64_t no = node->link_no;
  std::int64_t delay = scenario_.delay_ms + random_.between(0, scenario_.jitter_ms);
  if (now() < node->slow_network_until) delay += random_.between(0, 4000);
  const auto deliver = [node, no, message = std::move(message)] {
    if (node->linked && node->link_no == no) message();
  };
  if (node->cut_down) {
    node->waiting_down.emplace_back(deliver);
    return;
  }
  queue_.after(delay, [node, deliver] {
    if (node->cut_down)
      node->waiting_down.emplace_back(deliver);
    else
      deliver();
  });
}

void World::send_document(const Controller& from, const NodeDesired& document, const Node::Answer& answer) {
  if (old_documents_.size() < 64)
    old_documents_.push_back(document);
  else
    old_documents_[random_.index(64)] = document;
  Node* node = find(document.node);
  if (node == nullptr) return;
  const Controller* sender = &from;
  send_down(document.node, [this, node, document, answer, sender] {
    node->take_document(document, [this, node, answer, sender](int status, Version highest) {
      send_up(*node, [answer, sender, status, highest](Controller& controller) {
        if (&controller == sender) answer(status, highest);
      });
    });
  });
}

bool World::link_seen(const std::string& node) {
  const Node* found = find(node);
  return found != nullptr && found->linked;
}

void World::told(const Controller& controller, const command::Tell& words) {
  ++decisions_;
  if (now() >= scenario_.expect.from_ms) {
    if (words.kind == "replica.placed") ++moves_;
    if (words.kind == "deployment.scaled") ++scaled_;
    if (words.kind == "replica.evicted") evicted(words.subject.substr(words.subject.find('/') + 1));
  }
  say(controller.name(), words.kind + " " + words.subject + ": " + words.reason +
                             (words.cause.empty() ? "" : " [" + words.cause + "]"));
}

// ---- the run --------------------------------------------------------------------------------------------

void World::housekeeping() {
  queue_.after(kHousekeepingMs, [this] {
    gateway_.tick();
    follow_losses();
    judge_end();
    housekeeping();
  });
}

Result<RunResult> World::run() {
  if (auto built = build(); !built) return std::unexpected(built.error());
  start_clients();
  schedule_faults();
  if (scenario_.admin_per_hour > 0) next_admin();
  housekeeping();
  queue_.at(scenario_.duration_ms, [this] { heal_all(); });
  const std::int64_t end = scenario_.duration_ms + scenario_.settle_ms;
  const auto calm = [this] {
    return calm_ms_ > 0 && converged_ms_ >= 0 && now() >= healed_ms_ + converged_ms_ + calm_ms_;
  };
  while (queue_.step(end) && checks_.violations().size() < 20 && !(calm() && not_converged().empty())) {
    gateway_.check_quotas();
  }
  if (healed_ms_ >= 0 && scenario_.settle_ms > 0) {
    const std::string why = not_converged();
    if (!why.empty()) checks_.violate(why.substr(0, 2), now(), why.substr(3));
  }
  judge_expectations();
  RunResult out;
  out.moves = moves_;
  out.scaled = scaled_;
  out.evicted = evicted_;
  out.simulated_ms = now();
  out.events = queue_.ran();
  out.faults = faults_;
  out.admin_writes = admin_writes_;
  out.decisions = decisions_;
  out.requests = gateway_.counts();
  out.worst_window = gateway_.worst_window();
  out.violations = checks_.violations();
  out.safety_broken = checks_.safety_broken();
  out.liveness_broken = checks_.liveness_broken();
  out.converged_ms = converged_ms_;
  out.times = times_;
  out.log_hash = log_.hash();
  return out;
}

}  // namespace aiv::sim
