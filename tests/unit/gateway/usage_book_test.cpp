#include "gateway/usage_book.hpp"

#include <gtest/gtest.h>

#include "base/units.hpp"

namespace aiv::gateway {
namespace {

TEST(UsageBook, ADayIsTheDateOfItsTimesInUtc) {
  EXPECT_EQ(utc_day(0), "1970-01-01");
  EXPECT_EQ(utc_day(951'782'400'000 - 1), "2000-02-28");
  EXPECT_EQ(utc_day(951'782'400'000), "2000-02-29");
  EXPECT_EQ(utc_day(1'700'000'000'123), "2023-11-14");
  constexpr std::int64_t kStep = 86'400'000 / 2 + 1;
  for (std::int64_t when = 0; when < 200 * 365 * std::int64_t{86'400'000}; when += 97 * kStep) {
    ASSERT_EQ(utc_day(when), rfc3339(when).substr(0, 10)) << when;
  }
}

}  // namespace
}  // namespace aiv::gateway
