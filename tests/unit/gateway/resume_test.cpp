// A stream whose replica breaks is continued on another one: what the client sees, and when it is refused.
#include <gtest/gtest.h>

#include "gateway/journal.hpp"
#include "scripted_agent.hpp"

namespace aiv::gateway::test {
namespace {

constexpr const char* kStream = R"("stream":true)";
constexpr const char* kWithUsage = R"("stream":true,"stream_options":{"include_usage":true})";

GatewayOptions quick_options() {
  GatewayOptions options;
  options.auth = false;
  options.stall_ms_min = 100;
  options.survivor_wait_ms = 3000;
  return options;
}

std::vector<Json> events_of(const Answer& answer) {
  std::vector<Json> events;
  for (std::size_t at = 0; (at = answer.body.find("data: {", at)) != std::string::npos;) {
    const std::size_t end = answer.body.find("\n\n", at);
    events.push_back(parse_json(answer.body.substr(at + 6, end - at - 6)).value_or(Json()));
    at = end;
  }
  return events;
}

std::string text_of(const Answer& answer) {
  std::string text;
  for (const Json& event : events_of(answer)) {
    if (!event.contains("choices") || event["choices"].empty()) continue;
    const Json& choice = event["choices"][0];
    if (choice.contains("text")) text += choice["text"].get<std::string>();
    if (choice.contains("delta") && choice["delta"].contains("content")) text += choice["delta"]["content"].get<std::string>();
  }
  return text;
}

std::string expected(int tokens) {
  std::string text;
  for (int n = 0; n < tokens; ++n) text += "t" + std::to_string(n);
  return text;
}

class ResumeTest : public ::testing::Test {
 protected:
  Cluster cluster{quick_options()};

