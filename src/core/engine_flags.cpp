#include "core/engine_flags.hpp"

#include <algorithm>
#include <array>
#include <string_view>

#include "core/fake_model.hpp"

namespace aiv {
namespace {

// Cache types that llama-server's -ctk and -ctv take (common/arg.cpp, kv_cache_types).
constexpr std::array<std::string_view, 9> kCacheTypes = {"f32",  "f16",    "bf16", "q8_0", "q4_0",
                                                         "q4_1", "iq4_nl", "q5_0", "q5_1"};

bool is_quantised(std::string_view type) {
  return type != "f32" && type != "f16" && type != "bf16";
}

bool plain_name(std::string_view text, std::size_t bytes_max) {
  if (text.empty() || text.size() > bytes_max || text.front() == '.' || text.front() == '-') return false;
  return std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  });
}

bool sound_path(std::string_view path) {
  return path.starts_with('/') && path.size() < 4096 && path.find('\0') == std::string_view::npos &&
         path.find('\n') == std::string_view::npos;
}

std::unexpected<Error> bad(std::string field, std::string reason) {
  return fail(ErrorCode::kInvalidArgument, std::move(reason), std::move(field));
}

std::string joined(const std::vector<std::string>& parts) {
  std::string out;
  for (const std::string& part : parts) {
    if (!out.empty()) out += ',';
    out += part;
  }
  return out;
}

}  // namespace

Result<> check_spec(const ReplicaSpec& spec) {
  // The id becomes a folder's name and part of a URL.
  if (!plain_name(spec.id, kReplicaIdBytesMax)) return bad("id", "must be letters, digits, '-', '_' or '.'");
  if (spec.deployment.empty()) return bad("deployment", "is empty");
  if (spec.engine == EngineKind::kLlama && !sound_path(spec.model_path))
    return bad("model_path", "must be an absolute path");
  if (spec.engine == EngineKind::kFake) {
    if (auto model = parse_fake_model(spec.model_path.empty() ? spec.model : spec.model_path); !model)
      return bad("model_path", model.error().message());
  }
  if (spec.ctx < 1 || spec.ctx > kEngineCtxMax) return bad("ctx", "must be 1 to " + std::to_string(kEngineCtxMax));
  if (spec.slots < 1 || spec.slots > kEngineSlotsMax)
    return bad("slots", "must be 1 to " + std::to_string(kEngineSlotsMax));
  if (spec.ctx < spec.slots) return bad("ctx", "is less than one token per slot");
  if (spec.ubatch < 1 || spec.ubatch > kUbatchMax)
    return bad("ubatch", "must be 1 to " + std::to_string(kUbatchMax));
  for (const auto& [field, type] :
       {std::pair<std::string_view, std::string_view>{"cache_type_k", spec.cache_type_k},
        {"cache_type_v", spec.cache_type_v}})
    if (std::ranges::find(kCacheTypes, type) == kCacheTypes.end())
      return bad(std::string(field), "is not a cache type of the engine");
  if (!spec.pooling.empty() && spec.kind != ModelKind::kEmbedding) return bad("pooling", "is only for embeddings");
  if (!spec.pooling.empty() && std::ranges::find(kPoolings, spec.pooling) == kPoolings.end())
    return bad("pooling", "must be mean, cls or last");
  // The engine would exit 1 (llama-context.cpp: "quantized V cache requires flash_attn to be enabled").
  if (is_quantised(spec.cache_type_v) && !spec.flash_attn)
    return bad("cache_type_v", "a quantised V cache needs flash attention");
  if (spec.devices.empty()) return bad("devices", "is empty: a replica without a GPU is never started");
  if (spec.devices.size() > kDevicesPerReplicaMax) return bad("devices", "are too many for one process");
  for (std::size_t i = 0; i < spec.devices.size(); ++i) {
    const DeviceBytes& device = spec.devices[i];
    const std::string at = "devices[" + std::to_string(i) + "]";
    if (device.device_id.empty()) return bad(at + ".device_id", "is empty");
    if (device.weights < 0 || device.kv < 0 || device.compute < 0 || device.overhead < 0)
      return bad(at, "has negative bytes");
    if (device.split < 1 || device.split > 4096) return bad(at + ".split", "must be 1 to 4096");
    for (std::size_t j = 0; j < i; ++j)
      if (spec.devices[j].device_id == device.device_id) return bad(at + ".device_id", "is named twice");
  }
  if (spec.host_weights < 0 || spec.largest_tensor < 0) return bad("host_weights", "is negative");
  return {};
}

