// Where a replica of a model could go now: single devices first, a split where no single device has room.
#pragma once
#include <algorithm>
#include <span>

#include "core/placement_state.hpp"
#include "core/prng.hpp"

namespace aiv::placement {

enum class Taste {
  kBestFit,  // the smallest hole that takes it
  kFastest,  // the place with the most value, then the smallest hole
  kRandom,
  kPriced,  // the most value above the price of the memory; needs Search::prices
};

struct Search {
  Taste taste = Taste::kBestFit;
  Prng* prng = nullptr;              // needed for kRandom, and for noise
  std::span<const Index> nodes{};    // looked at besides the index, where there is one
  std::span<const double> prices{};  // by device, Score per byte (market_prices()); for kPriced
  int tries = 6;                     // places per variant taken from the index
  bool split_first = false;          // split even where one device would do
  Score gain_min = 1;                // places that gain less do not count
};

// What the memory of a replica is worth to others.
[[nodiscard]] double price_at(const Problem& problem, std::span<const double> prices, const Replica& replica);

// One of the tastes that the search can have; where prices are known, every other time by them (by trial on
// sites of 20 nodes).
[[nodiscard]] inline Taste random_taste(Prng& prng, const Search& search) {
  return static_cast<Taste>(search.prices.empty() ? prng.below(3) : std::min(3U, prng.below(6)));
}

struct Place {
  Replica replica;
  Score gain = 0;  // value, plus the price saved by putting a current replica back
  [[nodiscard]] bool found() const { return replica.model != kNone; }
};

// The best way by `search.taste` to put `variant` on `node`; false if there is none now. Looks only at
// memory, backend and buffer limits.
[[nodiscard]] bool fit_on_node(const State& state, Index variant, Index node, const Search& search,
                               Replica& out);

// The best place for one replica more of `model`; not found() if there is none that gains.
[[nodiscard]] Place find_place(const State& state, Index model, const Search& search);

}  // namespace aiv::placement