  // Two agents of ten tokens each; the first is asked first.
  std::pair<Agent*, Agent*> two(bool equal = false) {
    Agent* first = &cluster.add_agent("a");
    Agent* second = &cluster.add_agent("b");
    for (Agent* agent : {first, second}) {
      agent->script.tokens = 10;
      agent->script.token_ms = 1;
    }
    RouteTable table = cluster.table(4);
    if (!equal) table.models[0].replicas[0].relative_speed = 50;
    cluster.apply(table);
    return {first, second};
  }
  // Of all agents: the first is asked first, then the second.
  void publish_in_order() {
    RouteTable table = cluster.table(4);
    table.models[0].replicas[0].relative_speed = 50;
    table.models[0].replicas[1].relative_speed = 40;
    cluster.apply(table);
  }
  int busy() {
    int busy = 0;
    for (const auto& replica : cluster.state().dispatcher.find("m")->replicas) busy += replica->ledger.busy();
    return busy;
  }
  ModelMetrics& metrics() { return cluster.state().metrics.model("m"); }
};

void expect_unbroken(const Answer& answer, int tokens) {
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(text_of(answer), expected(tokens)) << answer.body;
  EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n")) << answer.body;
  EXPECT_EQ(answer.body.find("\"error\""), std::string::npos) << answer.body;
  int finishes = 0;
  std::string first;
  for (const Json& event : events_of(answer)) {
    const std::string same = event.value("id", "") + "/" + std::to_string(event.value("created", 0)) + "/" + event.value("model", "");
    if (first.empty()) first = same;
    EXPECT_EQ(same, first);
    if (!event["choices"].empty() && !event["choices"][0]["finish_reason"].is_null()) ++finishes;
  }
  EXPECT_EQ(finishes, 1);
}

TEST_F(ResumeTest, HoweverAReplicaBreaksTheClientSeesOneUnbrokenStream) {
  for (int fault = 0; fault < 5; ++fault) {
    for (int cut = 1; cut <= 10; cut += 3) {
      Cluster fresh(quick_options());
      Agent& a = fresh.add_agent("a");
      Agent& b = fresh.add_agent("b");
      a.script.tokens = b.script.tokens = 10;
      a.script.token_ms = 2;  // a reset may overtake what was written at the same moment
      Script& s = a.script;
      (fault == 0 ? s.die_at : fault == 1 ? s.eof_at : fault == 2 ? s.exit_at : fault == 3 ? s.error_at : s.stall_at) = cut;
      RouteTable table = fresh.table(4);
      table.models[0].replicas[0].relative_speed = 50;
      fresh.apply(table);
      const Answer answer = fresh.chat(kStream);
      SCOPED_TRACE("fault " + std::to_string(fault) + " cut " + std::to_string(cut));
      expect_unbroken(answer, 10);
      ASSERT_EQ(b.paths.size(), 3U);
      EXPECT_EQ(b.paths[2], "/node/v1/replicas/b-r/completion");
      // Only to be compared: the prompt and the ids of what was delivered.
      const Json asked = parse_json(b.bodies[2]).value_or(Json());
      ASSERT_TRUE(asked["prompt"].is_array()) << b.bodies[2];
      EXPECT_EQ(asked["prompt"][0], "PROMPT:");
      EXPECT_EQ(asked["prompt"].size(), static_cast<std::size_t>(cut) + 1);
      EXPECT_EQ(asked["prompt"][1], 100);
    }
  }
}

TEST_F(ResumeTest, TheLimitIsLessWhatWasDeliveredAndUsageIsCountedOnce) {
  const auto [a, b] = two();
  a->script.eof_at = 4;
  const Answer answer = cluster.chat(std::string(kWithUsage) + R"(,"max_tokens":50,"temperature":0,"seed":7,"stop":["zz"])");
  expect_unbroken(answer, 10);
  const Json asked = parse_json(b->bodies.back()).value_or(Json());
  EXPECT_EQ(asked["n_predict"], 46);
  EXPECT_EQ(asked["temperature"], 0);
  EXPECT_NE(asked["seed"], 7);
  EXPECT_EQ(asked["stop"][0], "zz");
  EXPECT_FALSE(asked.contains("messages"));
  const Json usage = events_of(answer).back()["usage"];
  EXPECT_EQ(usage["prompt_tokens"], 7);
  EXPECT_EQ(usage["completion_tokens"], 10);
  EXPECT_EQ(usage["total_tokens"], 17);
  EXPECT_EQ(metrics().generation_tokens, 10U);
  EXPECT_EQ(metrics().prompt_tokens, 7U);
  EXPECT_EQ(metrics().resumes, 1U);
  EXPECT_EQ(metrics().resumes_recovered, 1U);
  EXPECT_EQ(metrics().streams_broken, 0U);
  EXPECT_EQ(busy(), 0);
}

TEST_F(ResumeTest, NothingIsAskedWhenTheLimitIsReachedAlready) {
  const auto [a, b] = two();
  a->script.eof_at = 4;
  const Answer answer = cluster.chat(std::string(kStream) + R"(,"max_tokens":4)");
  EXPECT_EQ(text_of(answer), expected(4));
  EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n"));
  EXPECT_EQ(events_of(answer).back()["choices"][0]["finish_reason"], "length");
  for (const std::string& path : b->paths) EXPECT_FALSE(path.ends_with("/completion"));
}

TEST_F(ResumeTest, ATokenizerThatAddsBlanksGetsTheTextInstead) {
  const auto [a, b] = two();
  a->script.eof_at = 3;
  b->script.adds_blanks = true;
  expect_unbroken(cluster.chat(kStream), 10);
  EXPECT_EQ(parse_json(b->bodies.back()).value_or(Json())["prompt"], "PROMPT:t0t1t2");
}

TEST_F(ResumeTest, ASecondFailureIsResumedAgain) {
  Agent& a = cluster.add_agent("a");
  Agent& b = cluster.add_agent("b");
  Agent& c = cluster.add_agent("c");
  for (Agent* agent : {&a, &b, &c}) agent->script.tokens = 10;
  a.script.eof_at = 2;
  b.script.token_ms = 2;  // a reset may overtake what was written at the same moment
  b.script.die_at = 5;
  publish_in_order();
  expect_unbroken(cluster.chat(kWithUsage), 10);
  EXPECT_EQ(parse_json(c.bodies.back()).value_or(Json())["prompt"].size(), 6U);
  EXPECT_EQ(metrics().resumes, 2U);
  EXPECT_EQ(metrics().generation_tokens, 10U);
}

TEST_F(ResumeTest, TwoEnginesThatExitUnderItEndTheStreamInsteadOfAThird) {
  Agent& a = cluster.add_agent("a");
  Agent& b = cluster.add_agent("b");
  Agent& c = cluster.add_agent("c");
  for (Agent* agent : {&a, &b, &c}) agent->script.tokens = 10;
  a.script.exit_at = 2;
  b.script.exit_at = 5;
  publish_in_order();
  const Answer answer = cluster.chat(kStream);
  EXPECT_EQ(text_of(answer), expected(5));
  EXPECT_EQ(answer.body.find("[DONE]"), std::string::npos);
  EXPECT_EQ(events_of(answer).back()["error"]["code"], "request_crashes_engine");
  EXPECT_TRUE(c.paths.empty());
}

TEST_F(ResumeTest, WithOneReplicaTheStreamWaitsForItToComeBack) {
  Agent& a = cluster.add_agent("a");
  a.script.tokens = 10;
  a.script.eof_at = 4;
  cluster.publish();
  const auto answer = cluster.chat_later(kStream);
  ASSERT_TRUE(cluster.run_until([&] { return metrics().resumes == 1; }));
  a.script.eof_at = -1;
  ASSERT_TRUE(cluster.run_until([&] { return answer->status != 0; }));
  expect_unbroken(*answer, 10);
}

TEST_F(ResumeTest, ALinkThatIsLostAndComesBackServesOnWithoutPenalty) {
  Agent& a = cluster.add_agent("a");
  a.script.tokens = 1000;
  a.script.token_ms = 2;
  cluster.publish();
  const auto answer = cluster.chat_later(kStream);
  ASSERT_TRUE(cluster.run_until([&] { return cluster.state().dispatcher.find("m")->replicas[0]->ledger.busy() == 1 && a.active == 1; }));
  const auto later = net::Clock::now() + net::milliseconds(50);
  cluster.run_until([&] { return net::Clock::now() > later; });
  a.connection->close("power cut");
  ASSERT_TRUE(cluster.run_until([&] { return metrics().resumes == 1; }));
  Agent& back = cluster.add_agent("a");
  back.script.tokens = 1000;
  ASSERT_TRUE(cluster.run_until([&] { return answer->status != 0; }));
  expect_unbroken(*answer, 1000);
}

TEST_F(ResumeTest, AStreamOfWhichNothingHasLeftIsTriedAnewWithAllThatItAsked) {
  const auto [a, b] = two();
  a->script.eof_at = 0;
  const Answer answer = cluster.chat(std::string(kStream) + R"(,"tools":[{"type":"function","function":{"name":"f"}}])");
  expect_unbroken(answer, 10);
  EXPECT_EQ(b->paths.back(), "/node/v1/replicas/b-r/v1/chat/completions");
  EXPECT_EQ(metrics().resumes, 0U);
}

TEST_F(ResumeTest, WhatCannotBeContinuedEndsWithAnErrorThatSaysWhy) {
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"("tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"required")", "tool"},
      {R"("tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"f"}})", "tool"},
      {R"("response_format":{"type":"json_object"})", "schema"},
      {R"("grammar":"root ::= \"a\"")", "schema"},
      {R"("logprobs":true)", "probabilities"}};
  const auto [a, b] = two();
  a->script.eof_at = 4;
  for (const auto& [fields, word] : cases) {
    cluster.state().dispatcher.find("m")->replicas[0]->ejection.succeeded();
    const Answer answer = cluster.chat(std::string(kStream) + "," + fields);
    EXPECT_EQ(answer.body.find("[DONE]"), std::string::npos) << fields;
    const Json error = events_of(answer).back()["error"];
    EXPECT_EQ(error["code"], "replica_failed") << answer.body;
    EXPECT_NE(error["message"].get<std::string>().find(word), std::string::npos) << error;
  }
  EXPECT_TRUE(b->paths.empty());
  EXPECT_EQ(busy(), 0);
}

