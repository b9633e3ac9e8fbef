#include "core/load_progress.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace aiv {
namespace {

TEST(LoadProgress, IsSaidInStepsAndReadBackFromTheSameWords) {
  EXPECT_EQ(load_reason("lab-pc3", 0), "loading on lab-pc3");
  EXPECT_EQ(load_reason("lab-pc3", 0.09), "loading on lab-pc3");
  EXPECT_EQ(load_reason("lab-pc3", 0.47), "loading on lab-pc3, 40 % done");
  EXPECT_EQ(load_reason("lab-pc3", 7), "loading on lab-pc3, 100 % done");
  EXPECT_EQ(load_reason("lab-pc3", std::numeric_limits<double>::quiet_NaN()), "loading on lab-pc3");
  for (const double progress : {0.1, 0.25, 0.5, 0.99, 1.0}) {
    EXPECT_EQ(load_percent(load_reason("a, 3 % done", progress)), static_cast<int>(progress * 10) * 10);
  }
}

TEST(LoadProgress, OtherReasonsSayNoPercentage) {
  for (const char* reason :
       {"", "waiting for node n1", "loading on n1", "loading on n1, x % done", "loading on n1,  % done",
        "loading on n1, 400 % done", "loading on n1, -5 % done", "45 % done", "loading on n1, 45 % of it"}) {
    EXPECT_EQ(load_percent(reason), std::nullopt) << reason;
  }
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
