// The state in memory, for tests and simulation, with scripted failures.
#pragma once
#include <deque>
#include <map>
#include <mutex>

#include "controller/store.hpp"

namespace aiv::controller {

class MemoryStore : public Store {
 public:
  Result<RangeResult> range(std::string_view from, std::string_view to, std::size_t limit,
                            std::int64_t at_rev) override;
  TxnResult txn(const Txn& txn) override;
  Result<WatchResult> watch(std::string_view prefix, std::int64_t from_rev, std::size_t limit) override;
  Result<> compact(std::int64_t rev) override;
  StoreStatus status() override;

  // The next transaction ends so: kUnavailable (not applied), or kUnknown with or without having been applied.
  struct Fault {
    TxnOutcome outcome = TxnOutcome::kUnavailable;
    bool applied = false;
  };
  void fail_next(Fault fault);
  // Every transaction is refused with `reason` until it is called with an empty one.
  void set_read_only(std::string reason);

 private:
  TxnResult apply(const Txn& txn);

  std::mutex mutex_;
  std::map<std::string, KeyValue, std::less<>> kvs_;
  std::deque<WatchEvent> log_;
  std::int64_t rev_ = 0;
  std::int64_t oldest_rev_ = 1;  // of the log
  std::deque<Fault> faults_;
  std::string read_only_;
};

}  // namespace aiv::controller
