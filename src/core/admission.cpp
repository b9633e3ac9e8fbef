#include "core/admission.hpp"

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "base/result.hpp"

namespace aiv {

bool AdmissionQueue::push(QueuedRequest request, int places) {
  if (!request.front && size_ >= places) return false;
  request.cost_tokens = std::clamp<std::int64_t>(request.cost_tokens, 1, kCostTokensMax);
  size_ += 1;
  waiting_tokens_ += request.cost_tokens;
  if (request.front) {
    front_.push_back(std::move(request));
    return true;
  }
  const auto [key, fresh] = keys_.try_emplace(request.key_id);
  if (fresh) round_.push_back(request.key_id);
  key->second.requests.push_back(std::move(request));
  return true;
}

std::optional<std::uint64_t> AdmissionQueue::peek() {
  if (!front_.empty()) return front_.front().ticket;
  if (round_.empty()) return std::nullopt;
  // With k keys and the largest cost c this ends after at most k * c / quantum steps; a head that nobody can afford
  // yet just lets the round go on.
  while (true) {
    KeyQueue& key = keys_.at(round_.front());
    const QueuedRequest& head = key.requests.front();
    if (key.deficit >= head.cost_tokens) return head.ticket;
    key.deficit += kQuantumTokens;
    if (key.deficit >= head.cost_tokens) return head.ticket;
    round_.splice(round_.end(), round_, round_.begin());
  }
}

std::optional<std::uint64_t> AdmissionQueue::displaced_by(const std::string& key_id) const {
  const auto own = keys_.find(key_id);
  std::size_t most = (own == keys_.end() ? 0 : own->second.requests.size()) + 1;
  std::optional<std::uint64_t> ticket;
  for (const auto& [id, key] : keys_) {
    if (key.requests.size() <= most) continue;
    most = key.requests.size();
    ticket = key.requests.back().ticket;
  }
  return ticket;
}

void AdmissionQueue::take(std::uint64_t ticket) {
  if (!front_.empty()) {
    AIV_ASSERT(front_.front().ticket == ticket);
    uncount(front_.front());
    front_.pop_front();
    return;
  }
  AIV_ASSERT(!round_.empty());
  const auto key = keys_.find(round_.front());
  AIV_ASSERT(key->second.requests.front().ticket == ticket);
  key->second.deficit -= key->second.requests.front().cost_tokens;
  uncount(key->second.requests.front());
  key->second.requests.pop_front();
  // The turn goes on while the deficit lasts; with the head of the queue out of reach it is the next key's.
  const bool spent = !key->second.requests.empty() && key->second.deficit < key->second.requests.front().cost_tokens;
  if (spent) round_.splice(round_.end(), round_, round_.begin());
  forget_if_empty(key);
}

bool AdmissionQueue::remove(std::uint64_t ticket) {
  const auto is_it = [ticket](const QueuedRequest& r) { return r.ticket == ticket; };
  if (const auto found = std::find_if(front_.begin(), front_.end(), is_it); found != front_.end()) {
    uncount(*found);
    front_.erase(found);
    return true;
  }
  for (auto key = keys_.begin(); key != keys_.end(); ++key) {
    auto& requests = key->second.requests;
    const auto found = std::find_if(requests.begin(), requests.end(), is_it);
    if (found == requests.end()) continue;
    uncount(*found);
    requests.erase(found);
    forget_if_empty(key);
    return true;
  }
  return false;
}

std::vector<std::uint64_t> AdmissionQueue::expire(std::int64_t now_ms) {
  std::vector<std::uint64_t> expired;
  const auto collect = [&](const std::deque<QueuedRequest>& requests) {
    for (const QueuedRequest& r : requests) {
      if (r.deadline_ms <= now_ms) expired.push_back(r.ticket);
    }
  };
  collect(front_);
  for (const auto& [id, key] : keys_) collect(key.requests);
  std::sort(expired.begin(), expired.end());
  for (const std::uint64_t ticket : expired) remove(ticket);
  return expired;
}

void AdmissionQueue::forget_if_empty(std::map<std::string, KeyQueue>::iterator key) {
  if (!key->second.requests.empty()) return;
  // A key that comes back starts without credit: what it did not use it does not save up.
  round_.remove(key->first);
  keys_.erase(key);
}

void AdmissionQueue::uncount(const QueuedRequest& request) {
  size_ -= 1;
  waiting_tokens_ -= request.cost_tokens;
}

bool AdmissionQueue::consistent() const {
  std::set<std::uint64_t> tickets;
  std::size_t count = front_.size();
  std::int64_t tokens = 0;
  for (const QueuedRequest& r : front_) {
    tickets.insert(r.ticket);
    tokens += r.cost_tokens;
  }
  for (const auto& [id, key] : keys_) {
    if (key.requests.empty()) return false;
    if (std::count(round_.begin(), round_.end(), id) != 1) return false;
    count += key.requests.size();
    for (const QueuedRequest& r : key.requests) {
      tickets.insert(r.ticket);
      tokens += r.cost_tokens;
    }
  }
  return count == static_cast<std::size_t>(size_) && tickets.size() == count && tokens == waiting_tokens_ &&
         round_.size() == keys_.size();
}

int retry_after_s(double predicted_wait_ms, std::uint64_t random) {
  const double jitter = 1.0 + 0.25 * static_cast<double>(random % 1024) / 1024.0;
  const double seconds = std::ceil(std::max(0.0, predicted_wait_ms) * jitter / 1000.0);
  return static_cast<int>(std::clamp(seconds, 1.0, 60.0));
}

}  // namespace aiv
