#include "controller/event_log.hpp"

namespace aiv::controller {

void EventLog::add(EventEntry entry) {
  entry.seq = next_seq_++;
  entries_.push_back(std::move(entry));
  if (entries_.size() > kKept) entries_.pop_front();
  for (net::Signal* waiter : waiters_) waiter->notify();
}

void EventLog::restore(std::vector<EventEntry> earlier) {
  const std::int64_t before = entries_.empty() ? next_seq_ : entries_.front().seq;
  for (auto it = earlier.rbegin(); it != earlier.rend() && entries_.size() < kKept; ++it) {
    if (it->seq < before) entries_.push_front(std::move(*it));
  }
}

std::vector<EventEntry> EventLog::since(std::int64_t seq, std::size_t limit) const {
  std::vector<EventEntry> out;
  for (auto it = entries_.rbegin(); it != entries_.rend() && it->seq > seq && out.size() < limit; ++it) {
    out.push_back(*it);
  }
  return {out.rbegin(), out.rend()};
}

}  // namespace aiv::controller
