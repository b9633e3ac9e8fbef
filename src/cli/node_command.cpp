#include "cli/node_command.hpp"

#include <unistd.h>

#include <cctype>
#include <filesystem>
#include <memory>

#include "base/exit_code.hpp"
#include "base/units.hpp"
#include "cli/api_client.hpp"
#include "cli/commands.hpp"
#include "node/agent.hpp"
#include "node/identity.hpp"

namespace aiv::cli {
namespace {

struct Given {
  node::AgentOptions agent;
  std::string join;
  std::string engine = "llama";
  std::string orphan_limit;
};

std::string absolute(const std::string& path) {
  return path.empty() ? path : std::filesystem::absolute(path).lexically_normal().string();
}

int refuse(const std::string& what, const std::string& next) {
  std::fprintf(stderr, "aiv: %s\n", what.c_str());
  if (!next.empty()) std::fprintf(stderr, "  try: %s\n", next.c_str());
  return static_cast<int>(ExitCode::kUsage);
}

std::string default_node_data() {
  const char* base = std::getenv("XDG_DATA_HOME");
  const char* home = std::getenv("HOME");
  return (base != nullptr ? std::string(base) : std::string(home != nullptr ? home : "") + "/.local/share") + "/aiv/node";
}

// The machine's own name, as far as a node's name may hold it.
std::string name_of_machine() {
  char name[256] = {};
  if (::gethostname(name, sizeof name - 1) != 0) return {};
  std::string out(name);
  out.resize(std::min({out.size(), out.find('.'), std::size_t{63}}));
  std::erase_if(out, [](char c) { return std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '-' && c != '_'; });
  return out;
}

struct JoinRun {
  static net::Task<> run(node::JoinOptions options, Result<node::Membership>& out, boost::asio::io_context& context) {
    out = co_await node::join_cluster(std::move(options));
    context.stop();
  }
};

// Makes this machine a node; says so on stderr. An exit code when it failed.
std::optional<int> join(const Given& given, node::Membership& member) {
  const auto token = parse_join_token(given.join);
  if (!token) {
    report(token.error());
    return static_cast<int>(ExitCode::kUnauthorized);
  }
  if (given.agent.server_address.empty()) return refuse("--join needs the server's address too", "--server HOST:PORT");
  node::JoinOptions options{*token, given.agent.server_address, given.agent.data_dir, given.agent.node_id};
  if (options.node_id.empty()) options.node_id = name_of_machine();
  if (options.node_id.empty()) return refuse("this machine has no name that a node could have", "--id NAME");
  boost::asio::io_context context(1);
  Result<node::Membership> joined = fail(ErrorCode::kInternal, "joining did not end");
  net::spawn(context.get_executor(), JoinRun::run(options, joined, context), "join");
  context.run();
  if (!joined) return report(joined.error());
  member = *joined;
  std::fprintf(stderr, "aiv: joined as %s\n", member.node_id.c_str());
  return std::nullopt;
}

// Fills in what was not given: from an earlier join, or by joining now.
std::optional<int> complete(Given& given) {
  node::AgentOptions& o = given.agent;
  if (!o.ca_file.empty() || !o.cert_file.empty() || !o.key_file.empty()) {
    if (!given.join.empty()) return refuse("--join brings its own certificate: leave --ca, --cert and --key out", "");
    if (o.ca_file.empty() || o.cert_file.empty() || o.key_file.empty() || o.node_id.empty() || o.server_address.empty())
      return refuse("--ca, --cert, --key, --id and --server go together", "aiv node --help");
    return std::nullopt;
  }
  auto known = node::read_membership(o.data_dir);
  if (!known) return report(known.error());
  node::Membership member;
  if (*known) {
    member = **known;
    // Pasted twice: nothing to do but to run.
    if (!given.join.empty()) std::fprintf(stderr, "aiv: this machine has joined already, as %s\n", member.node_id.c_str());
    if (!o.node_id.empty() && o.node_id != member.node_id)
      return refuse("this machine has joined as " + member.node_id, "remove " + o.data_dir + "/tls to join under another name");
    if (!o.server_address.empty()) member.server_address = o.server_address;
  } else if (given.join.empty()) {
    return refuse("this machine has not joined a cluster",
                  "aiv node --join TOKEN --server HOST:PORT; or, to list nodes: aiv node ls");
  } else if (const auto failed = join(given, member)) {
    return failed;
  }
  o.node_id = member.node_id;
  o.server_address = member.server_address;
  o.ca_file = member.ca_file;
  o.cert_file = member.cert_file;
  o.key_file = member.key_file;
  return std::nullopt;
}

int run_node(Given given) {
  node::AgentOptions& options = given.agent;
  options.engine = given.engine == "fake" ? EngineKind::kFake : EngineKind::kLlama;
  if (!options.server_address.empty() && !options.server_address.starts_with("tcp:") && !options.server_address.starts_with("unix:"))
    options.server_address = "tcp:" + options.server_address;
  if (!given.orphan_limit.empty()) {
    const auto limit = duration_option("--orphan-limit", given.orphan_limit);
    if (!limit) return report_usage(limit.error());
    options.orphan_limit_ms = *limit;
  }
  for (std::string* path :
       {&options.data_dir, &options.ca_file, &options.cert_file, &options.key_file, &options.engine_dir})
    *path = absolute(*path);
  // A folder's trailing slash would count twice in the length of a socket's address.
  if (options.data_dir.size() > 1 && options.data_dir.ends_with('/')) options.data_dir.pop_back();
  if (const auto failed = complete(given)) return *failed;
  return node::run_agent(options);
}

}  // namespace

void add_node_command(CLI::App& app, int& exit_code) {
  auto given = std::make_shared<Given>();
  CLI::App* verb =
      app.add_subcommand("node", "Run this machine's agent: finds the GPUs and runs the engines");
  node::AgentOptions& o = given->agent;
  o.data_dir = default_node_data();
  verb->require_subcommand(0, 1);
  add_node_admin_commands(*verb, exit_code);
  verb->add_option("--id", o.node_id, "Name of the node (default: this machine's)");
  verb->add_option("--server", o.server_address, "Where the server's node port is: HOST:PORT");
  verb->add_option("--data", o.data_dir, "Folder of the agent's own (0700)")->capture_default_str();
  verb->add_option("--join", given->join, "Make this machine a node first: the token of aiv token create");
  verb->add_option("--ca", o.ca_file, "Certificate of the cluster's authority, where it was copied by hand");
  verb->add_option("--cert", o.cert_file, "The node's certificate");
  verb->add_option("--key", o.key_file, "Its private key");
  verb->add_option("--engine", given->engine, "llama, or fake for tests")
      ->check(CLI::IsMember({"llama", "fake"}));
  verb->add_option("--engine-dir", o.engine_dir, "Folder of llama-server and its backends");
  verb->add_option("--gpus", o.gpus, "Software GPUs instead of real ones: \"GTX 1080:8GiB,RX 580:8GiB\"");
  verb->add_option("--vgpu-layer-dir", o.vgpu_layer_dir, "Folder of the software GPUs' Vulkan layer");
  verb->add_option("--orphan-limit", given->orphan_limit, "How long engines outlive the agent: 10m");
  verb->add_flag("--stop-engines", o.stop_engines_on_exit,
                 "On SIGTERM stop the engines too, instead of leaving them to the next agent");
  verb->callback([given, verb, &exit_code] {
    if (verb->get_subcommands().empty()) exit_code = run_node(*given);
  });
}

}  // namespace aiv::cli
