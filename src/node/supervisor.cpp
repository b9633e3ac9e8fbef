#include "node/supervisor.hpp"

#include <csignal>
#include <cstdlib>

#include "base/file.hpp"
#include "base/hash.hpp"
#include "base/host.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "core/engine_flags.hpp"
#include "net/http1.hpp"
#include "net/process.hpp"
#include "wire/documents.hpp"

namespace aiv::node {
namespace {

using net::Clock;
using net::milliseconds;
using net::seconds;

constexpr std::string_view kProtocolState = "cmd_child_to_router:state:";
constexpr auto kHousekeeping = milliseconds(500);
constexpr auto kShimAppears = seconds(10);
constexpr auto kReplayLimit = seconds(5);
// Before Ready the life's own limit (core/replica_life.hpp) is what counts; afterwards nothing is left to compile.
constexpr auto kFirstCanaryLimit = seconds(330);
constexpr auto kCanaryLimit = seconds(60);
constexpr auto kLogLagMax = seconds(2);
constexpr auto kShortCall = seconds(5);
constexpr std::size_t kEngineAnswerMax = 1024 * 1024;
// Load time limit: three times what a slow disk (100 MB/s) would need, and never below the first start of a
// driver that compiles its shaders (15 s of CPU were seen, on a busy machine a multiple of that).
constexpr std::int64_t kLoadFloorMs = 120'000;
constexpr std::int64_t kSlowDiskBytesPerMs = 100'000;

std::int64_t steady_ms() {
  return std::chrono::duration_cast<milliseconds>(Clock::now().time_since_epoch()).count();
}

LifeLimits limits_for(const ReplicaSpec& spec, const SupervisorOptions& options) {
  LifeLimits limits;
  Bytes bytes = 0;
  for (const DeviceBytes& device : spec.devices) bytes += device.weights;
  limits.load_ms =
      options.load_limit_ms > 0 ? options.load_limit_ms : kLoadFloorMs + 3 * bytes / kSlowDiskBytesPerMs;
  limits.drain_ms = options.drain_limit_ms;
  return limits;
}

std::string shader_home(const std::string& data_dir) {
  return data_dir + "/home";
}

bool ran_out_of_memory(const ResidencyParser& log) {
  return log.failure() == LoadFailure::kWeightsDoNotFit || log.failure() == LoadFailure::kCacheDoesNotFit ||
         log.failure() == LoadFailure::kComputeDoesNotFit;
}

// What a person reads when a load ended. True if a restart cannot mend it.
std::pair<std::string, bool> why_it_ended(const ResidencyParser& log, const std::string& status,
                                          bool was_ready) {
  if (was_ready) return {"the engine ended: " + status, false};
  const std::string line = log.failure_line().empty() ? "" : ": " + log.failure_line();
  switch (log.failure()) {
    case LoadFailure::kWeightsDoNotFit:
      return {"out of device memory for the weights (" + status + ")" + line, true};
    case LoadFailure::kCacheDoesNotFit:
      return {"out of device memory for the KV cache (" + status + ")" + line, true};
    case LoadFailure::kComputeDoesNotFit:
      return {"out of device memory for the compute buffers (" + status + ")" + line, true};
    case LoadFailure::kBadModel:
      return {"the engine cannot load the model (" + status + ")" + line, true};
    case LoadFailure::kBadFlags:
      return {"the engine refuses its command line (" + status + ")" + line, true};
    case LoadFailure::kSocketTaken:
    case LoadFailure::kOther:
    case LoadFailure::kNone:
      break;
  }
  return {"the engine ended while loading: " + status + line, false};
}

}  // namespace

Supervisor::Supervisor(net::Executor executor, ReplicaSpec spec, Version version, SupervisorOptions options,
                       Room& room, std::function<void()> changed)
    : executor_(executor),
      spec_(std::move(spec)),
      hash_(wire::spec_hash(spec_)),
      version_(version),
      options_(std::move(options)),
      room_(room),
      changed_(std::move(changed)),
      paths_(replica_paths(options_.data_dir, spec_.id)),
      life_(limits_for(spec_, options_)),
      wake_(executor) {}

void Supervisor::push(LifeEvent event, std::string detail, std::uint64_t engine) {
  queue_.push_back({event, std::move(detail), engine});
  wake_.notify();
}

void Supervisor::set_draining(bool draining) {
  if (spec_.draining == draining) return;
  spec_.draining = draining;
  push(draining ? LifeEvent::kDrain : LifeEvent::kUndrain);
}

void Supervisor::stop() {
  if (stopping_) return;
  stopping_ = true;
  push(LifeEvent::kStop);
}

ReplicaStatus Supervisor::status() const {
  ReplicaStatus s;
  s.id = spec_.id;
  s.deployment = spec_.deployment;
  s.model = spec_.model;
  s.spec_hash = hash_;
  s.state = life_.state();
  s.reason = life_.reason();
  s.out_of_memory = s.state == ReplicaState::kFailed && out_of_memory_;
  s.progress = s.state == ReplicaState::kReady ? 1.0 : progress_;
  s.pid = engine_pid_;
  s.started_at_ms = started_at_ms_;
  s.slots = spec_.slots;
  s.slots_busy = slots_busy_;
  s.endpoint = engine_address();
  s.measured = measured_;
  s.restarts = life_.restarts();
  return s;
}

void Supervisor::note_change() {
  ReplicaStatus now = status();
  if (now == told_) return;
  if (now.state != told_.state || now.restarts != told_.restarts)
    log_info("replica.state_changed", {{"replica", spec_.id},
                                       {"state", wire::to_string(now.state)},
                                       {"pid", now.pid},
                                       {"reason", now.reason}});
  told_ = std::move(now);
  changed_();
}

LifeAction Supervisor::resume(LifeEvent event, std::string detail) {
  const LifeAction action = life_.resume(event, steady_ms(), std::move(detail));
  note_change();
  return action;
}

net::Task<> Supervisor::run() {
  const auto self = shared_from_this();
  LifeAction action{};
  const bool adopted = co_await adopt();
  if (adopted) {
    action = resume(engine_ready_ ? LifeEvent::kBeginAdopted : LifeEvent::kBeginLoading);
    // A drain that the document asked for before this agent was there.
    if (spec_.draining) push(LifeEvent::kDrain);
  } else {
    if (spec_.draining) life_.resume(LifeEvent::kDrain, steady_ms());
    action = resume(LifeEvent::kBegin);
  }
  while (action.what != LifeDo::kEnd) action = co_await perform(action);
  cancel_requests();
  std::function<void()> clean_up = [paths = paths_] { remove_replica_files(paths); };
  co_await net::run_blocking(clean_up);
  over_ = true;
  changed_();
}

net::Task<LifeAction> Supervisor::perform(LifeAction action) {
  switch (action.what) {
    case LifeDo::kWait:
      co_return co_await wait_for_event(action);
    case LifeDo::kAskRoom: {
      RoomAnswer answer = co_await room_.ask(spec_);
      if (answer.event == LifeEvent::kRoom) {
        view_ = std::move(answer.view);
        free_before_ = std::move(answer.free_before);
        holds_memory_ = true;
      }
      co_return resume(answer.event, std::move(answer.detail));
    }
    case LifeDo::kStart: {
      const Result<> started = co_await start_engine();
      if (!started) co_return resume(LifeEvent::kStartFailed, started.error().message());
      co_return resume(LifeEvent::kTick);
    }
    case LifeDo::kProve:
      co_return co_await prove();
    case LifeDo::kCanary:
      net::spawn(executor_, canary(engine_), "replica.canary");
      co_return resume(LifeEvent::kTick);
    case LifeDo::kTerm:
      cancel_requests();
      co_await send_to_shim("term");
      co_return resume(LifeEvent::kTick);
    case LifeDo::kKill:
      cancel_requests();
      kill_engine(SIGKILL);
      co_return resume(LifeEvent::kTick);
    case LifeDo::kRelease:
      room_.loading_done(spec_.id);
      engine_pid_ = 0;
      slots_busy_ = 0;
      progress_ = 0;
      co_await room_.wait_released(spec_, free_before_);
      holds_memory_ = false;
      co_return resume(LifeEvent::kReleased);
    case LifeDo::kEnd:
      break;
  }
  co_return action;
}

net::Task<LifeAction> Supervisor::wait_for_event(LifeAction action) {
  if (life_.state() == ReplicaState::kReady) room_.loading_done(spec_.id);
  const bool draining = life_.state() == ReplicaState::kDraining;
  if (!draining) idle_told_ = false;
  if (draining && running_ == 0 && !idle_told_) {
    idle_told_ = true;
    co_return resume(LifeEvent::kIdle);
  }
  if (queue_.empty()) {
    Clock::time_point until = Clock::now() + kHousekeeping;
    if (action.wake_ms > 0)
      until = std::min(until,
                       Clock::now() + milliseconds(std::max<std::int64_t>(0, action.wake_ms - steady_ms())));
    co_await wake_.wait_until(until);
  }
  if (queue_.empty()) {
    housekeeping();
    // The deadline is the life's own affair; it looks at the time itself.
    co_return resume(LifeEvent::kTick);
  }
  const Queued next = std::move(queue_.front());
  queue_.pop_front();
  if (next.engine != 0 && next.engine != engine_) co_return LifeAction{LifeDo::kWait, action.wake_ms};
  co_return resume(next.event, next.detail);
}

// ---- starting and adopting ------------------------------------------------------------------------------

net::Task<bool> Supervisor::adopt() {
  const auto state = read_shim_state(paths_);
  if (!state || !shim_alive(*state)) co_return false;
  auto link = co_await ShimLink::connect(paths_.shim_socket, Clock::now() + seconds(2));
  const auto start = net::process_start_time(static_cast<pid_t>(state->engine_pid));
  auto view = room_.view([this] {
    std::vector<std::string> ids;
    for (const DeviceBytes& device : spec_.devices) ids.push_back(device.device_id);
    return ids;
  }());
  const auto key = read_file(paths_.api_key(), 256);
  const bool same =
      link && start && *start == state->engine_start && state->spec_hash == hash_ && view && key;
  if (!same) {
    // Not what is wanted, or not to be trusted: it must be gone before its memory is planned again.
    log_info("replica.not_adopted", {{"replica", spec_.id}, {"pid", state->engine_pid}});
    (void)net::signal_process(static_cast<pid_t>(state->shim_pid), state->shim_start, SIGTERM);
    const auto until = Clock::now() + seconds(7);
    while (shim_alive(*state) && Clock::now() < until) co_await net::sleep_for(milliseconds(20));
    if (shim_alive(*state))
      (void)net::signal_process(static_cast<pid_t>(state->shim_pid), state->shim_start, SIGKILL);
    co_return false;
  }
  ++engine_;
  link_ = *link;
  view_ = *view;
  api_key_ = *key;
  engine_pid_ = state->engine_pid;
  engine_start_ = state->engine_start;
  started_at_ms_ = unix_ms();
  holds_memory_ = true;
  net::spawn(executor_, follow(engine_), "replica.follow");
  const auto until = Clock::now() + kReplayLimit;
  while (!replayed_ && exited_engine_ != engine_ && Clock::now() < until) co_await wake_.wait_until(until);
  log_info("replica.adopted", {{"replica", spec_.id}, {"pid", engine_pid_}, {"ready", engine_ready_}});
  co_return true;
}

// Folder, key and socket paths; returns the key.
net::Task<Result<std::string>> Supervisor::write_files() {
  auto result = std::make_shared<Result<std::string>>(std::string{});
  std::function<void()> work = [result, paths = paths_, home = shader_home(options_.data_dir),
                                run = options_.data_dir + "/run"] {
    for (const std::string& dir : {paths.dir, home, run})
      if (auto made = make_directories(dir, 0700); !made) {
        *result = std::unexpected(made.error());
        return;
      }
    const std::string key = random_base62(43);
    if (auto written = write_file_durably(paths.api_key(), key, 0600); !written) {
      *result = std::unexpected(written.error());
      return;
    }
    for (const std::string& stale : {paths.state(), paths.exit(), paths.engine_socket, paths.shim_socket})
      (void)std::remove(stale.c_str());
    *result = key;
  };
  co_await net::run_blocking(work);
  co_return std::move(*result);
}

net::Task<Result<>> Supervisor::start_engine() {
  auto key = co_await write_files();
  if (!key) co_return std::unexpected(key.error());
  api_key_ = *key;
  EngineSite site;
  const bool fake = spec_.engine == EngineKind::kFake;
  site.program = fake ? options_.fake_engine_program : options_.engine_program;
  site.library_dir = fake ? "" : options_.engine_dir;
  site.home = shader_home(options_.data_dir);
  site.socket = paths_.engine_socket;
  site.api_key_file = paths_.api_key();
  site.device_names = view_.names;
  site.device_environment = view_.environment;
  auto command = engine_command(spec_, site);
  if (!command) co_return std::unexpected(command.error());

  net::SpawnOptions shim;
  shim.program = options_.shim_command.front();
  shim.arguments.assign(options_.shim_command.begin() + 1, options_.shim_command.end());
  for (const std::string& argument :
       {std::string("--dir"), paths_.dir, std::string("--socket"), paths_.shim_socket,
        std::string("--replica"), spec_.id, std::string("--spec-hash"), hash_, std::string("--epoch"),
        std::to_string(version_.epoch), std::string("--rev"), std::to_string(version_.rev),
        std::string("--orphan-limit-ms"), std::to_string(options_.orphan_limit_ms), std::string("--"),
        command->program})
    shim.arguments.push_back(argument);
  shim.arguments.insert(shim.arguments.end(), command->arguments.begin(), command->arguments.end());
  shim.environment = command->environment;
  shim.working_directory = paths_.dir;
  shim.stdout_file = paths_.shim_log();
  shim.stderr_file = paths_.shim_log();
  shim.new_session = true;

  ++engine_;
  log_ = ResidencyParser{};
  engine_ready_ = protocol_seen_ = replayed_ = false;
  measured_.clear();
  out_of_memory_ = false;
  engine_pid_ = 0;
  progress_ = 0;
  auto process = net::Process::spawn(executor_, std::move(shim));
  if (!process) co_return std::unexpected(process.error());
  started_at_ms_ = unix_ms();
  auto link = co_await ShimLink::connect(paths_.shim_socket, Clock::now() + kShimAppears);
  if (!link) {
    (*process)->signal(SIGKILL);
    std::string words = read_file(paths_.shim_log(), 64 * 1024).value_or("");
    while (!words.empty() && words.back() == '\n') words.pop_back();
    co_return fail(ErrorCode::kUnavailable, words.empty() ? "the engine's shim does not answer" : words);
  }
  link_ = *link;
  net::spawn(executor_, follow(engine_), "replica.follow");
  co_return Result<>{};
}

// ---- what the shim tells --------------------------------------------------------------------------------

net::Task<> Supervisor::follow(std::uint64_t engine) {
  const auto self = shared_from_this();
  ShimLinkPtr link = link_;
  while (engine == engine_) {
    const auto line = co_await link->read_line();
    if (engine != engine_) co_return;
    if (line) {
      if (take_line(*line, engine)) co_return;
      continue;
    }
    // The shim drops an agent that reads too slowly; it tells everything again to one that comes back.
    auto again = co_await ShimLink::connect(paths_.shim_socket, Clock::now());
    if (engine != engine_) co_return;
    if (again) {
      log_ = ResidencyParser{};
      replayed_ = false;
      link = link_ = *again;
      continue;
    }
    // With its shim the engine is gone; make sure of it before its memory is counted as free.
    kill_engine(SIGKILL);
    std::string status = read_file(paths_.exit(), 256).value_or("the engine's shim was killed");
    while (!status.empty() && status.back() == '\n') status.pop_back();
    engine_gone(status, engine);
    co_return;
  }
}

// True at the end.
bool Supervisor::take_line(const std::string& line, std::uint64_t engine) {
  const std::string_view text = line;
  if (text.starts_with("log ")) {
    log_.line(text.substr(4));
  } else if (text.starts_with("out ")) {
    take_protocol(line.substr(4), engine);
  } else if (text.starts_with("hello ")) {
    char* end = nullptr;
    engine_pid_ = std::strtoll(line.c_str() + 6, &end, 10);
    engine_start_ = end != nullptr ? std::strtoll(end, nullptr, 10) : 0;
    note_change();
  } else if (text == "live") {
    replayed_ = true;
    wake_.notify();
  } else if (text.starts_with("exit ")) {
    engine_gone(line.substr(5), engine);
    return true;
  }
  return false;
}

// {"state":"loading","payload":{"stages":["text_model"],"current":"text_model","value":0.5}} or
// {"state":"ready",..}
void Supervisor::take_protocol(const std::string& line, std::uint64_t engine) {
  if (!line.starts_with(kProtocolState)) return;
  const auto json = parse_json(std::string_view(line).substr(kProtocolState.size()));
  if (!json || !json->is_object()) return;
  protocol_seen_ = true;
  const std::string state = json->value("state", "");
  if (state == "ready") {
    if (!engine_ready_) push(LifeEvent::kEngineReady, {}, engine);
    engine_ready_ = true;
    progress_ = 1;
  } else if (state == "loading" && json->contains("payload") && (*json)["payload"].is_object()) {
    const Json& payload = (*json)["payload"];
    const auto value = payload.find("value");
    const auto stages = payload.find("stages");
    const auto current = payload.find("current");
    if (value == payload.end() || !value->is_number() || stages == payload.end() || !stages->is_array() ||
        stages->empty())
      return;
    std::size_t index = 0;
    if (current != payload.end())
      while (index + 1 < stages->size() && (*stages)[index] != *current) ++index;
    const double part = std::min(1.0, std::max(0.0, value->get<double>()));
    progress_ = (static_cast<double>(index) + part) / static_cast<double>(stages->size());
    note_change();
  }
}

void Supervisor::engine_gone(const std::string& status, std::uint64_t engine) {
  exit_ = status;
  exited_engine_ = engine;
  client_.reset();
  const auto [reason, for_good] = why_it_ended(log_, status, engine_ready_);
  out_of_memory_ = !engine_ready_ && ran_out_of_memory(log_);
  push(for_good ? LifeEvent::kExitedForGood : LifeEvent::kExited, reason, engine);
}

net::Task<LifeAction> Supervisor::prove() {
  const auto self = shared_from_this();
  const ResidencyExpectation expected = residency_expectation(spec_, view_.names);
  // llama-server writes its log from a thread of its own, and the shim reads log and protocol from two pipes: "ready"
  // can overtake the lines that prove it. What is missing may still come; what is there and wrong stays wrong.
  const auto until = Clock::now() + kLogLagMax;
  auto proof = log_.prove(expected);
  while (!proof && exited_engine_ < engine_ && Clock::now() < until) {
    co_await net::sleep_for(milliseconds(20));
    proof = log_.prove(expected);
  }
  if (!proof) {
    log_warn("replica.not_proved", {{"replica", spec_.id}, {"reason", proof.error().reason}});
    co_return resume(LifeEvent::kNotProved, proof.error().reason);
  }
  measured_ = proof->measured;
  co_return resume(LifeEvent::kProved);
}

// ---- talking to the engine ------------------------------------------------------------------------------

net::Task<Result<std::string>> Supervisor::ask_engine(net::RequestHead head, std::string body,
                                                      Clock::duration limit) {
  const auto client = net::make_http1_client(engine_address());
  const auto deadline = Clock::now() + limit;
  head.headers.push_back({"authorization", "Bearer " + api_key_});
  if (!body.empty()) head.headers.push_back({"content-type", "application/json"});
  auto exchange = co_await client->open(std::move(head), std::move(body));
  if (!exchange) co_return std::unexpected(exchange.error());
  const net::ClientExchangePtr upstream = *exchange;
  const auto answer = co_await upstream->head(deadline);
  if (!answer) co_return std::unexpected(answer.error());
  auto text = co_await upstream->read_body(kEngineAnswerMax, deadline);
  if (!text) co_return std::unexpected(text.error());
  if (answer->status != 200)
    co_return fail(ErrorCode::kUnavailable,
                   "status " + std::to_string(answer->status) + " " + text->substr(0, 200));
  co_return std::move(*text);
}

net::Task<> Supervisor::canary(std::uint64_t engine) {
  const auto self = shared_from_this();
  last_canary_ = Clock::now();
  const bool first = life_.state() != ReplicaState::kReady;
  net::RequestHead head{.method = "POST", .path = "/completion", .query = {}, .headers = {}};
  std::string body = R"({"prompt":"Hello","n_predict":1,"temperature":0,"cache_prompt":false})";
  if (spec_.kind == ModelKind::kEmbedding) {
    head.path = "/v1/embeddings";
    body = R"({"input":"Hello"})";
  } else if (spec_.kind == ModelKind::kRerank) {
    head.path = "/v1/rerank";
    body = R"({"query":"Hello","documents":["Hello"]})";
  }
  const auto answer = co_await ask_engine(std::move(head), std::move(body), first ? kFirstCanaryLimit : kCanaryLimit);
  if (engine != engine_) co_return;
  if (!answer) {
    push(LifeEvent::kCanaryFailed, answer.error().reason, engine);
    co_return;
  }
  const auto json = parse_json(*answer);
  if (!json || !json->is_object() || json->contains("error")) {
    push(LifeEvent::kCanaryFailed, "an answer that is not one: " + answer->substr(0, 100), engine);
    co_return;
  }
  if (life_.state() == ReplicaState::kReady) co_return;
  push(LifeEvent::kCanaryPassed, {}, engine);
  // From here on the log is the file's affair.
  co_await send_to_shim("quiet");
}

std::shared_ptr<net::HttpClient> Supervisor::engine_client() {
  if (!client_) client_ = net::make_http1_client(engine_address(), true);
  return client_;
}

net::Task<> Supervisor::send_to_shim(std::string command) {
  // llama-server waits for its connections before it ends.
  if (command == "term") client_.reset();
  if (!link_) co_return;
  const ShimLinkPtr link = link_;
  const auto sent = co_await link->send(command);
  // A shim that does not listen is no reason to leave an engine running.
  if (!sent && command == "term") kill_engine(SIGTERM);
}

void Supervisor::kill_engine(int signo) {
  if (engine_pid_ > 0) (void)net::signal_process(static_cast<pid_t>(engine_pid_), engine_start_, signo);
}

void Supervisor::housekeeping() {
  const auto now = Clock::now();
  const ReplicaState state = life_.state();
  if (state == ReplicaState::kLoading && !protocol_seen_ && !engine_ready_ && !asking_engine_ && link_) {
    // The child protocol is not a documented one: without it /health tells.
    asking_engine_ = true;
    net::spawn(executor_, ask_health(engine_), "replica.health");
    return;
  }
  if (state != ReplicaState::kReady && state != ReplicaState::kDraining) return;
  if ((running_ > 0 || slots_busy_ > 0) && !asking_engine_ && now - last_slots_ >= kHousekeeping) {
    asking_engine_ = true;
    last_slots_ = now;
    net::spawn(executor_, read_slots(engine_), "replica.slots");
  }
  if (state == ReplicaState::kReady && running_ == 0 &&
      now - last_canary_ >= milliseconds(options_.canary_every_ms)) {
    last_canary_ = now;
    net::spawn(executor_, canary(engine_), "replica.canary");
  }
}

net::Task<> Supervisor::ask_health(std::uint64_t engine) {
  const auto self = shared_from_this();
  net::RequestHead head{.method = "GET", .path = "/health", .query = {}, .headers = {}};
  const auto answer = co_await ask_engine(std::move(head), {}, kShortCall);
  asking_engine_ = false;
  if (engine != engine_ || !answer || engine_ready_) co_return;
  engine_ready_ = true;
  push(LifeEvent::kEngineReady, {}, engine);
}

// "slots_busy (as the engine has it)"
net::Task<> Supervisor::read_slots(std::uint64_t engine) {
  const auto self = shared_from_this();
  net::RequestHead head{.method = "GET", .path = "/slots", .query = {}, .headers = {}};
  const auto answer = co_await ask_engine(std::move(head), {}, kShortCall);
  asking_engine_ = false;
  if (engine != engine_ || !answer) co_return;
  const auto json = parse_json(*answer);
  if (!json || !json->is_array()) co_return;
  int busy = 0;
  for (const Json& slot : *json)
    if (slot.is_object() && slot.contains("is_processing") && slot["is_processing"] == true) ++busy;
  slots_busy_ = busy;
  note_change();
}

// ---- relayed requests -----------------------------------------------------------------------------------

Supervisor::Lease::Lease(std::shared_ptr<Supervisor> owner, bool takes_slot, std::function<void()> cancel)
    : owner_(std::move(owner)), takes_slot_(takes_slot) {
  cancel_ = owner_->cancels_.insert(owner_->cancels_.end(), std::move(cancel));
  if (takes_slot_) ++owner_->running_;
}

Supervisor::Lease::~Lease() {
  owner_->cancels_.erase(cancel_);
  if (!takes_slot_) return;
  --owner_->running_;
  if (owner_->running_ == 0 && owner_->life_.state() == ReplicaState::kDraining) owner_->wake_.notify();
}

void Supervisor::cancel_requests() {
  // A cancelled relay ends later, in its own coroutine; the list does not change here.
  for (const auto& cancel : cancels_) cancel();
}

net::Task<std::string> Supervisor::exit_within(Clock::duration limit) {
  const auto self = shared_from_this();
  const std::uint64_t engine = engine_;
  const auto until = Clock::now() + limit;
  while (exited_engine_ < engine && Clock::now() < until) co_await net::sleep_for(milliseconds(5));
  co_return exited_engine_ >= engine ? exit_ : std::string{};
}

}  // namespace aiv::node
