// The controller's state behind five calls, written so that SQLite, an in-memory map and later etcd serve the same
// users.
//
// Rules, each with its reason:
//  - One global revision; every committed transaction adds exactly 1, so "newer" is one comparison.
//  - Decide only by txn() with a compare, never on a bare range(): a replicated backend may answer a read late.
//  - kUnknown is an outcome and not an error: a transaction that timed out may have been applied. The caller reads
//    again; writes are idempotent by construction (named documents, absolute values).
//  - The limits are etcd's, for every backend: what is bigger is a design error and answered as such, never split.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace aiv::controller {

inline constexpr std::size_t kTxnOpsMax = 128;
inline constexpr std::size_t kTxnBytesMax = 1024 * 1024;
inline constexpr std::size_t kKeyBytesMax = 512;
inline constexpr std::size_t kValueBytesMax = 256 * 1024;
inline constexpr std::int64_t kLogRevisionsKept = 10'000;

struct KeyValue {
  std::string key;
  std::string value;
  std::int64_t create_rev = 0;
  std::int64_t mod_rev = 0;
  friend bool operator==(const KeyValue&, const KeyValue&) = default;
};

struct RangeResult {
  std::vector<KeyValue> kvs;  // by key
  std::int64_t rev = 0;       // revision of the state that was read
  bool more = false;          // `limit` cut it; go on from the last key + '\0' with at_rev = rev
};

struct Compare {
  enum class Target { kModRev, kAbsent, kValue };
  Target target = Target::kAbsent;
  std::string key;
  std::int64_t mod_rev = 0;
  std::string value;
  static Compare absent(std::string key) { return {Target::kAbsent, std::move(key), 0, {}}; }
  static Compare mod_rev_is(std::string key, std::int64_t rev) { return {Target::kModRev, std::move(key), rev, {}}; }
  static Compare value_is(std::string key, std::string value) {
    return {Target::kValue, std::move(key), 0, std::move(value)};
  }
};

struct Op {
  enum class Kind { kPut, kDelete };
  Kind kind = Kind::kPut;
  std::string key;
  std::string value;
  static Op put(std::string key, std::string value) { return {Kind::kPut, std::move(key), std::move(value)}; }
  static Op erase(std::string key) { return {Kind::kDelete, std::move(key), {}}; }
};

struct Txn {
  std::vector<Compare> compares;
  std::vector<Op> ops;
  // This and `other` together: all or nothing.
  void add(Txn other);
};

enum class TxnOutcome {
  kCommitted,      // durable
  kCompareFailed,  // nothing changed; `current` holds the compared keys as they are (absent ones left out)
  kUnknown,        // may or may not have been applied
  kUnavailable,    // not applied: read-only, disk full, damaged
  kInvalid         // not applied: over a limit, or one key twice
};

struct TxnResult {
  TxnOutcome outcome = TxnOutcome::kUnavailable;
  std::int64_t rev = 0;  // of this transaction when committed
  std::vector<KeyValue> current;
  std::string reason;  // for the last three
  [[nodiscard]] bool committed() const { return outcome == TxnOutcome::kCommitted; }
};

struct WatchEvent {
  std::int64_t rev = 0;
  Op::Kind kind = Op::Kind::kPut;
  std::string key;
  std::string value;  // empty for a delete
  friend bool operator==(const WatchEvent&, const WatchEvent&) = default;
};

struct WatchResult {
  std::vector<WatchEvent> events;  // in revision order, whole revisions only
  std::int64_t next_rev = 0;       // pass this the next time
  bool compacted = false;          // from_rev is gone: read with range() and watch from its revision + 1
  std::int64_t oldest_rev = 0;
};

enum class StoreHealth { kOk, kReadOnly };

struct StoreStatus {
  std::string role;  // "single"
  std::int64_t rev = 0;
  std::int64_t size_bytes = 0;
  StoreHealth health = StoreHealth::kOk;
  std::string reason;  // why read-only, and what to do
};

// All calls may block on the disk (run them off the loop) and may come from any thread.
class Store {
 public:
  virtual ~Store() = default;
  // Keys in [from, to); an empty `to` is the single key `from`; `to` = "\xff" is the end. At most `limit` keys
  // (0: all). `at_rev` 0 is the newest state; another value is served while it still is the newest and is
  // kConflict afterwards (begin the listing again). kUnavailable when the state cannot be read.
  virtual Result<RangeResult> range(std::string_view from, std::string_view to, std::size_t limit = 0,
                                    std::int64_t at_rev = 0) = 0;
  virtual TxnResult txn(const Txn& txn) = 0;
  // What changed below `prefix` at or after `from_rev`, at most `limit` events (whole revisions). Returns at once.
  virtual Result<WatchResult> watch(std::string_view prefix, std::int64_t from_rev, std::size_t limit = 1000) = 0;
  // Forgets the change log below `rev`; the state itself is untouched.
  virtual Result<> compact(std::int64_t rev) = 0;
  virtual StoreStatus status() = 0;
};

// The end of the key range of all keys that begin with `prefix`.
std::string prefix_end(std::string_view prefix);
// The limits above, the same for every backend; empty when the transaction is within them.
std::string txn_over_limit(const Txn& txn);

}  // namespace aiv::controller
