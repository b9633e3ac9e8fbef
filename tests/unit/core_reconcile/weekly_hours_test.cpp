#include "core/weekly_hours.hpp"

#include <gtest/gtest.h>

namespace aiv {
namespace {

constexpr int at(int day, int hour, int minute = 0) {
  return day * kMinutesPerDay + hour * 60 + minute;
}
enum Day { kMo, kTu, kWe, kTh, kFr, kSa, kSu };

WeeklyHours hours(std::string_view text) {
  auto parsed = WeeklyHours::parse(text);
  EXPECT_TRUE(parsed) << parsed.error().message();
  return parsed ? *parsed : WeeklyHours();
}

TEST(WeeklyHours, BeginWithTheirFirstMinuteAndEndBeforeTheirLast) {
  const WeeklyHours work = hours("Mo-Fr 08-18:30");
  EXPECT_FALSE(work.contain(at(kMo, 7, 59)));
  EXPECT_TRUE(work.contain(at(kMo, 8)));
  EXPECT_TRUE(work.contain(at(kFr, 18, 29)));
  EXPECT_FALSE(work.contain(at(kFr, 18, 30)));
  EXPECT_FALSE(work.contain(at(kSa, 12)));
}

TEST(WeeklyHours, MayGoOverMidnightAndOverTheEndOfTheWeek) {
  const WeeklyHours nights = hours("22-06");
  EXPECT_TRUE(nights.contain(at(kMo, 23)));
  EXPECT_TRUE(nights.contain(at(kTu, 5, 59)));
  EXPECT_FALSE(nights.contain(at(kTu, 6)));
  EXPECT_TRUE(nights.contain(at(kMo, 3))) << "it began on Sunday";
  const WeeklyHours weekend = hours("Sa-Mo 00-24");
  EXPECT_TRUE(weekend.contain(at(kSa, 0)));
  EXPECT_TRUE(weekend.contain(at(kMo, 23, 59)));
  EXPECT_FALSE(weekend.contain(at(kTu, 0)));
}

TEST(WeeklyHours, AreOneOrMorePartsAndKeptAsTheyWereWritten) {
  const WeeklyHours two = hours(" Mo,We 08-10; Su 12-13 ");
  EXPECT_TRUE(two.contain(at(kWe, 9)));
  EXPECT_FALSE(two.contain(at(kTu, 9)));
  EXPECT_TRUE(two.contain(at(kSu, 12)));
  EXPECT_EQ(two.text(), "Mo,We 08-10; Su 12-13");
  EXPECT_EQ(hours(two.text()), two);
}

TEST(WeeklyHours, NoTextIsNeverAndAnUnknownTimeIsInNone) {
  EXPECT_TRUE(hours("  ").empty());
  EXPECT_FALSE(hours("").contain(0));
  EXPECT_FALSE(hours("Mo-Su 00-24").contain(-1));
}

TEST(WeeklyHours, WhatIsNoTimeIsRefusedWithAnExample) {
  for (const char* text : {"Mo-Fr", "Mo-Fr 8", "Xx 08-10", "Mo- 08-10", "08-25", "08-08", "24-06", "08:60-10",
                           "-1-5", ";", "Mo 08-10;", "08-24:30", "Mo\0 08-10", "99999999999-1"}) {
    const auto parsed = WeeklyHours::parse(text);
    ASSERT_FALSE(parsed) << text;
    EXPECT_NE(parsed.error().reason.find("'Mo-Fr 08-18'"), std::string::npos) << text;
  }
  EXPECT_FALSE(WeeklyHours::parse(std::string(201, ' ')));
}

}  // namespace
}  // namespace aiv
