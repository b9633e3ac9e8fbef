#include <gtest/gtest.h>

#include "base/hash.hpp"
#include "core/keys.hpp"
#include "scripted_agent.hpp"

namespace aiv::gateway::test {
namespace {

GatewayOptions open_options() {
  GatewayOptions options;
  options.auth = false;
  options.survivor_wait_ms = 150;
  return options;
}

class RelayTest : public ::testing::Test {
 protected:
  Cluster cluster{open_options()};
  static constexpr const char* kStream = R"("stream":true)";

  int busy() {
    int busy = 0;
    for (const auto& replica : cluster.state().dispatcher.find("m")->replicas) busy += replica->ledger.busy();
    return busy;
  }
};

std::string content_of(const std::string& body) {
  std::string text;
  for (std::size_t at = 0; (at = body.find("\"content\":\"", at)) != std::string::npos;) {
    at += 11;
    text += body.substr(at, body.find('"', at) - at);
  }
  return text;
}

TEST_F(RelayTest, AStreamIsRelayedAsItCameAndEndsWithDone) {
  cluster.add_agent("n1");
  cluster.publish();
  const Answer answer = cluster.chat(kStream);
  EXPECT_EQ(answer.status, 200);
  EXPECT_TRUE(answer.complete);
  EXPECT_EQ(answer.header("content-type"), "text/event-stream");
  EXPECT_EQ(answer.header("x-accel-buffering"), "no");
  EXPECT_TRUE(answer.header("x-request-id").starts_with("req-"));
  EXPECT_EQ(content_of(answer.body), "t0t1t2");
  EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n"));
  EXPECT_EQ(busy(), 0);
}

TEST_F(RelayTest, EventsThatArriveInPiecesLeaveWhole) {
  cluster.add_agent("n1").script.crlf_piecemeal = true;
  cluster.publish();
  const Answer answer = cluster.chat(kStream);
  EXPECT_EQ(content_of(answer.body), "t0t1t2");
  EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n"));
}

TEST_F(RelayTest, AWholeAnswerHasTheNameTheClientUsed) {
  cluster.add_agent("n1").script.model = "engine-alias";
  cluster.publish();
  const Answer answer = cluster.request("POST", "/v1/chat/completions", R"({"model":"m:latest","messages":[]})");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.json()["model"], "m:latest");
  EXPECT_EQ(answer.json()["choices"][0]["message"]["content"], "whole");
  EXPECT_EQ(cluster.chat(kStream).body.find("engine-alias"), std::string::npos);
}

TEST_F(RelayTest, TheEngineGetsOurRequestOnItsReplicasPath) {
  Agent& agent = cluster.add_agent("n1");
  cluster.publish();
  cluster.chat(R"("temperature":0.5,"lora":[{"id":1}])", {{"x-conversation-id", "evil"}});
  ASSERT_EQ(agent.paths.size(), 1u);
  EXPECT_EQ(agent.paths[0], "/node/v1/replicas/n1-r/v1/chat/completions");
  const Json sent = parse_json(agent.bodies[0]).value_or(Json());
  EXPECT_EQ(sent["temperature"], 0.5);
  EXPECT_FALSE(sent.contains("lora"));
  EXPECT_TRUE(sent.contains("id_slot"));
}

TEST_F(RelayTest, ATraceGoesAlongAndWhatIsNoneDoesNot) {
  Agent& agent = cluster.add_agent("n1");
  cluster.publish();
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  for (const std::string& sent : {trace, trace + "0", std::string("00-x"), "01" + trace.substr(2)}) cluster.chat(kStream, {{"traceparent", sent}});
  EXPECT_EQ(agent.traces, (std::vector<std::string>{trace, "", "", ""}));
}

TEST_F(RelayTest, ATraceGoesAlongWithTheSecondAttemptToo) {
  Agent& bad = cluster.add_agent("bad");
  bad.script.status = 500;
  Agent& good = cluster.add_agent("good");
  cluster.publish();
  const std::string trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
  while (bad.traces.empty() || good.traces.empty()) EXPECT_TRUE(cluster.chat(kStream, {{"traceparent", trace}}).complete);
  EXPECT_EQ(bad.traces[0], trace);
  EXPECT_EQ(good.traces[0], trace);
}

TEST_F(RelayTest, AReplicaThatFailsBeforeTheFirstByteIsReplaced) {
  for (const bool stream : {false, true}) {
    Agent& bad = cluster.add_agent(stream ? "bad2" : "bad1");
    bad.script.status = 500;
  }
  cluster.add_agent("good");
  cluster.publish();
  for (const char* fields : {"", kStream}) {
    const Answer answer = cluster.chat(fields, {{"x-aiv-debug", "1"}});
    EXPECT_EQ(answer.status, 200) << answer.body;
    EXPECT_TRUE(answer.complete);
    EXPECT_EQ(answer.header("x-aiv-replica"), "good-r");
  }
  EXPECT_EQ(busy(), 0);
}

TEST_F(RelayTest, AStreamResetBeforeItsFirstEventIsRetriedUnseen) {
  Agent& bad = cluster.add_agent("a");
  bad.script.die_at = 0;
  Agent& cut = cluster.add_agent("b");
  cut.script.eof_at = 0;
  cluster.add_agent("c");
  cluster.publish();
  for (int i = 0; i < 3; ++i) {
    const Answer answer = cluster.chat(kStream);
    EXPECT_EQ(answer.status, 200);
    EXPECT_EQ(content_of(answer.body), "t0t1t2");
    EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n"));
  }
}

TEST_F(RelayTest, WhenEveryReplicaFailsTheClientGets502AndIsToldNotToRetry) {
  cluster.add_agent("a").script.status = 500;
  cluster.add_agent("b").script.die_at = 0;
  cluster.publish();
  for (const char* fields : {"", kStream}) {
    const Answer answer = cluster.chat(fields);
    EXPECT_EQ(answer.status, 502) << answer.body;
    EXPECT_EQ(answer.json()["error"]["code"], "replica_failed");
    EXPECT_EQ(answer.header("x-should-retry"), "false");
  }
}

TEST_F(RelayTest, AStreamThatBreaksInTheMiddleEndsWithAnErrorEventAndNeverWithDone) {
  Agent& agent = cluster.add_agent("n1");
  cluster.publish();
  for (int fault = 0; fault < 4; ++fault) {
    agent.script = {};
    agent.script.token_ms = 1;
    (fault == 0 ? agent.script.die_at : fault == 1 ? agent.script.eof_at : fault == 2 ? agent.script.exit_at : agent.script.error_at) = 2;
    const Answer answer = cluster.chat(kStream);
    EXPECT_EQ(answer.status, 200) << fault;
    EXPECT_TRUE(answer.complete) << fault;
    EXPECT_EQ(content_of(answer.body), "t0t1") << fault;
    EXPECT_EQ(answer.body.find("[DONE]"), std::string::npos) << fault;
    EXPECT_NE(answer.body.find("data: {\"error\":{\"message\":"), std::string::npos) << fault << answer.body;
    EXPECT_EQ(busy(), 0) << fault;
  }
}

TEST_F(RelayTest, ALinkThatGoesDownInTheMiddleEndsTheStreamWithAnErrorEvent) {
  Agent& agent = cluster.add_agent("n1");
  agent.script.tokens = 1000;
  agent.script.token_ms = 2;
  cluster.publish();
  const auto answer = cluster.chat_later(kStream);
  ASSERT_TRUE(cluster.run_until([&] { return agent.active == 1 && busy() == 1; }));
  const auto later = net::Clock::now() + net::milliseconds(50);
  cluster.run_until([&] { return net::Clock::now() > later; });
  agent.connection->close("power cut");
  ASSERT_TRUE(cluster.run_until([&] { return answer->status != 0; }));
  EXPECT_EQ(answer->body.find("[DONE]"), std::string::npos);
  EXPECT_NE(answer->body.find("replica_failed"), std::string::npos) << answer->body;
}

TEST_F(RelayTest, AWholeAnswerWithoutItsTrailerIsNotBelieved) {
  cluster.add_agent("a").script.eof_at = 0;
  cluster.publish();
  EXPECT_EQ(cluster.chat().status, 502);
}

TEST_F(RelayTest, TheEnginesRefusalOfTheRequestGoesToTheClientWithoutARetry) {
  Agent& a = cluster.add_agent("a");
  Agent& b = cluster.add_agent("b");
  for (Agent* agent : {&a, &b}) {
    agent->script.status = 400;
    agent->script.error_type = "exceed_context_size_error";
  }
  cluster.publish();
  const Answer answer = cluster.chat(kStream);
  EXPECT_EQ(answer.status, 400);
  EXPECT_EQ(answer.json()["error"]["code"], "context_length_exceeded");
  EXPECT_EQ(a.paths.size() + b.paths.size(), 1u);
}

TEST_F(RelayTest, ARefusedSlotIsTriedAgainWithoutPenalty) {
  Agent& agent = cluster.add_agent("n1");
  agent.script.refusals = 3;
  cluster.publish();
  const Answer answer = cluster.chat({}, {{"x-aiv-debug", "1"}});
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.header("x-aiv-attempts"), "1");
  EXPECT_EQ(agent.paths.size(), 4u);
}

