#include "core/fake_model.hpp"

#include <array>
#include <charconv>

#include "base/units.hpp"
#include "core/cluster.hpp"

namespace aiv {
namespace {

constexpr std::string_view kPrefix = "fake:";

// The figures are those of a small quantised model, so that cards of every size take part in tests.
FakeModel default_model(std::string_view name) {
  FakeModel model;
  model.name = std::string(name);
  const bool embedding = name == "fake-embed";
  model.kind = embedding ? ModelKind::kEmbedding : ModelKind::kChat;
  model.weights_bytes = (embedding ? 128 : 512) * kMiB;
  model.kv_bytes_per_cell = (embedding ? 4 : 16) * kKiB;
  model.compute_bytes = (embedding ? 32 : 64) * kMiB;
  return model;
}

bool name_is_sound(std::string_view name) {
  if (name.empty() || name.size() > 128) return false;
  for (const char c : name) {
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!letter && c != '.' && c != '_' && c != '-') return false;
  }
  return true;
}

Result<std::int64_t> read_integer(std::string_view text, std::int64_t min, std::int64_t max) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc{} || end != text.data() + text.size() || value < min || value > max)
    return fail(ErrorCode::kInvalidArgument,
                "must be a whole number from " + std::to_string(min) + " to " + std::to_string(max));
  return value;
}

Result<double> read_number(std::string_view text, double max) {
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  // Written so that NaN fails too.
  if (error != std::errc{} || end != text.data() + text.size() || !(value >= 0 && value <= max))
    return fail(ErrorCode::kInvalidArgument, "must be a number from 0 to " + std::to_string(max));
  return value;
}

template <class T, class U>
Result<> store(T& target, const Result<U>& value) {
  if (!value) return std::unexpected(value.error());
  target = static_cast<std::remove_reference_t<decltype(target)>>(*value);
  return {};
}

Result<> store_optional(std::optional<int>& target, const Result<std::int64_t>& value) {
  if (!value) return std::unexpected(value.error());
  target = static_cast<int>(*value);
  return {};
}

constexpr std::int64_t kHourMs = 3'600'000;

Result<> apply_figure(FakeModel& m, std::string_view key, std::string_view value, bool& known) {
  known = true;
  if (key == "weights") return store(m.weights_bytes, parse_bytes(value));
  if (key == "host") return store(m.host_bytes, parse_bytes(value));
  if (key == "kv_per_cell") return store(m.kv_bytes_per_cell, parse_bytes(value));
  if (key == "compute") return store(m.compute_bytes, parse_bytes(value));
  if (key == "ctx_train") return store(m.ctx_train, read_integer(value, 1, 1 << 24));
  if (key == "token_ms") return store(m.token_ms, read_number(value, kHourMs));
  if (key == "first_ms") return store(m.first_ms, read_number(value, kHourMs));
  if (key == "prefill_ms") return store(m.prefill_ms, read_number(value, kHourMs));
  if (key == "batch") return store(m.batch, read_number(value, 1));
  if (key == "read") return store(m.read_bytes, parse_bytes(value));
  if (key == "kind") {
    if (value == "chat")
      m.kind = ModelKind::kChat;
    else if (value == "embedding")
      m.kind = ModelKind::kEmbedding;
    else if (value == "rerank")
      m.kind = ModelKind::kRerank;
    else
      return fail(ErrorCode::kInvalidArgument, "must be chat, embedding or rerank");
    return {};
  }
  known = false;
  return {};
}

Result<> apply_fault(FakeModel& m, std::string_view key, std::string_view value, bool& known) {
  known = true;
  if (key == "load_ms") return store(m.load_ms, read_integer(value, 0, kHourMs));
  if (key == "load_exit") return store_optional(m.load_exit, read_integer(value, 0, 255));
  if (key == "hang_load") return store(m.hang_load, read_integer(value, 0, 1));
  if (key == "cpu_weights") return store(m.cpu_weights_bytes, parse_bytes(value));
  if (key == "cpu_kv") return store(m.cpu_kv, read_integer(value, 0, 1));
  if (key == "splits") return store_optional(m.splits, read_integer(value, 1, 1'000'000));
  if (key == "garbled_log") return store(m.garbled_log, read_integer(value, 0, 1));
  if (key == "die_after_ms") return store(m.die_after_ms, read_integer(value, 0, kHourMs));
  if (key == "exit_code") return store(m.exit_code, read_integer(value, 0, 255));
  if (key == "oom") {
    if (value == "weights")
      m.oom = FakeOom::kWeights;
    else if (value == "kv")
      m.oom = FakeOom::kKv;
    else if (value == "compute")
      m.oom = FakeOom::kCompute;
    else
      return fail(ErrorCode::kInvalidArgument, "must be weights, kv or compute");
    return {};
  }
  known = false;
  return {};
}

}  // namespace

bool is_fake_model_path(std::string_view path) {
  return path.starts_with(kPrefix);
}

Result<FakeModel> parse_fake_model(std::string_view path) {
  if (path.starts_with(kPrefix)) path.remove_prefix(kPrefix.size());
  const auto question = path.find('?');
  const auto name = path.substr(0, question);
  if (!name_is_sound(name))
    return fail(ErrorCode::kInvalidArgument, "a fake model's name has 1 to 128 of A-Z a-z 0-9 . _ -", "name");
  FakeModel model = default_model(name);
  std::string_view rest = question == std::string_view::npos ? std::string_view{} : path.substr(question + 1);
  while (!rest.empty()) {
    const auto end = rest.find('&');
    const auto setting = rest.substr(0, end);
    rest = end == std::string_view::npos ? std::string_view{} : rest.substr(end + 1);
    const auto equals = setting.find('=');
    if (equals == std::string_view::npos)
      return fail(ErrorCode::kInvalidArgument, "a setting of a fake model is key=value",
                  std::string(setting));
    const auto key = setting.substr(0, equals);
    const auto value = setting.substr(equals + 1);
    bool known = false;
    auto done = apply_figure(model, key, value, known);
    if (!known) done = apply_fault(model, key, value, known);
    if (!known)
      return fail(ErrorCode::kInvalidArgument, "a fake model has no such setting", std::string(key));
    if (!done) return fail(ErrorCode::kInvalidArgument, done.error().reason, std::string(key));
  }
  return model;
}

FakeModel paced_by_card(FakeModel model, std::int64_t bandwidth_bytes_per_s) {
  if (model.read_bytes <= 0 || bandwidth_bytes_per_s <= 0) return model;
  model.token_ms = 1000 / replica_speed(static_cast<double>(bandwidth_bytes_per_s), model.read_bytes);
  if (model.prefill_ms <= 0) model.prefill_ms = model.token_ms / kPromptSpeedup;
  return model;
}

std::vector<DeviceBytes> fake_device_bytes(const FakeModel& model, std::int64_t ctx,
                                           std::size_t device_count) {
  std::vector<DeviceBytes> devices(device_count);
  if (devices.empty()) return devices;
  const auto count = static_cast<Bytes>(device_count);
  const Bytes kv = model.kv_bytes_per_cell * ctx;
  for (auto& device : devices) {
    device.weights = model.weights_bytes / count;
    device.kv = kv / count;
    device.compute = model.compute_bytes;
  }
  devices.front().weights += model.weights_bytes % count;
  devices.front().kv += kv % count;
  return devices;
}

}  // namespace aiv
