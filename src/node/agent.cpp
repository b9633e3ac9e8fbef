#include "node/agent.hpp"

#include <csignal>
#include <map>
#include <optional>

#include "base/exit_code.hpp"
#include "base/file.hpp"
#include "base/hash.hpp"
#include "base/log.hpp"
#include "net/h2.hpp"
#include "net/pki.hpp"
#include "net/process.hpp"
#include "net/task_scope.hpp"
#include "node/desired_store.hpp"
#include "node/device_book.hpp"
#include "node/engine_dir.hpp"
#include "node/identity.hpp"
#include "node/node_api.hpp"
#include "node/supervisor.hpp"
#include "wire/documents.hpp"

namespace aiv::node {
namespace {

using net::Clock;
using net::milliseconds;
using net::seconds;

constexpr auto kDialLimit = seconds(5);
constexpr std::int64_t kReconnectFirstMs = 50;
constexpr std::int64_t kReconnectMaxMs = 1000;
constexpr auto kLinkWasGood = seconds(5);  // a link that lived this long starts the back-off anew
constexpr auto kRefusedPause = seconds(5);  // before a server that sent us away is asked again
constexpr auto kMeasureEvery = seconds(1);
constexpr auto kMeasureGap = milliseconds(50);  // after a change, but not with each step of a load's progress
constexpr auto kStopSlack = seconds(15);  // SIGTERM, SIGKILL and the driver's release, beyond the drain limit

class Agent : public NodeView {
 public:
  Agent(boost::asio::io_context& context, AgentOptions options)
      : context_(context),
        executor_(context.get_executor()),
        options_(std::move(options)),
        stopped_(executor_),
        measure_(executor_) {}

  net::Task<> run(int& exit_code);
  void on_signal(int signo);

  // ---- NodeView
  // --------------------------------------------------------------------------------------------
  [[nodiscard]] NodeObserved observed() const override;
  [[nodiscard]] std::int64_t observed_seq() const override { return seq_; }
  net::Task<ApplyOutcome> apply(NodeDesired document) override;
  Result<CertificateState> certificate() override;
  net::Task<Result<>> take_certificate(std::string pem) override;
  void farewell(std::string reason) override { farewell_ = std::move(reason); }
  [[nodiscard]] SupervisorPtr replica(const std::string& id) const override {
    const auto found = replicas_.find(id);
    return found == replicas_.end() ? nullptr : found->second;
  }

 private:
  Result<> prepare();
  Result<> load_tls();
  [[nodiscard]] bool is_server(const net::ByteStream& stream) const;
  net::Task<> link_loop();
  // Gets a new certificate where the one we have is no longer good for a link. False: the link is not worth a
  // try yet.
  net::Task<bool> has_certificate();
  [[nodiscard]] Membership membership() const;
  net::Task<> measure_loop();
  net::Task<> supervise(SupervisorPtr replica);
  net::Task<> end_strangers();
  net::Task<> finish();
  void reconcile();
  void start_replica(const ReplicaSpec& spec);
  [[nodiscard]] std::vector<OwnUse> own_use(const std::string& except) const;
  [[nodiscard]] SupervisorOptions supervisor_options() const;
  [[nodiscard]] std::string desired_file() const { return options_.data_dir + "/desired.json"; }

