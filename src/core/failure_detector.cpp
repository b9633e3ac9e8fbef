#include "core/failure_detector.hpp"

#include <algorithm>

#include "base/units.hpp"

namespace aiv {

namespace {

HealthEvent change_of(HealthChange change, const std::string& node, std::int64_t silent_ms, std::string reason) {
  return {change, node, silent_ms, std::move(reason)};
}

}  // namespace

void FailureDetector::expect(const std::string& node, std::int64_t now_ms) {
  auto [it, added] = nodes_.try_emplace(node);
  if (!added) return;
  it->second.heard_ms = now_ms;
}

void FailureDetector::forget(const std::string& node) { nodes_.erase(node); }

std::vector<HealthEvent> FailureDetector::link_up(const std::string& node, std::int64_t now_ms) {
  expect(node, now_ms);
  Node& entry = nodes_[node];
  entry.link = true;
  entry.closed = false;
  entry.goodbye = false;
  return {};
}

std::vector<HealthEvent> FailureDetector::link_down(const std::string& node, bool goodbye, std::int64_t now_ms) {
  std::vector<HealthEvent> out;
  const auto it = nodes_.find(node);
  if (it == nodes_.end()) return out;
  Node& entry = it->second;
  entry.link = false;
  entry.closed = true;
  entry.goodbye = goodbye;
  if (entry.health == NodeHealth::kReady) {
    entry.health = NodeHealth::kSuspect;
    out.push_back(change_of(HealthChange::kSuspect, node, now_ms - entry.heard_ms,
                            goodbye ? "the agent said goodbye" : "its link closed"));
    became_silent(entry, now_ms, out);
  }
  if (goodbye) age(node, entry, now_ms, out);
  return out;
}

void FailureDetector::heartbeat(const std::string& node, std::int64_t now_ms) {
  const auto it = nodes_.find(node);
  if (it != nodes_.end()) it->second.heard_ms = std::max(it->second.heard_ms, now_ms);
}

std::vector<HealthEvent> FailureDetector::report(const std::string& node, std::int64_t now_ms) {
  std::vector<HealthEvent> out;
  expect(node, now_ms);
  Node& entry = nodes_[node];
  const std::int64_t silent = now_ms - entry.heard_ms;
  entry.heard_ms = now_ms;
  entry.silent_since_ms = -1;
  entry.replaceable = false;
  entry.closed = false;
  entry.goodbye = false;
  if (entry.health != NodeHealth::kReady) {
    entry.health = NodeHealth::kReady;
    out.push_back(change_of(HealthChange::kReady, node, silent, "it reported"));
  }
  return out;
}

void FailureDetector::became_silent(Node& node, std::int64_t now_ms, std::vector<HealthEvent>& out) {
  node.silent_since_ms = now_ms;
  look_for_mass_failure(now_ms, out);
}

void FailureDetector::look_for_mass_failure(std::int64_t now_ms, std::vector<HealthEvent>& out) {
  if (frozen()) return;
  int alive = 0;
  int fresh = 0;  // silent within the window
  for (const auto& [id, node] : nodes_) {
    if (node.goodbye) continue;  // it told us: not a failure
    if (node.silent_since_ms < 0) {
      if (node.health == NodeHealth::kReady) ++alive;
    } else if (now_ms - node.silent_since_ms <= settings_.mass_window_ms) {
      ++fresh;
    }
  }
  if (fresh < settings_.mass_nodes_min || fresh < alive) return;
  frozen_until_ms_ = now_ms + settings_.freeze_ms;
  out.push_back(change_of(HealthChange::kFrozen, "", 0,
                          std::to_string(fresh) + " of " + std::to_string(fresh + alive) + " nodes fell silent within " +
                              format_duration_ms(settings_.mass_window_ms) +
                              ": most likely our own network, nothing is replaced for " +
                              format_duration_ms(settings_.freeze_ms)));
}

void FailureDetector::lose(const std::string& id, Node& node, std::int64_t now_ms, std::vector<HealthEvent>& out) {
  node.health = NodeHealth::kLost;
  const std::int64_t silent = now_ms - node.heard_ms;
  out.push_back(change_of(HealthChange::kLost, id, silent,
                          node.goodbye ? "the agent said goodbye" : "no heartbeat for " + format_duration_ms(silent)));
  std::erase_if(node.lost_ms, [&](std::int64_t at) { return now_ms - at > settings_.flap_window_ms; });
  node.lost_ms.push_back(now_ms);
  if (static_cast<int>(node.lost_ms.size()) < settings_.flap_count) return;
  std::int64_t wait_ms = settings_.quarantine_ms;
  for (int i = 0; i < node.quarantines && wait_ms < settings_.quarantine_max_ms; ++i) wait_ms *= 2;
  wait_ms = std::min(wait_ms, settings_.quarantine_max_ms);
  ++node.quarantines;
  node.quarantined_until_ms = now_ms + wait_ms;
  out.push_back(change_of(HealthChange::kQuarantined, id, silent,
                          "lost " + std::to_string(node.lost_ms.size()) + " times within " +
                              format_duration_ms(settings_.flap_window_ms) + ": gets nothing new for " +
                              format_duration_ms(wait_ms)));
}

void FailureDetector::age(const std::string& id, Node& node, std::int64_t now_ms, std::vector<HealthEvent>& out) {
  const std::int64_t silent = now_ms - node.heard_ms;
  if (node.health == NodeHealth::kReady && silent >= settings_.suspect_ms) {
    node.health = NodeHealth::kSuspect;
    out.push_back(change_of(HealthChange::kSuspect, id, silent, "no heartbeat for " + format_duration_ms(silent)));
    became_silent(node, now_ms, out);
  }
  if (node.health == NodeHealth::kSuspect && (silent >= settings_.lost_ms || node.goodbye)) lose(id, node, now_ms, out);
  const std::int64_t patience = node.goodbye ? 0 : node.closed ? settings_.replace_closed_ms : settings_.replace_ms;
  if (node.health == NodeHealth::kLost && !node.replaceable && !frozen() && silent >= patience) {
    node.replaceable = true;
    out.push_back(change_of(HealthChange::kReplaceable, id, silent,
                            "silent for " + format_duration_ms(silent) + ": its replicas are placed elsewhere"));
  }
  if (node.quarantined_until_ms > 0 && now_ms >= node.quarantined_until_ms) {
    node.quarantined_until_ms = 0;
    out.push_back(change_of(HealthChange::kReleased, id, silent, "the quarantine is over"));
  }
  if (node.quarantines > 0 && node.quarantined_until_ms == 0 &&
      (node.lost_ms.empty() || now_ms - node.lost_ms.back() > settings_.calm_ms)) {
    node.quarantines = 0;
  }
}

std::vector<HealthEvent> FailureDetector::tick(bool gateway_heard, std::int64_t now_ms) {
  std::vector<HealthEvent> out;
  if (last_tick_ms_ >= 0) {
    const std::int64_t since = now_ms - last_tick_ms_;
    const std::int64_t late = since - settings_.tick_ms;
    const std::int64_t deaf = !gateway_heard ? since : late > settings_.tick_allowance_ms ? late : 0;
    if (deaf > 0) {
      for (auto& [id, node] : nodes_) node.heard_ms = std::min(now_ms, node.heard_ms + deaf);
    }
  }
  last_tick_ms_ = now_ms;
  if (frozen() && now_ms >= frozen_until_ms_) {
    frozen_until_ms_ = 0;
    out.push_back(change_of(HealthChange::kUnfrozen, "", 0, "the freeze after a mass failure is over"));
  }
  for (auto& [id, node] : nodes_) age(id, node, now_ms, out);
  return out;
}

NodeHealth FailureDetector::health(std::string_view node) const {
  const auto it = nodes_.find(node);
  return it == nodes_.end() ? NodeHealth::kLost : it->second.health;
}

bool FailureDetector::replaceable(std::string_view node) const {
  const auto it = nodes_.find(node);
  return it == nodes_.end() || it->second.replaceable;
}

bool FailureDetector::quarantined(std::string_view node) const {
  const auto it = nodes_.find(node);
  return it != nodes_.end() && it->second.quarantined_until_ms > 0;
}

std::int64_t FailureDetector::silent_ms(std::string_view node, std::int64_t now_ms) const {
  const auto it = nodes_.find(node);
  return it == nodes_.end() ? 0 : now_ms - it->second.heard_ms;
}

std::string_view to_string(HealthChange change) {
  switch (change) {
    case HealthChange::kReady: return "ready";
    case HealthChange::kSuspect: return "suspect";
    case HealthChange::kLost: return "lost";
    case HealthChange::kReplaceable: return "replaceable";
    case HealthChange::kQuarantined: return "quarantined";
    case HealthChange::kReleased: return "released";
    case HealthChange::kFrozen: return "frozen";
    case HealthChange::kUnfrozen: return "unfrozen";
  }
  return "unknown";
}

std::string_view to_string(NodeHealth health) {
  switch (health) {
    case NodeHealth::kReady: return "ready";
    case NodeHealth::kSuspect: return "suspect";
    case NodeHealth::kLost: return "lost";
  }
  return "unknown";
}

}  // namespace aiv