TEST_F(RelayTest, ARequestUnderWhichTwoEnginesExitGoesNowhereAgain) {
  std::vector<Agent*> agents;
  for (const char* node : {"a", "b", "c"}) {
    agents.push_back(&cluster.add_agent(node));
    agents.back()->script.exit_at = 0;
  }
  cluster.publish();
  const Answer answer = cluster.chat(kStream);
  EXPECT_EQ(answer.status, 500);
  EXPECT_EQ(answer.json()["error"]["code"], "request_crashes_engine");
  std::size_t requests = 0;
  for (const Agent* agent : agents) requests += agent->paths.size();
  EXPECT_EQ(requests, 2u);
}

TEST_F(RelayTest, AClientThatLeavesWhileStreamingFreesItsSlotAtOnce) {
  Agent& agent = cluster.add_agent("n1");
  agent.script.tokens = 100'000;
  agent.script.token_ms = 1;
  cluster.publish(1);
  ASSERT_TRUE(cluster.chat_and_leave(kStream, [&] { return agent.active == 1; }));
  const auto left = net::Clock::now();
  ASSERT_TRUE(cluster.run_until([&] { return agent.active == 0 && busy() == 0; }));
  EXPECT_LT(net::Clock::now() - left, net::milliseconds(1000));
  EXPECT_EQ(agent.cancelled, 1);
}

