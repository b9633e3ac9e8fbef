// What happened, for people: the newest events in memory, numbered within this start of the controller's epoch, and a
// way to wait for more. Events explain; the audit records in the store prove.
#pragma once
#include <deque>
#include <set>
#include <string>
#include <vector>

#include "net/async.hpp"

namespace aiv::controller {

struct EventEntry {
  std::int64_t seq = 0;
  std::int64_t unix_ms = 0;
  std::string kind;
  std::string subject;
  std::string reason;
  std::string cause;
};

class EventLog {
 public:
  // Numbers go on over restarts: the first one is above every one of an earlier epoch.
  void begin(std::int64_t epoch) { first_seq_ = next_seq_ = epoch * kSeqPerEpoch + 1; }
  void add(EventEntry entry);
  // Events of earlier starts, oldest first, before any of this one.
  void restore(std::vector<EventEntry> earlier);
  // Events after `seq`, oldest first, at most `limit` of the newest.
  [[nodiscard]] std::vector<EventEntry> since(std::int64_t seq, std::size_t limit) const;
  // The first of this start.
  [[nodiscard]] std::int64_t first_seq() const { return first_seq_; }
  [[nodiscard]] std::int64_t last_seq() const { return next_seq_ - 1; }

  // A waiter's signal is notified at each new event while it lives.
  class Subscription {
   public:
    Subscription(EventLog& log, net::Executor executor) : log_(log), signal_(executor) { log_.waiters_.insert(&signal_); }
    ~Subscription() { log_.waiters_.erase(&signal_); }
    Subscription(const Subscription&) = delete;
    Subscription& operator=(const Subscription&) = delete;
    net::Signal& signal() { return signal_; }

   private:
    EventLog& log_;
    net::Signal signal_;
  };

 private:
  static constexpr std::size_t kKept = 5'000;
  static constexpr std::int64_t kSeqPerEpoch = 1'000'000'000;
  std::deque<EventEntry> entries_;
  std::int64_t next_seq_ = 1;
  std::int64_t first_seq_ = 1;
  std::set<net::Signal*> waiters_;
};

}  // namespace aiv::controller
