// The fake engine's command line: the part of llama-server's that the node agent uses. Anything else is
// refused, so that a flag which the agent begins to pass is noticed here first.
#pragma once
#include <string>
#include <vector>

#include "base/result.hpp"
#include "core/fake_model.hpp"

namespace aiv::fake {

struct Options {
  FakeModel model;
  std::string model_path;  // as given with -m
  std::string alias;       // name in answers; empty: model_path
  std::string socket_path;
  std::vector<std::string> devices;  // -dev; empty: no GPU
  std::int64_t ctx = 4096;           // total of the process
  int slots = 4;
  bool kv_unified = false;
  bool kv_offload = true;
  int gpu_layers = -1;  // -1: all
  int ubatch = 512;
  bool token_embd_on_device = false;
  bool tensors_on_cpu = false;  // some -ot ...=CPU
  int verbosity = 3;
  std::string log_file;
  std::string api_key;
  bool metrics = false;
  bool slots_endpoint = false;
  bool embeddings = false;
  bool rerank = false;
  bool router_child = false;  // LLAMA_SERVER_ROUTER_PORT is set

  [[nodiscard]] const std::string& name() const { return alias.empty() ? model_path : alias; }
  [[nodiscard]] std::int64_t ctx_per_slot() const { return kv_unified ? ctx : ctx / slots; }
};

enum class Verb { kServe, kVersion, kListDevices, kHelp };

struct CommandLine {
  Verb verb = Verb::kServe;
  Options options;
};

inline constexpr int kSlotsMax = 65'536;

// The error's message is llama-server's where it has one ("invalid argument: --bogus").
Result<CommandLine> parse_command_line(const std::vector<std::string>& arguments);

}  // namespace aiv::fake