TEST_F(RelayTest, AClientThatLeavesBeforeTheFirstTokenOrAWholeAnswerFreesItsSlotToo) {
  Agent& agent = cluster.add_agent("n1");
  agent.script.stall_at = 0;
  cluster.publish(1);
  for (const char* fields : {"", kStream}) {
    ASSERT_TRUE(cluster.chat_and_leave(fields, [&] { return agent.active == 1; }));
    ASSERT_TRUE(cluster.run_until([&] { return agent.active == 0 && busy() == 0; })) << fields;
  }
  EXPECT_EQ(agent.cancelled, 2);
}

TEST_F(RelayTest, AClientThatLeavesTheQueueIsNeverDispatched) {
  Agent& agent = cluster.add_agent("n1");
  agent.script.tokens = 100'000;
  agent.script.token_ms = 1;
  cluster.publish(1);
  const auto first = cluster.chat_later(kStream);
  ASSERT_TRUE(cluster.run_until([&] { return agent.active == 1; }));
  const auto model = cluster.state().dispatcher.find("m");
  ASSERT_TRUE(cluster.chat_and_leave(kStream, [&] { return model->queue.size() == 1; }));
  ASSERT_TRUE(cluster.run_until([&] { return model->queue.empty(); }));
  EXPECT_EQ(agent.paths.size(), 1u);
}

