// The models that the fake engine plays: "fake:NAME" or "fake:NAME?key=value&key=value".
//
// The controller plans with these figures, the agent expects them in the engine's log, and the fake engine
// (tools/fake-engine) prints them: one definition, so that plan, log and proof cannot drift apart. The
// settings after the question mark change the figures or inject a fault, because an engine's environment is
// clean and its command line is llama-server's. An unknown key is refused with its name.
//
//   figures    weights=512MiB  host=0 (token embedding kept on the host)  kv_per_cell=16KiB  compute=64MiB
//              kind=chat|embedding|rerank  ctx_train=32768
//   pace       token_ms=2  first_ms=0  prefill_ms=0 (per prompt token)  batch=1 (exponent g: with b busy slots a
//              token takes token_ms * b^(1-g); 1 = streams do not slow each other)
//              read=BYTES (of the card's memory, for each token: the card's bandwidth sets the pace instead of
//              token_ms, so that replicas on unequal cards answer at unequal speeds)
//   at load    load_ms=50  load_exit=N (exit status N half-way)  hang_load=1  oom=weights|kv|compute
//              cpu_weights=BYTES  cpu_kv=1 (buffers on the CPU)  splits=N  garbled_log=1
//   later      die_after_ms=N (exit 134, N ms after ready)  exit_code=134 (of die_at and die_after_ms)
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "core/documents.hpp"

namespace aiv {

enum class FakeOom { kNone, kWeights, kKv, kCompute };

struct FakeModel {
  std::string name;  // "fake-small"
  ModelKind kind = ModelKind::kChat;
  Bytes weights_bytes = 0;      // on the devices
  Bytes host_bytes = 0;         // token embedding on the host
  Bytes kv_bytes_per_cell = 0;  // all layers together
  Bytes compute_bytes = 0;      // per device
  std::int64_t ctx_train = 32'768;

  double token_ms = 2;    // between two tokens of a stream
  double first_ms = 0;    // to the first token
  double prefill_ms = 0;  // per prompt token
  double batch = 1;
  Bytes read_bytes = 0;  // 0: as fast on every card

  std::int64_t load_ms = 50;
  std::optional<int> load_exit;
  bool hang_load = false;
  FakeOom oom = FakeOom::kNone;
  Bytes cpu_weights_bytes = 0;
  bool cpu_kv = false;
  std::optional<int> splits;
  bool garbled_log = false;
  std::optional<std::int64_t> die_after_ms;
  int exit_code = 134;  // what llama-server leaves with after a failed CUDA call (SIGABRT)

  friend bool operator==(const FakeModel&, const FakeModel&) = default;
};

// Names that are deployable without settings, in the order in which lists show them.
inline constexpr std::string_view kFakeModelNames[] = {"fake-small", "fake-embed"};

[[nodiscard]] bool is_fake_model_path(std::string_view path);

// kInvalidArgument names the key at fault. Any name of [A-Za-z0-9._-] is allowed; "fake-embed" is of kind
// embedding unless `kind` says otherwise. The prefix "fake:" may be missing.
Result<FakeModel> parse_fake_model(std::string_view path);

// The model as a card of this bandwidth (bytes/s; the slowest of several) plays it: a token takes what replica_speed()
// (core/cluster.hpp) says of `read`, a token of the prompt kPromptSpeedup times less unless prefill_ms is given. Unchanged
// without `read` or with an unknown bandwidth (0).
inline constexpr double kPromptSpeedup = 15;  // assumed, as the simulator does
[[nodiscard]] FakeModel paced_by_card(FakeModel model, std::int64_t bandwidth_bytes_per_s);

// Environment variable in which an agent tells the fake engine its card's bandwidth, bytes/s.
inline constexpr std::string_view kFakeBandwidthVariable = "AIV_FAKE_BANDWIDTH";

// What a replica with `ctx` cells puts on each of `device_count` devices: everything is divided evenly, what
// is left over goes to the first. device_id and overhead are left empty. No devices: no entries.
std::vector<DeviceBytes> fake_device_bytes(const FakeModel& model, std::int64_t ctx,
                                           std::size_t device_count);

}  // namespace aiv
