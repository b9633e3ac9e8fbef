// The documents that flow between the parts, as plain data. Always whole, level-triggered: losing, repeating or
// reordering them changes nothing. Order is (epoch, rev). JSON forms are in wire/documents.hpp.
//
// `vram` figures are bytes unless a name says otherwise; times are milliseconds.
#pragma once
#include <array>
#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace aiv {

using Bytes = std::int64_t;

// Version of a document: a leader's incarnation and a counter within it. A receiver persists the highest it saw
// and refuses anything lower, so an old leader cannot undo a new one.
struct Version {
  std::int64_t epoch = 0;
  std::int64_t rev = 0;
  friend auto operator<=>(const Version&, const Version&) = default;
};

// ---- what a node is told -------------------------------------------------------------------------------

enum class ModelKind { kChat, kEmbedding, kRerank };
enum class EngineKind { kLlama, kFake };
// Of embeddings; "none" would give a vector per token, "rank" belongs to reranking.
inline constexpr std::array<std::string_view, 3> kPoolings{"mean", "cls", "last"};

// What the header says a replica must put on one device; the proof compares the engine's log with it.
struct DeviceBytes {
  std::string device_id;  // "n1/0"
  Bytes weights = 0;
  Bytes kv = 0;  // KV cache and recurrent state
  Bytes compute = 0;
  Bytes overhead = 0;  // driver context, not in any engine figure
  int split = 1;       // this device's share of the layers (the engine's -ts) that the figures above assume
  [[nodiscard]] Bytes total() const { return weights + kv + compute + overhead; }
  friend bool operator==(const DeviceBytes&, const DeviceBytes&) = default;
};

// One engine process. Everything that changes its command line is here, so equal specs mean an equal process.
struct ReplicaSpec {
  std::string id;          // "qwen3-8b-x7k2": unique for ever
  std::string deployment;  // name of the deployment
  std::string model;       // model id
  std::string model_path;  // file on the node; "fake:NAME?..." (core/fake_model.hpp) with the fake engine
  std::string model_digest;
  ModelKind kind = ModelKind::kChat;
  EngineKind engine = EngineKind::kLlama;
  std::int64_t ctx = 0;  // total of the process, all slots together
  int slots = 1;
  int ubatch = 512;
  bool flash_attn = true;
  std::string cache_type_k = "f16";
  std::string cache_type_v = "f16";
  std::string pooling;  // of embeddings ("mean", "cls", "last"); empty: as the model's file says
  bool kv_unified = false;
  bool token_embd_on_device = false;  // -ot token_embd.weight=LAST DEVICE (tied models, or several devices)
  bool tied_output = false;           // the output is the token embedding (no output.weight)
  Bytes host_weights = 0;             // what may rightly stay on the host: the token embedding
  Bytes largest_tensor = 0;  // refused on a device whose max_storage_buffer_range is smaller; 0 = not known
  std::vector<DeviceBytes> devices;
  bool draining = false;  // no new requests; stop when idle
  friend bool operator==(const ReplicaSpec&, const ReplicaSpec&) = default;
};

struct NodeDesired {
  std::string node;
  Version version;
  std::vector<ReplicaSpec> replicas;
  friend bool operator==(const NodeDesired&, const NodeDesired&) = default;
};

// ---- what a node says ----------------------------------------------------------------------------------

enum class DeviceKind { kGpu, kSoftware };

struct Device {
  std::string id;  // "n1/0"; identity within the node is `uuid`, never the index
  std::string uuid;
  std::string name;
  std::string backend;  // "vulkan", "cuda", "rocm", "fake"
  DeviceKind kind = DeviceKind::kGpu;
  Bytes vram_bytes = 0;
  Bytes free_bytes = 0;     // as the driver says now
  Bytes foreign_bytes = 0;  // held by programs that are not ours
  Bytes overhead_bytes = 0;  // per process of ours, estimated or measured
  Bytes max_storage_buffer_range = 0;  // Vulkan: a larger tensor silently falls to the CPU; 0 = unknown
  Bytes alignment = 128;               // buffer alignment of the backend
  std::int64_t bandwidth_bytes_per_s = 0;  // 0 = unknown
  std::string driver;
  std::string refused;  // why it is not used, with the fix; empty = usable
  // What an operator set and what was learned, filled in by the controller alone; not part of the node's report.
  bool switched_off = false;
  Bytes set_aside_bytes = 0;
  Bytes margin_bytes = -1;  // what was learned to keep free beside estimates; -1: nothing yet
  friend bool operator==(const Device&, const Device&) = default;
};