TEST_F(RelayTest, SlotsAreAHardCapAndTheOthersWait) {
  Agent& agent = cluster.add_agent("n1");
  agent.script.first_ms = 20;
  cluster.publish(2);
  std::vector<std::shared_ptr<const Answer>> answers;
  for (int i = 0; i < 12; ++i) answers.push_back(cluster.chat_later(kStream));
  ASSERT_TRUE(cluster.run_until([&] {
    return std::all_of(answers.begin(), answers.end(), [](const auto& answer) { return answer->status != 0; });
  }));
  for (const auto& answer : answers) EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(agent.active_max, 2);
}

TEST_F(RelayTest, AQueueThatIsFullRefusesAtOnceWithRetryAfter) {
  Agent& agent = cluster.add_agent("n1");
  agent.script.stall_at = 0;
  cluster.publish(1);
  for (int i = 0; i < 1 + queue_places(1); ++i) cluster.chat_later(kStream);
  const auto model = cluster.state().dispatcher.find("m");
  ASSERT_TRUE(cluster.run_until([&] { return model->queue.size() == queue_places(1); }));
  const Answer refused = cluster.chat(kStream);
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.json()["error"]["code"], "overloaded");
  EXPECT_FALSE(refused.header("retry-after").empty());
}

TEST_F(RelayTest, ALinkThatIsFullMakesRequestsWaitAndNoneFail) {
  net::H2Limits limits;
  limits.max_concurrent_streams = kStreamsKept + 3;
  Agent& agent = cluster.add_agent("n1", limits);
  agent.script.first_ms = 20;
  cluster.publish(64);
  // The agent's settings have come once something was answered.
  EXPECT_EQ(cluster.chat(kStream).status, 200);
  std::vector<std::shared_ptr<const Answer>> answers;
  for (int i = 0; i < 30; ++i) answers.push_back(cluster.chat_later(kStream));
  ASSERT_TRUE(cluster.run_until([&] {
    return std::all_of(answers.begin(), answers.end(), [](const auto& answer) { return answer->status != 0; });
  }));
  for (const auto& answer : answers) EXPECT_EQ(answer->status, 200);
  EXPECT_EQ(agent.active_max, 3);
}

TEST_F(RelayTest, WhereOneLinkIsFullAnotherReplicaIsTaken) {
  net::H2Limits limits;
  limits.max_concurrent_streams = kStreamsKept + 1;
  Agent& narrow = cluster.add_agent("n1", limits);
  narrow.script.stall_at = 0;
  Agent& wide = cluster.add_agent("n2");
  wide.script.stall_at = 0;
  cluster.publish(8);
  for (int i = 0; i < 9; ++i) cluster.chat_later(kStream);
  ASSERT_TRUE(cluster.run_until([&] { return narrow.active + wide.active == 9; }));
  EXPECT_EQ(narrow.active, 1);
  EXPECT_EQ(wide.active, 8);
}

TEST_F(RelayTest, OllamaLoadsOnlyAModelThatThereIs) {
  cluster.add_agent("n1");
  cluster.publish(4);
  for (const char* path : {"/api/chat", "/api/generate"}) {
    EXPECT_EQ(cluster.request("POST", path, R"({"model":"m"})").json()["done_reason"], "load") << path;
    const Answer unknown = cluster.request("POST", path, R"({"model":"nope"})");
    EXPECT_EQ(unknown.status, 404) << path;
    EXPECT_TRUE(unknown.json()["error"].is_string()) << unknown.body;
  }
}

