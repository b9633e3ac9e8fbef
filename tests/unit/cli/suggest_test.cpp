#include "cli/suggest.hpp"

#include <gtest/gtest.h>

#include "cli/table.hpp"

namespace aiv::cli {
namespace {

TEST(Suggest, ATypoFindsItsName) {
  const std::vector<std::string> verbs{"up", "down", "ps", "chat", "estimate", "version"};
  EXPECT_EQ(nearest("estimtae", verbs), "estimate");
  EXPECT_EQ(nearest("donw", verbs), "down");
  EXPECT_EQ(nearest("vesrion", verbs), "version");
}

TEST(Suggest, SomethingElseEntirelyFindsNothing) {
  EXPECT_EQ(nearest("frobnicate", {"up", "down", "chat"}), "");
  EXPECT_EQ(nearest("--colour", {"--replicas", "--ctx"}), "");
}

TEST(Suggest, TheDistanceIsThatOfLevenshtein) {
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3U);
  EXPECT_EQ(edit_distance("", "abc"), 3U);
  EXPECT_EQ(edit_distance("same", "same"), 0U);
}

TEST(Table, ColumnsAlignAlsoWithLettersOfSeveralBytes) {
  Table table({"NAME", "STATE"});
  table.add({"größe", "ready"});
  table.add({"a", "x"});
  EXPECT_EQ(table.text(), "NAME   STATE\ngröße  ready\na      x\n");
}

}  // namespace
}  // namespace aiv::cli
