#include "core/vram_margin.hpp"

#include <gtest/gtest.h>

namespace aiv {
namespace {

constexpr Bytes kMiBytes = 1 << 20;
constexpr Bytes kCard = 8LL << 30;

MarginHistory history_of(std::size_t count, Bytes residual) {
  MarginHistory h;
  for (std::size_t i = 0; i < count; ++i)
    h = with_residual(std::move(h), 1000 * kMiBytes + residual, 1000 * kMiBytes);
  return h;
}

TEST(VramMargin, nothing_known_means_256_mib) {
  EXPECT_EQ(margin_of({}, kCard, false), 256 * kMiBytes);
}

TEST(VramMargin, twenty_small_residuals_are_trusted) {
  EXPECT_EQ(margin_of(history_of(19, 0), kCard, false), 256 * kMiBytes);
  EXPECT_EQ(margin_of(history_of(20, 0), kCard, false), kCard / 100);
  EXPECT_EQ(margin_of(history_of(20, 0), 2LL << 30, false), 64 * kMiBytes) << "never below 64 MiB";
  EXPECT_EQ(margin_of(history_of(20, 30 * kMiBytes), kCard, false), kCard / 100 + 30 * kMiBytes);
}

TEST(VramMargin, a_display_takes_its_share) {
  EXPECT_EQ(margin_of({}, kCard, true), 256 * kMiBytes + kCard / 1000 * 15);
}

TEST(VramMargin, one_bad_surprise_counts_at_once) {
  const MarginHistory h = with_out_of_memory({}, 6000 * kMiBytes, 5500 * kMiBytes, 256 * kMiBytes);
  EXPECT_TRUE(h.out_of_memory);
  EXPECT_EQ(margin_of(h, kCard, false), 756 * kMiBytes + kCard / 100);
  // Foreign programs took memory between: nothing seems to be missing, yet the same margin is not enough
  // again.
  EXPECT_GT(margin_of(with_out_of_memory({}, 100, 200, 256 * kMiBytes), kCard, false), 256 * kMiBytes);
}

TEST(VramMargin, below_a_thousand_residuals_the_largest_decides_and_beyond_one_in_a_thousand_is_let_go) {
  MarginHistory h = with_residual(history_of(500, 0), 2000 * kMiBytes, 1000 * kMiBytes);
  EXPECT_EQ(margin_of(h, kCard, false), 1000 * kMiBytes + kCard / 100);
  h = history_of(1023, 0);
  h = with_residual(std::move(h), 2000 * kMiBytes, 1000 * kMiBytes);
  EXPECT_EQ(margin_of(h, kCard, false), kCard / 100);
}

TEST(VramMargin, the_history_is_bounded_and_forgets_the_oldest) {
  MarginHistory h = history_of(kResidualsMax, 500 * kMiBytes);
  EXPECT_EQ(h.residuals.size(), kResidualsMax);
  for (std::size_t i = 0; i < kResidualsMax; ++i) h = with_residual(std::move(h), 0, 0);
  EXPECT_EQ(h.residuals.size(), kResidualsMax);
  EXPECT_EQ(margin_of(h, kCard, false), kCard / 100);
}

}  // namespace
}  // namespace aiv
