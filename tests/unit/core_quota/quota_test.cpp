#include "core/quota.hpp"

#include <gtest/gtest.h>

namespace aiv {
namespace {

constexpr std::int64_t kDay = 86'400'000;
constexpr QuotaTime at(std::int64_t ms) { return {.monotonic_ms = ms, .unix_ms = 20'000 * kDay + ms}; }

QuotaAccount account(const KeyLimits& limits) {
  QuotaAccount made;
  made.set_limits(limits, at(0));
  return made;
}

TEST(Quota, WithoutLimitsEverythingPasses) {
  QuotaAccount open;
  for (int i = 0; i < 1000; ++i) {
    EXPECT_FALSE(open.refuses(1'000'000, at(0)));
    open.reserve(1'000'000, at(0));
  }
  EXPECT_EQ(open.state(at(0)).limit_requests, -1);
}

TEST(Quota, RequestsAMinuteAreABurstAndThenTheirRate) {
  QuotaAccount a = account({.requests_per_min = 6});
  for (int i = 0; i < 6; ++i) {
    ASSERT_FALSE(a.refuses(10, at(0))) << i;
    a.settle(a.reserve(10, at(0)), 10, at(0));
  }
  const auto refusal = a.refuses(10, at(0));
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->limit, QuotaLimit::kRequestsPerMinute);
  EXPECT_EQ(refusal->allowed, 6);
  EXPECT_EQ(refusal->retry_after_ms, 10'000);
  EXPECT_TRUE(a.refuses(10, at(9'999)));
  EXPECT_FALSE(a.refuses(10, at(10'000)));
  EXPECT_EQ(a.state(at(10'000)).remaining_requests, 1);
  EXPECT_EQ(a.state(at(10'000)).reset_requests_ms, 50'000);
}

TEST(Quota, WhatWasReservedAndNotUsedComesBack) {
  QuotaAccount a = account({.tokens_per_min = 1000});
  const QuotaHold hold = a.reserve(900, at(0));
  EXPECT_TRUE(a.refuses(200, at(0)));
  a.settle(hold, 50, at(0));
  EXPECT_EQ(a.state(at(0)).remaining_tokens, 950);
  EXPECT_FALSE(a.refuses(200, at(0)));
}

TEST(Quota, WhatWasUsedBeyondTheReservationIsADebt) {
  QuotaAccount a = account({.tokens_per_min = 600});
  a.settle(a.reserve(100, at(0)), 1200, at(0));  // 600 in debt
  EXPECT_EQ(a.state(at(0)).remaining_tokens, 0);
  const auto refusal = a.refuses(10, at(0));
  ASSERT_TRUE(refusal);
  EXPECT_EQ(refusal->retry_after_ms, 61'000);
  EXPECT_TRUE(a.refuses(10, at(60'000)));
  EXPECT_FALSE(a.refuses(10, at(61'000)));
}

TEST(Quota, ARequestLargerThanTheBucketWaitsForAFullOneAndIsNotLockedOut) {
  QuotaAccount a = account({.tokens_per_min = 100});
  ASSERT_FALSE(a.refuses(5000, at(0)));
  const QuotaHold hold = a.reserve(5000, at(0));
  a.settle(hold, 40, at(0));
  EXPECT_EQ(a.state(at(0)).remaining_tokens, 60);
  ASSERT_TRUE(a.refuses(5000, at(0)));
  EXPECT_EQ(a.refuses(5000, at(0))->retry_after_ms, 24'000);
  EXPECT_FALSE(a.refuses(5000, at(24'000)));
}

TEST(Quota, SoManyAtOnceAndNotOneMore) {
  QuotaAccount a = account({.concurrency = 2});
  const QuotaHold first = a.reserve(1, at(0));
  a.reserve(1, at(0));
  ASSERT_TRUE(a.refuses(1, at(0)));
  EXPECT_EQ(a.refuses(1, at(0))->limit, QuotaLimit::kConcurrency);
  a.settle(first, 1, at(5));
  EXPECT_FALSE(a.refuses(1, at(5)));
  EXPECT_EQ(a.running(), 1);
}

TEST(Quota, ADayEndsAtMidnightOfUtc) {
  QuotaAccount a = account({.tokens_per_day = 1000});
  a.settle(a.reserve(600, at(0)), 600, at(0));
  ASSERT_TRUE(a.refuses(500, at(3'600'000)));
  EXPECT_EQ(a.refuses(500, at(3'600'000))->limit, QuotaLimit::kTokensPerDay);
  EXPECT_EQ(a.refuses(500, at(3'600'000))->retry_after_ms, kDay - 3'600'000);
  EXPECT_FALSE(a.refuses(400, at(3'600'000)));
  EXPECT_FALSE(a.refuses(1000, at(kDay)));
  EXPECT_EQ(a.used_today(at(0)), 600);
  EXPECT_EQ(a.used_today(at(kDay)), 0);
}

TEST(Quota, WhatRunsIsReservedFromTheDayToo) {
  QuotaAccount a = account({.tokens_per_day = 1000});
  const QuotaHold hold = a.reserve(700, at(0));
  EXPECT_TRUE(a.refuses(400, at(0)));
  a.settle(hold, 100, at(10));
  EXPECT_FALSE(a.refuses(400, at(10)));
}

TEST(Quota, ADaysUseOutlivesARestart) {
  QuotaAccount a = account({.tokens_per_day = 1000});
  a.restore_today(990, at(0));
  EXPECT_TRUE(a.refuses(20, at(0)));
  EXPECT_FALSE(a.refuses(20, at(kDay)));
}

TEST(Quota, TheRefusalNamesTheLimitThatLastsLongest) {
  QuotaAccount a = account({.requests_per_min = 1, .concurrency = 1});
  a.reserve(1, at(0));
  ASSERT_TRUE(a.refuses(1, at(0)));
  EXPECT_EQ(a.refuses(1, at(0))->limit, QuotaLimit::kRequestsPerMinute);
}

TEST(Quota, AChangedLimitIsNoGift) {
  QuotaAccount a = account({.tokens_per_min = 1000});
  a.reserve(1000, at(0));
  a.set_limits({.tokens_per_min = 2000}, at(0));
  EXPECT_EQ(a.state(at(0)).remaining_tokens, 0);
  a.set_limits({.tokens_per_min = 10}, at(60'000));
  EXPECT_EQ(a.state(at(60'000)).remaining_tokens, 10);
}

TEST(Quota, AClockThatJumpsFarBreaksNothing) {
  QuotaAccount a = account({.requests_per_min = 1'000'000'000, .tokens_per_min = 1'000'000'000});
  a.settle(a.reserve(1, at(0)), 1'000'000'000, at(0));
  EXPECT_EQ(a.state(at(100LL * 365 * kDay)).remaining_tokens, 1'000'000'000);
}

TEST(Quota, OfATeamsStatementsTheSmallestCounts) {
  const KeyLimits merged = smaller_limits({.requests_per_min = 10, .tokens_per_min = 0}, {.requests_per_min = 5, .tokens_per_min = 7});
  EXPECT_EQ(merged.requests_per_min, 5);
  EXPECT_EQ(merged.tokens_per_min, 7);
  EXPECT_EQ(merged.concurrency, 0);
}

}  // namespace
}  // namespace aiv
