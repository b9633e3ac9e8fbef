// All that the controller decides on, as plain data, and what goes in and out of a decision
// (core/reconcile.hpp).
//
// Invariants:
//  - A placement's bytes count on its devices from the moment it is decided until its unload is acknowledged,
//  on a
//    lost node until the node is back and says so, or is removed. This is what keeps a device from being
//    overfilled.
//  - `placements` is what the store holds; nothing is told to a node before its placement is stored (the
//  order of the
//    commands).
//  - Ids of replicas are never used again.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "core/autoscale.hpp"
#include "core/cluster.hpp"
#include "core/documents.hpp"
#include "core/failure_detector.hpp"
#include "core/fake_model.hpp"
#include "core/placed_replicas.hpp"
#include "core/vram.hpp"
#include "core/vram_margin.hpp"
#include "core/weekly_hours.hpp"

namespace aiv {

// A model the cluster may run: a GGUF file, or one that the fake engine plays.
struct ModelRecord {
  std::string id;      // what deployments name
  std::string path;    // file, or "fake:NAME?..."
  std::string digest;  // "sha256:..."; empty while it is being computed
  Bytes size_bytes = 0;
  EngineKind engine = EngineKind::kLlama;
  ModelKind kind = ModelKind::kChat;
  std::int64_t created_ms = 0;
  std::string error;                        // why it cannot be used, e.g. the file is gone; empty = usable
  std::shared_ptr<const ModelFacts> facts;  // of a GGUF
  std::optional<FakeModel> fake;
  [[nodiscard]] std::string architecture() const { return facts ? facts->architecture : fake ? "fake" : ""; }
  [[nodiscard]] std::int64_t train_ctx() const {
    return facts ? facts->context_length : fake ? fake->ctx_train : 0;
  }
};

// What the admin wants. 0 and empty mean "you choose".
struct Deployment {
  std::string name;
  std::string model;
  int replicas_min = 1;
  int replicas_max = 1;
  std::int64_t ctx = 0;  // per slot, in tokens
  int slots = 0;
  int ubatch = 512;
  bool flash_attn = true;
  std::string cache_type_k = "f16";
  std::string cache_type_v = "f16";
  std::optional<ModelKind> kind;     // empty: the model's own; a chat model may serve embeddings
  std::string pooling;               // of embeddings: "mean", "cls", "last"; empty: the model's own
  std::vector<std::string> aliases;  // further names that clients may say
  bool pinned = false;               // its replicas are never unloaded to make room for others
  int priority = 10;                 // 1..100: whose replicas the room goes to first when not all fit
  std::map<std::string, std::string> on;  // only nodes with all these labels
  std::set<std::string> tolerates;        // taints of nodes that it may be placed on all the same
  std::int64_t generation = 1;       // counts changes that need new processes
  std::int64_t created_ms = 0;
  friend bool operator==(const Deployment&, const Deployment&) = default;
};

// What a person set for one device: it is theirs before it is ours.
struct DevicePolicy {
  bool off = false;         // nothing of ours may be there
  Bytes reserve_bytes = 0;  // kept free for others
  bool exclusive = false;   // at most one replica at a time
  WeeklyHours off_hours;    // off in these, by the server's local time
  friend bool operator==(const DevicePolicy&, const DevicePolicy&) = default;
};

// What an admin set for a node.
struct NodePolicy {
  bool draining = false;
  std::string failure_domain;  // empty = its own
  std::map<std::string, std::string> labels;
  std::set<std::string> taints;  // only deployments that tolerate all of them are placed there
  std::map<std::string, DevicePolicy> devices;  // by device id
  friend bool operator==(const NodePolicy&, const NodePolicy&) = default;
};

struct NodeRecord : NodePolicy {
  std::string id;
  std::optional<NodeObserved> observed;
  std::vector<std::uint64_t> past_lives;  // incarnations of its agent before the present one, newest last
  std::int64_t reported_ms = 0;     // monotonic
  std::optional<NodeDesired> sent;  // newest document made for it in this epoch
  std::map<std::string, Bytes> margins;  // learned, by device id (Device::margin_bytes)
};

// Failures of a deployment on a node: the wait before it is tried there again.
struct Backoff {
  int failures = 0;
  std::int64_t until_ms = 0;  // monotonic
  std::int64_t wait_ms = 0;
  std::string reason;
};

// Why a deployment is as it is; what the API, the CLI and the routes show.
struct DeploymentStatus {
  std::string state =
      "pending";  // "ready", "loading", "pending", "failed"; "idle": none is wanted now, a request loads one
  std::string reason;
  std::optional<int> load_percent;  // while "loading": of the replica that is furthest; absent: none has begun
  int ready = 0;
  int placed = 0;
  bool survives_node_loss = false;
  friend bool operator==(const DeploymentStatus&, const DeploymentStatus&) = default;
};

struct ReconcileSettings {
  std::int64_t observation_ms = 5'000;
  std::int64_t backoff_first_ms = 5'000;
  std::int64_t backoff_max_ms = 600'000;
  std::int64_t calm_ready_ms = 300'000;  // ready for so long: an older failure no longer counts
  bool auth_required = true;
  AutoscaleSettings autoscale;
  std::int64_t evict_idle_ms = 5'000;       // an idle replica younger in idleness is not unloaded for another
  std::int64_t evict_ready_ms = 30'000;     // nor one that has been ready for less
  std::int64_t evict_horizon_ms = 600'000;  // "asked for again soon" means within this
  std::int64_t load_fresh_ms = 10'000;      // older counts of a gateway decide nothing
  std::int64_t step_up_after_ms = 600'000;  // room for a better variant for so long: it is taken
  std::int64_t step_idle_ms = 60'000;       // in the place of the old one only if nobody used that for so long
  std::int64_t step_check_ms = 30'000;      // between two looks for such room
};

// What is known of the load of a deployment, and what was decided of its number.
struct ScaleState {
  Demand demand;
  ScaleMemory memory;
  std::int64_t load_ms = 10'000;       // what a load takes, learned
  std::int64_t heard_ms = -1;          // newest sample
  std::map<std::string, int> running;  // requests on each replica, of the newest sample
};

struct ControllerState {
  ReconcileSettings settings;
  std::int64_t epoch = 0;
  std::int64_t rev = 0;      // of documents, within the epoch
  std::int64_t next_id = 0;  // of replicas, within the epoch
  FailureDetector detector;
  std::map<std::string, ModelRecord> models;
  std::map<std::string, Deployment> deployments;
  PlacedReplicas placements;
  std::map<std::string, NodeRecord> nodes;
  std::vector<RouteKey> keys;
  std::vector<DeniedNode> denied_nodes;
  std::map<std::pair<std::string, std::string>, Backoff> backoff;  // (deployment, node)
  std::map<std::string, std::int64_t> ready_since_ms;              // by replica id
  std::map<std::string, ReplicaState> last_seen;                   // by replica id, for events
  std::map<std::string, DeploymentStatus> status;
  std::map<std::string, ScaleState> scale;      // by deployment
  std::map<std::string, std::string> unplaced;  // deployment -> why it has fewer replicas than it wants
  // What estimates were off by, learned from loads. The shell fills it from the store before event::Start and writes
  // what command::SaveMargin says.
  std::map<MarginKey, MarginHistory> margins;
  std::set<std::string> held_down;  // deployments that are planned with lesser variants: others need the room
  std::set<std::string> outgrown;   // replicas whose successor of a better variant has a place
  std::map<std::string, std::int64_t> room_since_ms;  // by deployment: room for a better variant, without a break
  std::int64_t variants_checked_ms = -1;
  std::set<std::string> unmeasured;             // replicas placed since the start whose load is to be learned from
  std::optional<RouteTable> routes;             // newest published
  std::int64_t started_ms = -1;                 // of the observation window
  std::int64_t ticked_ms = -1;                  // of the newest tick
  int week_minute = -1;                         // the server's local time; 0 = Monday 00:00, -1 = not told yet
  bool observing = true;                        // nothing is unloaded and no route is taken away
  bool frozen_writes = false;                   // the store takes no writes: keep what is, decide nothing new
  bool dirty = true;                            // something changed since the last plan
  bool touched = true;  // something changed since the documents and the status were last made
};

// ---- events ---------------------------------------------------------------------------------------------

struct Instant {
  std::int64_t steady_ms = 0;
  std::int64_t unix_ms = 0;
};

namespace event {
struct Start {};
struct Tick {
  bool gateway_heard = true;
  int week_minute = -1;  // local time, 0 = Monday 00:00; -1 = as before
};
struct LinkUp {
  std::string node;
};
struct LinkDown {
  std::string node;
  bool goodbye = false;
};
struct Heartbeat {
  std::string node;
};
struct Observed {
  NodeObserved document;
};
struct ModelPut {
  ModelRecord model;
};
struct ModelErased {
  std::string id;
};
struct DeploymentPut {
  Deployment deployment;
};
struct DeploymentErased {
  std::string name;
};
struct NodePut {  // settings of an admin
  std::string id;
  NodePolicy policy;
};
struct NodeErased {
  std::string id;
};
// What the gateway counted since the last one: about once a second, and at once when a request comes for a
// deployment without replicas. Deployments that are not named keep what is known of them.
struct Load {
  std::vector<LoadSample> samples;
};
struct KeysPut {
  std::vector<RouteKey> keys;
};
struct DeniedPut {
  std::vector<DeniedNode> nodes;
};
}  // namespace event

using Event =
    std::variant<event::Start, event::Tick, event::LinkUp, event::LinkDown, event::Heartbeat, event::Observed,
                 event::ModelPut, event::ModelErased, event::DeploymentPut, event::DeploymentErased,
                 event::NodePut, event::NodeErased, event::Load, event::KeysPut, event::DeniedPut>;

// ---- commands -------------------------------------------------------------------------------------------

namespace command {
struct SavePlacement {
  Placement placement;
};
struct ErasePlacement {
  std::string id;
};
struct PublishDesired {
  NodeDesired document;
};
struct PublishRoutes {
  RouteTable table;
};
// What is known now of estimates on one sort of card; replaces what is stored for the key. Not urgent: losing the newest
// costs one residual.
struct SaveMargin {
  MarginKey key;
  MarginHistory history;
};
// For people: what happened to whom, why, with numbers; `cause` is the kind and subject that led to it.
struct Tell {
  std::string kind;     // "replica.placed"
  std::string subject;  // "replica/qwen3-8b-x7k2", "node/n1"
  std::string reason;
  std::string cause;
};
}  // namespace command

// To be carried out in this order: a SavePlacement must be durable before a PublishDesired after it is sent.
using Command = std::variant<command::SavePlacement, command::ErasePlacement, command::PublishDesired,
                             command::PublishRoutes, command::Tell, command::SaveMargin>;

// Whether the state's store carries it out.
inline bool is_write(const Command& command) {
  return std::holds_alternative<command::SavePlacement>(command) ||
         std::holds_alternative<command::ErasePlacement>(command) ||
         std::holds_alternative<command::SaveMargin>(command);
}

}  // namespace aiv
