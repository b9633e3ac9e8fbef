#include "core/eviction.hpp"

#include <algorithm>
#include <span>
#include <tuple>

namespace aiv {

namespace {

struct Set {
  std::int64_t loss = 0;
  std::size_t count = 0;
  Bytes freed = 0;
  std::uint32_t mask = 0;
  // Less loss, then fewer replicas, then fewer bytes; the mask makes the choice definite.
  friend bool operator<(const Set& a, const Set& b) {
    return std::tie(a.loss, a.count, a.freed, a.mask) < std::tie(b.loss, b.count, b.freed, b.mask);
  }
};

Bytes bytes_on(const EvictionCandidate& candidate, const std::string& device) {
  const auto found = candidate.bytes.find(device);
  return found == candidate.bytes.end() ? 0 : found->second;
}

// Where the new replica could go: one device, or those of a split.
using Place = std::span<const EvictionDevice>;

Bytes missing_on(const EvictionDevice& device) {
  return device.needed_bytes - device.free_bytes;
}

bool has_room(Place place) {
  return std::ranges::all_of(place, [](const EvictionDevice& device) { return missing_on(device) <= 0; });
}

// The candidates on devices of the place where room is missing, the least worth first.
std::vector<const EvictionCandidate*> candidates_on(const EvictionInput& input, Place place) {
  std::vector<const EvictionCandidate*> out;
  for (const EvictionCandidate& candidate : input.candidates) {
    const bool helps = std::ranges::any_of(place, [&](const EvictionDevice& device) {
      return missing_on(device) > 0 && bytes_on(candidate, device.id) > 0;
    });
    if (helps) out.push_back(&candidate);
  }
  std::ranges::sort(out, [](const EvictionCandidate* a, const EvictionCandidate* b) {
    const std::int64_t worth_a = worth_of(*a);
    const std::int64_t worth_b = worth_of(*b);
    return worth_a != worth_b ? worth_a < worth_b : a->replica < b->replica;
  });
  return out;
}

bool is_enough(const std::vector<const EvictionCandidate*>& gone, Place place) {
  return std::ranges::all_of(place, [&](const EvictionDevice& device) {
    Bytes freed = 0;
    for (const EvictionCandidate* candidate : gone) freed += bytes_on(*candidate, device.id);
    return freed >= missing_on(device);
  });
}

// Of more than can be tried in all sets: as they come, the least worth first, until it is enough; then those that
// turned out not to be needed stay, the most worth first. Empty: all together are not enough.
std::vector<const EvictionCandidate*> one_after_another(const std::vector<const EvictionCandidate*>& candidates,
                                                        Place place, const std::map<std::string, int>& spare) {
  std::vector<const EvictionCandidate*> gone;
  std::map<std::string, int> lost;
  for (const EvictionCandidate* candidate : candidates) {
    if (is_enough(gone, place)) break;
    const auto may = spare.find(candidate->deployment);
    if (may == spare.end() || lost[candidate->deployment] >= may->second) continue;
    ++lost[candidate->deployment];
    gone.push_back(candidate);
  }
  if (!is_enough(gone, place)) return {};
  for (std::size_t i = gone.size(); i-- > 0;) {
    std::vector<const EvictionCandidate*> fewer = gone;
    fewer.erase(fewer.begin() + static_cast<std::ptrdiff_t>(i));
    if (is_enough(fewer, place)) gone = std::move(fewer);
  }
  return gone;
}

// Nothing if a deployment would lose more than it has to spare, or a device of the place had too little room
// all the same.
std::optional<Set> set_of(std::uint32_t mask, const std::vector<const EvictionCandidate*>& candidates,
                          Place place, const std::map<std::string, int>& spare) {
  Set set;
  set.mask = mask;
  std::map<std::string, int> lost;
  for (std::size_t i = 0; i < candidates.size(); ++i) {
    if ((mask & (1U << i)) == 0) continue;
    const EvictionCandidate& candidate = *candidates[i];
    const auto may = spare.find(candidate.deployment);
    if (may == spare.end() || ++lost[candidate.deployment] > may->second) return std::nullopt;
    set.loss += worth_of(candidate);
    ++set.count;
  }
  for (const EvictionDevice& device : place) {
    Bytes freed = 0;
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if ((mask & (1U << i)) != 0) freed += bytes_on(*candidates[i], device.id);
    }
    if (freed < missing_on(device)) return std::nullopt;
    set.freed += freed;
  }
  return set;
}

Eviction eviction_of(const std::vector<const EvictionCandidate*>& gone, Place place) {
  Eviction out;
  for (const EvictionDevice& device : place) {
    out.devices.push_back(device.id);
    for (const EvictionCandidate* candidate : gone) out.freed_bytes += bytes_on(*candidate, device.id);
  }
  for (const EvictionCandidate* candidate : gone) {
    out.loss += worth_of(*candidate);
    out.replicas.push_back(candidate->replica);
  }
  std::ranges::sort(out.replicas);
  return out;
}

// Nothing: it cannot be cleared.
std::optional<Eviction> clear_place(const EvictionInput& input, Place place) {
  const auto all = candidates_on(input, place);
  auto candidates = all;
  if (candidates.size() > kEvictionExactMax) candidates.resize(kEvictionExactMax);
  std::optional<Set> best;
  for (std::uint32_t mask = 1; mask < (1U << candidates.size()); ++mask) {
    const auto set = set_of(mask, candidates, place, input.spare);
    if (set && (!best || *set < *best)) best = set;
  }
  std::vector<const EvictionCandidate*> gone;
  if (best) {
    for (std::size_t i = 0; i < candidates.size(); ++i) {
      if ((best->mask & (1U << i)) != 0) gone.push_back(candidates[i]);
    }
  } else if (all.size() > candidates.size()) {
    gone = one_after_another(all, place, input.spare);
  }
  if (gone.empty()) return std::nullopt;
  return eviction_of(gone, place);
}

// The place that is cleared with the least loss; a hole that is there first.
std::optional<Eviction> choose_among(const EvictionInput& input, const std::vector<Place>& places) {
  for (const Place place : places) {
    if (!has_room(place)) continue;
    Eviction hole;
    for (const EvictionDevice& device : place) hole.devices.push_back(device.id);
    return hole;
  }
  std::optional<Eviction> best;
  for (const Place place : places) {
    auto eviction = clear_place(input, place);
    if (!eviction) continue;
    const auto key = [](const Eviction& e) {
      return std::tuple(e.loss, e.replicas.size(), e.freed_bytes, e.devices);
    };
    if (!best || key(*eviction) < key(*best)) best = std::move(eviction);
  }
  return best;
}

}  // namespace

std::int64_t worth_of(const EvictionCandidate& candidate) {
  // Bounded so that the product of three and a sum of twelve stay far below 2^63.
  const std::int64_t weight = std::clamp<std::int64_t>(candidate.weight, 1, 1'000'000);
  const std::int64_t reload = std::clamp<std::int64_t>(candidate.reload_ms, 1, 3'600'000);
  return weight * std::clamp<std::int64_t>(candidate.reuse_permille, 1, 1000) * reload / 1000;
}

std::optional<Eviction> choose_evictions(const EvictionInput& input) {
  std::vector<Place> places;
  for (const EvictionDevice& device : input.devices) {
    if (device.needed_bytes > 0) places.emplace_back(&device, 1);
  }
  if (auto eviction = choose_among(input, places)) return eviction;
  places.assign(input.splits.begin(), input.splits.end());
  return choose_among(input, places);
}

}  // namespace aiv
