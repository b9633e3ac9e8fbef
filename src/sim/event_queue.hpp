// The virtual clock: events in order of time, those of one time in the order in which they were scheduled.
#pragma once
#include <algorithm>
#include <cstdint>
#include <functional>
#include <utility>
#include <vector>

#include "base/result.hpp"

namespace aiv::sim {

class EventQueue {
 public:
  using Action = std::function<void()>;

  [[nodiscard]] std::int64_t now_ms() const { return now_ms_; }
  [[nodiscard]] std::int64_t ran() const { return ran_; }

  void at(std::int64_t when_ms, Action action) {
    heap_.push_back({std::max(when_ms, now_ms_), next_++, std::move(action)});
    std::push_heap(heap_.begin(), heap_.end(), later);
  }
  void after(std::int64_t delay_ms, Action action) {
    at(now_ms_ + std::max<std::int64_t>(0, delay_ms), std::move(action));
  }

  // Runs the next event that is due at or before `until_ms`; false when there is none (the clock then stands
  // at it).
  bool step(std::int64_t until_ms) {
    if (heap_.empty() || heap_.front().when_ms > until_ms) {
      now_ms_ = std::max(now_ms_, until_ms);
      return false;
    }
    std::pop_heap(heap_.begin(), heap_.end(), later);
    Entry entry = std::move(heap_.back());
    heap_.pop_back();
    now_ms_ = entry.when_ms;
    ++ran_;
    entry.action();
    return true;
  }

 private:
  struct Entry {
    std::int64_t when_ms = 0;
    std::uint64_t no = 0;
    Action action;
  };
  static bool later(const Entry& a, const Entry& b) {
    return a.when_ms != b.when_ms ? a.when_ms > b.when_ms : a.no > b.no;
  }

  std::vector<Entry> heap_;
  std::uint64_t next_ = 0;
  std::int64_t now_ms_ = 0;
  std::int64_t ran_ = 0;
};

}  // namespace aiv::sim