enum class ReplicaState { kPending, kLoading, kReady, kDraining, kStopped, kFailed };

struct ReplicaStatus {
  std::string id;
  std::string deployment;
  std::string model;
  std::string spec_hash;
  ReplicaState state = ReplicaState::kPending;
  std::string reason;    // why failed, or what it is doing
  bool out_of_memory = false;  // failed because a device had no memory left for it
  double progress = 0;   // 0..1 while loading
  std::int64_t pid = 0;  // of the engine process
  std::int64_t started_at_ms = 0;
  int slots = 0;
  int slots_busy = 0;    // as the engine has it
  std::string endpoint;  // "unix:/path"
  std::vector<DeviceBytes> measured;  // from the engine's log, once proved
  int restarts = 0;
  friend bool operator==(const ReplicaStatus&, const ReplicaStatus&) = default;
};

struct NodeObserved {
  std::string node;
  std::string boot_id;
  std::uint64_t incarnation = 0;  // random per agent start
  std::int64_t seq = 0;           // counts up within the incarnation
  Version applied;
  std::string agent_version;
  std::string engine;  // e.g. "llama.cpp v0.5.0 vulkan"
  std::vector<Device> devices;
  std::vector<ReplicaStatus> replicas;
  friend bool operator==(const NodeObserved&, const NodeObserved&) = default;
};

// ---- what a gateway is told ----------------------------------------------------------------------------

struct RouteReplica {
  std::string id;
  std::string node;
  int slots = 1;
  double relative_speed = 1.0;  // seed for the router until it has measured
  bool suspect = false;         // last choice only
  bool software = false;        // on a software GPU, which compiles each kernel at its first use: tens of seconds of silence
  friend bool operator==(const RouteReplica&, const RouteReplica&) = default;
};

struct RouteModel {
  std::string name;  // deployment name, what clients ask for
  std::vector<std::string> aliases;  // further names for it
  std::string model;
  ModelKind kind = ModelKind::kChat;
  std::int64_t ctx_per_slot = 0;
  std::int64_t created_ms = 0;
  std::string state;   // "ready", "loading", "pending", "failed"
  std::string reason;  // why there is no replica
  std::optional<int> load_percent;  // of the load that is furthest, while there is no replica; absent: nothing loads
  std::vector<RouteReplica> replicas;
  friend bool operator==(const RouteModel&, const RouteModel&) = default;
};

enum class Role { kUser, kOperator, kAdmin };

// What may be used in how much time; 0 = without limit. Enforced by core/quota.hpp.
struct KeyLimits {
  std::int64_t requests_per_min = 0;
  std::int64_t tokens_per_min = 0;  // of prompt and answer
  std::int64_t concurrency = 0;     // requests under way
  std::int64_t tokens_per_day = 0;  // days begin at 00:00 UTC
  friend bool operator==(const KeyLimits&, const KeyLimits&) = default;
};

struct RouteKey {
  std::string id;
  std::string secret_sha256;
  std::string name;
  Role role = Role::kUser;
  std::vector<std::string> models;  // empty = all
  std::int64_t expires_at_ms = 0;   // 0 = never
  bool disabled = false;
  KeyLimits limits{};
  std::string team{};        // empty = none
  KeyLimits team_limits{};   // of the team as a whole; where its keys differ the smallest counts
  friend bool operator==(const RouteKey&, const RouteKey&) = default;
};

// A node that was removed: links with a certificate issued before this are refused, so it can join again with a new one.
struct DeniedNode {
  std::string node;
  std::int64_t issued_before_s = 0;  // seconds since 1970
  friend bool operator==(const DeniedNode&, const DeniedNode&) = default;
};

struct RouteTable {
  Version version;
  bool auth_required = true;
  std::vector<DeniedNode> denied_nodes;
  std::vector<RouteModel> models;
  std::vector<RouteKey> keys;
  friend bool operator==(const RouteTable&, const RouteTable&) = default;
};

}  // namespace aiv
