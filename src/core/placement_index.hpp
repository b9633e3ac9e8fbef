// Best fit in a large cluster: ids by a size, found from the smallest size that may do.
//
// A bitmap of ids per bucket of sizes, with a summary bitmap above it, so that a change is two bit flips and the order
// of a walk depends only on what is in it, never on the history (a rolled-back state is equal in every bit). Sizes
// within one bucket are not ordered; the caller checks each id anyway.
#pragma once
#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "core/placement_problem.hpp"

namespace aiv::placement {

class FitIndex {
 public:
  FitIndex() = default;
  FitIndex(std::size_t ids, Bytes size_max) {
    const auto shift_for = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(std::max<Bytes>(1, size_max))));
    shift_ = std::max(0, shift_for - kBucketBits);
    words_ = (ids + 63) / 64;
    summary_words_ = (words_ + 63) / 64;
    bits_.assign(kBuckets * words_, 0);
    summary_.assign(kBuckets * summary_words_, 0);
    bucket_of_.assign(ids, kAbsent);
  }

  void set(Index id, Bytes size) {
    const auto b = static_cast<std::uint16_t>(bucket(size));
    if (bucket_of_[id] == b) return;
    erase(id);
    bucket_of_[id] = b;
    bits_[b * words_ + id / 64] |= bit(id);
    summary_[b * summary_words_ + id / 4096] |= bit(id / 64);
    used_[b / 64] |= bit(b);
  }

  void erase(Index id) {
    const std::size_t b = bucket_of_[id];
    if (b == kAbsent) return;
    bucket_of_[id] = kAbsent;
    std::uint64_t& word = bits_[b * words_ + id / 64];
    word &= ~bit(id);
    if (word != 0) return;
    std::uint64_t& summary = summary_[b * summary_words_ + id / 4096];
    summary &= ~bit(id / 64);
    if (summary != 0) return;
    const auto first = summary_.begin() + static_cast<std::ptrdiff_t>(b * summary_words_);
    if (std::all_of(first, first + static_cast<std::ptrdiff_t>(summary_words_), [](auto w) { return w == 0; })) {
      used_[b / 64] &= ~bit(b);
    }
  }

  // Calls visit(id) for ids of at least about `size` (one bucket less may slip in), smallest bucket first, until it
  // returns true. Within a bucket the walk starts at `from` and wraps at the word level.
  template <class Visit>
  void walk(Bytes size, Index from, Visit&& visit) const {
    for (std::size_t b = next_used(bucket(std::max<Bytes>(0, size))); b < kBuckets; b = next_used(b + 1)) {
      if (walk_bucket(b, from, visit)) return;
    }
  }

  friend bool operator==(const FitIndex&, const FitIndex&) = default;

 private:
  static constexpr int kBucketBits = 11;
  static constexpr std::size_t kBuckets = std::size_t{1} << kBucketBits;
  static constexpr std::uint16_t kAbsent = 0xffff;
  static constexpr std::uint64_t bit(std::size_t i) { return std::uint64_t{1} << (i % 64); }

  [[nodiscard]] std::size_t bucket(Bytes size) const {
    return std::min(kBuckets - 1, static_cast<std::size_t>(static_cast<std::uint64_t>(std::max<Bytes>(0, size)) >> shift_));
  }

  [[nodiscard]] std::size_t next_used(std::size_t b) const {
    for (std::size_t w = b / 64; w < kBuckets / 64; ++w) {
      std::uint64_t word = used_[w];
      if (w == b / 64) word &= ~std::uint64_t{0} << (b % 64);
      if (word != 0) return w * 64 + static_cast<std::size_t>(std::countr_zero(word));
    }
    return kBuckets;
  }

  template <class Visit>
  bool walk_bucket(std::size_t b, Index from, Visit& visit) const {
    const std::size_t start = words_ == 0 ? 0 : (from / 64) % words_;
    return walk_words(b, start, words_, visit) || walk_words(b, 0, start, visit);
  }

  template <class Visit>
  bool walk_words(std::size_t b, std::size_t begin, std::size_t end, Visit& visit) const {
    for (std::size_t s = begin / 64; s < summary_words_ && s * 64 < end; ++s) {
      std::uint64_t live = summary_[b * summary_words_ + s];
      for (; live != 0; live &= live - 1) {
        const std::size_t w = s * 64 + static_cast<std::size_t>(std::countr_zero(live));
        if (w < begin || w >= end) continue;
        for (std::uint64_t word = bits_[b * words_ + w]; word != 0; word &= word - 1) {
          if (visit(static_cast<Index>(w * 64 + static_cast<std::size_t>(std::countr_zero(word))))) return true;
        }
      }
    }
    return false;
  }

  int shift_ = 0;
  std::size_t words_ = 0;
  std::size_t summary_words_ = 0;
  std::vector<std::uint64_t> bits_;
  std::vector<std::uint64_t> summary_;
  std::vector<std::uint64_t> used_ = std::vector<std::uint64_t>(kBuckets / 64, 0);
  std::vector<std::uint16_t> bucket_of_;
};

}  // namespace aiv::placement
