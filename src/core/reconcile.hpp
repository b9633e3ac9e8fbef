// The reconcile step: the whole of what the controller decides, as a function of its state, one event and the
// time.
//
// SPECIFICATION, in the order in which one step works:
//  1. The event is taken in (health by core/failure_detector.hpp; observed documents replace the ones
//  before).
//  2. Acknowledgements: a draining replica that its node reports stopped, or no longer reports after it took
//  the
//     document that drains it, is gone, and its bytes are free. A replica that failed is unloaded and its
//     deployment kept off that node for a while that doubles (5 s to 10 min): retried elsewhere, no crash
//     loop.
//  3. Plan (core/placement.hpp), if anything changed: what runs stays where it is; missing replicas are
//  placed; what is
//     too many, deleted, or no longer legal (memory taken by others) is drained. A replica that must go
//     because its node is drained or its deployment changed goes when its successor is ready; or at once,
//     when the successor can only be placed where it stands.
//  4. A new replica is told to a node only when its bytes fit beside everything that is still counted there.
//  So a device
//     is never overfilled, whatever order acknowledgements arrive in.
//  5. Documents for nodes and gateways are made where they changed. Routes name replicas that the newest
//  report of a
//     living node says are ready.
//
//  6. Scale: event::Load is the gateway's count of requests. A deployment whose replicas_max is above its
//  replicas_min
//     has as many as core/autoscale.hpp says, down to none and back with the first request. One that must
//     have a replica (min, or somebody waits) and has no room gets idle ones of others unloaded
//     (core/eviction.hpp): never one that is busy, pinned, of a higher priority, just loaded, or the last of a deployment that is
//     not idle.
//
//  7. Variants (core/reconcile_variants.cpp): the only replica of a deployment that left its slots to us, idle, is loaded
//     again as a lesser variant where that gives a place to somebody who must have one and has none; and as a
//     better one where there was room for it for step_up_after_ms and nobody lacked any: on another node before the
//     old one goes, in its place only if nobody used it for step_idle_ms.
//
// After a start there is an observation window (ReconcileSettings::observation_ms, shorter when every node
// with replicas has reported): nothing is planned, unloaded or taken off a route, because what is not seen
// yet is not gone.
#pragma once
#include "core/controller_state.hpp"

namespace aiv {

// Changes `state` and says what to do, in order.
[[nodiscard]] std::vector<Command> step(ControllerState& state, const Event& event, Instant now);

// The two halves of a step (1 with the end of the observation window; 2 to 7), for whoever has many events at
// once: each is taken in as it comes, and one decision answers all of them. Rationale: a decision costs about
// as much for a hundred events as for one, and what is decided goes by the state, never by how many events
// led to it.
struct TakenIn {
  std::vector<Command> commands;
  std::string cause;    // what the decision is to name as its cause; empty = nobody asked for anything
  bool decide = false;  // whether anything is left to decide
};
[[nodiscard]] TakenIn take_in(ControllerState& state, const Event& event, Instant now);
[[nodiscard]] std::vector<Command> decide(ControllerState& state, std::string cause, Instant now);

// What would become of `deployment` (new, or in the place of the one of that name) if it were put now.
struct WhatIf {
  bool placed = false;  // at least one replica has a place, or already runs
  std::string reason;   // why there are fewer than wanted; with the nearest change that helps
  std::vector<PlanPlacement> placements;  // of this deployment
  Bytes bytes_per_replica = 0;            // of the variant it would get first, overhead left out
};
// Errors: what make_spec() refuses (options out of range, combinations that the engine refuses).
[[nodiscard]] Result<WhatIf> what_if(const ControllerState& state, const Deployment& deployment,
                                     std::int64_t now_ms);

// Replicas that are wanted of it now: replicas_min, or what the autoscaler decided between that and
// replicas_max.
[[nodiscard]] int wanted_replicas(const ControllerState& state, const Deployment& deployment);

// Bytes that are spoken for on a device: every placement that is not acknowledged gone, and what a node runs
// that no placement names.
[[nodiscard]] Bytes used_bytes(const ControllerState& state, const std::string& device_id);

// "ready", "suspect", "lost", "quarantined", "draining", as the API shows a node.
[[nodiscard]] std::string node_state(const ControllerState& state, const NodeRecord& node);

// The newest report on a replica, or nullptr; nothing is known of replicas of a node that is Lost.
[[nodiscard]] const ReplicaStatus* observed_replica(const ControllerState& state, const Placement& placement);

}  // namespace aiv
