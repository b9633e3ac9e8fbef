#include "core/residency.hpp"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <optional>

#include "base/units.hpp"

namespace aiv {
namespace {

constexpr std::size_t kLineBytesMax = 4096;      // longer lines are metadata dumps, never a buffer line
constexpr std::size_t kNamesMax = 64;            // distinct buffer names; more is not an engine we know
constexpr std::size_t kUnknownLinesKeptMax = 4;  // enough for a reason
// The engine prints two decimals of a MiB ("%8.2f MiB"): half of that is rounding, the other half alignment.
constexpr Bytes kToleranceBytes = kMiB / 100;
constexpr double kPrintedMibMax = 1e9;

std::string_view trimmed_line(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r'))
    text.remove_suffix(1);
  return text;
}

// "1.52" -> bytes. The engine prints MiB with decimals; to bytes by whole hundredths, so that no rounding of
// ours comes on top. More decimals than two are read as far as they go.
std::optional<Bytes> mib_to_bytes(std::string_view text) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size()) return std::nullopt;
  if (!(value >= 0) || value > kPrintedMibMax) return std::nullopt;
  return static_cast<Bytes>(std::llround(value * static_cast<double>(kMiB)));
}

// The part after "0.00.100.586 I " where the line has it; the whole line otherwise.
std::string_view without_prefix(std::string_view text) {
  std::size_t i = 0;
  while (i < text.size() && ((text[i] >= '0' && text[i] <= '9') || text[i] == '.')) ++i;
  if (i == 0 || i + 3 > text.size() || text[i] != ' ' || text[i + 2] != ' ') return text;
  return text.substr(i + 3);
}

bool is_host_name(std::string_view name) {
  return name == "CPU" || name == "CPU_Mapped" || (name.ends_with("_Host") && name.size() > 5);
}

// Pinned memory: where inputs and outputs of a graph rightly lie. Plain "CPU" compute means that the CPU
// computes.
bool is_pinned_name(std::string_view name) {
  return name.ends_with("_Host") && name.size() > 5;
}

std::string mib(Bytes bytes) {
  // Tenths of a MiB by integers; two decimals below 1 MiB, where a tenth would hide the fault.
  const Bytes hundredths = (bytes * 100 + kMiB / 2) / kMiB;
  if (hundredths < 100) {
    const Bytes cents = hundredths % 100;
    return "0." + std::string(cents < 10 ? "0" : "") + std::to_string(cents) + " MiB";
  }
  return format_bytes(bytes);
}

bool close_enough(Bytes measured, Bytes expected, int lines) {
  return std::abs(measured - expected) <= kToleranceBytes * std::max(lines, 1);
}

struct FailureWords {
  std::string_view words;
  LoadFailure failure;
};
// In this order: the engine prints several lines per failure and the first match of the most telling kind
// wins. Texts of llama.cpp v0.5.0 (llama-model.cpp, llama-kv-cache.cpp, llama-context.cpp, arg.cpp,
// server-http.cpp).
constexpr FailureWords kFailureWords[] = {
    {"failed to allocate buffer for kv cache", LoadFailure::kCacheDoesNotFit},
    {"failed to allocate buffer for rs cache", LoadFailure::kCacheDoesNotFit},
    {"failed to allocate compute", LoadFailure::kComputeDoesNotFit},
    {"unable to allocate", LoadFailure::kWeightsDoNotFit},
    {"invalid device", LoadFailure::kBadFlags},
    {"error while handling argument", LoadFailure::kBadFlags},
    {"invalid argument", LoadFailure::kBadFlags},
    {"error: unknown", LoadFailure::kBadFlags},
    {"quantized V cache requires flash_attn", LoadFailure::kBadFlags},
    {"couldn't bind", LoadFailure::kSocketTaken},
    {"error loading model", LoadFailure::kBadModel},
    {"failed to load model", LoadFailure::kBadModel},
    {"failed to open GGUF", LoadFailure::kBadModel},
    {"exiting due to model loading error", LoadFailure::kOther},
    {"terminate called", LoadFailure::kOther},
    {"GGML_ASSERT", LoadFailure::kOther},
};

int weight_of(LoadFailure failure) {
  switch (failure) {
    case LoadFailure::kNone:
      return 0;
    case LoadFailure::kOther:
      return 1;
    case LoadFailure::kBadModel:
      return 2;
    case LoadFailure::kSocketTaken:
    case LoadFailure::kBadFlags:
    case LoadFailure::kComputeDoesNotFit:
    case LoadFailure::kCacheDoesNotFit:
    case LoadFailure::kWeightsDoNotFit:
      return 3;
  }
  return 0;
}

}  // namespace