constexpr const char* kTools = R"("tools":[{"type":"function","function":{"name":"f"}}])";

TEST_F(ResumeTest, TextThatMayYetBecomeACallIsContinuedByTheChatRouteWithItsTools) {
  const auto [a, b] = two();
  a->script.eof_at = 4;
  const Answer answer = cluster.chat(std::string(kWithUsage) + "," + kTools + R"(,"max_tokens":50,"seed":7,"tool_choice":"auto")");
  expect_unbroken(answer, 10);
  ASSERT_EQ(b->paths.size(), 5U) << "two templates, two counts, the answer";
  EXPECT_EQ(b->paths.back(), "/node/v1/replicas/b-r/v1/chat/completions");
  const Json asked = parse_json(b->bodies.back()).value_or(Json());
  EXPECT_EQ(asked["messages"].size(), 2U);
  EXPECT_EQ(asked["messages"][1], (Json{{"role", "assistant"}, {"content", "t0t1t2t3"}}));
  EXPECT_EQ(asked["continue_final_message"], true);
  EXPECT_EQ(asked["add_generation_prompt"], false);
  EXPECT_EQ(asked["max_tokens"], 46);
  EXPECT_NE(asked["seed"], 7);
  EXPECT_EQ(asked["tools"].size(), 1U);
  const Json rendered = parse_json(b->bodies[1]).value_or(Json());
  EXPECT_EQ(rendered["messages"], asked["messages"]) << "what was compared is what is asked";
  EXPECT_EQ(rendered["tools"], asked["tools"]);
  const Json usage = events_of(answer).back()["usage"];
  EXPECT_EQ(usage["prompt_tokens"], 7);
  EXPECT_EQ(usage["completion_tokens"], 10);
  EXPECT_EQ(metrics().generation_tokens, 10U);
  EXPECT_EQ(metrics().resumes_recovered, 1U);
  EXPECT_EQ(busy(), 0);
}

