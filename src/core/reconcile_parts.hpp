// Parts of one reconcile step; used by reconcile*.cpp alone.
#pragma once
#include <ranges>
#include <set>

#include "core/reconcile.hpp"

namespace aiv::reconcile {

// One step at work: the state it changes and the commands so far.
struct Work {
  ControllerState& state;
  Instant now;
  std::vector<Command>& out;
  std::string cause;

  void tell(std::string kind, std::string subject, std::string reason) {
    out.emplace_back(command::Tell{std::move(kind), std::move(subject), std::move(reason), cause});
  }
};

// A replica that should go, but may wait for its successor: outdated, or on a node that is being drained.
[[nodiscard]] bool is_leaving(const ControllerState& state, const Placement& placement);
// Whether a replica in this state still has its memory.
[[nodiscard]] bool holds_memory(ReplicaState state);
// Devices are called NODE/NUMBER, and no node's name holds a slash.
[[nodiscard]] std::string node_of_device(const std::string& id);
// As its node last reported it; nullptr: the node or the device is not known.
[[nodiscard]] const Device* find_device(const ControllerState& state, const std::string& id);
// What an operator said of the device; the defaults where nothing was said.
[[nodiscard]] const DevicePolicy& policy_of(const NodeRecord& node, const std::string& device_id);
// Whether an operator wants nothing of ours on the device at this time of the week.
[[nodiscard]] bool is_off(const NodeRecord& node, const std::string& device_id, int week_minute);
[[nodiscard]] bool is_ready(const ControllerState& state, const Placement& placement);
// Places are thought of per node for as long as something of the deployment is or may be there.
// `lesser`: deployments that may take another than their best variant.
// `refused`: (deployment, node) where the exact bytes do not fit although the planner's did.
using Refused = std::set<std::pair<std::string, std::string>>;
[[nodiscard]] PlanInput plan_input(const ControllerState& state, std::int64_t now_ms,
                                   const std::set<std::string>& lesser, const Refused& refused,
                                   std::map<std::string, Error>* impossible);
// Nodes that say they hold something of a deployment that no placement names, by deployment.
using StrayNodes = std::map<std::string, std::set<std::string>>;
[[nodiscard]] StrayNodes stray_nodes(const ControllerState& state);
// Nodes where the deployment may not be placed now although they are fine.
[[nodiscard]] std::set<std::string> excluded_nodes(const ControllerState& state,
                                                   const std::string& deployment, const StrayNodes& strays,
                                                   std::int64_t now_ms);
// Whether an operator lets the deployment onto the node. What runs there already stays (like a wait after a
// failure, this is for new replicas).
[[nodiscard]] bool admits(const NodeRecord& node, const Deployment& deployment);
// Replicas of the deployment that stay where they are: neither going nor about to.
[[nodiscard]] int settled_of(const ControllerState& state, const std::string& deployment);
// Its failures on nodes.
[[nodiscard]] inline auto backoff_of(const ControllerState& state, const std::string& deployment) {
  const auto from = state.backoff.lower_bound({deployment, std::string()});
  auto to = from;
  while (to != state.backoff.end() && to->first.first == deployment) ++to;
  return std::ranges::subrange(from, to);
}
[[nodiscard]] NodePlanState plan_state(const ControllerState& state, const NodeRecord& node);
void plan_round(Work& work);
// What would be planned if `state` were so.
[[nodiscard]] Plan trial_plan(const ControllerState& state, std::int64_t now_ms);
// reconcile_variants.cpp
[[nodiscard]] bool step_down_for(Work& work, const std::string& asking);  // true: it was done
void step_up_where_idle(Work& work);
[[nodiscard]] bool has_lesser_variant(const ControllerState& state);
// reconcile_margin.cpp
void learn_residual(Work& work, const Placement& placement, const ReplicaStatus& status);
void learn_out_of_memory(Work& work, const Placement& placement);
void refresh_margins(ControllerState& state);
// reconcile_scale.cpp
void begin_scale(ControllerState& state);  // after a start: what is placed is what was wanted
void on_load(Work& work, const event::Load& load);
void learn_load_time(ControllerState& state, const std::string& deployment, std::int64_t took_ms);
void make_room(Work& work);
// An operator's word on devices and what was learned of them go where budgets are computed.
void apply_policy(NodeRecord& node, int week_minute);
void retire(Work& work, Placement& placement, const std::string& kind, const std::string& reason);
void publish_desired(Work& work);
void publish_routes(Work& work);
void update_status(Work& work);

}  // namespace aiv::reconcile
