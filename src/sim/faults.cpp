// What breaks, when, and how it is put right again.
#include <algorithm>

#include "base/units.hpp"
#include "sim/world.hpp"

namespace aiv::sim {

namespace {

constexpr std::int64_t kFirstFaultMs = 100'000;

}  // namespace

void World::schedule_faults() {
  for (const ScheduledFault& fault : scenario_.faults) {
    queue_.at(fault.at_ms, [this, fault] { inject(fault); });
  }
  if (scenario_.faults_per_hour > 0) queue_.at(kFirstFaultMs, [this] { next_fault(); });
}

void World::next_fault() {
  const auto wait = static_cast<std::int64_t>(random_.exponential(3'600'000.0 / scenario_.faults_per_hour));
  queue_.after(std::max<std::int64_t>(1, wait), [this] {
    if (faults_over_) return;
    if (scenario_.overlap || now() >= busy_until_ms_) {
      std::int64_t sum = 0;
      for (const auto& [kind, weight] : scenario_.mix) sum += weight;
      std::int64_t point = random_.between(0, sum - 1);
      ScheduledFault fault;
      for (const auto& [kind, weight] : scenario_.mix) {
        fault.kind = kind;
        point -= weight;
        if (point < 0) break;
      }
      inject(fault);
    }
    next_fault();
  });
}

void World::inject(const ScheduledFault& fault) {
  if (faults_over_) return;
  const std::int64_t drawn = random_.between(scenario_.for_min_ms, scenario_.for_max_ms);
  const std::int64_t for_ms = std::min(fault.for_ms > 0 ? fault.for_ms : drawn,
                                       std::max<std::int64_t>(1, scenario_.duration_ms - now()));
  // Until its traces are gone: detection, replacement and loads take their time.
  busy_until_ms_ = std::max(busy_until_ms_, now() + for_ms + 60'000);
  switch (fault.kind) {
    case FaultKind::kControllerKill:
    case FaultKind::kControllerStop:
    case FaultKind::kControllerSplit:
    case FaultKind::kGatewayKill:
    case FaultKind::kStoreLeader:
    case FaultKind::kDiskFull:
    case FaultKind::kMassCut:
    case FaultKind::kStaleDocuments:
      return inject_on_server(fault, for_ms);
    default:
      break;
  }
  Node* node = fault.target.empty() ? nodes_[random_.index(nodes_.size())].get() : find(fault.target);
  if (node == nullptr || !node->powered()) return;
  say("fault", std::string(to_string(fault.kind)) + " " + node->id() + " for " + format_duration_ms(for_ms));
  ++faults_;
  inject_on_node(fault, *node, for_ms);
}

void World::inject_on_node(const ScheduledFault& fault, Node& node, std::int64_t for_ms) {
  const std::int64_t until = now() + for_ms;
  switch (fault.kind) {
    case FaultKind::kEngineKill:
      static_cast<void>(node.kill_engine());
      break;
    case FaultKind::kEngineStop:
      static_cast<void>(node.stop_engine(for_ms));
      break;
    case FaultKind::kAgentKill:
      node.kill_agent(std::min<std::int64_t>(for_ms, 5000));
      break;
    case FaultKind::kAgentStop:
      node.stop_agent();
      // Its kernel still acknowledges, so the link stays; PING goes unanswered and the gateway gives up after
      // 10 s.
      queue_.after(for_ms, [&node] { node.continue_agent(); });
      break;
    case FaultKind::kNodeKill: {
      losses_.push_back({node.id(), now(), false});
      node.power_off();
      const std::uint64_t no = node.link_no;
      queue_.after(3000, [this, &node, no] {
        if (node.linked && node.link_no == no) break_link(node, "nothing was heard for 3 s");
      });
      queue_.after(for_ms, [this, &node] {
        // A machine that was off for less than that has closed its old connection by now.
        break_link(node, "the machine started anew");
        node.power_on();
      });
      break;
    }
    case FaultKind::kNodeCut:
      cut(node, true, true, for_ms);
      break;
    case FaultKind::kOneWayCut:
      cut(node, true, false, for_ms);
      break;
    case FaultKind::kSlowNetwork:
      node.slow_network_until = until;
      break;
    case FaultKind::kSlowLoad:
      node.slow_load_until = until;
      break;
    case FaultKind::kLoadOom:
      node.load_oom_until = until;
      break;
    case FaultKind::kLoadExit:
      node.load_exit_until = until;
      break;
    case FaultKind::kLoadHang:
      node.load_hang_until = until;
      break;
    case FaultKind::kMemoryStolen:
      node.steal(fault.bytes > 0 ? fault.bytes : random_.between(1, 8) * kGiB);
      queue_.after(for_ms, [&node] { node.steal(0); });
      break;
    case FaultKind::kDrain:
      drain_node(node, true);
      queue_.after(for_ms, [this, &node] { drain_node(node, false); });
      break;
    default:
      break;
  }
}

void World::inject_on_server(const ScheduledFault& fault, std::int64_t for_ms) {
  ++faults_;
  say("fault", std::string(to_string(fault.kind)) + " for " + format_duration_ms(for_ms));
  Controller* acting = leader();
  switch (fault.kind) {
    case FaultKind::kControllerKill:
      kill_controller();
      break;
    case FaultKind::kControllerStop:
      if (acting == nullptr) break;
      acting->stop();
      queue_.after(for_ms, [acting] { acting->go_on(); });
      break;
    case FaultKind::kControllerSplit:
      split_controller();
      break;
    case FaultKind::kGatewayKill:
      kill_gateway();
      break;
    case FaultKind::kStoreLeader:
      store_.unknown_until =
          now() + (scenario_.store == "etcd" ? random_.between(1200, 1700) : random_.between(100, 500));
      break;
    case FaultKind::kDiskFull:
      store_.refuses_until = now() + for_ms;
      break;
    case FaultKind::kMassCut: {
      const auto count = static_cast<std::size_t>(fault.share * static_cast<double>(nodes_.size()) + 0.5);
      const std::size_t first = random_.index(nodes_.size());
      for (std::size_t i = 0; i < count; ++i) cut(*nodes_[(first + i) % nodes_.size()], true, true, for_ms);
      break;
    }
    case FaultKind::kStaleDocuments:
      replay_documents();
      break;
    default:
      break;
  }
}

void World::cut(Node& node, bool up, bool down, std::int64_t for_ms) {
  node.cut_up = node.cut_up || up;
  node.cut_down = node.cut_down || down;
  if (up && down) losses_.push_back({node.id(), now(), false});
  gateway_.frozen(gateway_.on_node(node.id()));
  const std::uint64_t no = node.link_no;
  if (up && down) {
    queue_.after(3000, [this, &node, no] {  // TCP_USER_TIMEOUT on both ends
      if (node.cut_up && node.cut_down && node.linked && node.link_no == no)
        break_link(node, "nothing was heard for 3 s");
    });
  }
  queue_.after(for_ms, [this, &node] { heal(node); });
}

void World::heal(Node& node) {
  if (!node.cut_up && !node.cut_down) return;
  node.cut_up = node.cut_down = false;
  say(node.id(), "network: heals");
  std::vector<std::function<void()>> waiting;
  waiting.swap(node.waiting_up);
  for (auto& message : node.waiting_down) waiting.push_back(std::move(message));
  node.waiting_down.clear();
  for (auto& message : waiting) queue_.after(random_.between(5, 400), std::move(message));
  node.cut_healed();
}

void World::kill_controller() {
  Controller* acting = leader();
  if (acting == nullptr) return;
  acting->kill();
  // One server: its parent starts another one. Several: a follower sees the record unchanged for its time to
  // live.
  const std::int64_t wait = scenario_.servers > 1 ? 3000 + random_.between(0, 50) : random_.between(100, 900);
  queue_.after(wait, [this] {
    controllers_.push_back(
        std::make_unique<Controller>(*this, "controller-" + std::to_string(++controller_no_)));
    controllers_.back()->start();
  });
}

void World::split_controller() {
  controllers_.push_back(
      std::make_unique<Controller>(*this, "controller-" + std::to_string(++controller_no_)));
  controllers_.back()->start();
}

void World::kill_gateway() {
  if (!gateway_.alive()) return;
  gateway_back_ms_ = now() + random_.between(100, 900);
  gateway_.kill();
  for (const auto& controller : controllers_) controller->gateway_lost();
  for (const auto& node : nodes_) break_link(*node, "the gateway died");
  queue_.at(gateway_back_ms_, [this] {
    gateway_.start();
    for (const auto& controller : controllers_) controller->gateway_back();
  });
}

void World::replay_documents() {
  for (int i = 0; i < 8 && !old_documents_.empty(); ++i) {
    const NodeDesired document = old_documents_[random_.index(old_documents_.size())];
    Node* node = find(document.node);
    if (node == nullptr || !node->answers() || !node->linked) continue;
    queue_.after(random_.between(0, 2000), [node, document] {
      if (node->answers()) node->take_document(document, [](int, Version) {});
    });
  }
  if (gateway_.table()) {
    if (old_tables_.size() < 32) old_tables_.push_back(*gateway_.table());
    const RouteTable table = old_tables_[random_.index(old_tables_.size())];
    queue_.after(random_.between(0, 2000), [this, table] { static_cast<void>(gateway_.take_table(table)); });
  }
}

void World::heal_all() {
  faults_over_ = true;
  say("fault", "the faults are over");
  for (const auto& node : nodes_) {
    heal(*node);
    node->slow_network_until = node->slow_load_until = node->load_oom_until = node->load_exit_until =
        node->load_hang_until = 0;
    node->continue_agent();
    node->steal(0);
    node->power_on();
    drain_node(*node, false);
  }
  store_.refuses_until = store_.unknown_until = 0;
  for (const auto& controller : controllers_) controller->go_on();
  healed_ms_ = now();
}

}  // namespace aiv::sim
