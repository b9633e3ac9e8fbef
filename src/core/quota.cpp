#include "core/quota.hpp"

#include <algorithm>

namespace aiv {
namespace {

constexpr std::int64_t kMinuteMs = 60'000;
constexpr std::int64_t kScale = 60'000;  // inside a unit has so many parts: one a millisecond at one unit a minute
constexpr std::int64_t kUnitsMax = 1'000'000'000;
constexpr std::int64_t kConcurrencyRetryMs = 1'000;
constexpr std::int64_t kDayMs = 86'400'000;

}  // namespace

std::string_view to_string(QuotaLimit limit) {
  switch (limit) {
    case QuotaLimit::kRequestsPerMinute: return "requests per minute";
    case QuotaLimit::kTokensPerMinute: return "tokens per minute";
    case QuotaLimit::kConcurrency: return "requests at once";
    case QuotaLimit::kTokensPerDay: return "tokens per day";
  }
  return "";
}

// A unit is kScale parts and a bucket of L units a minute gains L parts each millisecond: L * 60000 parts a minute.
std::int64_t RateBucket::level(std::int64_t now_ms) const {
  const std::int64_t full = per_minute_ * kScale;
  // Longer than it takes to fill from the deepest debt makes no difference; bounded, the product cannot overflow.
  const std::int64_t passed = std::clamp<std::int64_t>(now_ms - since_ms_, 0, 1'000 * kMinuteMs);
  return std::min(full, level_ + passed * per_minute_);
}

void RateBucket::set_limit(std::int64_t per_minute, std::int64_t now_ms) {
  per_minute = std::clamp<std::int64_t>(per_minute, 0, kUnitsMax);
  if (per_minute == per_minute_) return;
  const bool first = per_minute_ == 0;
  const std::int64_t full = per_minute * kScale;
  level_ = first ? full : std::min(level(now_ms), full);
  per_minute_ = per_minute;
  since_ms_ = now_ms;
}

std::int64_t RateBucket::wait_ms(std::int64_t units, std::int64_t now_ms) const {
  if (per_minute_ == 0) return 0;
  const std::int64_t missing = std::min(units, per_minute_) * kScale - level(now_ms);
  return missing <= 0 ? 0 : (missing + per_minute_ - 1) / per_minute_;
}

std::int64_t RateBucket::take(std::int64_t units, std::int64_t now_ms) {
  if (per_minute_ == 0) return 0;
  const std::int64_t taken = std::min(units, per_minute_);
  level_ = level(now_ms) - taken * kScale;
  since_ms_ = now_ms;
  return taken;
}

void RateBucket::correct(std::int64_t units, std::int64_t now_ms) {
  if (per_minute_ == 0) return;
  units = std::clamp(units, -kUnitsMax, kUnitsMax);
  level_ = std::min(level(now_ms) + units * kScale, per_minute_ * kScale);
  since_ms_ = now_ms;
}

std::int64_t RateBucket::left(std::int64_t now_ms) const { return std::max<std::int64_t>(level(now_ms), 0) / kScale; }

std::int64_t RateBucket::full_in_ms(std::int64_t now_ms) const {
  if (per_minute_ == 0) return 0;
  return (per_minute_ * kScale - level(now_ms) + per_minute_ - 1) / per_minute_;
}

void QuotaAccount::set_limits(const KeyLimits& limits, QuotaTime now) {
  if (limits == limits_) return;
  limits_ = limits;
  requests_.set_limit(limits.requests_per_min, now.monotonic_ms);
  tokens_.set_limit(limits.tokens_per_min, now.monotonic_ms);
}

std::optional<QuotaRefusal> QuotaAccount::refuses(std::int64_t tokens, QuotaTime now) const {
  std::optional<QuotaRefusal> worst;
  const auto refuse = [&worst](QuotaLimit limit, std::int64_t allowed, std::int64_t wait) {
    if (wait > 0 && (!worst || wait > worst->retry_after_ms)) worst = QuotaRefusal{limit, allowed, wait};
  };
  refuse(QuotaLimit::kRequestsPerMinute, limits_.requests_per_min, requests_.wait_ms(1, now.monotonic_ms));
  refuse(QuotaLimit::kTokensPerMinute, limits_.tokens_per_min, tokens_.wait_ms(tokens, now.monotonic_ms));
  if (limits_.concurrency > 0 && running_ >= limits_.concurrency) {
    refuse(QuotaLimit::kConcurrency, limits_.concurrency, kConcurrencyRetryMs);
  }
  if (limits_.tokens_per_day > 0) {
    const bool today = day_ == day_of(now.unix_ms);
    const std::int64_t spoken_for = (today ? used_today_ : 0) + held_today_;
    // As with the minute: what needs more than a whole day's allowance is admitted on an untouched day.
    const bool fits = spoken_for == 0 || (spoken_for < limits_.tokens_per_day && tokens <= limits_.tokens_per_day - spoken_for);
    if (!fits) refuse(QuotaLimit::kTokensPerDay, limits_.tokens_per_day, kDayMs - now.unix_ms % kDayMs);
  }
  return worst;
}

QuotaHold QuotaAccount::reserve(std::int64_t tokens, QuotaTime now) {
  turn_day(now);
  requests_.take(1, now.monotonic_ms);
  running_ += 1;
  held_today_ += tokens;
  return {.bucket_tokens = tokens_.take(tokens, now.monotonic_ms), .day_tokens = tokens};
}

void QuotaAccount::settle(const QuotaHold& hold, std::int64_t used, QuotaTime now) {
  turn_day(now);
  running_ -= 1;
  held_today_ -= hold.day_tokens;
  used_today_ += used;
  tokens_.correct(hold.bucket_tokens - used, now.monotonic_ms);
}

void QuotaAccount::turn_day(QuotaTime now) {
  const std::int64_t day = day_of(now.unix_ms);
  if (day == day_) return;
  day_ = day;
  used_today_ = 0;
}

QuotaState QuotaAccount::state(QuotaTime now) const {
  QuotaState state;
  if (requests_.limit() > 0) {
    state.limit_requests = requests_.limit();
    state.remaining_requests = requests_.left(now.monotonic_ms);
    state.reset_requests_ms = requests_.full_in_ms(now.monotonic_ms);
  }
  if (tokens_.limit() > 0) {
    state.limit_tokens = tokens_.limit();
    state.remaining_tokens = tokens_.left(now.monotonic_ms);
    state.reset_tokens_ms = tokens_.full_in_ms(now.monotonic_ms);
  }
  return state;
}

std::int64_t QuotaAccount::used_today(QuotaTime now) const { return day_ == day_of(now.unix_ms) ? used_today_ : 0; }

void QuotaAccount::restore_today(std::int64_t tokens, QuotaTime now) {
  turn_day(now);
  used_today_ = tokens;
}

KeyLimits smaller_limits(const KeyLimits& a, const KeyLimits& b) {
  const auto smaller = [](std::int64_t x, std::int64_t y) { return x == 0 ? y : y == 0 ? x : std::min(x, y); };
  return {.requests_per_min = smaller(a.requests_per_min, b.requests_per_min),
          .tokens_per_min = smaller(a.tokens_per_min, b.tokens_per_min),
          .concurrency = smaller(a.concurrency, b.concurrency),
          .tokens_per_day = smaller(a.tokens_per_day, b.tokens_per_day)};
}

}  // namespace aiv