Result<EngineCommand> engine_command(const ReplicaSpec& spec, const EngineSite& site) {
  if (auto sound = check_spec(spec); !sound) return std::unexpected(sound.error());
  if (site.device_names.size() != spec.devices.size())
    return bad("devices", "the node sees another number of devices than the replica has");
  if (!sound_path(site.program)) return bad("program", "must be an absolute path");
  if (!site.socket.ends_with(".sock")) return bad("socket", "must end in .sock");
  if (site.socket.size() > kSocketPathBytesMax)
    return bad("socket", "is longer than a Unix socket's address (107 bytes): use a shorter data directory");

  const bool several = spec.devices.size() > 1;
  EngineCommand command;
  command.program = site.program;
  std::vector<std::string>& a = command.arguments;
  auto add = [&a](std::initializer_list<std::string> parts) {
    a.insert(a.end(), parts.begin(), parts.end());
  };

  add({"-m", !spec.model_path.empty() ? spec.model_path : "fake:" + spec.model});
  add({"--alias", spec.deployment});
  add({"--host", site.socket});
  add({"-dev", joined(site.device_names), "-ngl", "all", "--fit", "off", "-sm", several ? "layer" : "none"});
  if (several) {
    // Explicit, because the default split is by free memory at that moment: a plan made a second ago would
    // not be what gets loaded.
    std::vector<std::string> shares;
    for (const DeviceBytes& device : spec.devices) shares.push_back(std::to_string(device.split));
    add({"-ts", joined(shares)});
  }
  add({"-kvo", "-c", std::to_string(spec.ctx), "-np", std::to_string(spec.slots)});
  add({spec.kv_unified ? "--kv-unified" : "--no-kv-unified"});
  add({"-fa", spec.flash_attn ? "on" : "off", "-ub", std::to_string(spec.ubatch)});
  // The physical batch is at most the logical one, whose default is 2048; an input that is embedded needs both.
  if (spec.kind != ModelKind::kChat) add({"-b", std::to_string(spec.ubatch)});
  add({"-ctk", spec.cache_type_k, "-ctv", spec.cache_type_v});
  // On the output's device, which is the last: a tied output is this very tensor, so there it costs nothing,
  // and an output that fell to the CPU would still show as one graph split too many.
  if (spec.token_embd_on_device) add({"-ot", "token_embd.weight=" + site.device_names.back()});
  switch (spec.kind) {
    case ModelKind::kChat:
      break;
    case ModelKind::kEmbedding:
      add({"--embeddings"});
      if (!spec.pooling.empty()) add({"--pooling", spec.pooling});
      break;
    case ModelKind::kRerank:
      add({"--rerank"});
      break;
  }
  // One thread: ggml's threads spin, and nothing of weight runs on the CPU.
  add({"-t", "1"});
  add({"-lv", "4", "--no-ui", "--metrics", "--slots", "--cache-ram", "0", "--ctx-checkpoints", "4"});
  if (!site.api_key_file.empty()) add({"--api-key-file", site.api_key_file});
  add({"--offline"});

  command.environment = {"PATH=/usr/bin:/bin", "HOME=" + site.home, "LANG=C.UTF-8",
                         // A crash must not start gdb (ggml.c), and the child protocol wants this variable.
                         "GGML_NO_BACKTRACE=1", "LLAMA_SERVER_ROUTER_PORT=1"};
  if (!site.library_dir.empty()) command.environment.push_back("LD_LIBRARY_PATH=" + site.library_dir);
  command.environment.insert(command.environment.end(), site.device_environment.begin(),
                             site.device_environment.end());
  return command;
}

}  // namespace aiv
