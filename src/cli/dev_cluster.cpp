#include "cli/dev_cluster.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <iostream>

#include "base/file.hpp"
#include "base/log.hpp"
#include "base/units.hpp"
#include "cli/install_paths.hpp"
#include "cli/supervise.hpp"
#include "net/pki.hpp"
#include "net/process_table.hpp"

namespace aiv::cli {
namespace {

constexpr auto kNodesLimit = net::seconds(60);
// The first start on a machine compiles the software GPU's shaders (15 s of CPU time per device).
constexpr auto kModelsLimit = net::seconds(300);
constexpr auto kClusterStopLimit = net::seconds(15);
constexpr int kDevCertificateDays = 30;
// A cluster for development must not leave engines behind when its parent is killed.
constexpr const char* kOrphanLimit = "15s";

void say(const std::string& text) { std::cerr << "aiv dev: " << text << "\n"; }

Json error_json(const Error& error) { return {{"error", {{"message", error.message()}}}}; }

}  // namespace

DevCluster::DevCluster(DevSettings settings) : settings_(std::move(settings)) {
  for (std::size_t i = 0; i < settings_.nodes.size(); ++i) {
    nodes_.push_back({fmt::format("n{}", i + 1), settings_.nodes[i], nullptr});
  }
}

int DevCluster::run() {
  log_init("dev");
  for (const char* part : {"", "/run", "/logs", "/nodes"}) {
    const auto made = make_directories(settings_.data + part, 0700);
    if (!made) return report(made.error());
  }
  net::watch_signals(context_, [this](int) {
    if (stopping_) return;
    net::spawn(context_.get_executor(), stop(), "dev.stop");
  });
  net::spawn(context_.get_executor(), start(), "dev.start");
  context_.run();
  return exit_code_;
}

net::Task<> DevCluster::start() {
  const Result<> up = co_await bring_up();
  if (up || stopping_) co_return;
  exit_code_ = report(up.error(), fmt::format("the logs in {}/logs say more", settings_.data));
  co_await stop();
}

net::Task<Result<>> DevCluster::bring_up() {
  auto faults = net::HttpServer::open(context_.get_executor(), "unix:" + settings_.data + "/run/dev.sock", nullptr,
                                       [this](net::ExchangePtr exchange) { return serve_fault(std::move(exchange)); });
  if (!faults && faults.error().code == ErrorCode::kConflict) {
    co_return fail(ErrorCode::kConflict, "another aiv dev already runs on this data directory", settings_.data);
  }
  if (!faults) co_return std::unexpected(faults.error());
  faults_ = std::move(*faults);
  sweep_leftovers();

  Result<> done = co_await start_server();
  if (!done) co_return done;
  write_record();
  for (Node& node : nodes_) {
    done = start_node(node);
    if (!done) co_return done;
  }
  done = co_await wait_for_nodes();
  if (!done) co_return done;
  if (!settings_.no_models) {
    done = co_await deploy_models();
    // A cluster without its demo model is still a cluster: say why and go on.
    if (!done) say(done.error().message());
  }
  if (stopping_) co_return Result<>{};
  if (!settings_.no_auth) {
    // Shown on purpose: a cluster for development is to be tried with curl at once. Its file is 0600.
    const auto key = read_file(settings_.data + "/admin.key", 4096);
    if (key) say(fmt::format("admin key: {} (in {}/admin.key)", key->substr(0, key->find_first_of("\r\n")), settings_.data));
  }
  print(fmt::format("ready http://127.0.0.1:{}\n", public_port_));
  co_return Result<>{};
}

void DevCluster::sweep_leftovers() const {
  for (const auto& process : net::processes_with_argument(settings_.data + "/")) {
    // Only what this program starts; an editor with a file of ours open has the path in its arguments too.
    const bool ours = process.arguments.size() > 1 &&
                      (process.arguments[1] == "node" || process.arguments[1] == "engine-shim" ||
                       process.arguments[1] == "server" || process.arguments[0].ends_with("llama-server") ||
                       process.arguments[0].ends_with("aiv-fake-engine"));
    if (ours) net::signal_process(process.pid, process.start_time, SIGKILL);
  }
}

void DevCluster::write_record() const {
  const Json record{{"url", fmt::format("http://127.0.0.1:{}", public_port_)},
                    {"data", settings_.data},
                    {"pid", ::getpid()},
                    {"start_time", net::process_start_time(::getpid()).value_or(0)}};
  const std::string path = dev_record_path();
  for (const std::string& file : {settings_.data + "/dev.json", path}) {
    const auto made = make_directories(std::filesystem::path(file).parent_path().string(), 0700);
    const auto written = made ? write_file_durably(file, dump_json(record, 2), 0600) : made;
    // Only convenience rests on it: every verb also takes --server.
    if (!written) log_warn("dev.record_not_written", {{"reason", written.error().message()}});
  }
}

net::Task<Result<>> DevCluster::start_server() {
  say("starting the server");
  net::SpawnOptions options;
  options.program = own_program();
  options.arguments = {"server",        "--data", settings_.data, "--listen", fmt::format("127.0.0.1:{}", public_port_ != 0 ? public_port_ : settings_.port),
                       "--link-listen", fmt::format("127.0.0.1:{}", link_port_)};
  if (settings_.no_auth) options.arguments.emplace_back("--no-auth");
  options.environment = net::own_environment();
  options.stderr_file = settings_.data + "/logs/server.log";
  options.pipe_stdout = true;
  options.die_with_parent = true;
  std::error_code ignored;
  const auto log_begin = std::filesystem::file_size(options.stderr_file, ignored);
  auto process = net::Process::spawn(context_.get_executor(), options);
  if (!process) co_return std::unexpected(process.error());
  server_ = *process;
  bool ready = false;
  while (!ready) {
    const auto line = co_await server_->read_line();
    if (!line) break;
    if (line->starts_with("link ")) link_port_ = std::atoi(line->c_str() + 5);
    if (line->starts_with("ready ")) {
      public_port_ = std::atoi(line->substr(line->rfind(':') + 1).c_str());
      ready = true;
    }
  }
  if (!ready) {
    const net::ExitStatus status = co_await server_->wait();
    // The child's own words, if it left any, are the best message there is.
    std::string words;
    if (const auto log = read_file(options.stderr_file, 64 << 20)) {
      std::string tail = ignored ? *log : log->substr(std::min<std::size_t>(log_begin, log->size()));
      const auto at = tail.rfind("aiv: ");
      if (at != std::string::npos) words = tail.substr(at + 5, tail.find('\n', at) - at - 5);
    }
    co_return fail(ErrorCode::kInternal,
                   words.empty() ? "the server did not start: " + status.describe() : "the server did not start: " + words);
  }
  server_killed_on_purpose_ = false;
  net::spawn(context_.get_executor(), watch_server(server_), "dev.watch");
  co_return Result<>{};
}

net::Task<> DevCluster::watch_server(net::ProcessPtr process) {
  const net::ExitStatus status = co_await process->wait();
  if (stopping_ || server_killed_on_purpose_) co_return;
  exit_code_ = report({ErrorCode::kInternal, "the server ended: " + status.describe()},
                      fmt::format("see {}/logs/server.log", settings_.data));
  co_await stop();
}

Result<> DevCluster::start_node(Node& node) {
  const std::string dir = node_dir(node.id);
  const auto files = net::ensure_certificate(settings_.data + "/ca", "node/" + node.id, dir + "/tls", "node",
                                             kDevCertificateDays);
  if (!files) return std::unexpected(files.error());
  net::SpawnOptions options;
  options.program = own_program();
  options.arguments = {"node",   "--id",   node.id,     "--server", fmt::format("127.0.0.1:{}", link_port_),
                       "--data", dir,      "--ca",      files->ca,  "--cert",
                       files->cert, "--key", files->key, "--engine", settings_.engine,
                       "--stop-engines", "--orphan-limit", kOrphanLimit};
  if (!settings_.engine_dir.empty()) options.arguments.insert(options.arguments.end(), {"--engine-dir", settings_.engine_dir});
  if (!node.gpus.empty()) options.arguments.insert(options.arguments.end(), {"--gpus", node.gpus});
  options.environment = net::own_environment();
  options.stdout_file = options.stderr_file = fmt::format("{}/logs/{}.log", settings_.data, node.id);
  options.die_with_parent = true;
  auto process = net::Process::spawn(context_.get_executor(), options);
  if (!process) return std::unexpected(process.error());
  node.process = *process;
  return {};
}

net::Task<Result<Json>> DevCluster::api(std::string method, std::string path, Json body) {
  Result<Json> out = fail(ErrorCode::kInternal, "no answer");
  ServerOptions options{.server = fmt::format("http://127.0.0.1:{}", public_port_)};
  if (!settings_.no_auth) options.key_file = settings_.data + "/admin.key";
  std::function<void()> call = [&] {
    const auto client = ApiClient::connect(options);
    out = client ? client->call(method, path, body) : std::unexpected(client.error());
  };
  co_await net::run_blocking(call);
  co_return out;
}

net::Task<Result<>> DevCluster::wait_for_nodes() {
  say(fmt::format("starting {} node{}", nodes_.size(), nodes_.size() == 1 ? "" : "s"));
  const auto deadline = net::Clock::now() + kNodesLimit;
  std::string missing;
  while (!stopping_ && net::Clock::now() < deadline) {
    const auto listed = co_await api("GET", "/aiv/v1/nodes", nullptr);
    missing.clear();
    for (const Node& node : nodes_) {
      if (node.process && !node.process->running()) {
        co_return fail(ErrorCode::kInternal, "the agent ended", node.id + " (logs/" + node.id + ".log)");
      }
      bool ready = false;
      if (listed) {
        for (const Json& item : (*listed)["items"]) {
          ready = ready || (item.value("id", "") == node.id && item.value("state", "") == "ready");
        }
      }
      if (!ready) missing += " " + node.id;
    }
    if (missing.empty()) co_return Result<>{};
    co_await net::sleep_for(net::milliseconds(50));
  }
  co_return fail(ErrorCode::kTimeout, "not all nodes came up; missing:" + missing);
}

net::Task<Result<>> DevCluster::deploy_models() {
  const int count = static_cast<int>(nodes_.size());
  Json request = Json::object();
  if (settings_.engine == "fake") {
    request = {{"name", "fake-small"}, {"model", "fake-small"}, {"replicas", count}};
  } else {
    const std::string model = find_demo_model();
    if (model.empty()) co_return fail(ErrorCode::kNotFound, "no demo model is installed; deploy one with aiv up FILE.gguf");
    request = {{"name", "demo"}, {"model", model}, {"replicas", std::min(2, count)}};
  }
  co_return co_await deploy(std::move(request));
}

net::Task<Result<>> DevCluster::deploy(Json request) {
  const std::string name = request["name"].get<std::string>();
  say(fmt::format("deploying {} ({} replica{})", name, request["replicas"].get<int>(),
                  request["replicas"].get<int>() == 1 ? "" : "s"));
  const auto there = co_await api("GET", "/aiv/v1/deployments/" + name, nullptr);
  if (!there && there.error().code == ErrorCode::kNotFound) {
    const auto made = co_await api("POST", "/aiv/v1/deployments", request);
    if (!made) co_return fail(made.error().code, made.error().reason, name);
  }
  const auto deadline = net::Clock::now() + kModelsLimit;
  std::string reason;
  while (!stopping_ && net::Clock::now() < deadline) {
    const auto now = co_await api("GET", "/aiv/v1/deployments/" + name, nullptr);
    if (now && now->value("state", "") == "ready") co_return Result<>{};
    if (now) reason = now->value("reason", "");
    if (now && now->value("state", "") == "failed") co_return fail(ErrorCode::kInternal, reason, name);
    co_await net::sleep_for(net::milliseconds(50));
  }
  co_return fail(ErrorCode::kTimeout, "is not ready yet: " + reason, name);
}

net::Task<> DevCluster::stop() {
  if (stopping_) co_return;
  stopping_ = true;
  say("stopping");
  for (Node& node : nodes_) {
    if (node.process) {
      node.process->signal(SIGCONT);
      node.process->signal(SIGTERM);
    }
  }
  const auto deadline = net::Clock::now() + kClusterStopLimit;
  const auto agents_live = [this] {
    for (const Node& node : nodes_) {
      if (node.process && node.process->running()) return true;
    }
    return false;
  };
  while (agents_live() && net::Clock::now() < deadline) co_await net::sleep_for(net::milliseconds(10));
  if (server_ && server_->running()) server_->signal(SIGTERM);
  while (server_ && server_->running() && net::Clock::now() < deadline) co_await net::sleep_for(net::milliseconds(10));
  for (Node& node : nodes_) {
    if (node.process) node.process->signal(SIGKILL);
  }
  if (server_) server_->signal(SIGKILL);
  sweep_leftovers();
  // What was killed just now needs a moment to be gone for good.
  for (int i = 0; i < 200 && !net::processes_with_argument(settings_.data + "/nodes/").empty(); ++i) {
    co_await net::sleep_for(net::milliseconds(10));
  }
  faults_.reset();
  std::error_code ignored;
  std::filesystem::remove(settings_.data + "/dev.json", ignored);
  context_.stop();
}

// ---- faults ----------------------------------------------------------------------------------------------

net::Task<> DevCluster::serve_fault(net::ExchangePtr exchange) {
  // POST /ACTION/TARGET
  const std::string path = exchange->request().path;
  const auto slash = path.find('/', 1);
  if (exchange->request().method != "POST" || slash == std::string::npos) {
    co_await exchange->respond_json(404, "{}");
    co_return;
  }
  const Result<> done = co_await apply_fault(path.substr(1, slash - 1), path.substr(slash + 1));
  if (done) {
    co_await exchange->respond_json(200, "{}");
    co_return;
  }
  const int status = done.error().code == ErrorCode::kNotFound ? 404 : 500;
  const std::string body = dump_json(error_json(done.error()));
  co_await exchange->respond_json(status, body);
}

net::Task<Result<>> DevCluster::apply_fault(std::string action, std::string target) {
  if (action != "kill" && action != "stop" && action != "cont" && action != "start") {
    co_return fail(ErrorCode::kNotFound, "no such fault", action);
  }
  if (target.starts_with("engine:")) co_return co_await fault_on_engine(action, target.substr(7));
  if (target == "server" || target == "gateway" || target == "controller") {
    co_return co_await fault_on_server(action, target);
  }
  for (Node& node : nodes_) {
    if (node.id == target) co_return co_await fault_on_node(action, &node);
  }
  co_return fail(ErrorCode::kNotFound, "no node, process or replica of this cluster is called that", target);
}

namespace {

int signal_of(const std::string& action) {
  if (action == "stop") return SIGSTOP;
  if (action == "cont") return SIGCONT;
  return SIGKILL;
}

// Signals, and after a kill waits until the process is really gone: a fault counts once it was seen to happen.
net::Task<Result<>> hit(pid_t pid, std::int64_t start_time, int signo) {
  const Result<> sent = net::signal_process(pid, start_time, signo);
  if (!sent) co_return sent;
  for (int i = 0; signo == SIGKILL && i < 500; ++i) {
    const auto now = net::process_start_time(pid);
    if (!now || *now != start_time) break;
    co_await net::sleep_for(net::milliseconds(2));
  }
  co_return Result<>{};
}

}  // namespace

net::Task<Result<>> DevCluster::fault_on_node(std::string action, Node* node) {
  const bool lives = node->process && node->process->running();
  if (action == "start") {
    if (lives) co_return fail(ErrorCode::kConflict, "the node runs already", node->id);
    co_return start_node(*node);
  }
  if (!lives) co_return fail(ErrorCode::kNotFound, "the node is not running", node->id);
  if (action != "kill") {
    node->process->signal(signal_of(action));
    co_return Result<>{};
  }
  // As in a power cut: agent, shims and engines at once.
  node->process->signal(SIGKILL);
  for (const auto& process : net::processes_with_argument(node_dir(node->id) + "/")) {
    co_await hit(process.pid, process.start_time, SIGKILL);
  }
  co_await node->process->wait();
  co_return Result<>{};
}

net::Task<Result<>> DevCluster::fault_on_server(std::string action, std::string target) {
  if (action == "start") {
    if (target != "server") co_return fail(ErrorCode::kNotFound, "the server's parent restarts it by itself", target);
    if (server_ && server_->running()) co_return fail(ErrorCode::kConflict, "the server runs already");
    co_return co_await start_server();
  }
  if (!server_ || !server_->running()) co_return fail(ErrorCode::kNotFound, "the server is not running", target);
  const pid_t parent = server_->pid();
  bool found = false;
  if (target == "server" && action == "kill") server_killed_on_purpose_ = true;
  const std::int64_t parent_start = server_->start_time();
  if (target == "server") {
    found = true;
    const Result<> done = co_await hit(parent, parent_start, signal_of(action));
    if (!done) co_return done;
  }
  for (const auto& process : net::processes_with_argument(settings_.data)) {
    if (process.arguments.size() < 2) continue;
    const bool child = process.arguments[1] == "gateway-process" || process.arguments[1] == "controller-process";
    if (!child || (target != "server" && process.arguments[1] != target + "-process")) continue;
    if (process.parent != parent && target != "server") continue;
    found = true;
    co_await hit(process.pid, process.start_time, signal_of(action));
  }
  if (!found) co_return fail(ErrorCode::kNotFound, "the process is not running", target);
  co_return Result<>{};
}

net::Task<Result<>> DevCluster::fault_on_engine(std::string action, std::string replica) {
  if (action == "start") co_return fail(ErrorCode::kNotFound, "engines are started by their agent", replica);
  const auto listed = co_await api("GET", "/aiv/v1/replicas", nullptr);
  if (!listed) co_return std::unexpected(listed.error());
  for (const Json& item : (*listed)["items"]) {
    if (item.value("id", "") != replica) continue;
    const auto pid = static_cast<pid_t>(item.value("pid", 0));
    const auto start = net::process_start_time(pid);
    if (pid <= 1 || !start) break;
    co_return co_await hit(pid, *start, signal_of(action));
  }
  co_return fail(ErrorCode::kNotFound, "no running engine serves a replica called that", replica);
}

}  // namespace aiv::cli
