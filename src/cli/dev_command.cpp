#include <fmt/format.h>

#include <filesystem>
#include <iostream>

#include "base/file.hpp"
#include "cli/commands.hpp"
#include "cli/dev_cluster.hpp"
#include "cli/install_paths.hpp"
#include "net/http1.hpp"
#include "node/engine_dir.hpp"
#include "node/software_gpu.hpp"

namespace aiv::cli {
namespace {

struct DevOptions {
  std::string gpus;
  std::string engine = "llama";
  int port = 8080;
  std::string data;
  bool no_auth = false;
  bool no_models = false;
  bool real_gpus = false;
  std::string target;
};

constexpr const char* kDefaultGpus = "GTX 1080:8GiB,RX 580:8GiB;RTX 3060:12GiB";

// Cuts "a,b;c" into the nodes' parts, after the whole was checked.
Result<std::vector<std::string>> nodes_of(const std::string& gpus) {
  const auto parsed = node::parse_gpus(gpus);
  if (!parsed) return fail(ErrorCode::kInvalidArgument, parsed.error().message(), "--gpus");
  std::vector<std::string> out;
  std::size_t at = 0;
  while (at <= gpus.size()) {
    const auto end = std::min(gpus.find(';', at), gpus.size());
    const std::string part = gpus.substr(at, end - at);
    // A ';' at the end names no further node; an empty part would mean the machine's real GPUs.
    if (part.find_first_not_of(" \t") != std::string::npos) out.push_back(part);
    at = end + 1;
  }
  return out;
}

int run_dev(const DevOptions& options) {
  DevSettings settings;
  std::error_code ignored;
  settings.data = std::filesystem::absolute(options.data, ignored).lexically_normal().string();
  while (settings.data.size() > 1 && settings.data.ends_with('/')) settings.data.pop_back();
  settings.engine = options.engine;
  settings.port = options.port;
  settings.no_auth = options.no_auth;
  settings.no_models = options.no_models;
  if (options.real_gpus) {
    settings.nodes = {""};
  } else {
    const auto nodes = nodes_of(options.gpus.empty() ? kDefaultGpus : options.gpus);
    if (!nodes) return report_usage(nodes.error());
    settings.nodes = *nodes;
  }
  if (options.engine == "llama") {
    const auto dir = node::find_engine_dir("");
    if (!dir) return report(dir.error());
    settings.engine_dir = *dir;
  }
  return DevCluster(std::move(settings)).run();
}

net::Task<> post_fault(std::string socket, std::string path, Result<int>* out, std::string* message) {
  const auto client = net::make_http1_client("unix:" + socket, false, net::seconds(5));
  net::RequestHead head{"POST", path, "", {}};
  auto exchange = co_await client->open(std::move(head), "");
  if (!exchange) {
    *out = std::unexpected(exchange.error());
    co_return;
  }
  const auto deadline = net::Clock::now() + net::seconds(60);
  const auto answer = co_await (*exchange)->head(deadline);
  if (!answer) {
    *out = std::unexpected(answer.error());
    co_return;
  }
  const auto text = co_await (*exchange)->read_body(65536, deadline);
  const auto json = text ? parse_json(*text) : Result<Json>(Json::object());
  if (json && json->contains("error")) *message = (*json)["error"].value("message", "");
  *out = answer->status;
}

int run_fault(const DevOptions& options, const std::string& action) {
  std::error_code ignored;
  const std::string data = std::filesystem::absolute(options.data, ignored).lexically_normal().string();
  boost::asio::io_context context(1);
  Result<int> status = fail(ErrorCode::kInternal, "no answer");
  std::string message;
  net::spawn(context.get_executor(),
             post_fault(data + "/run/dev.sock", fmt::format("/{}/{}", action, options.target), &status, &message),
             "fault");
  context.run();
  if (!status) {
    return report({ErrorCode::kUnavailable, "no aiv dev runs on this data directory", data}, "aiv dev --data " + data);
  }
  if (*status == 200) return 0;
  return report({*status == 404 ? ErrorCode::kNotFound : ErrorCode::kInternal, message}, "aiv ps");
}

// Without --data the fault verbs act on the cluster that runs.
std::string running_data(const std::string& fallback) {
  const auto text = read_file(dev_record_path(), 65536);
  const auto json = text ? parse_json(*text) : Result<Json>(Json::object());
  return json ? json->value("data", fallback) : fallback;
}

}  // namespace

void add_dev_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<DevOptions>();
  options->data = default_dev_data();
  CLI::App* verb = app.add_subcommand("dev", "A whole cluster on this machine, on software GPUs");
  verb->add_option("--gpus", options->gpus,
                   fmt::format("GPUs as NAME:SIZE, of a node by ',', nodes by ';' (default \"{}\")", kDefaultGpus));
  verb->add_flag("--real-gpus", options->real_gpus, "One node with the GPUs that this machine has");
  verb->add_option("--engine", options->engine, "llama, or fake: a scripted one for tests of scale and faults")
      ->check(CLI::IsMember({"llama", "fake"}));
  verb->add_option("--port", options->port, "Port for clients; 0: any free one")
      ->check(CLI::Range(0, 65535))
      ->capture_default_str();
  CLI::Option* data = verb->add_option("--data", options->data, "Data directory")->capture_default_str();
  verb->add_flag("--no-auth", options->no_auth, "Ask for no key (loopback only)");
  verb->add_flag("--no-models", options->no_models, "Deploy nothing at the start");
  verb->require_subcommand(0, 1);
  struct Fault {
    const char* name;
    const char* help;
  };
  for (const Fault& fault : {Fault{"kill", "kill -9 of NODE (with its engines), server, gateway, controller or engine:REPLICA"},
                             Fault{"stop", "SIGSTOP of NODE's agent or of engine:REPLICA"},
                             Fault{"cont", "SIGCONT after a stop"},
                             Fault{"start", "Bring a killed NODE or the server back"}}) {
    CLI::App* each = verb->add_subcommand(fault.name, fault.help);
    each->add_option("target", options->target, "What to act on")->required();
    CLI::Option* each_data = each->add_option("--data", options->data, "Which cluster (default: the running one)");
    each->callback([options, name = std::string(fault.name), data, each_data, &exit_code] {
      if (data->count() == 0 && each_data->count() == 0) options->data = running_data(options->data);
      exit_code = run_fault(*options, name);
    });
  }
  verb->callback([options, verb, &exit_code] {
    if (verb->get_subcommands().empty()) exit_code = run_dev(*options);
  });
}

}  // namespace aiv::cli
