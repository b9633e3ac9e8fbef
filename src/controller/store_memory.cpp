#include "controller/store_memory.hpp"

#include <algorithm>

namespace aiv::controller {

namespace {

bool holds(const Compare& compare, const KeyValue* current) {
  switch (compare.target) {
    case Compare::Target::kAbsent: return current == nullptr;
    case Compare::Target::kModRev: return current != nullptr && current->mod_rev == compare.mod_rev;
    case Compare::Target::kValue: return current != nullptr && current->value == compare.value;
  }
  return false;
}

}  // namespace

Result<RangeResult> MemoryStore::range(std::string_view from, std::string_view to, std::size_t limit,
                                       std::int64_t at_rev) {
  const std::scoped_lock lock(mutex_);
  if (at_rev != 0 && at_rev != rev_) {
    return fail(ErrorCode::kConflict, "the state has moved on to revision " + std::to_string(rev_));
  }
  RangeResult result;
  result.rev = rev_;
  for (auto it = kvs_.lower_bound(from); it != kvs_.end(); ++it) {
    if (to.empty() ? it->first != from : std::string_view(it->first) >= to) break;
    if (limit != 0 && result.kvs.size() == limit) {
      result.more = true;
      break;
    }
    result.kvs.push_back(it->second);
  }
  return result;
}

TxnResult MemoryStore::apply(const Txn& txn) {
  TxnResult result;
  bool all_hold = true;
  for (const Compare& compare : txn.compares) {
    const auto it = kvs_.find(compare.key);
    const KeyValue* current = it == kvs_.end() ? nullptr : &it->second;
    if (!holds(compare, current)) all_hold = false;
    if (current != nullptr) result.current.push_back(*current);
  }
  if (!all_hold) {
    result.outcome = TxnOutcome::kCompareFailed;
    result.rev = rev_;
    return result;
  }
  result.current.clear();
  ++rev_;
  for (const Op& op : txn.ops) {
    if (op.kind == Op::Kind::kPut) {
      KeyValue& kv = kvs_[op.key];
      kv.key = op.key;
      kv.value = op.value;
      if (kv.create_rev == 0) kv.create_rev = rev_;
      kv.mod_rev = rev_;
      log_.push_back({rev_, op.kind, op.key, op.value});
    } else if (kvs_.erase(op.key) > 0) {
      log_.push_back({rev_, op.kind, op.key, {}});
    }
  }
  const std::int64_t keep_from = rev_ - kLogRevisionsKept;
  while (!log_.empty() && log_.front().rev <= keep_from) log_.pop_front();
  oldest_rev_ = std::max(oldest_rev_, keep_from + 1);
  result.outcome = TxnOutcome::kCommitted;
  result.rev = rev_;
  return result;
}

TxnResult MemoryStore::txn(const Txn& txn) {
  const std::scoped_lock lock(mutex_);
  TxnResult result;
  if (result.reason = txn_over_limit(txn); !result.reason.empty()) {
    result.outcome = TxnOutcome::kInvalid;
    return result;
  }
  if (!read_only_.empty()) {
    result.reason = read_only_;
    return result;
  }
  if (!faults_.empty()) {
    const Fault fault = faults_.front();
    faults_.pop_front();
    if (fault.applied) apply(txn);
    result.outcome = fault.outcome;
    result.reason = "scripted failure";
    return result;
  }
  return apply(txn);
}

Result<WatchResult> MemoryStore::watch(std::string_view prefix, std::int64_t from_rev, std::size_t limit) {
  const std::scoped_lock lock(mutex_);
  WatchResult result;
  result.oldest_rev = oldest_rev_;
  if (from_rev < oldest_rev_) {
    result.compacted = true;
    result.next_rev = rev_ + 1;
    return result;
  }
  result.next_rev = std::max(from_rev, rev_ + 1);
  for (const WatchEvent& event : log_) {
    if (event.rev < from_rev || !event.key.starts_with(prefix)) continue;
    if (result.events.size() >= limit && event.rev != result.events.back().rev) {
      result.next_rev = event.rev;
      break;
    }
    result.events.push_back(event);
  }
  return result;
}

Result<> MemoryStore::compact(std::int64_t rev) {
  const std::scoped_lock lock(mutex_);
  const std::int64_t below = std::min(rev, rev_ + 1);
  while (!log_.empty() && log_.front().rev < below) log_.pop_front();
  oldest_rev_ = std::max(oldest_rev_, below);
  return {};
}

StoreStatus MemoryStore::status() {
  const std::scoped_lock lock(mutex_);
  StoreStatus status;
  status.role = "single";
  status.rev = rev_;
  if (!read_only_.empty()) {
    status.health = StoreHealth::kReadOnly;
    status.reason = read_only_;
  }
  return status;
}

void MemoryStore::fail_next(Fault fault) {
  const std::scoped_lock lock(mutex_);
  faults_.push_back(fault);
}

void MemoryStore::set_read_only(std::string reason) {
  const std::scoped_lock lock(mutex_);
  read_only_ = std::move(reason);
}

}  // namespace aiv::controller
