// Engines that say nothing: how soon a request leaves them, who is sent there meanwhile, and when they are
// used again.
#include "gateway/pulse.hpp"

#include <gtest/gtest.h>

#include "scripted_agent.hpp"

namespace aiv::gateway::test {
namespace {

constexpr const char* kStream = R"("stream":true)";

GatewayOptions options() {
  GatewayOptions options;
  options.auth = false;
  options.stall_ms_min = 60'000;  // so that only the question can tell
  return options;
}

class PulseTest : public ::testing::Test {
 protected:
  Cluster cluster{options()};
  Agent& hung = cluster.add_agent("hung");
  Agent& well = cluster.add_agent("well");

  void SetUp() override {
    RouteTable table = cluster.table(4);
    table.models[0].replicas[0].relative_speed = 50;  // asked first
    cluster.apply(table);
    hung.script.stall_at = 0;
  }
  Replica& replica(std::size_t i) { return *cluster.state().dispatcher.find("m")->replicas[i]; }
  static int chats(const Agent& agent) {
    return static_cast<int>(
        std::count_if(agent.paths.begin(), agent.paths.end(),
                      [](const std::string& path) { return path.ends_with("/completions"); }));
  }
};

TEST_F(PulseTest, ARequestWithoutATokenLeavesASilentEngineWithinASecond) {
  for (const char* fields : {kStream, ""}) {
    replica(0).hung = false;
    replica(0).ejection.succeeded();
    const auto began = net::Clock::now();
    EXPECT_EQ(cluster.chat(fields).status, 200);
    EXPECT_LT(net::Clock::now() - began, net::milliseconds(1000)) << fields;
    EXPECT_EQ(chats(well), *fields != 0 ? 1 : 2);
  }
}

TEST_F(PulseTest, ManyAtOnceLeaveItWhateverTheRetryBudgetSays) {
  std::vector<std::shared_ptr<const Answer>> answers;
  for (int i = 0; i < 8; ++i) answers.push_back(cluster.chat_later(kStream));
  ASSERT_TRUE(cluster.run_until([&] {
    return std::all_of(answers.begin(), answers.end(), [](const auto& a) { return a->status != 0; });
  }));
  for (const auto& answer : answers) EXPECT_EQ(answer->status, 200) << answer->body;
}

TEST_F(PulseTest, NobodyElseIsSentThereUntilItAnswersAndThenItIsUsedAgain) {
  EXPECT_EQ(cluster.chat(kStream).status, 200);
  EXPECT_TRUE(replica(0).hung);
  const auto later = net::Clock::now() + net::milliseconds(1500);  // longer than the first back-off
  cluster.run_until([&] { return net::Clock::now() > later; });
  const auto began = net::Clock::now();
  EXPECT_EQ(cluster.chat(kStream).status, 200);
  EXPECT_LT(net::Clock::now() - began, net::milliseconds(200));
  EXPECT_EQ(chats(hung), 1);
  hung.script.stall_at = -1;  // SIGCONT
  EXPECT_TRUE(cluster.run_until([&] { return !replica(0).hung; }));
  EXPECT_EQ(cluster.chat(kStream).status, 200);
  EXPECT_EQ(chats(hung), 2);
}

TEST_F(PulseTest, AnEngineThatIsSlowButAnswersKeepsItsRequest) {
  hung.script = {};
  hung.script.first_ms = 1200;  // a long prompt
  EXPECT_EQ(cluster.chat(kStream).status, 200);
  EXPECT_EQ(chats(well), 0);
  EXPECT_EQ(chats(hung), 1);
}

TEST_F(PulseTest, ARequestIsMovedQuicklyOnceAndThenGivenTime) {
  well.script.first_ms = 1000;
  cluster.run_until([] { return true; });
  const Answer answer = cluster.chat(kStream);
  EXPECT_EQ(answer.status, 200) << answer.body;
  EXPECT_EQ(chats(well), 1);
}

TEST_F(PulseTest, TheOnlyReplicaIsWaitedForHoweverSilentItIs) {
  RouteTable table = cluster.table(4);
  table.models[0].replicas.resize(1);
  cluster.apply(table);
  hung.script = {};
  hung.script.first_ms = 1500;
  const Answer answer = cluster.chat(kStream);
  EXPECT_EQ(answer.status, 200);
  EXPECT_FALSE(replica(0).hung);
}

}  // namespace
}  // namespace aiv::gateway::test
