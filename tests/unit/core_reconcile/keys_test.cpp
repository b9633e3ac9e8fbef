#include "core/keys.hpp"

#include <gtest/gtest.h>

#include "base/hash.hpp"

namespace aiv {
namespace {

ApiKey some_key() { return {"0123456789", std::string(20, 'a') + std::string(23, 'Z')}; }

TEST(ApiKeys, AKeyIsReadBackAsItWasWritten) {
  const std::string text = format_api_key(some_key());
  EXPECT_EQ(text.size(), 4u + 10 + 1 + 43 + 1 + 6);
  EXPECT_TRUE(text.starts_with("aiv-0123456789-"));
  const auto parsed = parse_api_key(text);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(*parsed, some_key());
}

TEST(ApiKeys, EveryChangedCharacterIsNoticed) {
  const std::string text = format_api_key(some_key());
  for (std::size_t i = 0; i < text.size(); ++i) {
    for (const char c : {'0', 'q', '-', ' '}) {
      if (text[i] == c) continue;
      std::string other = text;
      other[i] = c;
      EXPECT_FALSE(parse_api_key(other)) << i << " " << c;
    }
  }
}

TEST(ApiKeys, ReasonsNeverCarryAPartOfTheKey) {
  const std::string text = format_api_key(some_key());
  for (const std::string& bad : {text.substr(1), text + "x", text.substr(0, text.size() - 1) + "!", std::string()}) {
    const auto parsed = parse_api_key(bad);
    ASSERT_FALSE(parsed);
    EXPECT_EQ(parsed.error().message().find("ZZZ"), std::string::npos);
    EXPECT_EQ(parsed.error().message().find("aaaa"), std::string::npos);
  }
}

TEST(ApiKeys, TheCheckIsCrc32OfTheRest) {
  const std::string text = format_api_key(some_key());
  const std::string digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::uint64_t value = 0;
  for (const char c : text.substr(text.size() - 6)) value = value * 62 + digits.find(c);
  EXPECT_EQ(value, crc32(text.substr(0, text.size() - 7)));
}

}  // namespace
}  // namespace aiv
