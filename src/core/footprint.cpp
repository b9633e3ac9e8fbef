#include "core/footprint.hpp"

#include <algorithm>
#include <set>

#include "base/units.hpp"

namespace aiv {

namespace {

constexpr Bytes kMarginSoftware = 32 * kMiB;  // the formula's own error; nothing else lives on a software GPU

EstimateBackend backend_of(const Device& device) {
  if (device.backend == "cuda") return EstimateBackend::kCuda;
  if (device.backend == "rocm" || device.backend == "hip") return EstimateBackend::kHip;
  return EstimateBackend::kVulkan;
}

// An input that is embedded must fit one physical batch (llama-server refuses a longer one), and the context
// a slot promises is what the gateway admits.
int ubatch_of(const Deployment& deployment, const ModelRecord& model, const Variant& variant) {
  if (kind_of(deployment, model) == ModelKind::kChat || model.engine == EngineKind::kFake)
    return deployment.ubatch;
  return static_cast<int>(std::clamp<std::int64_t>(variant.ctx_per_slot, deployment.ubatch, kInputTokensMax));
}

EstimateOptions options_of(const Deployment& deployment, const ModelRecord& model, const Variant& variant,
                           const Device& device, std::size_t device_count) {
  EstimateOptions options;
  options.ctx = variant.ctx_per_slot * variant.slots;
  options.parallel = variant.slots;
  options.ubatch = ubatch_of(deployment, model, variant);
  options.flash_attn = deployment.flash_attn;
  options.cache_type_k = variant.cache_type_k;
  options.cache_type_v = variant.cache_type_v;
  options.devices = static_cast<int>(device_count);
  options.embeddings = kind_of(deployment, model) != ModelKind::kChat;
  options.backend = backend_of(device);
  options.alignment = options.backend == EstimateBackend::kVulkan ? device.alignment : 0;
  options.token_embd_on_device = prefer_token_embd_on_device(*model.facts, options.devices);
  return options;
}

Variant make_variant(std::int64_t ctx, int slots, std::string cache_type_k, std::string cache_type_v,
                     double quality, bool hint_only) {
  // As one would type it: a refusal that names a variant then says what to do.
  std::string id = "--ctx " + std::to_string(ctx) + " --slots " + std::to_string(slots);
  if (cache_type_k != "f16" || cache_type_v != "f16") {
    id += " --cache-type-k " + cache_type_k + " --cache-type-v " + cache_type_v;
  }
  return {std::move(id), ctx, slots, std::move(cache_type_k), std::move(cache_type_v), quality, hint_only};
}

// On several devices of different kinds the coarsest alignment is never the smaller figure.
const Device& coarsest(std::span<const Device* const> devices) {
  return **std::ranges::max_element(devices, {}, [](const Device* device) { return device->alignment; });
}

Result<> check_operand(Bytes operand, std::span<const Device* const> devices) {
  for (const Device* device : devices) {
    if (device->max_storage_buffer_range > 0 && operand > device->max_storage_buffer_range) {
      return fail(ErrorCode::kRefused,
                  "its largest single buffer takes " + format_bytes(operand) + ", but " + device->id + " (" +
                      printable(device->name, 64) + ") binds at most " +
                      format_bytes(device->max_storage_buffer_range) + ": the rest would run on the CPU",
                  device->id);
    }
  }
  return {};
}

__extension__ using Int128 = __int128;  // bytes times layers

// Layers of each device in proportion to `rooms`: largest remainders, at least one each.
std::vector<std::int64_t> layer_shares(std::span<const Bytes> rooms, std::int64_t layers) {
  Bytes total = 0;
  for (const Bytes room : rooms) total += room;
  std::vector<std::int64_t> shares;
  std::int64_t given = 0;
  for (const Bytes room : rooms) {
    const auto exact = static_cast<Int128>(room) * layers / std::max<Bytes>(total, 1);
    shares.push_back(std::max<std::int64_t>(1, static_cast<std::int64_t>(exact)));
    given += shares.back();
  }
  for (std::size_t i = 0; given < layers; i = (i + 1) % shares.size(), ++given) ++shares[i];
  while (given > layers) {
    auto largest = std::ranges::max_element(shares);
    if (*largest <= 1) break;
    --*largest;
    --given;
  }
  return shares;
}

}  // namespace

std::vector<Variant> variants_of(const Deployment& deployment, const ModelRecord& model) {
  const std::int64_t train = model.train_ctx();
  const std::int64_t most =
      kind_of(deployment, model) == ModelKind::kChat ? kDefaultCtxPerSlot : kDefaultCtxPerInput;
  const std::int64_t usual = train > 0 ? std::min(most, train) : most;
  const std::int64_t ctx = deployment.ctx > 0 ? deployment.ctx : usual;
  const std::string& k = deployment.cache_type_k;
  const std::string& v = deployment.cache_type_v;
  std::vector<Variant> out;
  if (deployment.slots > 0) {
    out.push_back(make_variant(ctx, deployment.slots, k, v, 1.0, false));
  } else {
    out.push_back(make_variant(ctx, kDefaultSlots, k, v, 1.0, false));
    out.push_back(make_variant(ctx, 1, k, v, 0.5, false));
  }
  if (model.engine == EngineKind::kFake) return out;
  const int fewest = deployment.slots > 0 ? deployment.slots : 1;
  for (std::int64_t smaller = ctx / 2; smaller >= 512; smaller /= 2) {
    out.push_back(make_variant(smaller, fewest, k, v, 0.1, true));
  }
  if (k == "f16" && v == "f16" && deployment.flash_attn) {
    out.push_back(make_variant(ctx, fewest, "q8_0", "q8_0", 0.2, true));
  }
  return out;
}

Result<ReplicaSpec> make_spec(const Deployment& deployment, const ModelRecord& model, const Variant& variant,
                              std::span<const Device* const> devices, std::span<const std::int64_t> layers) {
  AIV_ASSERT(!devices.empty());
  ReplicaSpec spec;
  spec.deployment = deployment.name;
  spec.model = model.id;
  spec.model_path = model.path;
  spec.model_digest = model.digest;
  spec.kind = kind_of(deployment, model);
  // A model that was made for chat has no pooling of its own, and without one the engine gives a vector per
  // token.
  const bool made_for_it = model.kind != ModelKind::kChat;
  spec.pooling = spec.kind != ModelKind::kEmbedding           ? ""
                 : !deployment.pooling.empty() || made_for_it ? deployment.pooling
                                                              : "mean";
  spec.engine = model.engine;
  spec.ctx = variant.ctx_per_slot * variant.slots;
  spec.slots = variant.slots;
  spec.ubatch = ubatch_of(deployment, model, variant);
  spec.flash_attn = deployment.flash_attn;
  spec.cache_type_k = variant.cache_type_k;
  spec.cache_type_v = variant.cache_type_v;
  if (model.engine == EngineKind::kFake) {
    AIV_ASSERT(model.fake.has_value());
    spec.host_weights = model.fake->host_bytes;
    spec.devices = fake_device_bytes(*model.fake, spec.ctx, devices.size());
  } else {
    AIV_ASSERT(model.facts != nullptr);
    EstimateOptions options = options_of(deployment, model, variant, coarsest(devices), devices.size());
    if (devices.size() > 1) options.split.assign(layers.begin(), layers.end());
    auto estimated = estimate(*model.facts, options);
    if (!estimated) return std::unexpected(estimated.error());
    if (auto fits = check_operand(estimated->largest_operand, devices); !fits)
      return std::unexpected(fits.error());
    spec.token_embd_on_device = options.token_embd_on_device;
    spec.tied_output = model.facts->tied_output;
    spec.largest_tensor = model.facts->largest_tensor_bytes;
    spec.host_weights = estimated->host_weights;
    for (const DeviceEstimate& part : estimated->devices) spec.devices.push_back(part.device_bytes("", 0));
  }
  for (std::size_t i = 0; i < spec.devices.size(); ++i) {
    spec.devices[i].device_id = devices[i]->id;
    spec.devices[i].overhead = overhead_of(*devices[i]);
    if (i < layers.size() && devices.size() > 1) spec.devices[i].split = static_cast<int>(layers[i]);
  }
  return spec;
}

Result<ReplicaSpec> spec_within(const Deployment& deployment, const ModelRecord& model,
                                const Variant& variant, std::span<const Device* const> devices,
                                std::span<const Bytes> parts, std::span<const Bytes> rooms) {
  const std::int64_t layers =
      model.facts ? model.facts->n_layers + 1 : static_cast<std::int64_t>(devices.size());
  std::vector<std::int64_t> shares = layer_shares(parts, layers);
  // Parts are cut by bytes, the engine cuts by layers, whose last holds the output: move layers until it
  // fits.
  for (std::int64_t tries = 0;; ++tries) {
    auto spec = make_spec(deployment, model, variant, devices, shares);
    if (!spec) return spec;
    std::size_t from = 0;
    while (from < devices.size() && spec->devices[from].total() <= rooms[from]) ++from;
    if (from == devices.size()) return spec;
    std::size_t to = from;
    Bytes most = 0;
    for (std::size_t i = 0; i < devices.size(); ++i) {
      const Bytes room = rooms[i] - spec->devices[i].total();
      if (i != from && room > most) {
        most = room;
        to = i;
      }
    }
    if (to == from || shares[from] <= 1 || tries >= layers) {
      return fail(ErrorCode::kRefused,
                  "needs " + format_bytes(spec->devices[from].total()) + " on " + devices[from]->id +
                      ", which has " + format_bytes(std::max<Bytes>(0, rooms[from])) + " left",
                  devices[from]->id);
    }
    --shares[from];
    ++shares[to];
  }
}

ModelKind kind_of(const Deployment& deployment, const ModelRecord& model) {
  return deployment.kind.value_or(model.kind);
}

Bytes overhead_of(const Device& device) {
  if (device.overhead_bytes > 0 || device.kind == DeviceKind::kSoftware || device.backend == "fake") {
    return device.overhead_bytes;
  }
  if (device.backend == "cuda") return 250 * kMiB;
  if (device.backend == "rocm" || device.backend == "hip") return 350 * kMiB;
  return 100 * kMiB;
}

Bytes margin_of(const Device& device) {
  if (device.backend == "fake") return 0;
  if (device.kind == DeviceKind::kSoftware) return kMarginSoftware;
  return device.margin_bytes >= 0 ? device.margin_bytes : kMarginUnknown;
}

Bytes others_share(const Device& device) {
  return std::max({Bytes{0}, device.foreign_bytes, device.set_aside_bytes});
}

Bytes budget_of(const Device& device) {
  if (device.switched_off) return 0;
  return std::max<Bytes>(0, device.vram_bytes - others_share(device) - margin_of(device));
}

bool can_run(const ModelRecord& model, const Device& device) {
  return device.refused.empty() && (device.backend == "fake") == (model.engine == EngineKind::kFake);
}

Result<PlanModel> plan_model_of(const Deployment& deployment, const ModelRecord& model,
                                std::span<const Device* const> devices) {
  PlanModel out;
  out.id = deployment.name;
  out.min_replicas = deployment.replicas_min;
  out.max_replicas = deployment.replicas_min;
  // One device of each sort: bytes depend on backend and alignment alone.
  std::map<std::pair<std::string, Bytes>, const Device*> sorts;
  std::set<std::string> backends;
  for (const Device* device : devices) {
    if (!can_run(model, *device)) continue;
    sorts.try_emplace({device->backend, device->alignment}, device);
    backends.insert(device->backend);
  }
  Device
      usual;  // nothing connected that could run it: the figures are those of a usual card, for the refusal
  usual.backend = model.engine == EngineKind::kFake ? "fake" : "vulkan";
  usual.alignment = 256;
  if (sorts.empty()) {
    sorts.try_emplace({usual.backend, usual.alignment}, &usual);
    backends.insert(usual.backend);
  }
  for (const Variant& variant : variants_of(deployment, model)) {
    PlanVariant plan;
    plan.id = variant.id;
    plan.quality = variant.quality;
    plan.hint_only = variant.hint_only;
    plan.backends.assign(backends.begin(), backends.end());
    bool possible = true;
    for (const auto& [sort, device] : sorts) {
      Device unlimited = *device;
      unlimited.max_storage_buffer_range = 0;  // the planner compares it per device
      const Device* one[] = {&unlimited};
      auto spec = make_spec(deployment, model, variant, one);
      if (!spec && variant.hint_only) {
        possible = false;  // a hint that the engine would refuse is none
        break;
      }
      if (!spec) return std::unexpected(spec.error());
      const DeviceBytes& bytes = spec->devices.front();
      plan.bytes = std::max(plan.bytes, bytes.total() - bytes.overhead);
      if (model.engine == EngineKind::kFake) continue;
      const auto operand = estimate(*model.facts, options_of(deployment, model, variant, unlimited, 1));
      plan.largest_tensor_bytes = std::max(plan.largest_tensor_bytes, operand->largest_operand);
      plan.splittable = model.facts->n_layers > 0;
      plan.split_extra_bytes = std::max(plan.split_extra_bytes, bytes.compute);
      plan.split_unit_bytes =
          std::max(plan.split_unit_bytes, (bytes.weights + bytes.kv) / (model.facts->n_layers + 1));
    }
    if (possible) out.variants.push_back(std::move(plan));
  }
  return out;
}

}  // namespace aiv
