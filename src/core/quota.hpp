// How much a key, or a team of keys, may use: requests and tokens a minute, requests at once, tokens a day.
//
// SPECIFICATION
//
// - At admission what a request may use at most is reserved (its prompt and its longest answer); at its end, however it
//   ended, the reservation is replaced by what was used. Rationale: charged only afterwards, a burst of requests
//   would pass together; charged by the reservation, short answers would be paid as long ones.
// - Per minute: a bucket that holds one minute's allowance and fills evenly. A request that needs more than a full
//   bucket is admitted when the bucket is full and leaves it empty, so that a limit smaller than one long answer
//   slows a key down and does not lock it out. What was used beyond the reservation makes a debt that is filled first.
// - Per day: counted from 00:00 UTC. A request that is running at midnight counts for the day on which it ends.
// - A request counts against all its accounts (key and team) or against none; the refusal names the limit whose wait is
//   the longest.
// - Integers only; times are given. A unit is kept in 60,000 parts, so that the slowest rate gains one in each
//   millisecond and nothing is rounded away. O(1) for each call.
#pragma once
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/documents.hpp"

namespace aiv {

enum class QuotaLimit : std::uint8_t { kRequestsPerMinute, kTokensPerMinute, kConcurrency, kTokensPerDay };
// "requests per minute" ...
[[nodiscard]] std::string_view to_string(QuotaLimit limit);

// The two clocks of a decision, milliseconds.
struct QuotaTime {
  std::int64_t monotonic_ms = 0;
  std::int64_t unix_ms = 0;
};

struct QuotaRefusal {
  QuotaLimit limit = QuotaLimit::kRequestsPerMinute;
  std::int64_t allowed = 0;        // the limit itself
  std::int64_t retry_after_ms = 0;  // when it would be admitted if nothing else happened; 1 s for concurrency
};

// What is left, for the headers of an answer. -1: without limit.
struct QuotaState {
  std::int64_t limit_requests = -1;
  std::int64_t remaining_requests = -1;
  std::int64_t reset_requests_ms = 0;  // until the bucket is full
  std::int64_t limit_tokens = -1;
  std::int64_t remaining_tokens = -1;
  std::int64_t reset_tokens_ms = 0;
};

// A level that fills evenly up to `per_minute` units within a minute.
class RateBucket {
 public:
  void set_limit(std::int64_t per_minute, std::int64_t now_ms);  // 0: no limit
  [[nodiscard]] std::int64_t limit() const { return per_minute_; }
  // Milliseconds until `units` can be taken; 0 = now.
  [[nodiscard]] std::int64_t wait_ms(std::int64_t units, std::int64_t now_ms) const;
  // Takes `units`, at most a full bucket; returns how many were taken.
  std::int64_t take(std::int64_t units, std::int64_t now_ms);
  // Gives back (positive) or charges on top (negative).
  void correct(std::int64_t units, std::int64_t now_ms);
  [[nodiscard]] std::int64_t left(std::int64_t now_ms) const;      // whole units, never negative
  [[nodiscard]] std::int64_t full_in_ms(std::int64_t now_ms) const;

 private:
  [[nodiscard]] std::int64_t level(std::int64_t now_ms) const;
  std::int64_t per_minute_ = 0;
  std::int64_t level_ = 0;  // parts, at since_ms_
  std::int64_t since_ms_ = 0;
};

// What one request has reserved of one account.
struct QuotaHold {
  std::int64_t bucket_tokens = 0;  // taken from the minute's bucket
  std::int64_t day_tokens = 0;
};

class QuotaAccount {
 public:
  void set_limits(const KeyLimits& limits, QuotaTime now);
  [[nodiscard]] const KeyLimits& limits() const { return limits_; }
  // Whether a request that may use `tokens` is admitted; nullopt: yes. Changes nothing.
  [[nodiscard]] std::optional<QuotaRefusal> refuses(std::int64_t tokens, QuotaTime now) const;
  QuotaHold reserve(std::int64_t tokens, QuotaTime now);
  // Exactly once for each reserve().
  void settle(const QuotaHold& hold, std::int64_t used, QuotaTime now);
  [[nodiscard]] QuotaState state(QuotaTime now) const;
  [[nodiscard]] std::int64_t running() const { return running_; }
  // Tokens of today, settled; kept over restarts by the caller.
  [[nodiscard]] std::int64_t used_today(QuotaTime now) const;
  void restore_today(std::int64_t tokens, QuotaTime now);

 private:
  void turn_day(QuotaTime now);
  KeyLimits limits_;
  RateBucket requests_;
  RateBucket tokens_;
  std::int64_t running_ = 0;
  std::int64_t day_ = 0;
  std::int64_t used_today_ = 0;
  std::int64_t held_today_ = 0;
};

// Of two statements of one limit the smaller; 0 is none.
[[nodiscard]] KeyLimits smaller_limits(const KeyLimits& a, const KeyLimits& b);

// Days since 1970 in UTC.
[[nodiscard]] constexpr std::int64_t day_of(std::int64_t unix_ms) { return unix_ms / 86'400'000; }

}  // namespace aiv