  boost::asio::io_context& context_;
  net::Executor executor_;
  AgentOptions options_;
  net::TlsContextPtr tls_;
  std::string cluster_;   // as our own certificate names it
  std::string farewell_;  // why the server ended the link, if it said so
  bool called_lapsed_ = false;     // the server said that our certificate is not in its time
  std::string certificate_fault_;  // what was said last of a certificate that could not be renewed
  std::unique_ptr<DeviceBook> book_;
  std::map<std::string, SupervisorPtr> replicas_;
  std::optional<NodeDesired> desired_;
  net::H2Ptr link_;
  std::string boot_id_ = boot_id();
  std::uint64_t incarnation_ = random_u64();
  std::int64_t seq_ = 1;
  bool applying_ = false;
  bool ending_ = false;
  net::Signal stopped_;
  net::Signal measure_;
};

Result<> Agent::prepare() {
  if (options_.node_id.empty() || options_.node_id.find('/') != std::string::npos)
    return fail(ErrorCode::kInvalidArgument, "a node needs a name without '/'", "id");
  if (auto sound = check_data_dir(options_.data_dir); !sound) return sound;
  for (const char* sub : {"", "/run", "/replicas", "/home"})
    if (auto made = make_directories(options_.data_dir + sub, 0700); !made) return made;
  if (options_.engine == EngineKind::kLlama) {
    auto found = find_engine_dir(options_.engine_dir);
    if (!found) return std::unexpected(found.error());
    options_.engine_dir = *found;
  }
  if (options_.shim_command.empty()) options_.shim_command = {"/proc/self/exe", "engine-shim"};
  if (options_.fake_engine_program.empty())
    options_.fake_engine_program = executable_dir() + "/aiv-fake-engine";
  const auto pem = read_file(options_.cert_file, 64 * 1024);
  const auto facts = pem ? net::certificate_facts(*pem) : Result<net::CertificateFacts>(std::unexpected(pem.error()));
  if (!facts) return std::unexpected(facts.error());
  const std::string end = "/node/" + options_.node_id;
  if (!facts->identity.starts_with("aiv://") || !facts->identity.ends_with(end))
    return fail(ErrorCode::kUnauthorized, "the certificate is not for the node " + options_.node_id, options_.cert_file);
  cluster_ = facts->identity.substr(0, facts->identity.size() - end.size());
  return load_tls();
}

Result<> Agent::load_tls() {
  auto tls = net::TlsContext::make(false, options_.cert_file, options_.key_file, options_.ca_file, true,
                                   "aiv-node/1");
  if (!tls) return std::unexpected(tls.error());
  tls_ = *tls;
  return {};
}

// Signed by our authority is not enough: a node's certificate must not pass for the server's.
bool Agent::is_server(const net::ByteStream& stream) const {
  return std::ranges::any_of(stream.peer_identities(), [this](const std::string& uri) {
    return uri.starts_with(cluster_ + "/") && !net::identity_of(uri, "server").empty();
  });
}

Result<NodeView::CertificateState> Agent::certificate() {
  const auto due = renewal_due_in_s(options_.cert_file);
  if (!due) return std::unexpected(due.error());
  CertificateState state{*due, {}};
  if (*due > 0) return state;
  auto request = renewal_request(options_.key_file, options_.node_id);
  if (!request) return std::unexpected(request.error());
  state.request = std::move(*request);
  return state;
}

// The link stays as it is: the next one is opened with the new certificate.
net::Task<Result<>> Agent::take_certificate(std::string pem) {
  auto stored = std::make_shared<Result<>>();
  const Membership member = membership();
  std::function<void()> work = [stored, member, pem] { *stored = store_renewed(member, pem); };
  co_await net::run_blocking(work);
  if (*stored) *stored = load_tls();
  if (*stored)
    log_info("certificate.renewed", {});
  else
    log_error("certificate.not_renewed", {{"reason", stored->error().message()}});
  co_return *stored;
}

net::Task<> Agent::run(int& exit_code) {
  const auto prepared = prepare();
  if (!prepared) {
    log_error("agent.start_failed", {{"reason", prepared.error().message()}});
    exit_code = static_cast<int>(exit_code_of(prepared.error().code));
    co_return;
  }
  auto source = co_await make_device_source(options_);
  if (!source) {
    log_error("agent.start_failed", {{"reason", source.error().message()}});
    exit_code = static_cast<int>(exit_code_of(source.error().code));
    co_return;
  }
  book_ = std::make_unique<DeviceBook>(std::move(*source),
                                       [this](const std::string& except) { return own_use(except); });
  co_await book_->refresh();
  for (const Device& d : book_->devices())
    log_info("device.found", {{"id", d.id},
                              {"name", d.name},
                              {"kind", wire::to_string(d.kind)},
                              {"vram_bytes", d.vram_bytes},
                              {"refused", d.refused}});
  if (book_->devices().empty())
    log_warn("device.none", {{"reason", "no GPU was found: nothing can be placed here"}});

  auto kept = load_desired(desired_file());
  if (!kept) {
    // A bad copy counts as none: engines that run stay until a document arrives.
    log_error("desired.not_loaded", {{"reason", kept.error().message()}});
  } else if (*kept && !check_desired(**kept, options_.node_id)) {
    desired_ = std::move(**kept);
    co_await end_strangers();
    reconcile();
  }
  net::spawn(executor_, measure_loop(), "agent.measure");
  net::spawn(executor_, link_loop(), "agent.link");
  while (!ending_) co_await stopped_.wait_until(Clock::now() + seconds(3600));
  co_await finish();
  exit_code = 0;
}

void Agent::on_signal(int signo) {
  if (signo == SIGHUP) return;
  if (ending_) {
    log_warn("agent.stop_forced", {});
    context_.stop();
    return;
  }
  log_info("agent.stopping", {{"engines", options_.stop_engines_on_exit ? "stop" : "stay"}});
  ending_ = true;
  stopped_.notify();
}

// Running requests end first, in both cases: they travel through this process.
net::Task<> Agent::finish() {
  const auto drained_by = Clock::now() + milliseconds(options_.drain_limit_ms);
  if (options_.stop_engines_on_exit) {
    for (const auto& [id, replica] : replicas_) replica->stop();
    const auto until = drained_by + kStopSlack;
    while (!replicas_.empty() && Clock::now() < until)
      co_await stopped_.wait_until(Clock::now() + milliseconds(50));
    // What did not end by itself, and what this agent never adopted.
    for (const ShimState& state : living_shims(options_.data_dir)) {
      (void)net::signal_process(static_cast<pid_t>(state.shim_pid), state.shim_start, SIGKILL);
      (void)net::signal_process(static_cast<pid_t>(state.engine_pid), state.engine_start, SIGKILL);
    }
  }
  if (link_) {
    const net::H2Ptr link = link_;
    const auto grace = std::max<Clock::duration>(drained_by - Clock::now(), milliseconds(0));
    // The observe stream never ends by itself, so the grace is what a drain is worth only while others run.
    co_await link->shutdown(link->active_streams() > 1 ? grace : milliseconds(0));
  }
  log_info("agent.stopped", {});
  context_.stop();
}

// ---- documents
// ----------------------------------------------------------------------------------------------

NodeObserved Agent::observed() const {
  NodeObserved out;
  out.node = options_.node_id;
  out.boot_id = boot_id_;
  out.incarnation = incarnation_;
  out.seq = seq_;
  if (desired_) out.applied = desired_->version;
  out.agent_version = AIV_VERSION;
  if (book_) {
    out.engine = book_->engine_name();
    out.devices = book_->devices();
  }
  for (const auto& [id, replica] : replicas_) out.replicas.push_back(replica->status());
  return out;
}

net::Task<ApplyOutcome> Agent::apply(NodeDesired document) {
  ApplyOutcome outcome;
  if (const auto fault = check_desired(document, options_.node_id)) {
    outcome.kind = ApplyOutcome::Kind::kInvalid;
    outcome.field = fault->field;
    outcome.reason = fault->reason;
    co_return outcome;
  }
  // One at a time, in order of arrival.
  while (applying_) co_await net::sleep_for(milliseconds(5));
  if (desired_ && document.version < desired_->version) {
    outcome.kind = ApplyOutcome::Kind::kOlder;
    outcome.version = desired_->version;
    co_return outcome;
  }
  outcome.version = document.version;
  if (desired_ && document == *desired_) co_return outcome;
  applying_ = true;
  // On disk before anything is done: after a crash nothing runs that no document asks for.
  auto saved = std::make_shared<Result<>>();
  auto kept = std::make_shared<const NodeDesired>(std::move(document));
  std::function<void()> work = [saved, kept, path = desired_file()] { *saved = save_desired(path, *kept); };
  co_await net::run_blocking(work);
  if (!*saved) {
    applying_ = false;
    log_error("desired.not_saved", {{"reason", saved->error().message()}});
    outcome.kind = ApplyOutcome::Kind::kFailed;
    outcome.reason = saved->error().message();
    co_return outcome;
  }
  const bool first = !desired_;
  desired_ = *kept;
  if (first) co_await end_strangers();
  reconcile();
  applying_ = false;
  ++seq_;
  co_return outcome;
}

// Brings the supervisors in line with the document; each then goes its own way.
void Agent::reconcile() {
  if (!desired_ || ending_) return;
  for (const auto& [id, replica] : replicas_) {
    const auto wanted = std::ranges::find(desired_->replicas, id, &ReplicaSpec::id);
    // Another spec under the same id is another process: the old one goes first, supervise() starts the new
    // one.
    if (wanted == desired_->replicas.end() || wire::spec_hash(*wanted) != replica->hash())
      replica->stop();
    else
      replica->set_draining(wanted->draining);
  }
  for (const ReplicaSpec& spec : desired_->replicas)
    if (!replicas_.contains(spec.id)) start_replica(spec);
}

void Agent::start_replica(const ReplicaSpec& spec) {
  std::function<void()> changed = [this] {
    ++seq_;
    measure_.notify();
  };
  auto replica =
      std::make_shared<Supervisor>(executor_, spec, desired_->version, supervisor_options(), *book_, changed);
  replicas_[spec.id] = replica;
  net::spawn(executor_, supervise(replica), "replica.supervise");
}

net::Task<> Agent::supervise(SupervisorPtr replica) {
  const std::string id = replica->spec().id;
  co_await replica->run();
  replicas_.erase(id);
  ++seq_;
  measure_.notify();
  stopped_.notify();
  reconcile();
}

// Engines that no document asks for: of replicas that went while this agent was away.
net::Task<> Agent::end_strangers() {
  std::vector<ShimState> ending;
  for (const std::string& id : replica_ids(options_.data_dir)) {
    if (std::ranges::any_of(desired_->replicas, [&](const ReplicaSpec& s) { return s.id == id; })) continue;
    const ReplicaPaths paths = replica_paths(options_.data_dir, id);
    const auto state = read_shim_state(paths);
    if (!state || !shim_alive(*state)) {
      remove_replica_files(paths);
      continue;
    }
    log_info("replica.not_wanted", {{"replica", id}, {"pid", state->engine_pid}});
    (void)net::signal_process(static_cast<pid_t>(state->shim_pid), state->shim_start, SIGTERM);
    ending.push_back(*state);
  }
  const auto until = Clock::now() + seconds(7);
  for (const ShimState& state : ending) {
    while (shim_alive(state) && Clock::now() < until) co_await net::sleep_for(milliseconds(20));
    if (shim_alive(state))
      (void)net::signal_process(static_cast<pid_t>(state.shim_pid), state.shim_start, SIGKILL);
    remove_replica_files(replica_paths(options_.data_dir, state.replica));
  }
}

std::vector<OwnUse> Agent::own_use(const std::string& except) const {
  std::vector<OwnUse> out;
  for (const auto& [id, replica] : replicas_) {
    if (id == except || !replica->holds_memory()) continue;
    for (const DeviceBytes& device : replica->spec().devices)
      out.push_back({.device_id = device.device_id, .pid = replica->engine_pid(), .bytes = device.total()});
  }
  return out;
}

SupervisorOptions Agent::supervisor_options() const {
  SupervisorOptions o;
  o.data_dir = options_.data_dir;
  o.engine_dir = options_.engine_dir;
  o.engine_program = options_.engine_dir + "/llama-server";
  o.fake_engine_program = options_.fake_engine_program;
  o.shim_command = options_.shim_command;
  o.orphan_limit_ms = options_.orphan_limit_ms;
  o.load_limit_ms = options_.load_limit_ms;
  o.drain_limit_ms = options_.drain_limit_ms;
  return o;
}

// ---- loops
// --------------------------------------------------------------------------------------------------

net::Task<> Agent::measure_loop() {
  while (!ending_) {
    co_await measure_.wait_until(Clock::now() + kMeasureEvery);
    const bool changed = co_await book_->refresh();
    if (changed) ++seq_;
    co_await net::sleep_for(kMeasureGap);
  }
}

Membership Agent::membership() const {
  return {options_.node_id, options_.server_address, options_.ca_file, options_.cert_file, options_.key_file};
}

net::Task<bool> Agent::has_certificate() {
  const auto lapsed = certificate_lapsed(options_.cert_file);
  if (!called_lapsed_ && (!lapsed || !*lapsed))
    co_return true;  // one that cannot be read is told of by the dialling
  if (certificate_fault_.empty()) {
    log_warn("certificate.lapsed",
             {{"node", options_.node_id}, {"next", "asking the server for another one"}});
  }
  Result<> renewed = co_await renew_lapsed(membership());
  if (renewed) renewed = load_tls();
  if (renewed) {
    called_lapsed_ = false;
    certificate_fault_.clear();
    log_info("certificate.renewed", {});
    co_return true;
  }
  const bool away = renewed.error().code == ErrorCode::kUnavailable;
  std::string fault = renewed.error().message();
  if (renewed.error().code == ErrorCode::kUnauthorized) {
    fault += "; here remove " + options_.key_file.substr(0, options_.key_file.rfind('/')) +
             " and run the line that the token's creation printed";
  }
  if (fault != certificate_fault_) log_error("certificate.not_renewed", {{"reason", fault}});
  certificate_fault_ = std::move(fault);
  if (!away) co_await net::sleep_for(kRefusedPause);
  co_return false;
}

net::Task<> Agent::link_loop() {
  RelayLimits limits;
  limits.stall_max = milliseconds(options_.stall_limit_ms);
  std::int64_t backoff_ms = 0;
  std::string last_reason;
  std::string last_refusal;
  while (!ending_) {
    if (backoff_ms > 0) {
      // Full jitter, so that a hundred agents do not come back in step.
      const auto wait = static_cast<std::int64_t>(random_u64() % static_cast<std::uint64_t>(backoff_ms + 1));
      co_await net::sleep_for(milliseconds(wait));
    }
    const bool certified = co_await has_certificate();
    if (!certified) {
      backoff_ms = backoff_ms == 0 ? kReconnectFirstMs : std::min(backoff_ms * 2, kReconnectMaxMs);
      continue;
    }
    auto stream = co_await net::dial(options_.server_address, tls_, kDialLimit);
    std::string reason;
    bool refused = false;
    if (!stream) {
      reason = stream.error().message();
    } else if (!is_server(**stream)) {
      reason = "whoever answers there is not this cluster's server";
      (*stream)->close();
    } else {
      farewell_.clear();
      const auto since = Clock::now();
      link_ = net::H2Connection::server(std::move(*stream), node_api_handler(*this, limits), net::kNodeLinkLimits);
      log_info("link.opened", {{"server", options_.server_address}});
      const net::H2Ptr link = link_;
      const Error ended = co_await link->run();
      link_.reset();
      reason = ended.message();
      if (!farewell_.empty()) {
        reason = "the server refuses this node: " + farewell_;
        refused = true;
      }
      if (Clock::now() - since >= kLinkWasGood) backoff_ms = 0;
      log_info("link.closed", {{"server", options_.server_address}, {"reason", reason}});
    }
    // TLS's own word for it (RFC 8446, 6.2): our clock and the server's do not agree on the time.
    if (reason.contains("certificate expired")) called_lapsed_ = true;
    // The same words once, not each second.
    if (!stream && reason != last_reason)
      log_warn("link.not_opened", {{"server", options_.server_address}, {"reason", reason}});
    last_reason = reason;
    if (refused) {
      // Said once for a person to act on; asking again each second would help nobody.
      if (reason != last_refusal) log_error("link.refused", {{"server", options_.server_address}, {"reason", reason}});
      last_refusal = reason;
      co_await net::sleep_for(kRefusedPause);
    }
    backoff_ms = backoff_ms == 0 ? kReconnectFirstMs : std::min(backoff_ms * 2, kReconnectMaxMs);
  }
}

}  // namespace

int run_agent(AgentOptions options) {
  log_init("node " + options.node_id);
  boost::asio::io_context context(1);
  int exit_code = static_cast<int>(ExitCode::kFailure);
  {
    Agent agent(context, std::move(options));
    const net::TaskScope tasks(context);
    net::watch_signals(context, [&agent](int signo) { agent.on_signal(signo); });
    // Ends the context in every case, so that a failed start does not hang.
    struct Main {
      static net::Task<> run(Agent& agent, int& exit_code, boost::asio::io_context& context) {
        co_await agent.run(exit_code);
        context.stop();
      }
    };
    net::spawn(context.get_executor(), Main::run(agent, exit_code, context), "agent");
    context.run();
  }
  return exit_code;
}

}  // namespace aiv::node
