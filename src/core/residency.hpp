// The proof that a replica runs on its devices only, from the engine's own log (llama-server v0.5.0 at -lv
// 4).
//
// Rules, each with its rationale:
//  - "offloaded N/N layers to GPU" counts for nothing: the engine computes it from the flag alone
//    (llama-model.cpp:1846); it is printed also when everything lies on the CPU.
//  - Each "model", "KV" and "RS" buffer must lie on a device of the spec. Only the token embedding may stay
//  on the
//    host (`host_weights`), in a CPU_Mapped, CPU or *_Host buffer.
//  - Per device the weights and the KV + RS bytes must equal the spec's to 0.01 MiB per line. Rationale:
//  Vulkan
//    leaves an operation whose source exceeds maxStorageBufferRange on the CPU in silence; with a tied output
//    the host buffer then still equals the embedding, and only the missing device bytes show it.
//  - The graph's splits are bounded: one per device, one more for an embedding on the host, or on the
//    last of several devices (seen: last, first, ..., last). Rationale: every operation the device cannot do
//    adds two.
//  - A buffer line that is not known, or a line that should be there and is not, is a failure, never a pass:
//  another
//    engine version fails closed.
//
// Complexity: constant work per line; memory bounded by kLinesKeptMax buffers.
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "core/documents.hpp"

namespace aiv {

// What the proof compares with.
struct ResidencyExpectation {
  // Engine's device names in the order of the spec's devices ("Vulkan0", "Vulkan1").
  std::vector<std::string> device_names;
  std::vector<DeviceBytes> devices;
  Bytes host_weights = 0;
  bool token_embd_on_device = false;
};

ResidencyExpectation residency_expectation(const ReplicaSpec& spec,
                                           const std::vector<std::string>& device_names);

struct ResidencyProof {
  std::vector<DeviceBytes> measured;  // weights, kv, compute as the engine says; overhead as in the spec
  Bytes host_weights = 0;
  int splits = 0;
  friend bool operator==(const ResidencyProof&, const ResidencyProof&) = default;
};

// Why a load ended, from the engine's last words; the agent turns it into ReplicaStatus::reason.
enum class LoadFailure {
  kNone,
  kWeightsDoNotFit,
  kCacheDoesNotFit,
  kComputeDoesNotFit,
  kBadModel,  // missing, truncated or not understood
  kBadFlags,  // the engine did not accept its command line, e.g. a device it does not have
  kSocketTaken,
  kOther,
};

class ResidencyParser {
 public:
  // Feeds one line of the log without its newline. Anything may come: other programs' words, any bytes, any
  // length.
  void line(std::string_view text);

  // The proof over all lines so far; call it once the engine said that it is ready. The error is kRefused and
  // reads "weights on the CPU: 157.7 MiB"; all faults that were found are named, the gravest first.
  [[nodiscard]] Result<ResidencyProof> prove(const ResidencyExpectation& expected) const;

  // What the log says about a load that failed, and the line that says it best (for the reason).
  [[nodiscard]] LoadFailure failure() const { return failure_; }
  [[nodiscard]] const std::string& failure_line() const { return failure_line_; }

 private:
  enum class BufferKind { kModel, kKv, kRecurrent, kCompute, kOutput };
  struct Buffers {
    Bytes bytes = 0;
    int lines = 0;
  };
  struct PerName {
    Buffers model, kv, recurrent, compute, output;
  };
  void buffer_line(std::string_view body);
  void splits_line(std::string_view body);
  void device_line(std::string_view body);
  void failure_line_seen(std::string_view body);
  void distrust(std::string_view body);

  std::map<std::string, PerName, std::less<>> buffers_;
  std::vector<std::string> used_devices_;
  std::vector<std::string> unknown_lines_;
  int unknown_count_ = 0;
  int splits_ = 0;
  int splits_lines_ = 0;
  LoadFailure failure_ = LoadFailure::kNone;
  std::string failure_line_;
};

}  // namespace aiv
