#include "base/json.hpp"

#include <gtest/gtest.h>

namespace aiv {
namespace {

TEST(ParseJson, RefusesWhatIsNotOneSoundDocument) {
  for (const char* bad : {"", "{", "{} x", "{\"a\":1,\"a\":2}", "[1e999]", "\"\xff\"", "{\"a\":NaN}", "[1,]"}) {
    EXPECT_FALSE(parse_json(bad)) << bad;
  }
}

TEST(ParseJson, DepthIsBounded) {
  std::string deep(65, '[');
  deep += std::string(65, ']');
  EXPECT_FALSE(parse_json(deep));
  EXPECT_TRUE(parse_json(deep.substr(1, 128)));
  const std::string very_deep(1'000'000, '[');
  EXPECT_FALSE(parse_json(very_deep));
}

TEST(JsonReader, NamesThePathOfTheFirstFault) {
  const Json json = parse_json(R"({"name":"x","list":[{"n":1},{"n":-5}]})").value();
  JsonReader reader(json, "doc");
  EXPECT_EQ(reader.string("name"), "x");
  JsonReader child(reader.array("list")[1], reader.path_of("list") + "[1]");
  child.integer("n", 0, 10);
  reader.absorb(child);
  ASSERT_FALSE(reader.ok());
  EXPECT_EQ(reader.error().where, "doc.list[1].n");
}

TEST(JsonReader, RefusesUnknownFieldsOnlyWhenAsked) {
  const Json json = parse_json(R"({"a":1,"b":2})").value();
  JsonReader reader(json, "");
  reader.integer("a", 0, 9);
  EXPECT_TRUE(reader.ok());
  reader.refuse_unknown();
  EXPECT_EQ(reader.error().where, "b");
}

TEST(JsonReader, AHugeUnsignedNumberDoesNotWrap) {
  const Json json = parse_json(R"({"a":18446744073709551615})").value();
  JsonReader reader(json, "");
  reader.integer("a", 0, 100);
  EXPECT_FALSE(reader.ok());
}

}  // namespace
}  // namespace aiv
