#include "base/units.hpp"

#include <gtest/gtest.h>

namespace aiv {
namespace {

TEST(Units, SizesAreReadWithBinaryAndDecimalUnits) {
  EXPECT_EQ(parse_bytes("8GiB").value(), 8 * kGiB);
  EXPECT_EQ(parse_bytes("512 MiB").value(), 512 * kMiB);
  EXPECT_EQ(parse_bytes("1.5GiB").value(), kGiB + kGiB / 2);
  EXPECT_EQ(parse_bytes("4GB").value(), 4'000'000'000);
  EXPECT_EQ(parse_bytes("123").value(), 123);
}

TEST(Units, ASizeThatIsNoneIsRefusedWithAnExample) {
  for (const char* bad : {"", "GiB", "-1GiB", "8 bananas", "1e400", "nan", "inf", "99999999TiB", "8GiB "}) {
    const auto result = parse_bytes(bad);
    ASSERT_FALSE(result) << bad;
    EXPECT_NE(result.error().reason.find("8GiB"), std::string::npos) << bad;
  }
}

TEST(Units, ABareNumberIsNoDuration) {
  EXPECT_EQ(parse_duration_ms("250ms").value(), 250);
  EXPECT_EQ(parse_duration_ms("30s").value(), 30'000);
  EXPECT_EQ(parse_duration_ms("2h").value(), 7'200'000);
  EXPECT_FALSE(parse_duration_ms("30"));
}

TEST(Units, ForeignTextCannotReachTheTerminalRaw) {
  EXPECT_EQ(printable("a\x1b[31mb\n"), "a\\x1b[31mb\\x0a");
  EXPECT_EQ(printable("äöü", 2), "ä...");
}

TEST(Units, TimesAreRfc3339InUtc) { EXPECT_EQ(rfc3339(1'700'000'000'123), "2023-11-14T22:13:20.123Z"); }

}  // namespace
}  // namespace aiv
