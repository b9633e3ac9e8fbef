#include "core/load_progress.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace aiv {
namespace {

TEST(LoadProgress, IsSaidInStepsAsANumberAndInWords) {
  EXPECT_EQ(load_percent(0), 0);
  EXPECT_EQ(load_percent(0.09), 0);
  EXPECT_EQ(load_percent(0.47), 40);
  EXPECT_EQ(load_percent(1), 100);
  EXPECT_EQ(load_percent(7), 100);
  EXPECT_EQ(load_percent(-1), 0);
  EXPECT_EQ(load_percent(std::numeric_limits<double>::quiet_NaN()), 0);
  EXPECT_EQ(load_reason("lab-pc3", 0), "loading on lab-pc3");
  EXPECT_EQ(load_reason("lab-pc3", 40), "loading on lab-pc3, 40 % done");
}

TEST(LoadWatch, KnowsNothingOfALoadThatHasJustBegunOrOfNone) {
  LoadWatch watch;
  EXPECT_EQ(watch.rest_ms(5'000), std::nullopt);
  watch.loading(10'000, std::nullopt);
  EXPECT_EQ(watch.rest_ms(10'500), std::nullopt);
  watch.stop();
  EXPECT_EQ(watch.rest_ms(60'000), std::nullopt);
}

TEST(LoadWatch, WithoutAPaceTheWaitToComeIsTheWaitSoFar) {
  LoadWatch watch;
  watch.loading(10'000, 20);
  EXPECT_EQ(watch.rest_ms(18'000), 8'000);
}

TEST(LoadWatch, WithTwoFiguresTheRestFollowsFromThePace) {
  LoadWatch watch;
  watch.loading(0, std::nullopt);
  watch.loading(4'000, 20);  // 0.2 s a per cent
  EXPECT_EQ(watch.rest_ms(4'000), 16'000);
  EXPECT_EQ(watch.rest_ms(5'000), 15'000) << "time that passes counts";
  watch.loading(5'500, 20);  // the same figure again is no step
  EXPECT_EQ(watch.rest_ms(6'000), 14'000);
  watch.loading(20'000, 60);  // slower now: 20 s for 60 %
  EXPECT_NEAR(*watch.rest_ms(20'000), 13'333, 1);
  EXPECT_EQ(watch.rest_ms(500'000), 0) << "never negative";
}

TEST(LoadWatch, ALoadThatBeginsAnewIsMeasuredAnew) {
  LoadWatch watch;
  watch.loading(0, 10);
  watch.loading(1'000, 90);
  watch.loading(2'000, std::nullopt);  // failed there, and again from nothing
  EXPECT_EQ(watch.rest_ms(2'500), std::nullopt);
  EXPECT_EQ(watch.rest_ms(12'000), 10'000);
}

}  // namespace
}  // namespace aiv