TEST_F(RelayTest, AModelThatIsLoadingTellsWholeRequestsHowFarItIsAndWhenToComeBack) {
  cluster.add_agent("n1");
  RouteTable loading = cluster.table(4);
  loading.models[0].state = "loading";
  loading.models[0].replicas.clear();
  for (const char* reason : {"loading on n1", "loading on n1, 40 % done"}) {
    loading.models[0].reason = reason;
    cluster.apply(loading);
    for (const char* path : {"/v1/chat/completions", "/v1/messages", "/api/chat"}) {
      const Answer answer = cluster.request("POST", path, R"({"model":"m","max_tokens":9,"stream":false,"messages":[{"role":"user","content":"x"}]})");
      EXPECT_EQ(answer.status, std::string_view(path) == "/v1/messages" ? 529 : 503) << path;
      EXPECT_NE(answer.body.find(reason), std::string::npos) << answer.body;
      const int wait_s = std::atoi(answer.header("retry-after").c_str());
      EXPECT_TRUE(wait_s >= 1 && wait_s <= 60) << wait_s;
    }
  }
  EXPECT_EQ(cluster.chat().json()["error"]["code"], "loading");
}

TEST_F(RelayTest, TheRestOfALoadIsToldInTheMessageAndTheHeaderAlike) {
  Model model;
  model.name = "m";
  model.state = "loading";
  model.reason = "loading on n1, 20 % done";
  model.load.loading(0, std::nullopt);
  model.load.loading(4'000, 20);
  const ApiError error = not_ready(model, 4'000, 0);
  EXPECT_EQ(error.retry_after_s, 16);
  EXPECT_EQ(error.message, "The model 'm' is loading on n1, 20 % done, about 16 s to go.");
  EXPECT_EQ(not_ready(model, 4'000, 1023).retry_after_s, 20) << "spread over a quarter more";
}

TEST_F(RelayTest, TheProgressOfALoadIsTheTablesFigureAndNotItsWords) {
  RouteTable loading = cluster.table(4);
  loading.models[0].state = "loading";
  loading.models[0].replicas.clear();
  const auto rest_after_two = [&](std::optional<int> first, std::optional<int> second) {
    cluster.apply(cluster.table(4));  // a load of its own each time
    loading.models[0].load_percent = first;
    cluster.apply(loading);
    const auto until = net::Clock::now() + net::milliseconds(30);
    cluster.run_until([&] { return net::Clock::now() > until; });
    loading.models[0].load_percent = second;
    cluster.apply(loading);
    return cluster.state().dispatcher.find("m")->load.rest_ms(monotonic_ms());
  };
  loading.models[0].reason = "loading on n1";
  EXPECT_NE(rest_after_two(10, 20), std::nullopt) << "a pace";
  loading.models[0].reason = "loading on n1, 90 % done";
  EXPECT_EQ(rest_after_two(std::nullopt, std::nullopt), std::nullopt) << "just begun";
}

TEST_F(RelayTest, AStreamIsKeptAliveWhileItsModelLoadsAndAnsweredByIt) {
  cluster.state().options.head_hold_ms = 20;
  cluster.state().options.keep_alive_ms = 20;
  Agent& agent = cluster.add_agent("n1");
  RouteTable loading = cluster.table(4);
  loading.models[0].state = "loading";
  loading.models[0].replicas.clear();
  cluster.apply(loading);
  const auto stream = cluster.chat_later(kStream);
  ASSERT_TRUE(cluster.run_until([&] { return cluster.state().dispatcher.find("m")->queue.size() == 1; }));
  const auto until = net::Clock::now() + net::milliseconds(100);
  cluster.run_until([&] { return net::Clock::now() > until; });
  cluster.publish();
  ASSERT_TRUE(cluster.run_until([&] { return stream->complete; }));
  EXPECT_EQ(stream->status, 200);
  EXPECT_TRUE(stream->body.starts_with(": keep-alive\n\n: keep-alive\n\n")) << stream->body;
  EXPECT_EQ(content_of(stream->body), "t0t1t2");
  EXPECT_TRUE(stream->body.ends_with("data: [DONE]\n\n"));
  EXPECT_EQ(agent.paths.size(), 1u);
}

TEST_F(RelayTest, UnknownModelsAndWrongKindsAreToldApart) {
  cluster.add_agent("n1");
  cluster.publish();
  const Answer unknown = cluster.request("POST", "/v1/chat/completions", R"({"model":"gpt-4","messages":[]})");
  EXPECT_EQ(unknown.status, 404);
  EXPECT_EQ(unknown.json()["error"]["code"], "model_not_found");
  EXPECT_NE(unknown.body.find("Available: m"), std::string::npos);
  EXPECT_EQ(cluster.request("POST", "/v1/embeddings", R"({"model":"m","input":"x"})").status, 400);
  EXPECT_EQ(cluster.chat(R"("max_tokens":5000)").status, 400);
}

TEST_F(RelayTest, ListsHealthMetricsAndUnknownRoutesAnswerAsTheyShould) {
  cluster.add_agent("n1");
  cluster.publish();
  cluster.chat(kStream);
  EXPECT_EQ(cluster.request("GET", "/v1/models").json()["data"][0]["id"], "m");
  EXPECT_EQ(cluster.request("GET", "/v1/models/m").json()["id"], "m");
  EXPECT_EQ(cluster.request("GET", "/v1/models/x").status, 404);
  EXPECT_EQ(cluster.request("GET", "/health").json()["status"], "ok");
  EXPECT_EQ(cluster.request("GET", "/health").json()["stale"], true);
  EXPECT_EQ(cluster.request("GET", "/v1/slots").status, 404);
  EXPECT_EQ(cluster.request("DELETE", "/v1/models").status, 405);
  EXPECT_EQ(cluster.request("GET", "/aiv/v1/nodes").status, 503) << "no controller is running";
  const std::string metrics = cluster.request("GET", "/metrics").body;
  EXPECT_NE(metrics.find("aivailable_request_success_total{model=\"m\",finish_reason=\"stop\"} 1"), std::string::npos) << metrics;
  EXPECT_NE(metrics.find("aivailable_generation_tokens_total{model=\"m\"} 3"), std::string::npos);
  EXPECT_NE(metrics.find("aivailable_node_up{node=\"n1\"} 1"), std::string::npos);
}

TEST_F(RelayTest, TheEnginesOwnRoutesAreJson404sAndNeverThePage) {
  cluster.add_agent("n1");
  cluster.publish();
  for (const char* path : {"/slots", "/slots/0", "/props", "/infill", "/lora-adapters", "/apply-template", "/tokenize", "/detokenize",
                           "/completion", "/completions", "/embedding", "/models", "/cors-proxy", "/tools", "/metrics/engine"}) {
    for (const char* method : {"GET", "POST"}) {
      const Answer answer = cluster.request(method, path, std::string_view(method) == "POST" ? "{}" : "");
      EXPECT_EQ(answer.status, 404) << method << " " << path;
      EXPECT_EQ(answer.header("content-type"), "application/json") << method << " " << path;
      EXPECT_EQ(answer.json()["error"]["type"], "invalid_request_error") << answer.body;
    }
  }
  EXPECT_EQ(cluster.request("GET", "/").status, 200);
  EXPECT_EQ(cluster.request("GET", "/cluster").status, 200);
}

TEST_F(RelayTest, BodiesOverTheLimitAreRefusedBeforeTheyAreRead) {
  cluster.add_agent("n1");
  cluster.publish();
  const Answer answer = cluster.chat("\"user\":\"" + std::string(5 << 20, 'a') + "\"");
  EXPECT_EQ(answer.status, 413);
}

TEST_F(RelayTest, WithoutAuthenticationForeignNamesAndOriginsAreKeptOut) {
  cluster.add_agent("n1");
  cluster.publish();
  EXPECT_EQ(cluster.request("GET", "/v1/models", {}, {{"origin", "http://evil.example"}}).status, 403);
}

TEST_F(RelayTest, AReplicaThatIsStuckIsGivenUpForAnother) {
  GatewayOptions options = open_options();
  options.stall_ms_min = 50;
  options.head_hold_ms = 20;
  Cluster quick(options);
  Agent& stuck = quick.add_agent("a");
  stuck.script.stall_at = 0;
  quick.add_agent("b");
  RouteTable table = quick.table(1);
  table.models[0].replicas[0].relative_speed = 50;  // so that it is asked first
  quick.apply(table);
  const Answer answer = quick.chat(kStream);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(content_of(answer.body), "t0t1t2") << answer.body;
  EXPECT_TRUE(answer.body.ends_with("data: [DONE]\n\n"));
  EXPECT_TRUE(quick.run_until([&] { return stuck.cancelled == 1; }));
}

TEST_F(RelayTest, ASoftwareGpuIsGivenTheTimeToCompileAKernel) {
  GatewayOptions options = open_options();
  options.stall_ms_min = 50;
  options.head_hold_ms = 20;
  Cluster slow(options);
  slow.add_agent("a").script.first_ms = 400;
  Agent& other = slow.add_agent("b");
  RouteTable table = slow.table(1);
  table.models[0].replicas[0].relative_speed = 50;  // so that it is asked first
  table.models[0].replicas[0].software = true;
  slow.apply(table);
  const Answer answer = slow.chat(kStream);
  EXPECT_EQ(content_of(answer.body), "t0t1t2") << answer.body;
  EXPECT_TRUE(other.bodies.empty());
}

TEST_F(RelayTest, ASilentStreamIsKeptAliveByComments) {
  GatewayOptions options = open_options();
  options.head_hold_ms = 20;
  options.keep_alive_ms = 30;
  Cluster slow(options);
  slow.add_agent("a").script.first_ms = 150;
  slow.publish();
  const Answer answer = slow.chat(kStream);
  EXPECT_TRUE(answer.body.starts_with(": keep-alive\n\n")) << answer.body;
  EXPECT_EQ(content_of(answer.body), "t0t1t2");
}

TEST_F(RelayTest, ANewLinkOfTheSameNodeReplacesTheOldOne) {
  Agent& old = cluster.add_agent("n1");
  cluster.publish();
  Agent& fresh = cluster.add_agent("n1");
  ASSERT_TRUE(cluster.run_until([&] { return !old.connection->open_for_requests() || true; }));
  EXPECT_EQ(cluster.chat().status, 200);
  EXPECT_EQ(fresh.paths.size(), 1u);
  EXPECT_TRUE(old.paths.empty());
  EXPECT_TRUE(cluster.state().links.up("n1"));
}

TEST_F(RelayTest, TheNextRequestOfATenantMayReuseItsSlotAndAnotherTenantsMayNot) {
  GatewayOptions options;
  Cluster keyed(options);
  Agent& agent = keyed.add_agent("n1");
  const ApiKey a{std::string(kKeyIdCharacters, 'a'), std::string(kKeySecretCharacters, '1')};
  const ApiKey b{std::string(kKeyIdCharacters, 'b'), std::string(kKeySecretCharacters, '2')};
  RouteTable table = keyed.table(1);
  for (const ApiKey& key : {a, b}) table.keys.push_back({.id = key.id, .secret_sha256 = sha256_hex(key.secret)});
  keyed.apply(table);
  const net::Headers as_a{{"authorization", "Bearer " + format_api_key(a)}};
  const net::Headers as_b{{"authorization", "Bearer " + format_api_key(b)}};
  EXPECT_EQ(keyed.chat().status, 401);
  for (const net::Headers& headers : {as_a, as_a, as_b, as_a}) EXPECT_EQ(keyed.chat({}, headers).status, 200);
  ASSERT_EQ(agent.bodies.size(), 4u);
  const auto cached = [&](std::size_t i) { return parse_json(agent.bodies[i]).value_or(Json())["cache_prompt"] == true; };
  EXPECT_FALSE(cached(0));
  EXPECT_TRUE(cached(1));
  EXPECT_FALSE(cached(2));
  EXPECT_FALSE(cached(3));
  EXPECT_EQ(keyed.request("GET", "/aiv/v1/keys", {}, as_a).status, 403);
  EXPECT_EQ(keyed.request("GET", "/health").status, 200);
}

}  // namespace
}  // namespace aiv::gateway::test
