#include "harness.hpp"

#include <signal.h>
#include <stdlib.h>

#include <filesystem>

#include "base/file.hpp"
#include "net/pki.hpp"
#include "node/child_main.hpp"
#include "node/replica_files.hpp"

namespace aiv::node::test {
namespace {

constexpr std::size_t kAgentArguments = 16;

std::vector<std::string> pack(const AgentOptions& o) {
  return {"agent",
          o.node_id,
          o.server_address,
          o.data_dir,
          o.ca_file,
          o.cert_file,
          o.key_file,
          o.engine == EngineKind::kFake ? "fake" : "llama",
          o.engine_dir,
          o.fake_engine_program,
          o.gpus,
          o.stop_engines_on_exit ? "1" : "0",
          std::to_string(o.orphan_limit_ms),
          std::to_string(o.load_limit_ms),
          o.vgpu_layer_dir};
}

AgentOptions unpack(char** a) {
  AgentOptions o;
  o.node_id = a[2];
  o.server_address = a[3];
  o.data_dir = a[4];
  o.ca_file = a[5];
  o.cert_file = a[6];
  o.key_file = a[7];
  o.engine = std::string(a[8]) == "fake" ? EngineKind::kFake : EngineKind::kLlama;
  o.engine_dir = a[9];
  o.fake_engine_program = a[10];
  o.gpus = a[11];
  o.stop_engines_on_exit = std::string(a[12]) == "1";
  o.orphan_limit_ms = std::atoll(a[13]);
  o.load_limit_ms = std::atoll(a[14]);
  o.vgpu_layer_dir = a[15];
  o.drain_limit_ms = 1000;
  return o;
}

}  // namespace

std::optional<int> maybe_child(int argc, char** argv) {
  if (const auto code = child_main(argc, argv)) return code;
  if (argc == static_cast<int>(kAgentArguments) && std::string(argv[1]) == "agent")
    return run_agent(unpack(argv));
  return std::nullopt;
}

NodeTest::NodeTest() {
  // Short: Unix sockets lie below it.
  char path[] = "/tmp/aivn-XXXXXX";
  EXPECT_NE(::mkdtemp(path), nullptr);
  dir_ = path;
  data_dir_ = dir_ + "/n1";
}

NodeTest::~NodeTest() {
  if (agent_ && agent_->running()) kill_agent(SIGKILL);
  for (const ShimState& state : living_shims(data_dir_)) {
    (void)net::signal_process(static_cast<pid_t>(state.shim_pid), state.shim_start, SIGKILL);
    (void)net::signal_process(static_cast<pid_t>(state.engine_pid), state.engine_start, SIGKILL);
  }
  listener_.reset();
  link_.reset();
  agent_.reset();
  context_.restart();
  context_.run_for(net::milliseconds(50));
  if (HasFailure()) {
    const auto log = read_file(dir_ + "/agent.log", 1 << 20);
    if (log) std::fprintf(stderr, "---- agent's log\n%s----\n", log->c_str());
  }
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

bool NodeTest::run_until(const std::function<bool()>& condition, net::Clock::duration limit) {
  const auto until = net::Clock::now() + limit;
  while (!condition() && net::Clock::now() < until) {
    context_.restart();
    context_.run_one_for(net::milliseconds(20));
  }
  return condition();
}

void NodeTest::start_agent(AgentOptions o) {
  const std::string ca = dir_ + "/ca";
  ASSERT_TRUE(net::ensure_authority(ca, "test"));
  const auto server = net::ensure_certificate(ca, "server/s1", ca, "server", 30);
  const auto node = net::ensure_certificate(ca, "node/n1", dir_, "node", 30);
  ASSERT_TRUE(server && node);
  if (certificate_s_ < 0) {
    const auto request = net::make_request_for(node->key, "node/n1");
    ASSERT_TRUE(request);
    const auto lapsed = net::sign_request(ca, "node/n1", request->request, certificate_s_);
    ASSERT_TRUE(lapsed);
    ASSERT_TRUE(write_file_durably(node->cert, lapsed->certificate, 0644));
  }
  if (!listener_) {
    auto tls = net::TlsContext::make(true, server->cert, server->key, server->ca, true, "aiv-node/1");
    ASSERT_TRUE(tls) << tls.error().message();
    ASSERT_TRUE((*tls)->accept_without_certificate("aiv-join/1", server->ca));
    net::AcceptHandler accepted = [this](net::StreamPtr stream) {
      struct Run {
        static net::Task<> run(net::H2Ptr link) { (void)co_await link->run(); }
      };
      if (stream->protocol() == "aiv-join/1") {
        net::spawn(context_.get_executor(), Run::run(net::H2Connection::server(std::move(stream), door_)), "door");
        return;
      }
      link_ = net::H2Connection::client(std::move(stream));
      net::spawn(context_.get_executor(), Run::run(link_), "link");
    };
    auto listener = net::Listener::open(context_.get_executor(), "tcp:127.0.0.1:0", *tls, accepted);
    ASSERT_TRUE(listener) << listener.error().message();
    listener_ = std::move(*listener);
  }
  o.node_id = "n1";
  o.server_address = "tcp:127.0.0.1:" + std::to_string(listener_->port());
  o.data_dir = data_dir_;
  o.ca_file = node->ca;
  o.cert_file = node->cert;
  o.key_file = node->key;
  net::SpawnOptions spawn;
  spawn.program = std::filesystem::canonical("/proc/self/exe").string();
  spawn.arguments = pack(o);
  spawn.environment = {"PATH=/usr/bin:/bin",
                       "HOME=" + std::string(::getenv("HOME") != nullptr ? ::getenv("HOME") : "/tmp")};
  for (const char* name : {"AIV_SHADER_CACHE", "AIV_VGPU_LAYER_DIR", "ASAN_OPTIONS", "TSAN_OPTIONS"})
    if (const char* value = ::getenv(name)) spawn.environment.push_back(std::string(name) + "=" + value);
  spawn.stdout_file = spawn.stderr_file = dir_ + "/agent.log";
  spawn.die_with_parent = true;
  link_.reset();
  auto process = net::Process::spawn(context_.get_executor(), spawn);
  ASSERT_TRUE(process) << process.error().message();
  agent_ = *process;
  await_link();
}

void NodeTest::await_link() {
  ASSERT_TRUE(run_until([this] { return link_ && link_->open_for_requests(); }, net::seconds(40)))
      << "no link";
}

void NodeTest::kill_agent(int signo) {
  agent_->signal(signo);
  run_until([this] { return !agent_->running(); }, net::seconds(30));
  link_.reset();
}

int NodeTest::agent_exit() {
  run_until([this] { return !agent_->running(); }, net::seconds(30));
  const net::ExitStatus status = wait(agent_->wait());
  return status.signalled ? -status.code : status.code;
}

net::ClientExchangePtr NodeTest::open(std::string method, std::string path, std::string body) {
  net::RequestHead head;
  head.method = std::move(method);
  head.path = std::move(path);
  head.headers.push_back({"content-type", "application/json"});
  head.headers.push_back({"x-conversation-id", "must not reach the engine"});
  if (!link_) return nullptr;
  auto exchange = wait(link_->open(std::move(head), std::move(body)));
  if (!exchange) return nullptr;
  return *exchange;
}

Answer NodeTest::finish(net::ClientExchangePtr exchange) {
  Answer out;
  if (!exchange) return out;
  const auto deadline = net::Clock::now() + net::seconds(60);
  auto head = wait(exchange->head(deadline));
  if (!head) {
    out.error = head.error();
    return out;
  }
  out.status = head->status;
  out.headers = head->headers;
  auto body = wait(exchange->read_body(64 * 1024 * 1024, deadline));
  if (!body) {
    out.error = body.error();
    return out;
  }
  out.body = std::move(*body);
  out.trailers = exchange->trailers();
  return out;
}

Answer NodeTest::request(std::string method, std::string path, std::string body, net::Headers) {
  return finish(open(std::move(method), std::move(path), std::move(body)));
}

Answer NodeTest::desire(std::vector<ReplicaSpec> replicas) {
  ++version_.rev;
  const NodeDesired document{.node = "n1", .version = version_, .replicas = std::move(replicas)};
  return request("PUT", "/node/v1/desired", dump_json(wire::to_json(document)));
}

NodeObserved NodeTest::observed() {
  const Answer answer = request("GET", "/node/v1/hello");
  const auto json = parse_json(answer.body);
  if (!json) return {};
  return wire::node_observed_from_json(*json).value_or(NodeObserved{});
}

ReplicaStatus NodeTest::replica(const std::string& id) {
  for (const ReplicaStatus& status : observed().replicas)
    if (status.id == id) return status;
  return {};
}

ReplicaStatus NodeTest::await_state(const std::string& id, ReplicaState state, net::Clock::duration limit) {
  const auto until = net::Clock::now() + limit;
  ReplicaStatus status = replica(id);
  // Failed is an end of its own: nothing more will come.
  while ((status.id.empty() || (status.state != state && status.state != ReplicaState::kFailed)) &&
         net::Clock::now() < until) {
    run_until([] { return false; }, net::milliseconds(10));
    status = replica(id);
  }
  EXPECT_EQ(wire::to_string(status.state), wire::to_string(state)) << id << ": " << status.reason;
  return status;
}

bool NodeTest::await_gone(const std::string& id, net::Clock::duration limit) {
  const auto until = net::Clock::now() + limit;
  while (net::Clock::now() < until) {
    if (replica(id).id.empty()) return true;
    run_until([] { return false; }, net::milliseconds(10));
  }
  return false;
}

bool NodeTest::await_free(std::size_t device, Bytes bytes, net::Clock::duration limit) {
  const auto until = net::Clock::now() + limit;
  while (net::Clock::now() < until) {
    const NodeObserved seen = observed();
    if (device < seen.devices.size() && seen.devices[device].free_bytes == bytes) return true;
    run_until([] { return false; }, net::milliseconds(10));
  }
  return false;
}

bool NodeTest::alive(std::int64_t pid) {
  return pid > 0 && net::process_start_time(static_cast<pid_t>(pid)).has_value();
}

bool NodeTest::await_dead(std::int64_t pid, net::Clock::duration limit) {
  return run_until([pid] { return !alive(pid); }, limit);
}

}  // namespace aiv::node::test

int main(int argc, char** argv) {
  if (const auto code = aiv::node::test::maybe_child(argc, argv)) return *code;
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