TEST_F(ResumeTest, TextWithToolsThatBreaksTwiceIsContinuedTwice) {
  Agent& a = cluster.add_agent("a");
  Agent& b = cluster.add_agent("b");
  Agent& c = cluster.add_agent("c");
  for (Agent* agent : {&a, &b, &c}) agent->script.tokens = 10;
  a.script.eof_at = 2;
  b.script.eof_at = 5;
  publish_in_order();
  expect_unbroken(cluster.chat(std::string(kWithUsage) + "," + kTools), 10);
  EXPECT_EQ(parse_json(c.bodies.back()).value_or(Json())["messages"][1]["content"], "t0t1t2t3t4");
  EXPECT_EQ(metrics().generation_tokens, 10U);
}

TEST_F(ResumeTest, WhereTheClientBeganTheAnswerItselfItIsContinuedBehindBoth) {
  const auto [a, b] = two();
  a->script.eof_at = 4;
  const Answer answer = cluster.request(
      "POST", "/v1/chat/completions",
      std::string(R"({"model":"m","stream":true,)") + kTools + R"(,"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"So "}]})");
  expect_unbroken(answer, 10);
  EXPECT_EQ(parse_json(b->bodies.back()).value_or(Json())["messages"].back()["content"], "So t0t1t2t3");
}

TEST_F(ResumeTest, AContinuedAnswerMayGoOnToACallWhichTheClientGetsInTheSameForm) {
  const auto [a, b] = two();
  a->script.eof_at = 4;
  b->script.tool_from = 7;
  const Answer answer = cluster.chat(std::string(kStream) + "," + kTools);
  EXPECT_EQ(text_of(answer), expected(7));
  EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n")) << answer.body;
  std::string arguments;
  std::string finish;
  const std::vector<Json> events = events_of(answer);
  for (const Json& event : events) {
    EXPECT_EQ(event["id"], events.front()["id"]);
    const Json& choice = event["choices"][0];
    if (choice["delta"].contains("tool_calls")) arguments += choice["delta"]["tool_calls"][0]["function"]["arguments"].get<std::string>();
    if (choice["finish_reason"].is_string()) finish += choice["finish_reason"].get<std::string>();
  }
  EXPECT_EQ(arguments, "t7t8t9");
  EXPECT_EQ(finish, "tool_calls");
}

