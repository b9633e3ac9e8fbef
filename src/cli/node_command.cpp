#include "cli/node_command.hpp"

#include <filesystem>
#include <memory>

#include "base/exit_code.hpp"
#include "base/units.hpp"
#include "node/agent.hpp"

namespace aiv::cli {
namespace {

struct Given {
  node::AgentOptions agent;
  std::string engine = "llama";
  std::string orphan_limit;
};

std::string absolute(const std::string& path) {
  return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string();
}

int run_node(Given given) {
  node::AgentOptions& options = given.agent;
  options.engine = given.engine == "fake" ? EngineKind::kFake : EngineKind::kLlama;
  if (!options.server_address.starts_with("tcp:") && !options.server_address.starts_with("unix:"))
    options.server_address = "tcp:" + options.server_address;
  if (!given.orphan_limit.empty()) {
    const auto limit = parse_duration_ms(given.orphan_limit);
    if (!limit) {
      std::fprintf(stderr, "--orphan-limit: %s\n", limit.error().reason.c_str());
      return static_cast<int>(ExitCode::kUsage);
    }
    options.orphan_limit_ms = *limit;
  }
  for (std::string* path :
       {&options.data_dir, &options.ca_file, &options.cert_file, &options.key_file, &options.engine_dir})
    *path = absolute(*path);
  // A folder's trailing slash would count twice in the length of a socket's address.
  if (options.data_dir.size() > 1 && options.data_dir.ends_with('/')) options.data_dir.pop_back();
  return node::run_agent(options);
}

}  // namespace

void add_node_command(CLI::App& app, int& exit_code) {
  auto given = std::make_shared<Given>();
  CLI::App* verb =
      app.add_subcommand("node", "Run this machine's agent: finds the GPUs and runs the engines");
  node::AgentOptions& o = given->agent;
  verb->add_option("--id", o.node_id, "Name of the node, as in its certificate")->required();
  verb->add_option("--server", o.server_address, "Where the server's node port is: HOST:PORT")->required();
  verb->add_option("--data", o.data_dir, "Folder of the agent's own (0700)")->required();
  verb->add_option("--ca", o.ca_file, "Certificate of the cluster's authority")->required();
  verb->add_option("--cert", o.cert_file, "The node's certificate")->required();
  verb->add_option("--key", o.key_file, "Its private key")->required();
  verb->add_option("--engine", given->engine, "llama, or fake for tests")
      ->check(CLI::IsMember({"llama", "fake"}));
  verb->add_option("--engine-dir", o.engine_dir, "Folder of llama-server and its backends");
  verb->add_option("--gpus", o.gpus, "Software GPUs instead of real ones: \"GTX 1080:8GiB,RX 580:8GiB\"");
  verb->add_option("--vgpu-layer-dir", o.vgpu_layer_dir, "Folder of the software GPUs' Vulkan layer");
  verb->add_option("--orphan-limit", given->orphan_limit, "How long engines outlive the agent: 10m");
  verb->add_flag("--stop-engines", o.stop_engines_on_exit,
                 "On SIGTERM stop the engines too, instead of leaving them to the next agent");
  verb->callback([given, &exit_code] { exit_code = run_node(*given); });
}

}  // namespace aiv::cli
