// The agent with the fake engine: every way through the life of a replica, as real processes.
#include <gmock/gmock.h>
#include <signal.h>

#include <filesystem>

#include "base/file.hpp"
#include "base/units.hpp"
#include "core/fake_model.hpp"
#include "harness.hpp"
#include "net/pki.hpp"
#include "node/replica_files.hpp"

namespace aiv::node::test {
namespace {

using net::milliseconds;
using net::seconds;
using testing::HasSubstr;

class FakeNode : public NodeTest {
 protected:
  static AgentOptions options() {
    AgentOptions o;
    o.engine = EngineKind::kFake;
    o.fake_engine_program = AIV_FAKE_ENGINE;
    o.gpus = "GTX 1080:8GiB,RX 580:4GiB";
    return o;
  }
  static ReplicaSpec spec(const std::string& id, const std::string& settings = "",
                          const std::string& device = "n1/0") {
    ReplicaSpec s;
    s.id = id;
    s.deployment = "fake-small";
    s.model = "fake-small";
    s.model_path = "fake:fake-small" + (settings.empty() ? "" : "?" + settings);
    s.engine = EngineKind::kFake;
    s.ctx = 4096;
    s.slots = 2;
    const FakeModel model = *parse_fake_model(s.model_path);
    s.devices = fake_device_bytes(model, s.ctx, 1);
    s.devices[0].device_id = device;
    s.host_weights = model.host_bytes;
    return s;
  }
  static std::string chat(const std::string& directive, bool stream) {
    return dump_json(
        {{"model", "fake-small"},
         {"stream", stream},
         {"messages", Json::array({{{"role", "user"}, {"content", "#fake " + directive + "\nhello"}}})}});
  }
  Answer chat_with(const std::string& id, const std::string& directive, bool stream = true) {
    return request("POST", "/node/v1/replicas/" + id + "/v1/chat/completions", chat(directive, stream));
  }
  // Until the engine itself says that so many slots are busy.
  bool await_busy(const std::string& id, int busy, net::Clock::duration limit) {
    const auto until = net::Clock::now() + limit;
    while (net::Clock::now() < until) {
      const Answer answer = request("GET", "/node/v1/replicas/" + id + "/slots");
      const auto json = parse_json(answer.body);
      int now = 0;
      if (json && json->is_array())
        for (const Json& slot : *json) now += slot.value("is_processing", false) ? 1 : 0;
      if (json && json->is_array() && now == busy) return true;
      run_until([] { return false; }, milliseconds(5));
    }
    return false;
  }
};

TEST_F(FakeNode, TellsItsDevicesAndItsHeartbeats) {
  start_agent(options());
  const NodeObserved seen = observed();
  EXPECT_EQ(seen.node, "n1");
  EXPECT_FALSE(seen.boot_id.empty());
  EXPECT_NE(seen.incarnation, 0U);
  ASSERT_EQ(seen.devices.size(), 2U);
  EXPECT_EQ(seen.devices[0].id, "n1/0");
  EXPECT_EQ(seen.devices[0].name, "GTX 1080");
  EXPECT_EQ(seen.devices[0].kind, DeviceKind::kSoftware);
  EXPECT_EQ(seen.devices[0].free_bytes, 8 * kGiB);

  const auto stream = open("GET", "/node/v1/observe", "");
  ASSERT_TRUE(stream);
  ASSERT_TRUE(wait(stream->head(net::Clock::now() + seconds(5))));
  std::string text;
  const auto since = net::Clock::now();
  int beats = 0;
  while (beats < 4 && net::Clock::now() - since < seconds(10)) {
    ASSERT_TRUE(wait(stream->read_some(text, net::Clock::now() + seconds(5))));
    beats = 0;
    for (std::size_t at = text.find("\"heartbeat\""); at != std::string::npos;
         at = text.find("\"heartbeat\"", at + 1))
      ++beats;
  }
  EXPECT_GE(beats, 4);
  EXPECT_THAT(text, testing::StartsWith("{\"type\":\"observed\""));
  EXPECT_THAT(text, HasSubstr("\"lag_ms\":"));
  stream->cancel();
}

// The server's side of the door: signs for whoever shows a certificate of this authority and asks with its key.
struct Door {
  std::string dir;
  int asked = 0;
  int refusals = 0;  // how often it says no first
  net::Task<> serve(net::ExchangePtr exchange) {
    const auto body = co_await exchange->read_body(16 * 1024);
    ++asked;
    const auto json = parse_json(body.value_or(""));
    const auto authority = read_file(dir + "/ca/ca.pem", 65536);
    Json answer;
    int status = 401;
    answer["error"]["message"] = "not this time";
    if (json && authority && asked > refusals &&
        net::check_certified(json->value("certificate", ""), json->value("request", ""), *authority, "node/n1")) {
      const auto issued = net::sign_request(dir + "/ca", "node/n1", json->value("request", ""), 600);
      answer = Json{{"certificate", issued->certificate}, {"authority", issued->authority}, {"expires_at_s", issued->expires_at_s}};
      status = 200;
    }
    std::string text = dump_json(answer);
    (void)co_await exchange->respond_json(status, std::move(text));
  }
};

TEST_F(FakeNode, WithALapsedCertificateItGetsANewOneForItsKeyAndThenOpensItsLink) {
  Door door{dir_};
  door_ = [&door](net::ExchangePtr exchange) { return door.serve(std::move(exchange)); };
  certificate_s_ = -86'400;
  start_agent(options());
  await_link();
  EXPECT_EQ(door.asked, 1);
  const auto facts = net::certificate_facts(*read_file(dir_ + "/node.pem", 65536));
  ASSERT_TRUE(facts);
  EXPECT_GT(facts->expires_at_s, facts->issued_at_s + 500);
  EXPECT_EQ(observed().node, "n1");
}

TEST_F(FakeNode, RefusedANewCertificateItSaysWhatToDoAndAsksAgainLater) {
  Door door{dir_, 0, 1};
  door_ = [&door](net::ExchangePtr exchange) { return door.serve(std::move(exchange)); };
  certificate_s_ = -86'400;
  start_agent(options());
  await_link();
  EXPECT_EQ(door.asked, 2);
  const auto log = read_file(dir_ + "/agent.log", 1 << 20);
  ASSERT_TRUE(log);
  EXPECT_THAT(*log, HasSubstr("not this time"));
  EXPECT_THAT(*log, HasSubstr("here remove"));
}

TEST_F(FakeNode, AReplicaIsLoadedProvedAndAnswers) {
  start_agent(options());
  EXPECT_EQ(desire({spec("a-1")}).status, 200);
  const ReplicaStatus ready = await_state("a-1", ReplicaState::kReady);
  EXPECT_TRUE(alive(ready.pid));
  EXPECT_EQ(ready.slots, 2);
  EXPECT_EQ(ready.restarts, 0);
  ASSERT_EQ(ready.measured.size(), 1U);
  EXPECT_EQ(ready.measured[0].weights, 512 * kMiB);
  EXPECT_EQ(ready.measured[0].kv, 4096 * 16 * kKiB);
  const Bytes left = 8 * kGiB - spec("a-1").devices[0].total();
  EXPECT_TRUE(await_free(0, left)) << observed().devices[0].free_bytes;

  const Answer answer = chat_with("a-1", "tokens=8 token_ms=1");
  EXPECT_EQ(answer.status, 200);
  EXPECT_THAT(answer.body, HasSubstr("data: [DONE]"));
  EXPECT_EQ(answer.end(), "complete");
  const Answer whole = chat_with("a-1", "tokens=8 token_ms=1", false);
  EXPECT_EQ(whole.status, 200);
  EXPECT_EQ(whole.end(), "complete");
  EXPECT_TRUE(parse_json(whole.body));
  EXPECT_THAT(request("GET", "/node/v1/replicas/a-1/log").body, HasSubstr("model buffer size"));
}

TEST_F(FakeNode, WhatIsNotThereOrNotAllowedIsSaid) {
  start_agent(options());
  desire({spec("a-1", "load_ms=3000")});
  EXPECT_EQ(request("POST", "/node/v1/replicas/zz/v1/completions", "{}").status, 404);
  EXPECT_EQ(request("GET", "/node/v1/nothing").status, 404);
  EXPECT_EQ(chat_with("a-1", "").status, 503) << "it is still loading";
  EXPECT_EQ(request("POST", "/node/v1/replicas/a-1/props", "{}").status, 404);
  EXPECT_EQ(request("POST", "/node/v1/replicas/a-1/slots/0", "{}").status, 404);
}

TEST_F(FakeNode, AnOlderDocumentIsRefusedAlsoAfterARestart) {
  start_agent(options());
  version_ = {5, 10};
  EXPECT_EQ(desire({}).status, 200);
  version_ = {4, 99};
  Answer old = desire({spec("a-1")});
  EXPECT_EQ(old.status, 409);
  EXPECT_EQ(parse_json(old.body).value()["highest"]["epoch"], 5);
  kill_agent(SIGKILL);
  start_agent(options());
  EXPECT_EQ(observed().applied, (Version{5, 11}));
  version_ = {5, 3};
  EXPECT_EQ(desire({spec("a-1")}).status, 409);
  EXPECT_TRUE(observed().replicas.empty());
}

TEST_F(FakeNode, ABadDocumentIsRefusedByItsField) {
  start_agent(options());
  ReplicaSpec bad = spec("a-1");
  bad.devices.clear();
  const Answer answer = desire({bad});
  EXPECT_EQ(answer.status, 422);
  EXPECT_THAT(answer.body, HasSubstr("replicas[0].devices"));
  EXPECT_EQ(desire({spec("a-1"), spec("a-1")}).status, 422);
  EXPECT_EQ(request("PUT", "/node/v1/desired", "not JSON").status, 400);
  EXPECT_EQ(request("PUT", "/node/v1/desired", "{}").status, 422);
  EXPECT_TRUE(observed().replicas.empty());
}

TEST_F(FakeNode, NoMoreRequestsThanSlotsReachTheEngine) {
  start_agent(options());
  desire({spec("a-1")});
  await_state("a-1", ReplicaState::kReady);
  const std::string path = "/node/v1/replicas/a-1/v1/chat/completions";
  const auto one = open("POST", path, chat("tokens=2000 token_ms=5", true));
  const auto two = open("POST", path, chat("tokens=2000 token_ms=5", true));
  ASSERT_TRUE(await_busy("a-1", 2, seconds(10)));
  const Answer third = request("POST", path, chat("tokens=1", true));
  EXPECT_EQ(third.status, 0);
  ASSERT_TRUE(third.error);
  EXPECT_EQ(third.error->code, ErrorCode::kRefused) << third.error->message();
  EXPECT_EQ(request("POST", "/node/v1/replicas/a-1/tokenize", R"({"content":"x"})").status, 200)
      << "what takes no slot is let through";
  one->cancel();
  two->cancel();
  const auto since = net::Clock::now();
  EXPECT_TRUE(await_busy("a-1", 0, seconds(5)));
  EXPECT_LT(net::Clock::now() - since, seconds(1)) << "a client that leaves frees its slot";
  EXPECT_EQ(chat_with("a-1", "tokens=2").end(), "complete");
}

TEST_F(FakeNode, AKilledEngineEndsItsStreamWithTheReasonAndComesBack) {
  start_agent(options());
  desire({spec("a-1")});
  const ReplicaStatus before = await_state("a-1", ReplicaState::kReady);
  const auto stream =
      open("POST", "/node/v1/replicas/a-1/v1/chat/completions", chat("tokens=5000 token_ms=5", true));
  ASSERT_TRUE(await_busy("a-1", 1, seconds(10)));
  ::kill(static_cast<pid_t>(before.pid), SIGKILL);
  const Answer answer = finish(stream);
  EXPECT_EQ(answer.end(), "engine-exit;status=killed-by-SIGKILL");
  EXPECT_THAT(answer.body, testing::Not(HasSubstr("[DONE]")));
  const ReplicaStatus after = await_state("a-1", ReplicaState::kReady);
  EXPECT_NE(after.pid, before.pid);
  EXPECT_EQ(after.restarts, 1);
  EXPECT_EQ(chat_with("a-1", "tokens=2").end(), "complete");
}

TEST_F(FakeNode, AnAgentThatWasKilledFindsItsEnginesAgain) {
  start_agent(options());
  desire({spec("a-1"), spec("b-1", "", "n1/1")});
  const ReplicaStatus a = await_state("a-1", ReplicaState::kReady);
  const ReplicaStatus b = await_state("b-1", ReplicaState::kReady);
  const std::uint64_t incarnation = observed().incarnation;
  kill_agent(SIGKILL);
  EXPECT_TRUE(alive(a.pid));
  const auto since = net::Clock::now();
  start_agent(options());
  const ReplicaStatus again = await_state("a-1", ReplicaState::kReady);
  await_state("b-1", ReplicaState::kReady);
  const auto took = std::chrono::duration_cast<milliseconds>(net::Clock::now() - since).count();
  std::printf("adopted after %lld ms\n", static_cast<long long>(took));
  EXPECT_EQ(again.pid, a.pid) << "same process, no reload";
  EXPECT_EQ(replica("b-1").pid, b.pid);
  EXPECT_EQ(again.restarts, 0);
  EXPECT_EQ(again.measured, a.measured);
  EXPECT_NE(observed().incarnation, incarnation);
  EXPECT_EQ(chat_with("a-1", "tokens=2").end(), "complete");
  EXPECT_LT(took, 2000);
}

TEST_F(FakeNode, AnEngineThatIsNoLongerWantedIsNotAdopted) {
  start_agent(options());
  desire({spec("a-1")});
  const ReplicaStatus a = await_state("a-1", ReplicaState::kReady);
  kill_agent(SIGKILL);
  std::filesystem::remove(data_dir_ + "/desired.json");
  start_agent(options());
  EXPECT_TRUE(alive(a.pid)) << "without a document nothing is decided";
  desire({spec("b-1")});
  await_state("b-1", ReplicaState::kReady);
  EXPECT_FALSE(alive(a.pid));
  EXPECT_FALSE(std::filesystem::exists(data_dir_ + "/replicas/a-1"));
}

TEST_F(FakeNode, AnotherSpecUnderTheSameIdIsAnotherProcess) {
  start_agent(options());
  desire({spec("a-1")});
  const ReplicaStatus a = await_state("a-1", ReplicaState::kReady);
  ReplicaSpec changed = spec("a-1");
  changed.slots = 4;
  desire({changed});
  ASSERT_TRUE(await_dead(a.pid, seconds(20)));
  EXPECT_EQ(await_state("a-1", ReplicaState::kReady).slots, 4);
}

TEST_F(FakeNode, ARemovedReplicaLeavesNothingBehind) {
  start_agent(options());
  desire({spec("a-1")});
  const ReplicaStatus a = await_state("a-1", ReplicaState::kReady);
  desire({});
  EXPECT_TRUE(await_gone("a-1"));
  EXPECT_FALSE(alive(a.pid));
  EXPECT_FALSE(std::filesystem::exists(data_dir_ + "/replicas/a-1"));
  EXPECT_TRUE(std::filesystem::is_empty(data_dir_ + "/run"));
  EXPECT_TRUE(await_free(0, 8 * kGiB));
}

TEST_F(FakeNode, ADrainingReplicaFinishesItsRequestsAndStops) {
  start_agent(options());
  desire({spec("a-1")});
  const ReplicaStatus a = await_state("a-1", ReplicaState::kReady);
  const auto stream =
      open("POST", "/node/v1/replicas/a-1/v1/chat/completions", chat("tokens=100 token_ms=10", true));
  ASSERT_TRUE(await_busy("a-1", 1, seconds(10)));
  ReplicaSpec draining = spec("a-1");
  draining.draining = true;
  desire({draining});
  await_state("a-1", ReplicaState::kDraining);
  const Answer refused = chat_with("a-1", "tokens=1");
  EXPECT_TRUE(refused.error && refused.error->code == ErrorCode::kRefused);
  EXPECT_EQ(finish(stream).end(), "complete");
  await_state("a-1", ReplicaState::kStopped);
  EXPECT_TRUE(await_dead(a.pid, seconds(10)));
}

struct Fault {
  const char* settings;
  const char* reason;
};

TEST_F(FakeNode, WhateverReachesTheCpuIsNeverReady) {
  start_agent(options());
  const Fault faults[] = {{"cpu_weights=100MiB", "weights on the CPU: 100.0 MiB"},
                          {"cpu_kv=1", "KV cache on the CPU"},
                          {"splits=7", "7 graph splits"},
                          {"garbled_log=1", ""}};
  int n = 0;
  for (const Fault& fault : faults) {
    const std::string id = "bad-" + std::to_string(++n);
    ReplicaSpec s = spec(id, fault.settings);
    desire({s});
    const ReplicaStatus failed = await_state(id, ReplicaState::kFailed);
    EXPECT_THAT(failed.reason, HasSubstr(fault.reason)) << fault.settings;
    EXPECT_EQ(failed.pid, 0);
    EXPECT_EQ(failed.restarts, 0) << "a proof that failed is not tried again";
    EXPECT_EQ(chat_with(id, "tokens=1").status, 503);
  }
}

TEST_F(FakeNode, ALoadThatRunsOutOfMemorySaysWhichAndIsNotRepeated) {
  start_agent(options());
  const Fault faults[] = {{"oom=weights", "out of device memory for the weights"},
                          {"oom=kv", "out of device memory for the KV cache"},
                          {"oom=compute", "out of device memory for the compute buffers"}};
  int n = 0;
  for (const Fault& fault : faults) {
    const std::string id = "oom-" + std::to_string(++n);
    desire({spec(id, fault.settings)});
    const ReplicaStatus failed = await_state(id, ReplicaState::kFailed);
    EXPECT_THAT(failed.reason, HasSubstr(fault.reason));
    EXPECT_TRUE(failed.out_of_memory);
    EXPECT_EQ(failed.restarts, 0);
  }
}

TEST_F(FakeNode, AnEngineThatCrashesWhileLoadingFailsAfterThreeTries) {
  start_agent(options());
  desire({spec("a-1", "load_exit=7")});
  const ReplicaStatus failed = await_state("a-1", ReplicaState::kFailed);
  EXPECT_THAT(failed.reason, HasSubstr("exit 7"));
  EXPECT_THAT(failed.reason, HasSubstr("3 times in a row"));
  EXPECT_FALSE(failed.out_of_memory);
  EXPECT_EQ(failed.restarts, 2);
}

TEST_F(FakeNode, AnEngineThatNeverGetsReadyIsCut) {
  AgentOptions o = options();
  o.load_limit_ms = 300;
  start_agent(o);
  desire({spec("a-1", "hang_load=1")});
  const ReplicaStatus failed = await_state("a-1", ReplicaState::kFailed);
  EXPECT_THAT(failed.reason, HasSubstr("was not ready after"));
  EXPECT_TRUE(living_shims(data_dir_).empty());
}

TEST_F(FakeNode, WhatDoesNotFitIsRefusedWithBothFigures) {
  start_agent(options());
  desire({spec("big-1", "weights=6GiB", "n1/1")});
  const ReplicaStatus failed = await_state("big-1", ReplicaState::kFailed);
  EXPECT_THAT(failed.reason, HasSubstr("needs 6.1 GiB on n1/1, which has 4.0 GiB"));
}

TEST_F(FakeNode, WhatDoesNotFitBesideOthersWaitsAWhileThenSaysWhy) {
  start_agent(options());
  desire({spec("a-1", "weights=5GiB"), spec("b-1", "weights=5GiB")});
  await_state("a-1", ReplicaState::kReady);
  EXPECT_TRUE(run_until([this] { return replica("b-1").reason == "needs 5.1 GiB on n1/0, 2.9 GiB free"; },
                        seconds(5)))
      << replica("b-1").reason;
  desire({spec("b-1", "weights=5GiB")});
  await_state("b-1", ReplicaState::kReady);
}

TEST_F(FakeNode, OneLoadAtATimePerDevice) {
  start_agent(options());
  desire({spec("a-1", "load_ms=1500"), spec("b-1", "load_ms=50"), spec("c-1", "load_ms=50", "n1/1")});
  await_state("a-1", ReplicaState::kLoading);
  EXPECT_EQ(replica("b-1").state, ReplicaState::kPending);
  EXPECT_THAT(await_state("b-1", ReplicaState::kPending).reason, HasSubstr("a-1 is loading on n1/0"));
  await_state("c-1", ReplicaState::kReady);
  EXPECT_EQ(replica("a-1").state, ReplicaState::kLoading) << "another device does not wait";
  await_state("b-1", ReplicaState::kReady);
  EXPECT_EQ(replica("a-1").state, ReplicaState::kReady);
}

TEST_F(FakeNode, AnEngineDiesWithItsShim) {
  start_agent(options());
  desire({spec("a-1")});
  const ReplicaStatus a = await_state("a-1", ReplicaState::kReady);
  const auto shims = living_shims(data_dir_);
  ASSERT_EQ(shims.size(), 1U);
  const auto since = net::Clock::now();
  ::kill(static_cast<pid_t>(shims[0].shim_pid), SIGKILL);
  EXPECT_TRUE(await_dead(a.pid, seconds(5)));
  EXPECT_LT(net::Clock::now() - since, milliseconds(500));
  const ReplicaStatus again = await_state("a-1", ReplicaState::kReady);
  EXPECT_NE(again.pid, a.pid);
}

TEST_F(FakeNode, AShimWithoutAnAgentStopsItsEngine) {
  AgentOptions o = options();
  o.orphan_limit_ms = 300;
  start_agent(o);
  desire({spec("a-1")});
  const ReplicaStatus a = await_state("a-1", ReplicaState::kReady);
  kill_agent(SIGKILL);
  EXPECT_TRUE(await_dead(a.pid, seconds(10)));
  EXPECT_TRUE(run_until([this] { return living_shims(data_dir_).empty(); }, seconds(5)));
}

TEST_F(FakeNode, AnAgentToldToStopItsEnginesLeavesNoProcess) {
  AgentOptions o = options();
  o.stop_engines_on_exit = true;
  start_agent(o);
  desire({spec("a-1"), spec("b-1", "load_ms=30000", "n1/1")});
  const ReplicaStatus a = await_state("a-1", ReplicaState::kReady);
  const ReplicaStatus b = await_state("b-1", ReplicaState::kLoading);
  agent_->signal(SIGTERM);
  EXPECT_EQ(agent_exit(), 0);
  EXPECT_FALSE(alive(a.pid));
  EXPECT_FALSE(alive(b.pid));
  EXPECT_TRUE(living_shims(data_dir_).empty());
}

TEST_F(FakeNode, AnAgentThatStopsLeavesItsEnginesToTheNext) {
  start_agent(options());
  desire({spec("a-1")});
  const ReplicaStatus a = await_state("a-1", ReplicaState::kReady);
  agent_->signal(SIGTERM);
  EXPECT_EQ(agent_exit(), 0);
  EXPECT_TRUE(alive(a.pid));
  start_agent(options());
  EXPECT_EQ(await_state("a-1", ReplicaState::kReady).pid, a.pid);
}

}  // namespace
}  // namespace aiv::node::test