TEST_F(ResumeTest, ACallThatBeganInAContinuationIsNotContinuedAgain) {
  Agent& a = cluster.add_agent("a");
  Agent& b = cluster.add_agent("b");
  for (Agent* agent : {&a, &b}) agent->script.tokens = 10;
  cluster.add_agent("c").script = b.script;
  a.script.eof_at = 4;
  b.script.tool_from = 7;
  b.script.eof_at = 9;
  publish_in_order();
  const Answer answer = cluster.chat(std::string(kStream) + "," + kTools);
  EXPECT_EQ(answer.body.find("[DONE]"), std::string::npos);
  EXPECT_NE(events_of(answer).back()["error"]["message"].get<std::string>().find("call of a tool"), std::string::npos) << answer.body;
}

TEST_F(ResumeTest, AContinuationWithToolsThatIsCutBeforeItsEndMarkIsNotTakenForWhole) {
  const auto [a, b] = two();
  a->script.eof_at = 4;
  b->script.tokens = 7;
  b->script.eof_at = 7;  // before its last events
  const auto answer = cluster.chat_later(std::string(kStream) + "," + kTools);
  ASSERT_TRUE(cluster.run_until([&] { return metrics().resumes >= 2; }));
  a->script.eof_at = b->script.eof_at = -1;
  b->script.tokens = 10;
  ASSERT_TRUE(cluster.run_until([&] { return answer->status != 0; }));
  expect_unbroken(*answer, 10);
}

TEST_F(ResumeTest, ATemplateThatAddsToABegunAnswerEndsItWithAnErrorAndBlamesNoReplica) {
  const auto [a, b] = two();
  a->script.eof_at = 4;
  b->script.template_adds = "<think></think>";
  const Answer answer = cluster.chat(std::string(kStream) + "," + kTools);
  EXPECT_EQ(answer.body.find("[DONE]"), std::string::npos);
  const Json error = events_of(answer).back()["error"];
  EXPECT_EQ(error["code"], "replica_failed") << answer.body;
  EXPECT_NE(error["message"].get<std::string>().find("template"), std::string::npos) << error;
  EXPECT_EQ(b->paths.size(), 2U);
  EXPECT_EQ(cluster.state().dispatcher.find("m")->replicas[1]->failures, 0U);
  EXPECT_EQ(metrics().streams_broken, 1U);
  EXPECT_EQ(busy(), 0);
}

TEST_F(ResumeTest, CallsOfToolsAndReasoningThatHaveBegunAreNotContinued) {
  for (const bool tool : {true, false}) {
    Cluster fresh(quick_options());
    Agent& a = fresh.add_agent("a");
    a.script.tokens = 10;
    a.script.eof_at = 4;
    (tool ? a.script.tool : a.script.reasoning) = true;
    fresh.add_agent("b").script = a.script;
    fresh.publish();
    const Answer answer = fresh.chat(kStream);
    EXPECT_EQ(answer.body.find("[DONE]"), std::string::npos);
    EXPECT_EQ(events_of(answer).back()["error"]["code"], "replica_failed") << answer.body;
  }
}

TEST_F(ResumeTest, ToolsThatMayNotBeCalledAreNoObstacle) {
  const auto [a, b] = two();
  a->script.eof_at = 4;
  expect_unbroken(cluster.chat(std::string(kStream) + R"(,"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":"none")"), 10);
  EXPECT_EQ(b->paths.back(), "/node/v1/replicas/b-r/completion");
}

struct FamilyCase {
  const char* path;
  const char* body;
  const char* text;      // stands before each piece of text
  const char* end;       // only a whole answer has it
  const char* error;     // of an answer that broke
  const char* bound;     // a field that makes it one that cannot be continued; none: a call of a tool does
};

// The values of all strings that follow `key`, up to the first event that is no piece of the answer.
std::string pieces(const std::string& body, const std::string& key) {
  std::string text;
  for (std::size_t at = 0; (at = body.find(key, at)) != std::string::npos;) {
    at += key.size();
    text += body.substr(at, body.find('"', at) - at);
  }
  return text;
}

