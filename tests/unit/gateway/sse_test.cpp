#include "gateway/sse.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace aiv::gateway {
namespace {

const std::string kTokenEvent =
    R"(data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":" \"finish_reason\":\"stop\" "}}],"created":1,"id":"chatcmpl-1","model":"m"})"
    "\n\n";
const std::string kFinishEvent =
    R"(data: {"choices":[{"finish_reason":"length","index":0,"delta":{}}],"model":"m","timings":{"cache_n":3,"prompt_n":40,"prompt_ms":80.5,"predicted_n":24,"predicted_ms":480.25}})"
    "\n\n";

TEST(Sse, EventsAreClassifiedByTheirOwnKeysNotByTheTextTheyCarry) {
  EXPECT_EQ(classify_event(kTokenEvent), SseEvent::kToken);
  EXPECT_EQ(classify_event(kFinishEvent), SseEvent::kFinish);
  EXPECT_EQ(classify_event("data: [DONE]\n\n"), SseEvent::kDone);
  EXPECT_EQ(classify_event("data: {\"error\":{\"code\":500}}\n\n"), SseEvent::kError);
  EXPECT_EQ(classify_event("error: {\"code\":500}\n\n"), SseEvent::kError);
  EXPECT_EQ(classify_event(":\n\n"), SseEvent::kComment);
  EXPECT_EQ(classify_event("data: {\"choices\":[],\"usage\":{}}\n\n"), SseEvent::kOther);
  EXPECT_EQ(classify_event("data: {\"finish_reason\" : null}\n\n"), SseEvent::kToken);
  EXPECT_EQ(classify_event("\n\n"), SseEvent::kComment);
}

TEST(Sse, AnEventIsWholeOnlyWithItsEmptyLine) {
  EXPECT_EQ(next_event("data: a\n"), 0u);
  EXPECT_EQ(next_event("data: a\n\ndata: b"), 9u);
  EXPECT_EQ(next_event(""), 0u);
}

TEST(Sse, AStreamCutAnywhereGivesTheSameEvents) {
  const std::string stream = kTokenEvent + ":\n\n" + kFinishEvent + "data: [DONE]\n\n";
  const auto events_of = [](const std::vector<std::string>& pieces) {
    std::string buffer;
    std::vector<std::string> events;
    for (const std::string& piece : pieces) {
      buffer += piece;
      while (const std::size_t size = next_event(buffer)) {
        events.push_back(buffer.substr(0, size));
        buffer.erase(0, size);
      }
    }
    EXPECT_TRUE(buffer.empty());
    return events;
  };
  const auto whole = events_of({stream});
  ASSERT_EQ(whole.size(), 4u);
  for (std::size_t cut = 0; cut <= stream.size(); ++cut) {
    EXPECT_EQ(events_of({stream.substr(0, cut), stream.substr(cut)}), whole) << cut;
  }
}

TEST(Sse, TimingsAreFoundInTheLastEvent) {
  const auto timings = find_timings(event_data(kFinishEvent));
  ASSERT_TRUE(timings);
  EXPECT_EQ(timings->prompt_tokens, 40);
  EXPECT_EQ(timings->cached_tokens, 3);
  EXPECT_EQ(timings->generated_tokens, 24);
  EXPECT_DOUBLE_EQ(timings->prompt_ms, 80.5);
  EXPECT_DOUBLE_EQ(timings->generated_ms, 480.25);
}

TEST(Sse, UsageServesWhereThereAreNoTimings) {
  const auto usage = find_timings(R"({"usage":{"completion_tokens":7,"prompt_tokens":9,"total_tokens":16}})");
  ASSERT_TRUE(usage);
  EXPECT_EQ(usage->prompt_tokens, 9);
  EXPECT_EQ(usage->generated_tokens, 7);
  EXPECT_FALSE(find_timings(R"({"usage":null})"));
  EXPECT_FALSE(find_timings(R"({"content":"\"timings\":{\"prompt_n\":5}"})"));
}

TEST(Sse, TheModelsNameIsReplacedOnlyWhereItIsTheKeysValue) {
  std::string out;
  append_with_model(out, R"({"content":"\"model\":\"x\"","model":"engine-name","id":1})", "mine:latest");
  EXPECT_EQ(out, R"({"content":"\"model\":\"x\"","model":"mine:latest","id":1})");
  out.clear();
  append_with_model(out, R"({"id":1})", "mine");
  EXPECT_EQ(out, R"({"id":1})");
}

TEST(Sse, AKeyIsFoundWhereItIsAKeyAndNowhereElse) {
  const auto value = [](std::string_view json, std::string_view key, std::size_t from = 0) {
    const std::size_t at = find_json_value(json, key, from);
    return at == std::string_view::npos ? std::string("none") : std::string(json.substr(at, 1));
  };
  EXPECT_EQ(value(R"("a":1)", "a"), "1");
  EXPECT_EQ(value("{\"a\" \t: \t2}", "a"), "2");
  EXPECT_EQ(value(R"({"aa":1,"ba":2,"a":3})", "a"), "3");
  EXPECT_EQ(value(R"({"x":"a","y":"\"a\":1","a":4})", "a"), "4");
  EXPECT_EQ(value(R"({"a":1,"a":2})", "a", 5), "2");
  EXPECT_EQ(value(R"({"a":1})", "a", 2), "none") << "its beginning lies before";
  EXPECT_EQ(value(R"(a":1)", "a"), "none");
  EXPECT_EQ(value(R"({"b":1})", "a"), "none");
  EXPECT_EQ(value(":", "a"), "none");
  EXPECT_EQ(value("", "a"), "none");
  EXPECT_EQ(find_json_value(R"({"a":)", "a"), 5U) << "behind the end: nothing has come of it yet";
}

TEST(Sse, AnEventEndsWithAnEmptyLine) {
  EXPECT_EQ(next_event("data: x\n\ndata: y\n\n"), 9U);
  EXPECT_EQ(next_event("event: a\ndata: x\n\n"), 18U);
  EXPECT_EQ(next_event("\n\n"), 2U);
  for (const char* open : {"", "\n", "data: x", "data: x\n", "a\nb\nc\n"}) EXPECT_EQ(next_event(open), 0U) << open;
}

TEST(Sse, BrokenTextIsNeverReadBeyondItsEnd) {
  for (std::size_t cut = 0; cut <= kFinishEvent.size(); ++cut) {
    const std::string part = kFinishEvent.substr(0, cut);
    const bool ended = classify_event(part) == SseEvent::kFinish;
    const bool timed = find_timings(part).has_value();
    EXPECT_TRUE(!timed || ended);
    std::string out;
    append_with_model(out, part, "name");
    EXPECT_FALSE(cut > 0 && out.empty());
  }
}

}  // namespace
}  // namespace aiv::gateway
