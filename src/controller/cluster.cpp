#include "controller/cluster.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>

#include "base/hash.hpp"
#include "base/host.hpp"
#include "base/log.hpp"
#include "base/units.hpp"
#include "controller/audit.hpp"
#include "core/quota.hpp"
#include "wire/model_file.hpp"

namespace aiv::controller {

namespace {

constexpr std::size_t kWritesPerTxn = 64;
constexpr std::int64_t kAuditKept = 10'000;

std::string audit_key(std::int64_t n) { return fmt::format("{}{:016}", kAuditPrefix, n); }

constexpr net::seconds kStoreProbeEach{2};

// Of this thread: what a decision costs, however many others want the machine meanwhile.
net::Clock::duration processor_time() {
  timespec spent{};
  ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
  return std::chrono::seconds(spent.tv_sec) + std::chrono::nanoseconds(spent.tv_nsec);
}

// What a GGUF's header says; an unreadable one stays registered with the reason.
void read_facts(ModelRecord& model) {
  if (model.engine == EngineKind::kFake) return;
  auto facts = read_model_file(model.path);
  if (!facts) {
    model.error = facts.error().message();
    return;
  }
  model.facts = std::make_shared<const ModelFacts>(*std::move(facts));
}

}  // namespace

Cluster::Cluster(net::Executor executor, std::unique_ptr<Store> store, ClusterOptions options)
    : executor_(executor),
      store_(std::move(store)),
      options_(std::move(options)),
      work_(executor),
      change_done_(executor) {
  state_.detector = FailureDetector(options_.detector);
  state_.settings = options_.reconcile;
  state_.settings.auth_required = options_.auth_required;
}

Instant Cluster::now() {
  const auto steady = std::chrono::steady_clock::now().time_since_epoch();
  return {std::chrono::duration_cast<std::chrono::milliseconds>(steady).count(), unix_ms()};
}

void Cluster::tell(std::string kind, std::string subject, std::string reason, std::string cause) {
  log_info(kind, {{"subject", subject}, {"reason", reason}, {"cause", cause}});
  events_.add({0, now().unix_ms, std::move(kind), std::move(subject), std::move(reason), std::move(cause)});
}

std::int64_t Cluster::revision_of(const std::string& key) const {
  const auto it = revisions_.find(key);
  return it == revisions_.end() ? 0 : it->second;
}

Compare Cluster::still_as_known(const std::string& key) const {
  const std::int64_t rev = revision_of(key);
  return rev > 0 ? Compare::mod_rev_is(key, rev) : Compare::absent(key);
}

std::string Cluster::read_only_reason() const {
  if (fenced_) return "another server has taken the lead";
  return read_only_;
}

const NodeDesired* Cluster::desired_for(const std::string& node) const {
  const auto it = desired_.find(node);
  return it == desired_.end() ? nullptr : &it->second;
}

net::Task<TxnResult> Cluster::run_txn(Txn txn) {
  auto shared = std::make_shared<std::pair<Txn, TxnResult>>(std::move(txn), TxnResult{});
  std::function<void()> job = [store = store_, shared] { shared->second = store->txn(shared->first); };
  co_await net::run_blocking(std::move(job));
  co_return std::move(shared->second);
}

net::Task<RangeResult> Cluster::read_prefix(std::string prefix) {
  auto shared = std::make_shared<Result<RangeResult>>();
  std::function<void()> job = [store = store_, shared, prefix] { *shared = store->range(prefix, prefix_end(prefix)); };
  co_await net::run_blocking(std::move(job));
  if (!*shared) {
    read_only_ = shared->error().reason;
    co_return RangeResult{};
  }
  co_return std::move(**shared);
}

// A compare-and-swap record; each start of a single server takes a new epoch by the same code as a fail-over would.
net::Task<Result<>> Cluster::take_leadership() {
  const RangeResult leader = co_await read_prefix(kLeaderKey);
  const RangeResult epoch = co_await read_prefix(kEpochKey);
  std::int64_t last = 0;
  if (!epoch.kvs.empty()) {
    const auto json = parse_json(epoch.kvs.front().value);
    if (!json || !json->is_number_integer()) co_return fail(ErrorCode::kCorrupt, "is not a number", kEpochKey);
    last = json->get<std::int64_t>();
  }
  Txn txn;
  txn.compares.push_back(leader.kvs.empty() ? Compare::absent(kLeaderKey)
                                            : Compare::mod_rev_is(kLeaderKey, leader.kvs.front().mod_rev));
  txn.compares.push_back(epoch.kvs.empty() ? Compare::absent(kEpochKey)
                                           : Compare::mod_rev_is(kEpochKey, epoch.kvs.front().mod_rev));
  Json record;
  record["holder"] = options_.server_id;
  record["epoch"] = last + 1;
  record["seq"] = 0;
  txn.ops.push_back(Op::put(kLeaderKey, dump_json(record)));
  txn.ops.push_back(Op::put(kEpochKey, std::to_string(last + 1)));
  TxnResult taken = co_await run_txn(std::move(txn));
  if (taken.outcome == TxnOutcome::kCompareFailed) {
    co_return fail(ErrorCode::kConflict, "another server took the lead at the same moment; start again");
  }
  if (!taken.committed()) {
    read_only_ = taken.reason;
    co_return Result<>{};
  }
  state_.epoch = last + 1;
  epoch_mod_rev_ = taken.rev;
  revision_ = taken.rev;
  co_return Result<>{};
}

KeyLimits Cluster::team_limits(const std::string& team) const {
  if (const auto found = teams_.find(team); found != teams_.end()) return found->second.limits;
  KeyLimits limits;
  for (const auto& [id, record] : keys_) {
    if (record.key.team == team) limits = smaller_limits(limits, record.key.team_limits);
  }
  return limits;
}

event::KeysPut Cluster::keys_put() const {
  event::KeysPut put;
  for (const auto& [id, record] : keys_) {
    put.keys.push_back(record.key);
    RouteKey& key = put.keys.back();
    if (const auto team = teams_.find(key.team); team != teams_.end()) key.team_limits = team->second.limits;
  }
  return put;
}

void Cluster::read_teams(const RangeResult& rows) {
  for (const KeyValue& kv : rows.kvs) {
    auto record = team_from_text(kv.value);
    if (!record) {
      refused_.push_back(kv.key + ": " + record.error().message());
      continue;
    }
    revisions_[kv.key] = kv.mod_rev;
    teams_[record->name] = *std::move(record);
  }
}

void Cluster::read_keys(const RangeResult& rows) {
  for (const KeyValue& kv : rows.kvs) {
    auto record = key_from_text(kv.value);
    if (!record) {
      refused_.push_back(kv.key + ": " + record.error().message());
      continue;
    }
    revisions_[kv.key] = kv.mod_rev;
    keys_[record->key.id] = *std::move(record);
  }
}

net::Task<> Cluster::read_state() {
  const RangeResult models = co_await read_prefix(kModelPrefix);
  for (const KeyValue& kv : models.kvs) {
    auto model = model_from_text(kv.value);
    if (!model) {
      refused_.push_back(kv.key + ": " + model.error().message());
      continue;
    }
    revisions_[kv.key] = kv.mod_rev;
    auto shared = std::make_shared<ModelRecord>(*std::move(model));
    std::function<void()> job = [shared] { read_facts(*shared); };
    co_await net::run_blocking(std::move(job));
    state_.models[shared->id] = *shared;
  }
  const RangeResult deployments = co_await read_prefix(kDeploymentPrefix);
  for (const KeyValue& kv : deployments.kvs) {
    revisions_[kv.key] = kv.mod_rev;
    auto deployment = deployment_from_text(kv.value);
    if (deployment) {
      state_.deployments[deployment->name] = *deployment;
    } else {
      refused_.push_back(kv.key + ": " + deployment.error().message());
    }
  }
  const RangeResult placements = co_await read_prefix(kPlacementPrefix);
  for (const KeyValue& kv : placements.kvs) {
    auto placement = placement_from_text(kv.value);
    if (placement) {
      state_.placements.put(*std::move(placement));
    } else {
      refused_.push_back(kv.key + ": " + placement.error().message());
    }
  }
  const RangeResult nodes = co_await read_prefix(kNodePrefix);
  for (const KeyValue& kv : nodes.kvs) {
    revisions_[kv.key] = kv.mod_rev;
    auto node = node_from_text(kv.value);
    if (!node) {
      refused_.push_back(kv.key + ": " + node.error().message());
      continue;
    }
    NodeRecord& record = state_.nodes[node->id];
    record.id = node->id;
    static_cast<NodePolicy&>(record) = node->policy;
    node_settings_[node->id] = *std::move(node);
  }
  const RangeResult margins = co_await read_prefix(kMarginPrefix);
  for (const KeyValue& kv : margins.kvs) {
    auto margin = margin_from_text(kv.value);
    if (margin) {
      state_.margins.insert(*std::move(margin));
    } else {
      // Nothing runs on account of it: what it taught is learned again.
      log_warn("state.margin_ignored", {{"record", kv.key}, {"reason", margin.error().message()}});
    }
  }
  const RangeResult tokens = co_await read_prefix(kTokenPrefix);
  for (const KeyValue& kv : tokens.kvs) {
    auto token = token_from_text(kv.value);
    if (!token) {
      refused_.push_back(kv.key + ": " + token.error().message());
      continue;
    }
    revisions_[kv.key] = kv.mod_rev;
    tokens_[token->id] = *std::move(token);
  }
  const RangeResult denied = co_await read_prefix(kDeniedPrefix);
  for (const KeyValue& kv : denied.kvs) {
    auto entry = denied_from_text(kv.value);
    if (!entry) {
      refused_.push_back(kv.key + ": " + entry.error().message());
      continue;
    }
    denied_[entry->node] = *entry;
  }
  const RangeResult teams = co_await read_prefix(kTeamPrefix);
  read_teams(teams);
  const RangeResult keys = co_await read_prefix(kKeyPrefix);
  read_keys(keys);
  co_await read_audit_head();
  revision_ = std::max(revision_, keys.rev);
  take(keys_put());
  publish_denied();
}

net::Task<Result<>> Cluster::load() {
  if (auto status = store_->status(); status.health == StoreHealth::kReadOnly) {
    read_only_ = status.reason;
  } else {
    auto taken = co_await take_leadership();
    if (!taken) co_return taken;
  }
  state_.frozen_writes = !read_only_.empty();
  events_.begin(state_.epoch);
  co_await read_state();
  for (const std::string& refused : refused_) {
    // Its replicas keep running: a record that cannot be read decides nothing.
    log_error("state.record_refused", {{"record", refused}});
    events_.add({0, now().unix_ms, "state.record_refused", "server/" + options_.server_id, refused, ""});
  }
  // A record that is not understood may stand for a replica that runs: nothing may be unloaded on that account.
  if (!refused_.empty() && read_only_.empty()) {
    read_only_ = "the state holds " + std::to_string(refused_.size()) + " records that this version cannot read (" +
                 refused_.front() + "): repair or delete them; nothing is changed until then";
    state_.frozen_writes = true;
  }
  if (!read_only_.empty()) log_error("state.read_only", {{"reason", read_only_}});
  take(event::Start{});
  tell("controller.started", "server/" + options_.server_id,
       "epoch " + std::to_string(state_.epoch) + ", revision " + std::to_string(revision_) + ", " +
           std::to_string(state_.deployments.size()) + " deployments, " + std::to_string(state_.placements.size()) +
           " replicas");
  co_return Result<>{};
}

void Cluster::take(const Event& event) {
  if (fenced_) return;
  TakenIn taken = take_in(state_, event, now());
  enqueue(std::move(taken.commands));
  if (!taken.decide) return;
  pace_.ask(std::move(taken.cause));
  if (pace_.due(net::Clock::now())) {
    decide_now();
  } else {
    work_.notify();
  }
}

void Cluster::decide_now() {
  const auto before = processor_time();
  enqueue(decide(state_, pace_.take_cause(), now()));
  const auto ended = net::Clock::now();
  pace_.decided(ended - (processor_time() - before), ended);
}

void Cluster::enqueue(std::vector<Command> commands) {
  for (Command& command : commands) {
    // Words are said at once: only effects wait for the disk.
    if (const auto* words = std::get_if<command::Tell>(&command)) {
      tell(words->kind, words->subject, words->reason, words->cause);
    } else {
      commands_.push_back(std::move(command));
    }
  }
  if (!commands_.empty()) work_.notify();
}

void Cluster::fenced(const std::string& reason) {
  if (fenced_) return;
  fenced_ = true;
  commands_.clear();
  log_error("controller.fenced", {{"reason", reason}});
  if (on_fenced) on_fenced(reason);
}

void Cluster::perform(const Command& command) {
  if (!leads() || !refused_.empty()) return;
  if (const auto* desired = std::get_if<command::PublishDesired>(&command)) {
    desired_[desired->document.node] = desired->document;
    if (on_desired) on_desired(desired->document.node);
  } else if (const auto* routes = std::get_if<command::PublishRoutes>(&command)) {
    routes_ = routes->table;
    if (on_routes) on_routes();
  }
}

void Cluster::note_committed(const Txn& txn, std::int64_t rev) {
  revision_ = std::max(revision_, rev);
  for (const Op& op : txn.ops) {
    if (op.kind == Op::Kind::kPut) {
      revisions_[op.key] = rev;
    } else {
      revisions_.erase(op.key);
    }
  }
}

// What the store says of itself by taking a change or not.
void Cluster::note_writable(const TxnResult& result) {
  if (result.committed()) {
    revision_ = std::max(revision_, result.rev);
    if (read_only_.empty() || !refused_.empty()) return;
    tell("state.writable", "server/" + options_.server_id, "the state takes changes again");
    read_only_.clear();
    state_.frozen_writes = false;
    return;
  }
  if (result.outcome != TxnOutcome::kUnavailable && result.outcome != TxnOutcome::kUnknown) return;
  const std::string reason = result.reason.empty() ? "the state takes no writes" : result.reason;
  if (read_only_ != reason) tell("state.read_only", "server/" + options_.server_id, reason);
  read_only_ = reason;
  state_.frozen_writes = true;
}

// Nobody may want a change for hours, and no replica is placed meanwhile: so the store is asked whether it takes one again.
net::Task<> Cluster::watch_store() {
  while (!stopping_ && !fenced_) {
    co_await net::sleep_for(kStoreProbeEach);
    if (read_only_.empty() || !refused_.empty() || fenced_) continue;
    Txn nothing;
    if (leads()) nothing.compares.push_back(Compare::mod_rev_is(kEpochKey, epoch_mod_rev_));
    const TxnResult result = co_await run_txn(std::move(nothing));
    const bool leaderless = state_.epoch == 0;
    note_writable(result);
    if (result.committed() && leaderless) fenced("the state takes changes again: starting anew to take the lead");
  }
}

// The writes at the head of the queue, in one transaction. False when the store did not take them (they stay).
net::Task<bool> Cluster::write_batch() {
  Txn txn;
  txn.compares.push_back(Compare::mod_rev_is(kEpochKey, epoch_mod_rev_));
  std::map<std::string, Op> ops;  // the last word on a key wins
  std::size_t count = 0;
  for (; count < commands_.size() && is_write(commands_[count]) && ops.size() < kWritesPerTxn; ++count) {
    if (const auto* save = std::get_if<command::SavePlacement>(&commands_[count])) {
      const std::string key = kPlacementPrefix + save->placement.spec.id;
      ops.insert_or_assign(key, Op::put(key, placement_to_text(save->placement)));
    } else if (const auto* margin = std::get_if<command::SaveMargin>(&commands_[count])) {
      const std::string key = margin_key(margin->key);
      ops.insert_or_assign(key, Op::put(key, margin_to_text(margin->key, margin->history)));
    } else {
      const std::string key = kPlacementPrefix + std::get<command::ErasePlacement>(commands_[count]).id;
      ops.insert_or_assign(key, Op::erase(key));
    }
  }
  for (auto& [key, op] : ops) txn.ops.push_back(std::move(op));
  const Txn sent = txn;
  const TxnResult result = co_await run_txn(std::move(txn));
  if (result.committed()) {
    note_committed(sent, result.rev);
    count = std::min(count, commands_.size());  // a fence that fell meanwhile has emptied it
    commands_.erase(commands_.begin(), commands_.begin() + static_cast<std::ptrdiff_t>(count));
    note_writable(result);
    co_return true;
  }
  if (result.outcome == TxnOutcome::kCompareFailed) {
    fenced("a newer epoch is in the state");
    co_return false;
  }
  note_writable(result);
  co_return false;
}

net::Task<> Cluster::run() {
  while (!stopping_ && !fenced_) {
    if (pace_.due(net::Clock::now())) decide_now();
    if (commands_.empty()) {
      const auto next = std::min(pace_.next(), net::Clock::now() + net::seconds(3600));
      co_await work_.wait_until(next);
      continue;
    }
    if (!is_write(commands_.front())) {
      const Command command = std::move(commands_.front());
      commands_.pop_front();
      perform(command);
      continue;
    }
    if (!leads()) {
      commands_.clear();
      continue;
    }
    const bool written = co_await write_batch();
    if (!written && !fenced_) co_await net::sleep_for(net::seconds(1));
  }
}

namespace {

// Keeps a map of records in step with what was stored below `prefix`; true if something was.
template <class Record, class FromText>
bool follow(std::map<std::string, Record>& records, const Txn& txn, std::string_view prefix, FromText from_text) {
  bool touched = false;
  for (const Op& op : txn.ops) {
    if (!op.key.starts_with(prefix)) continue;
    touched = true;
    const std::string id = op.key.substr(prefix.size());
    if (op.kind == Op::Kind::kDelete) {
      records.erase(id);
    } else if (auto record = from_text(op.value)) {
      records[id] = *std::move(record);
    }
  }
  return touched;
}

}  // namespace

void Cluster::follow_change(const Txn& txn) {
  follow(tokens_, txn, kTokenPrefix, token_from_text);
  follow(node_settings_, txn, kNodePrefix, node_from_text);
  if (follow(denied_, txn, kDeniedPrefix, denied_from_text)) publish_denied();
  const bool teams = follow(teams_, txn, kTeamPrefix, team_from_text);
  const bool keys = follow(keys_, txn, kKeyPrefix, key_from_text);
  if (teams || keys) take(keys_put());
}

void Cluster::publish_denied() {
  event::DeniedPut put;
  for (const auto& [node, entry] : denied_) put.nodes.push_back(entry);
  take(put);
}

net::Task<> Cluster::read_audit_head() {
  const RangeResult head = co_await read_prefix(kAuditHeadKey);
  audit_known_ = true;
  if (!head.kvs.empty()) {
    const auto json = parse_json(head.kvs.front().value);
    if (json && json->is_object()) {
      audit_no_ = json->value("n", std::int64_t{0});
      audit_hash_ = json->value("sha256", "");
      co_return;
    }
  }
  // A state from before there was a chain, or whose head is gone (which the check of the chain will say).
  const RangeResult records = co_await read_prefix(kAuditPrefix);
  if (records.kvs.empty()) co_return;
  audit_no_ = std::stoll("0" + records.kvs.back().key.substr(std::string(kAuditPrefix).size()));
  audit_hash_ = aiv::controller::audit_hash(records.kvs.back().value);
}

std::string Cluster::add_audit_record(Change& change) const {
  AuditEntry entry;
  entry.n = audit_no_ + 1;
  entry.time = rfc3339(now().unix_ms);
  entry.actor = printable(change.actor, 128);
  entry.action = change.action;
  entry.object = change.object;
  const std::string text = audit_text(entry, audit_hash_);
  std::string hash = aiv::controller::audit_hash(text);
  Json head;
  head["n"] = entry.n;
  head["sha256"] = hash;
  change.txn.ops.push_back(Op::put(audit_key(entry.n), text));
  change.txn.ops.push_back(Op::put(kAuditHeadKey, dump_json(head)));
  if (entry.n > kAuditKept) change.txn.ops.push_back(Op::erase(audit_key(entry.n - kAuditKept)));
  return hash;
}

net::Task<Result<Cluster::Audit>> Cluster::read_audit() {
  const RangeResult head = co_await read_prefix(kAuditHeadKey);
  const RangeResult records = co_await read_prefix(kAuditPrefix);
  Audit out;
  if (!head.kvs.empty()) out.head = head.kvs.front().value;
  for (const KeyValue& kv : records.kvs) out.records.push_back(kv.value);
  co_return out;
}

const DeniedNode* Cluster::denied(const std::string& node) const {
  const auto found = denied_.find(node);
  return found == denied_.end() ? nullptr : &found->second;
}

NodeSettings Cluster::settings_of(const std::string& node) const {
  const auto found = node_settings_.find(node);
  if (found != node_settings_.end()) return found->second;
  NodeSettings out;
  out.id = node;
  return out;
}

net::Task<Result<std::int64_t>> Cluster::change(Change change) {
  while (changing_) co_await change_done_.wait_until(net::Clock::now() + net::seconds(1));
  if (const std::string reason = read_only_reason(); !reason.empty() && (!leads() || !refused_.empty())) {
    co_return fail(ErrorCode::kUnavailable, reason, "none");
  }
  changing_ = true;
  change.txn.compares.push_back(Compare::mod_rev_is(kEpochKey, epoch_mod_rev_));
  if (!audit_known_) co_await read_audit_head();
  std::string audit_hash = add_audit_record(change);
  const TxnResult result = co_await run_txn(change.txn);
  audit_known_ = result.outcome != TxnOutcome::kUnknown;
  if (result.committed()) {
    ++audit_no_;
    audit_hash_ = std::move(audit_hash);
  }
  changing_ = false;
  change_done_.notify();
  note_writable(result);
  switch (result.outcome) {
    case TxnOutcome::kCommitted: break;
    case TxnOutcome::kCompareFailed: {
      for (const KeyValue& kv : result.current) {
        if (kv.key == kEpochKey && kv.mod_rev != epoch_mod_rev_) fenced("a newer epoch is in the state");
      }
      co_return fail(ErrorCode::kConflict, "it was changed meanwhile");
    }
    case TxnOutcome::kUnknown: co_return fail(ErrorCode::kUnavailable, result.reason, "unknown");
    case TxnOutcome::kUnavailable: co_return fail(ErrorCode::kUnavailable, result.reason, "none");
    case TxnOutcome::kInvalid: co_return fail(ErrorCode::kTooLarge, result.reason);
  }
  note_committed(change.txn, result.rev);
  follow_change(change.txn);
  for (const Event& event : change.events) {
    if (const auto* erased = std::get_if<event::NodeErased>(&event); erased != nullptr && on_node_erased) {
      on_node_erased(erased->id);
    }
    take(event);
  }
  tell(change.action, change.object, "by " + (change.actor.empty() ? "an operator" : printable(change.actor, 64)));
  co_return result.rev;
}

net::Task<> Cluster::resign() {
  if (!leads()) co_return;
  Json record;
  record["holder"] = "";
  record["epoch"] = state_.epoch;
  record["seq"] = 0;
  Txn txn{{Compare::mod_rev_is(kEpochKey, epoch_mod_rev_)}, {Op::put(kLeaderKey, dump_json(record))}};
  co_await run_txn(std::move(txn));
}

void Cluster::stop() {
  stopping_ = true;
  work_.notify();
}

}  // namespace aiv::controller