TEST_F(ResumeTest, InEveryFamilyTextIsContinuedAndWhatCannotBeEndsWithTheFamilysErrorEvent) {
  const std::vector<FamilyCase> families{
      {"/v1/messages", R"({"model":"m","max_tokens":64,"stream":true,"messages":[{"role":"user","content":"hi"}]})",
       R"("type":"text_delta","text":")", "message_stop", "event: error", ""},
      {"/v1/responses", R"({"model":"m","stream":true,"input":"hi"})", R"("delta":")", "response.completed", "\"error\"", ""},
      {"/api/chat", R"({"model":"m","messages":[{"role":"user","content":"hi"}]})", R"("content":")", "\"done\":true", "{\"error\":",
       // Its calls come in one piece at the end: until then nothing has left, and the request is tried anew.
       R"("format":"json",)"},
      {"/api/generate", R"({"model":"m","prompt":"hi"})", R"("response":")", "\"done\":true", "{\"error\":", R"("format":"json",)"}};
  for (const FamilyCase& family : families) {
    for (const bool broken : {false, true}) {
      SCOPED_TRACE(std::string(family.path) + (broken ? " broken" : " text"));
      const std::string bound = broken ? family.bound : "";
      Cluster fresh(quick_options());
      Agent& a = fresh.add_agent("a");
      a.script.tokens = 10;
      a.script.token_ms = 1;
      a.script.tool = broken && bound.empty();
      fresh.add_agent("b").script = a.script;
      a.script.eof_at = 4;
      RouteTable table = fresh.table(4);
      table.models[0].replicas[0].relative_speed = 50;
      fresh.apply(table);
      const Answer answer = fresh.request("POST", family.path, "{" + bound + (family.body + 1));
      EXPECT_EQ(answer.status, 200);
      EXPECT_EQ(answer.body.find(family.end) != std::string::npos, !broken) << answer.body;
      EXPECT_EQ(answer.body.find(family.error) != std::string::npos && answer.body.find("cannot be continued") != std::string::npos, broken)
          << answer.body;
      if (!broken) {
        EXPECT_EQ(pieces(answer.body, family.text), expected(10)) << answer.body;
      }
    }
  }
}

TEST_F(ResumeTest, AnEngineThatCannotRenderThePromptIsNotTheEndIfAnotherCan) {
  Agent& a = cluster.add_agent("a");
  Agent& b = cluster.add_agent("b");
  Agent& c = cluster.add_agent("c");
  for (Agent* agent : {&a, &b, &c}) agent->script.tokens = 10;
  a.script.eof_at = 2;
  b.script.helper_status = 500;
  publish_in_order();
  expect_unbroken(cluster.chat(kStream), 10);
}

TEST_F(ResumeTest, AClientThatLeavesWhileItsStreamWaitsForASurvivorIsForgotten) {
  Agent& a = cluster.add_agent("a");
  a.script.tokens = 10;
  a.script.eof_at = 4;
  cluster.publish();
  ASSERT_TRUE(cluster.chat_and_leave(kStream, [&] { return metrics().resumes == 1; }));
  ASSERT_TRUE(cluster.run_until([&] { return metrics().cancelled == 1 && busy() == 0; }));
}

TEST_F(ResumeTest, AHungEngineIsFoundByItsSilenceLongBeforeTheLimitOfAStall) {
  GatewayOptions options = quick_options();
  options.stall_ms_min = 60'000;
  Cluster slow(options);
  Agent& a = slow.add_agent("a");
  Agent& b = slow.add_agent("b");
  a.script.tokens = b.script.tokens = 10;
  a.script.stall_at = 4;
  RouteTable table = slow.table(4);
  table.models[0].replicas[0].relative_speed = 50;
  slow.apply(table);
  const auto began = net::Clock::now();
  expect_unbroken(slow.chat(kStream), 10);
  EXPECT_LT(net::Clock::now() - began, net::seconds(9));
  // The same for an answer that is not streamed: nothing has arrived, so it is asked anew.
  a.script.stall_at = 0;
  slow.state().dispatcher.find("m")->replicas[0]->ejection.succeeded();
  EXPECT_EQ(slow.chat().status, 200);
}

