// Which idle replicas are unloaded to make room for one that is waited for.
//
// SPECIFICATION
//
// - Candidates only: never busy, never pinned, of no higher priority than who asks, not loaded a moment ago (young),
//   and never below the floor of their deployment: its replicas_min, and at least one while it is not idle.
// - Worth of keeping one = weight (its priority) * chance that it is asked for again within the horizon (IdleHistogram) *
// (what loading
//   it again would cost, in ms). The loss of a set is the sum; the set with the least loss that frees enough
//   is taken, then the one with the fewest replicas, then fewer bytes, then by id. That is value per byte
//   (GreedyDual-Size) where holes can be combined freely, and exact where they cannot. Rationale: the least
//   recently used one may be what is asked for next and takes longest to load.
// - Exact over at most kEvictionExactMax candidates per place: the ones least worth; 2^12 sets take a few
// milliseconds at most. Where those do not free enough all are taken in that order until it is enough, less the ones
// that turn out not to be needed: large models on a card full of small ones are not kept waiting.
// - A hole that is there already costs nothing: then the answer is an empty set.
// - A device takes the new replica, or the devices of a split together: each of them needs its part's room.
// Splits are looked at
//   only where no single device can be cleared, because a split is as slow as its slowest card.
//
// Pure and deterministic: whole numbers, ties by id.
#pragma once
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/documents.hpp"

namespace aiv {

struct EvictionCandidate {
  std::string replica;
  std::string deployment;
  std::map<std::string, Bytes> bytes;  // by device
  std::int64_t weight = 1;
  std::int64_t reuse_permille = 500;
  std::int64_t reload_ms = 10'000;
  std::int64_t idle_ms = 0;
};

struct EvictionDevice {
  std::string id;
  std::string node;
  Bytes free_bytes = 0;    // of the budget, now; memory on its way back counted as free
  Bytes needed_bytes = 0;  // what the new replica takes on it, its overhead included; 0 = cannot run there
};

// Devices of one node that would hold a part of the new replica each.
using EvictionSplit = std::vector<EvictionDevice>;

struct EvictionInput {
  std::vector<EvictionDevice> devices;  // that could hold it alone
  std::vector<EvictionSplit> splits;
  std::vector<EvictionCandidate> candidates;
  // How many replicas each deployment may lose.
  std::map<std::string, int> spare;
};

struct Eviction {
  std::vector<std::string> devices;   // one, or those of a split
  std::vector<std::string> replicas;  // empty: there is a hole already
  Bytes freed_bytes = 0;              // on these devices together
  std::int64_t loss = 0;              // sum of worths
};

inline constexpr std::size_t kEvictionExactMax = 12;

// Worth of keeping it: weight * reuse_permille * reload_ms. No unit but comparable.
[[nodiscard]] std::int64_t worth_of(const EvictionCandidate& candidate);

// Nothing: no set of candidates frees enough anywhere.
[[nodiscard]] std::optional<Eviction> choose_evictions(const EvictionInput& input);

}  // namespace aiv
