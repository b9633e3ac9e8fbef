// Who waits for a slot, in which order, and for how long: one bounded queue per model.
//
// SPECIFICATION
//
// - A request is bound to a replica when a slot is free for it, not when it arrives (late binding). Until then it
//   stands here. Rationale: a request bound early waits behind a replica that turned slow or died.
//
// - At most max(16, 4 x slots) requests wait per model; the next one is refused at once, with the predicted wait.
//   Rationale: a queue that is longer than what clients wait for only produces timeouts.
//
// - Order: first in, first out within a key; between keys deficit round robin by estimated tokens. Each turn a key's
//   deficit grows by kQuantumTokens; its head goes when the deficit covers its cost. Rationale: one user with 200
//   requests in parallel delays another user by about one request, not by 200.
//   A request that goes to the front (a stream that must be resumed) goes before all of them.
//
// - Each has a deadline; expired ones are taken out by expire() and answered 503.
//
// - Determinism: keys are served in the order in which they joined the round, nothing depends on addresses or hashes.
//   push, pop, remove: O(log keys + the key's own queue); the bounds above keep both small.
#pragma once
#include <cstdint>
#include <deque>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace aiv {

inline constexpr std::int64_t kQuantumTokens = 512;
inline constexpr std::int64_t kCostTokensMax = 1 << 17;  // bounds the rounds that one request may take
inline constexpr int kQueuePlacesMin = 16;
inline constexpr int kQueuePlacesPerSlot = 4;
inline constexpr std::int64_t kQueueDeadlineMs = 30'000;

[[nodiscard]] constexpr int queue_places(int slots) {
  const int scaled = kQueuePlacesPerSlot * slots;
  return scaled > kQueuePlacesMin ? scaled : kQueuePlacesMin;
}

struct QueuedRequest {
  std::uint64_t ticket = 0;  // the caller's, unique
  std::string key_id;        // whose turn it uses
  std::int64_t cost_tokens = 1;
  std::int64_t deadline_ms = 0;
  bool front = false;
};

class AdmissionQueue {
 public:
  // False when there is no place (front ones always have one: they were admitted before).
  bool push(QueuedRequest request, int places);
  // The next to be served, left in place; nullopt when nobody waits. Calling it again without take() gives the same.
  [[nodiscard]] std::optional<std::uint64_t> peek();
  // Who gives up his place in a full queue to `key_id`: the newest request of the key with the most waiting, if that
  // key has more than one place more. Rationale: places are shared like turns; one user with 200 requests must not fill
  // the queue so that nobody else gets in. nullopt: nobody, the newcomer is refused.
  [[nodiscard]] std::optional<std::uint64_t> displaced_by(const std::string& key_id) const;
  // Removes what peek() named and charges its key.
  void take(std::uint64_t ticket);
  // Takes one out wherever it stands (its client left); false if it is not here.
  bool remove(std::uint64_t ticket);
  // All whose deadline has passed, in ticket order; they are removed.
  std::vector<std::uint64_t> expire(std::int64_t now_ms);
  [[nodiscard]] int size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] std::int64_t waiting_tokens() const { return waiting_tokens_; }
  // Every key in the round has requests, counts add up, no ticket twice; for tests.
  [[nodiscard]] bool consistent() const;

 private:
  struct KeyQueue {
    std::deque<QueuedRequest> requests;
    std::int64_t deficit = 0;
  };
  void forget_if_empty(std::map<std::string, KeyQueue>::iterator key);
  void uncount(const QueuedRequest& request);

  std::deque<QueuedRequest> front_;
  std::map<std::string, KeyQueue> keys_;
  std::list<std::string> round_;  // keys with requests; the first one's turn it is
  int size_ = 0;
  std::int64_t waiting_tokens_ = 0;
};

// What a client that must wait is told: whole seconds from 1 to 60, rounded up, plus 0-25 % drawn from `random` so
// that those refused together do not return together. SDKs do not retry at all above a limit of theirs (60 s).
int retry_after_s(double predicted_wait_ms, std::uint64_t random);

}  // namespace aiv