TEST(Journal, KeepsTextsAsTheyWereAndMakesEventsOfTheSameMould) {
  Journal journal;
  EXPECT_FALSE(journal.add(R"(data: {"choices":[{"index":0,"delta":{"role":"assistant","content":null}}],"id":"x"})"
                           "\n\n",
                           Endpoint::kChat));
  EXPECT_TRUE(journal.add(R"(data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"a \"q\" \\"}}],"id":"x","model":"old"})"
                          "\n\n",
                          Endpoint::kChat));
  EXPECT_TRUE(journal.add(R"(data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"\u00e9\n"}}],"id":"x","model":"old"})"
                          "\n\n",
                          Endpoint::kChat));
  journal.add_text("\"");
  EXPECT_EQ(journal.texts(), (std::vector<std::string>{"a \"q\" \\", "é\n", "\""}));
  EXPECT_EQ(journal.events(), 3);
  journal.rename("a-much-longer-name");
  EXPECT_EQ(journal.text_event("x\n"),
            R"(data: {"choices":[{"finish_reason":null,"index":0,"delta":{"content":"x\n"}}],"id":"x","model":"a-much-longer-name"})"
            "\n\n");
  EXPECT_EQ(journal.finish_event("stop", nullptr),
            R"(data: {"choices":[{"finish_reason":"stop","index":0,"delta":{}}],"id":"x","model":"a-much-longer-name"})"
            "\n\n");
  ResumeFacts facts;
  journal.tell(facts);
  EXPECT_EQ(resume_obstacle(facts), ResumeObstacle::kNone);
}

TEST(Journal, ABoundIsABoundAndADamagedMouldIsRefused) {
  Journal journal;
  const std::string event = R"(data: {"choices":[{"finish_reason":null,"delta":{"content":")" + std::string(10'000, 'x') + "\"}}]}\n\n";
  for (int i = 0; i < 40; ++i) journal.add(event, Endpoint::kChat);
  ResumeFacts facts;
  journal.tell(facts);
  EXPECT_EQ(resume_obstacle(facts), ResumeObstacle::kTooLong);
  for (const char* bad : {R"(data: {"choices":[],"delta":{"content":"x"}})", R"(data: {"delta":{"content":"x"})", R"(data: "delta":{"content":"x)"}) {
    Journal damaged;
    damaged.add(bad, Endpoint::kChat);
    ResumeFacts told;
    damaged.tell(told);
    EXPECT_EQ(resume_obstacle(told), ResumeObstacle::kNoText) << bad;
  }
}

TEST(Journal, ATextThatIsNoJsonStringIsNotContinuedFrom) {
  for (const char* text : {"two\nlines", "a \x01 bell", "bad \\x escape"}) {
    Journal journal;
    journal.add(R"(data: {"choices":[{"delta":{"content":"fine"}}]})" "\n\n", Endpoint::kChat);
    ResumeFacts facts;
    journal.tell(facts);
    EXPECT_EQ(resume_obstacle(facts), ResumeObstacle::kNone);
    journal.add(R"(data: {"choices":[{"delta":{"content":")" + std::string(text) + "\"}}]}\n\n", Endpoint::kChat);
    journal.tell(facts);
    EXPECT_EQ(resume_obstacle(facts), ResumeObstacle::kNoText) << text;
  }
}

TEST(Journal, KnowsTheEventThatOnlySaysWhoseTurnItIs) {
  EXPECT_TRUE(is_role_event(R"(data: {"choices":[{"delta":{"role":"assistant","content":null}}]})"));
  EXPECT_TRUE(is_role_event(R"(data: {"choices":[{"delta":{"role":"assistant"}}]})"));
  EXPECT_FALSE(is_role_event(R"(data: {"choices":[{"delta":{"role":"assistant","content":"x"}}]})"));
  EXPECT_FALSE(is_role_event(R"(data: {"choices":[{"delta":{"content":"x"}}]})"));
  EXPECT_FALSE(is_role_event(R"(data: {"choices":[{"text":"x"}]})"));
}

}  // namespace
}  // namespace aiv::gateway::test
