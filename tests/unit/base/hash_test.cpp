#include "base/hash.hpp"

#include <gtest/gtest.h>

namespace aiv {
namespace {

TEST(Hash, KnownAnswers) {
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(crc32("123456789"), 0xCBF43926U);
  EXPECT_EQ(fnv1a(""), 0xcbf29ce484222325ULL);
}

TEST(Hash, ComparisonSeesEveryDifference) {
  EXPECT_TRUE(equal_constant_time("same", "same"));
  EXPECT_FALSE(equal_constant_time("same", "sama"));
  EXPECT_FALSE(equal_constant_time("same", "sam"));
}

TEST(Hash, RandomTextUsesOnlyTheAlphabetAndDoesNotRepeat) {
  const std::string a = random_base62(43);
  EXPECT_EQ(a.size(), 43U);
  EXPECT_NE(a, random_base62(43));
  for (const char c : a) EXPECT_TRUE(std::isalnum(static_cast<unsigned char>(c)));
}

}  // namespace
}  // namespace aiv
