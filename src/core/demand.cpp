#include "core/demand.hpp"

#include <algorithm>
#include <bit>

namespace aiv {

namespace {

// One step of an exponential mean: after `dt` the sample has the weight dt / (tau + dt). The remainder is
// rounded to the nearest, so that a constant input is reached and kept.
std::int64_t blend(std::int64_t mean, std::int64_t sample, std::int64_t dt_ms, std::int64_t tau_ms) {
  const std::int64_t whole = tau_ms + dt_ms;
  const std::int64_t step = (sample - mean) * dt_ms;
  return mean + (step >= 0 ? step + whole / 2 : step - whole / 2) / whole;
}

}  // namespace

std::size_t IdleHistogram::bucket_of(std::int64_t gap_ms) {
  const auto seconds = static_cast<std::uint64_t>(std::max<std::int64_t>(0, gap_ms) / 1000);
  return std::min<std::size_t>(static_cast<std::size_t>(std::bit_width(seconds)), kBuckets - 1);
}

void IdleHistogram::add(std::int64_t gap_ms) {
  ++counts_[bucket_of(gap_ms)];
}

std::int64_t IdleHistogram::total() const {
  std::int64_t sum = 0;
  for (const std::int64_t count : counts_) sum += count;
  return sum;
}

std::int64_t IdleHistogram::reuse_permille(std::int64_t idle_ms, std::int64_t horizon_ms) const {
  const std::size_t from = bucket_of(idle_ms);
  const std::size_t to = bucket_of(idle_ms + horizon_ms);
  std::int64_t soon = 0;
  std::int64_t all = 0;
  for (std::size_t i = from; i < kBuckets; ++i) {
    all += counts_[i];
    if (i <= to) soon += counts_[i];
  }
  return 1000 * (soon + 1) / (all + 2);
}

void Demand::add_to_pieces(std::int64_t concurrency_milli, std::int64_t interval_ms) {
  while (interval_ms > 0) {
    const std::int64_t part = std::min(interval_ms, settings_.piece_ms - piece_ms_);
    piece_sum_ += concurrency_milli * part;
    piece_ms_ += part;
    interval_ms -= part;
    if (piece_ms_ < settings_.piece_ms) return;
    const std::int64_t mean = piece_sum_ / piece_ms_;
    if (pieces_.size() < kPieces)
      pieces_.push_back(mean);
    else
      pieces_[next_] = mean;
    next_ = (next_ + 1) % kPieces;
    piece_sum_ = piece_ms_ = 0;
  }
}

void Demand::observe(const LoadSample& sample, std::int64_t now_ms) {
  const std::int64_t interval = std::clamp<std::int64_t>(sample.interval_ms, 1, settings_.sample_max_ms);
  const std::int64_t real = std::max<std::int64_t>(sample.interval_ms, 1);
  const auto per_interval = [&](std::int64_t count) {
    return std::max<std::int64_t>(0, count) * 1000 / real;
  };
  const std::int64_t concurrency = per_interval(sample.running_ms) + per_interval(sample.waiting_ms);
  if (!known()) {
    first_ms_ = now_ms;
    fast_milli_ = concurrency;
  }
  fast_milli_ = blend(fast_milli_, concurrency, interval, settings_.fast_ms);
  const auto rate = [&](std::int64_t mean, std::int64_t count) {
    return blend(mean, per_interval(count) * 1000, interval, settings_.fast_ms);
  };
  prefill_milli_ = rate(prefill_milli_, sample.prompt_tokens);
  decode_milli_ = rate(decode_milli_, sample.output_tokens);
  arrivals_milli_ = rate(arrivals_milli_, sample.arrivals);
  add_to_pieces(concurrency, interval);
  running_ = std::max(0, sample.running);
  waiting_ = std::max(0, sample.waiting);
  turned_away_ = static_cast<int>(std::clamp<std::int64_t>(sample.turned_away, 0, 1'000'000));
  if (turned_away_ > 0) turned_away_ms_ = now_ms;
  if (running_ == 0 && waiting_ == 0 && turned_away_ == 0 && concurrency == 0 && sample.arrivals <= 0) return;
  const std::int64_t before = active_ms_ < 0 ? first_ms_ : active_ms_;
  if (now_ms - before > real) gaps_.add(now_ms - real - before);
  active_ms_ = now_ms;
}

std::int64_t Demand::base_milli() const {
  if (pieces_.empty()) return fast_milli_;
  std::vector<std::int64_t> sorted = pieces_;
  std::ranges::sort(sorted);
  const auto rank = (sorted.size() * static_cast<std::size_t>(settings_.base_percent) + 99) / 100;
  return sorted[std::max<std::size_t>(rank, 1) - 1];
}

std::int64_t Demand::planning_milli() const {
  return std::max(fast_milli_, base_milli());
}

std::int64_t Demand::idle_ms(std::int64_t now_ms) const {
  if (!known() || running_ > 0 || waiting_ > 0) return 0;
  return now_ms - (active_ms_ < 0 ? first_ms_ : active_ms_);
}

bool leaves_band(std::int64_t planned_milli, std::int64_t now_milli, int band_percent) {
  const std::int64_t away = now_milli > planned_milli ? now_milli - planned_milli : planned_milli - now_milli;
  return away * 100 > planned_milli * band_percent;
}

}  // namespace aiv
