// How much of a deployment is asked for: what the gateway counted, smoothed.
//
// SPECIFICATION
//
// - Demand is how many requests are in the system at once (running or waiting), in thousandths:
// "milli-requests". By
//   Little's law that is arrival rate times time in the system, so it counts slow cards and long answers by
//   itself. Rationale: a slot is what a replica offers, so demand and supply have one unit.
// - Two figures: `fast`, an exponential mean of 30 s, follows a rise; `base`, the 90th percentile of the last
// 10 min in
//   pieces of 10 s, keeps what was needed often. planning() = the larger of the two. Rationale: quick up,
//   slow down.
// - A planned demand is replaced only by one outside a band of 15 % around it (leaves_band()), so noise moves
// nothing.
// - Who asks for a model without a replica waits only if he streams; the others are told when to come back. Such a
//   one counts as somebody who waits for ask_again_ms: a model for whole requests alone would never be loaded.
// - Whole numbers only: the same samples give the same figures on every compiler.
// - A sample longer than sample_max_ms counts as that long, a negative count as 0: a gateway that was away
// for an hour
//   does not wipe out what was known.
//
// Memory per deployment: kPieces + a few words. Complexity: observe() amortised constant; planning() kPieces
// log kPieces.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

namespace aiv {

// What a gateway counted of one deployment since its sample before. Integrals are over the interval, in ms
// times requests: two requests that ran for 300 ms of it make 600.
struct ReplicaLoad {
  std::string replica;
  int running = 0;  // requests on it now
  friend bool operator==(const ReplicaLoad&, const ReplicaLoad&) = default;
};
struct LoadSample {
  std::string deployment;
  std::int64_t interval_ms = 0;
  std::int64_t arrivals = 0;
  std::int64_t turned_away = 0;    // told to come back, because there was no replica
  std::int64_t prompt_tokens = 0;  // of requests that ended in the interval
  std::int64_t output_tokens = 0;
  std::int64_t running_ms = 0;  // integral of the requests on replicas
  std::int64_t waiting_ms = 0;  // integral of those in the queue
  int running = 0;              // now
  int waiting = 0;
  std::vector<ReplicaLoad> replicas;
  friend bool operator==(const LoadSample&, const LoadSample&) = default;
};

struct DemandSettings {
  std::int64_t fast_ms = 30'000;
  std::int64_t piece_ms = 10'000;
  std::int64_t sample_max_ms = 60'000;
  int base_percent = 90;
  int band_percent = 15;
  std::int64_t ask_again_ms = 30'000;  // as long as a stream would have waited
};

// Idle gaps of a deployment, for "how likely is it asked for again soon?": counts by powers of two of a
// second.
class IdleHistogram {
 public:
  void add(std::int64_t gap_ms);
  // Chance, in thousandths, that a gap that has lasted `idle_ms` ends within the next `horizon_ms`. With
  // nothing known 500; one imaginary gap of either kind is counted in (Laplace), so it is never 0 or 1000.
  [[nodiscard]] std::int64_t reuse_permille(std::int64_t idle_ms, std::int64_t horizon_ms) const;
  [[nodiscard]] std::int64_t total() const;

 private:
  static constexpr std::size_t kBuckets = 22;  // up to 2^21 s, 24 days
  static std::size_t bucket_of(std::int64_t gap_ms);
  std::array<std::int64_t, kBuckets> counts_{};
};

class Demand {
 public:
  explicit Demand(DemandSettings settings = {}) : settings_(settings) {}
  // `now_ms` of a clock that never goes back.
  void observe(const LoadSample& sample, std::int64_t now_ms);

  [[nodiscard]] std::int64_t fast_milli() const { return fast_milli_; }
  [[nodiscard]] std::int64_t base_milli() const;
  [[nodiscard]] std::int64_t planning_milli() const;
  [[nodiscard]] int running() const { return running_; }
  [[nodiscard]] int waiting() const { return waiting_; }
  // Somebody waits, or was turned away so short a time ago that he may come back (ask_again_ms).
  [[nodiscard]] bool asked_for(std::int64_t now_ms) const {
    return waiting_ > 0 || (turned_away_ms_ >= 0 && now_ms - turned_away_ms_ <= settings_.ask_again_ms);
  }
  // Of the newest sample.
  [[nodiscard]] int turned_away() const { return turned_away_; }
  [[nodiscard]] bool known() const { return first_ms_ >= 0; }
  // How long samples have come; -1 without any.
  [[nodiscard]] std::int64_t known_for_ms(std::int64_t now_ms) const {
    return known() ? now_ms - first_ms_ : -1;
  }
  // 0 while anything runs or waits; since the first sample if nothing ever did.
  [[nodiscard]] std::int64_t idle_ms(std::int64_t now_ms) const;
  [[nodiscard]] const IdleHistogram& gaps() const { return gaps_; }
  // Tokens per second, in thousandths, means of `fast_ms`; for people and for Little's law, decides nothing.
  [[nodiscard]] std::int64_t prefill_milli_per_s() const { return prefill_milli_; }
  [[nodiscard]] std::int64_t decode_milli_per_s() const { return decode_milli_; }
  [[nodiscard]] std::int64_t arrivals_milli_per_s() const { return arrivals_milli_; }

 private:
  static constexpr std::size_t kPieces = 60;
  void add_to_pieces(std::int64_t concurrency_milli, std::int64_t interval_ms);

  DemandSettings settings_;
  std::int64_t fast_milli_ = 0;
  std::int64_t prefill_milli_ = 0, decode_milli_ = 0, arrivals_milli_ = 0;
  std::vector<std::int64_t> pieces_;  // a ring of means, newest at next_ - 1
  std::size_t next_ = 0;
  std::int64_t piece_sum_ = 0, piece_ms_ = 0;  // of the piece that is being filled
  std::int64_t first_ms_ = -1, active_ms_ = -1;
  std::int64_t turned_away_ms_ = -1;
  int running_ = 0, waiting_ = 0, turned_away_ = 0;
  IdleHistogram gaps_;
};

// True when `now` lies more than `band_percent` of `planned` away from it (0 is left by anything above 0).
[[nodiscard]] bool leaves_band(std::int64_t planned_milli, std::int64_t now_milli, int band_percent);

}  // namespace aiv
