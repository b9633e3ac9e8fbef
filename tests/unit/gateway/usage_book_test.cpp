#include "gateway/usage_book.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <boost/asio/io_context.hpp>
#include <filesystem>

#include "base/file.hpp"
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

Json usage_row(const char* day, const char* key, Json team, const char* model, int requests, int tokens) {
  return {{"day", day},  {"key", key},           {"name", std::string("name of ") + key}, {"team", std::move(team)}, {"user", ""}, {"model", model},
          {"requests", requests}, {"prompt_tokens", tokens}, {"generated_tokens", 2 * tokens}};
}

TEST(UsageBook, AddsUpEachDayByOneField) {
  const Json rows = Json::array({usage_row("2026-11-22", "a", "robots", "m", 1, 10), usage_row("2026-11-22", "a", "robots", "n", 2, 20),
                                 usage_row("2026-11-22", "b", "", "m", 4, 40), usage_row("2026-11-21", "a", "robots", "m", 8, 80)});
  const Json teams = sum_usage(rows, "team");
  ASSERT_EQ(teams.size(), 3U) << teams.dump();
  EXPECT_EQ(teams[0]["team"], "");
  EXPECT_EQ(teams[1]["team"], "robots");
  EXPECT_EQ(teams[1]["requests"], 3);
  EXPECT_EQ(teams[1]["prompt_tokens"], 30);
  EXPECT_EQ(teams[1]["generated_tokens"], 60);
  EXPECT_FALSE(teams[1].contains("key"));
  EXPECT_EQ(teams[2]["day"], "2026-11-21");
  EXPECT_EQ(teams[2]["requests"], 8);
  const Json keys = sum_usage(rows, "key");
  ASSERT_EQ(keys.size(), 3U);
  EXPECT_EQ(keys[0]["name"], "name of a");
  EXPECT_TRUE(is_usage_group("user"));
  EXPECT_FALSE(is_usage_group("day"));
}

TEST(UsageBook, KeepsTheTeamThatARequestCountedForAndReadsRowsWithoutOne) {
  char folder[] = "/tmp/aiv-usage-XXXXXX";
  ASSERT_NE(mkdtemp(folder), nullptr);
  const std::string directory = folder;
  constexpr std::int64_t kNow = 1'700'000'000'000;
  ASSERT_TRUE(write_file_durably(directory + "/" + utc_day(kNow) + ".json",
                                 R"({"rows":[{"key":"old","user":"","model":"m","requests":1,"prompt_tokens":2,"generated_tokens":3}]})"));
  boost::asio::io_context context{1};
  {
    UsageBook book(context.get_executor(), directory);
    ASSERT_TRUE(book.load(kNow));
    EXPECT_EQ(book.today().begin()->first.team, std::nullopt);
    book.add({"k", "", "m", "robots"}, {.requests = 1, .prompt_tokens = 5, .generated_tokens = 6}, kNow);
    book.add({"k", "", "m", "humans"}, {.requests = 1, .prompt_tokens = 7, .generated_tokens = 8}, kNow);
    ASSERT_TRUE(book.flush());
  }
  UsageBook again(context.get_executor(), directory);
  ASSERT_TRUE(again.load(kNow));
  std::map<std::string, std::int64_t> prompt;
  for (const auto& [key, count] : again.today()) prompt[key.team.value_or("-")] += count.prompt_tokens;
  EXPECT_EQ(prompt, (std::map<std::string, std::int64_t>{{"-", 2}, {"humans", 7}, {"robots", 5}}));
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace aiv::gateway