ResidencyExpectation residency_expectation(const ReplicaSpec& spec,
                                           const std::vector<std::string>& device_names) {
  return {.device_names = device_names,
          .devices = spec.devices,
          .host_weights = spec.token_embd_on_device ? 0 : spec.host_weights,
          .token_embd_on_device = spec.token_embd_on_device};
}

void ResidencyParser::line(std::string_view text) {
  if (text.size() > kLineBytesMax) text = text.substr(0, kLineBytesMax);
  const std::string_view body = without_prefix(text);
  // Metadata of the model file is foreign text and must not be read as the engine's own words. The dump's
  // lines begin with "llama_model_loader: - kv". A name with a newline in it can still add lines; but nothing
  // takes away the lines that tell of the CPU, and the splits count at their largest.
  if (body.starts_with("llama_model_loader: - kv")) return;
  if (body.find("buffer size") != std::string_view::npos) return buffer_line(body);
  if (body.find("splits = ") != std::string_view::npos) return splits_line(body);
  if (body.find(": using device ") != std::string_view::npos) return device_line(body);
  failure_line_seen(body);
}

void ResidencyParser::distrust(std::string_view body) {
  ++unknown_count_;
  if (unknown_lines_.size() < kUnknownLinesKeptMax) unknown_lines_.push_back(printable(trimmed_line(body), 120));
}

// "load_tensors:      Vulkan0 model buffer size =     0.99 MiB"
void ResidencyParser::buffer_line(std::string_view body) {
  struct Shape {
    std::string_view words;
    BufferKind kind;
  };
  static constexpr Shape kShapes[] = {{" model buffer size = ", BufferKind::kModel},
                                      {" KV buffer size = ", BufferKind::kKv},
                                      {" RS buffer size = ", BufferKind::kRecurrent},
                                      {" compute buffer size = ", BufferKind::kCompute},
                                      {" output buffer size = ", BufferKind::kOutput}};
  const std::size_t colon = body.find(": ");
  if (colon == std::string_view::npos) return distrust(body);
  const std::string_view rest = body.substr(colon + 2);
  for (const Shape& shape : kShapes) {
    const std::size_t at = rest.find(shape.words);
    if (at == std::string_view::npos) continue;
    const std::string_view name = trimmed_line(rest.substr(0, at));
    std::string_view value = trimmed_line(rest.substr(at + shape.words.size()));
    if (!value.ends_with(" MiB") || name.empty() || name.find(' ') != std::string_view::npos)
      return distrust(body);
    value.remove_suffix(4);
    const std::optional<Bytes> bytes = mib_to_bytes(trimmed_line(value));
    auto found = buffers_.find(name);
    if (!bytes || (found == buffers_.end() && buffers_.size() >= kNamesMax)) return distrust(body);
    if (found == buffers_.end()) found = buffers_.emplace(std::string(name), PerName{}).first;
    Buffers* into = nullptr;
    switch (shape.kind) {
      case BufferKind::kModel:
        into = &found->second.model;
        break;
      case BufferKind::kKv:
        into = &found->second.kv;
        break;
      case BufferKind::kRecurrent:
        into = &found->second.recurrent;
        break;
      case BufferKind::kCompute:
        into = &found->second.compute;
        break;
      case BufferKind::kOutput:
        into = &found->second.output;
        break;
    }
    into->bytes += *bytes;
    ++into->lines;
    return;
  }
  distrust(body);
}

// "sched_reserve: graph: nodes = 171, splits = 2, ..." or "splits = 46 / 2" (prompt / generation).
void ResidencyParser::splits_line(std::string_view body) {
  std::string_view rest = body.substr(body.find("splits = ") + 9);
  rest = rest.substr(0, rest.find(','));
  int largest = -1;
  while (!rest.empty()) {
    const std::size_t slash = rest.find('/');
    const std::string_view part = trimmed_line(rest.substr(0, slash));
    int value = 0;
    const auto [end, error] = std::from_chars(part.data(), part.data() + part.size(), value);
    if (error != std::errc{} || end != part.data() + part.size() || value < 0) return distrust(body);
    largest = std::max(largest, value);
    if (slash == std::string_view::npos) break;
    rest = rest.substr(slash + 1);
  }
  if (largest < 0) return distrust(body);
  ++splits_lines_;
  splits_ = std::max(splits_, largest);
}

// "llama_prepare_model_devices: using device Vulkan0 (RX580) (unknown id) - 2048 MiB free"
void ResidencyParser::device_line(std::string_view body) {
  constexpr std::string_view kWords = ": using device ";
  std::string_view name = body.substr(body.find(kWords) + kWords.size());
  name = name.substr(0, name.find(' '));
  if (name.empty() || used_devices_.size() >= kNamesMax) return distrust(body);
  if (std::ranges::find(used_devices_, name) == used_devices_.end()) used_devices_.emplace_back(name);
}

void ResidencyParser::failure_line_seen(std::string_view body) {
  for (const FailureWords& entry : kFailureWords) {
    if (body.find(entry.words) == std::string_view::npos) continue;
    if (weight_of(entry.failure) <= weight_of(failure_)) return;
    failure_ = entry.failure;
    failure_line_ = printable(trimmed_line(body), 200);
    return;
  }
}

Result<ResidencyProof> ResidencyParser::prove(const ResidencyExpectation& expected) const {
  std::vector<std::string> faults;
  ResidencyProof proof;
  proof.splits = splits_;
  if (expected.device_names.empty() || expected.device_names.size() != expected.devices.size())
    return fail(ErrorCode::kRefused, "the replica names no device to prove its residency on");

  auto is_ours = [&](std::string_view name) {
    return std::ranges::find(expected.device_names, name) != expected.device_names.end();
  };

  // What lies where it must not.
  for (const auto& [name, buffers] : buffers_) {
    if (is_ours(name)) continue;
    const bool host = is_host_name(name);
    const std::string place = host ? std::string("the CPU") : "'" + printable(name, 40) + "'";
    if (buffers.model.lines > 0) {
      if (host)
        proof.host_weights += buffers.model.bytes;
      else
        faults.push_back("weights on " + place + ": " + mib(buffers.model.bytes));
    }
    if (buffers.kv.lines > 0) faults.push_back("KV cache on " + place + ": " + mib(buffers.kv.bytes));
    if (buffers.recurrent.lines > 0)
      faults.push_back("recurrent state on " + place + ": " + mib(buffers.recurrent.bytes));
    if (buffers.compute.lines > 0 && !is_pinned_name(name))
      faults.push_back("computing on " + place + ": " + mib(buffers.compute.bytes));
    if (buffers.output.lines > 0 && !is_pinned_name(name) && !host)
      faults.push_back("output buffer on " + place);
  }
  if (proof.host_weights > expected.host_weights + kToleranceBytes) {
    faults.insert(faults.begin(),
                  "weights on the CPU: " + mib(proof.host_weights) +
                      (expected.host_weights > 0
                           ? " (only the token embedding, " + mib(expected.host_weights) + ", may be there)"
                           : ""));
  }

  // What must lie on each device.
  for (std::size_t i = 0; i < expected.devices.size(); ++i) {
    const std::string& name = expected.device_names[i];
    const DeviceBytes& want = expected.devices[i];
    DeviceBytes have = want;
    have.weights = have.kv = have.compute = 0;
    int weight_lines = 0;
    int kv_lines = 0;
    if (const auto found = buffers_.find(name); found != buffers_.end()) {
      have.weights = found->second.model.bytes;
      weight_lines = found->second.model.lines;
      have.kv = found->second.kv.bytes + found->second.recurrent.bytes;
      kv_lines = found->second.kv.lines + found->second.recurrent.lines;
      have.compute = found->second.compute.bytes;
      if (found->second.compute.lines == 0) faults.push_back("no compute buffer on " + name);
    }
    if (std::ranges::find(used_devices_, name) == used_devices_.end())
      faults.push_back("the engine does not use " + name);
    if (weight_lines == 0)
      faults.push_back("no weights on " + name);
    else if (!close_enough(have.weights, want.weights, weight_lines))
      faults.push_back("weights on " + name + " are " + mib(have.weights) + ", not the " + mib(want.weights) +
                       " of the model");
    if (!close_enough(have.kv, want.kv, kv_lines))
      faults.push_back("cache on " + name + " is " + mib(have.kv) + ", not " + mib(want.kv));
    proof.measured.push_back(std::move(have));
  }
  for (const std::string& name : used_devices_)
    if (!is_ours(name)) faults.push_back("the engine uses " + printable(name, 40) + ", which is not its own");

  const int devices = static_cast<int>(expected.devices.size());
  const bool one_more = !expected.token_embd_on_device || devices > 1;
  const int splits_max = devices + (one_more ? 1 : 0);
  if (splits_lines_ == 0)
    faults.emplace_back("the engine's log does not tell its graph splits");
  else if (splits_ > splits_max)
    faults.push_back("operations run on the CPU: " + std::to_string(splits_) +
                     " graph splits instead of at most " + std::to_string(splits_max));
  if (unknown_count_ > 0)
    faults.push_back("the engine's log has " + std::to_string(unknown_count_) +
                     " buffer lines that are not understood, first: " + unknown_lines_.front());

  if (faults.empty()) return proof;
  std::string reason = faults.front();
  for (std::size_t i = 1; i < faults.size() && reason.size() < 600; ++i) reason += "; " + faults[i];
  return fail(ErrorCode::kRefused, std::move(reason));
}

}  // namespace aiv
