// How machines become nodes: tokens, the one answer for every fault of them, and who may take which name.
#include "controller/enrolment.hpp"

#include <gtest/gtest.h>

#include <filesystem>

#include "api_rig.hpp"
#include "core/join_token.hpp"

namespace aiv::controller {
namespace {

using test::Answer;
using test::FakeExchange;
using test::Rig;

constexpr std::int64_t kDayS = 86'400;
constexpr std::int64_t kDayMs = kDayS * 1000;

std::int64_t now_ms() { return Cluster::now().unix_ms; }

// The API with an authority, and machines that ask to join.
struct Site {
  Site()
      : enrolment(*rig.cluster,
                  {authority(), 7 * kDayS, 30 * kDayS, [this] { return now_ms() + later_ms; }}) {
    EXPECT_TRUE(net::ensure_authority(authority(), "aiv"));
    rig.api_context->authority_dir = authority();
    rig.api_context->link_address = [] { return std::string("pc1:7443"); };
  }
  ~Site() {
    std::error_code ignored;
    std::filesystem::remove_all(dir, ignored);
  }
  [[nodiscard]] std::string authority() const { return dir + "/ca"; }

  JoinToken token(const std::string& body = "{}") {
    const Answer made = rig.call("POST", "/aiv/v1/tokens", body);
    EXPECT_EQ(made.status, 201) << made.body.dump();
    auto parsed = parse_join_token(made.body.at("token").get<std::string>());
    EXPECT_TRUE(parsed);
    return *parsed;
  }

  static net::NewRequest machine() { return *net::make_request("node/whatever"); }

  Answer join(const JoinToken& with, const std::string& node, const net::NewRequest& request,
              const std::string& peer = "10.0.0.4", std::int64_t clock_off_ms = 0) {
    Json wish;
    wish["token_id"] = with.id;
    wish["secret"] = with.secret;
    wish["node"] = node;
    wish["request"] = request.request;
    wish["time_ms"] = now_ms() + clock_off_ms;
    return send(dump_json(wish), peer);
  }
  Answer send(const std::string& body, const std::string& peer = "10.0.0.4") {
    net::RequestHead head{"POST", "/internal/v1/join", "", {}};
    head.headers.push_back({"x-aiv-peer", peer});
    auto exchange = std::make_shared<FakeExchange>(std::move(head), body);
    net::spawn(rig.context.get_executor(), enrolment.handle(exchange), "join");
    rig.run_until([&] { return exchange->finished; });
    return {exchange->answer.status, *parse_json(exchange->text)};
  }

  // A machine that was away asks with its old certificate; by its clock it is as late as by ours.
  Answer come_back(const std::string& node, const net::NewRequest& request, const std::string& certificate,
                   const std::string& peer = "10.0.0.4") {
    Json wish;
    wish["certificate"] = certificate;
    wish["node"] = node;
    wish["request"] = request.request;
    wish["time_ms"] = now_ms() + later_ms;
    return send(dump_json(wish), peer);
  }

  std::int64_t later_ms = 0;  // how far our clock has gone on
  char path[32] = "/tmp/aive-XXXXXX";
  std::string dir = ::mkdtemp(path);
  Rig rig;
  Enrolment enrolment;
};

TEST(Enrolment, ATokenBecomesACertificateOfTheNodesOwnKeyInTheNameItAskedFor) {
  Site site;
  const net::NewRequest machine = Site::machine();
  const Answer joined = site.join(site.token(R"({"labels":{"zone":"a"}})"), "pc4", machine);
  ASSERT_EQ(joined.status, 200) << joined.body.dump();
  const std::string certificate = joined.body.at("certificate");
  EXPECT_TRUE(net::check_issued(certificate, machine.key, joined.body.at("authority"), "node/pc4"));
  EXPECT_FALSE(net::check_issued(certificate, Site::machine().key, joined.body.at("authority"), "node/pc4"));
  EXPECT_FALSE(net::check_issued(certificate, machine.key, joined.body.at("authority"), "node/pc5"));
  const auto facts = net::certificate_facts(certificate);
  ASSERT_TRUE(facts);
  EXPECT_EQ(facts->identity, "aiv://aiv/node/pc4");
  EXPECT_NEAR(static_cast<double>(facts->expires_at_s - facts->issued_at_s), 7 * kDayS, 2);
  const Answer node = site.rig.call("GET", "/aiv/v1/nodes/pc4");
  ASSERT_EQ(node.status, 200);
  EXPECT_EQ(node.body.at("labels").at("zone"), "a");
}

TEST(Enrolment, TheTokensTextIsShownOnceAndItsSecretIsNowhereInTheState) {
  Site site;
  const JoinToken token = site.token();
  const Answer listed = site.rig.call("GET", "/aiv/v1/tokens");
  EXPECT_EQ(listed.body.at("items").size(), 1U);
  EXPECT_FALSE(listed.body.dump().contains(token.secret));
  const auto all = site.rig.memory->range("/", "\xff", 0, 0);
  ASSERT_TRUE(all);
  for (const KeyValue& kv : all->kvs) EXPECT_FALSE(kv.value.contains(token.secret)) << kv.key;
}

TEST(Enrolment, EveryFaultOfATokenGetsTheSameAnswer) {
  Site site;
  const JoinToken good = site.token(R"({"uses":1})");
  JoinToken unknown = good;
  unknown.id = "zzzzzz";
  JoinToken wrong = good;
  wrong.secret.back() = wrong.secret.back() == 'A' ? 'B' : 'A';
  const JoinToken named = site.token(R"({"node":"pc9"})");
  ASSERT_EQ(site.join(good, "pc1", Site::machine()).status, 200);
  const Answer first = site.join(unknown, "pc2", Site::machine());
  EXPECT_EQ(first.status, 401);
  for (const auto& [token, node] : {std::pair{wrong, "pc2"}, std::pair{named, "pc2"}, std::pair{good, "pc2"}}) {
    const Answer answer = site.join(token, node, Site::machine());
    EXPECT_EQ(answer.status, 401);
    EXPECT_EQ(answer.body, first.body);
  }
  EXPECT_EQ(site.rig.call("GET", "/aiv/v1/nodes/pc2").status, 404);
  EXPECT_EQ(site.join(named, "pc9", Site::machine()).status, 200);
}

TEST(Enrolment, AMachineWhoseAnswerGotLostAsksAgainWithoutASecondUse) {
  Site site;
  const JoinToken token = site.token(R"({"uses":1})");
  const net::NewRequest machine = Site::machine();
  ASSERT_EQ(site.join(token, "pc4", machine).status, 200);
  EXPECT_EQ(site.join(token, "pc4", machine).status, 200);
  EXPECT_EQ(site.join(token, "pc4", Site::machine()).status, 409) << "another key is another machine";
  EXPECT_EQ(site.rig.call("GET", "/aiv/v1/tokens/" + token.id).body.at("uses_left"), 0);
}

TEST(Enrolment, ATokenIsNoWayToBecomeANodeThatIsThereAlready) {
  Site site;
  site.rig.join("n1", {8 * kGiB});
  const JoinToken token = site.token();
  const Answer answer = site.join(token, "n1", Site::machine());
  EXPECT_EQ(answer.status, 409);
  EXPECT_EQ(site.rig.call("GET", "/aiv/v1/tokens/" + token.id).body.at("uses_left"), 16) << "it cost no use";
}

TEST(Enrolment, TenFailuresInAMinuteFromOneAddressAreEnoughForThatAddress) {
  Site site;
  JoinToken wrong = site.token();
  wrong.secret.assign(wrong.secret.size(), 'x');
  for (int i = 0; i < 10; ++i) EXPECT_EQ(site.join(wrong, "pc2", Site::machine()).status, 401);
  EXPECT_EQ(site.join(wrong, "pc2", Site::machine()).status, 429);
  EXPECT_EQ(site.join(wrong, "pc2", Site::machine(), "10.0.0.5").status, 401);
}

TEST(Enrolment, ClocksThatDifferAndNamesThatCannotBeAreSaidInWords) {
  Site site;
  const JoinToken token = site.token();
  const Answer late = site.join(token, "pc4", Site::machine(), "10.0.0.4", 6 * 60'000);
  EXPECT_EQ(late.status, 400);
  EXPECT_TRUE(late.message().contains("clocks differ")) << late.message();
  for (const std::string& name : {std::string("../x"), std::string("a/b"), std::string(), std::string("x y"), std::string(64, 'a')}) {
    EXPECT_EQ(site.join(token, name, Site::machine()).status, 400) << name;
  }
  net::NewRequest garbage;
  garbage.request = "-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n";
  EXPECT_EQ(site.join(token, "pc4", garbage).status, 400);
  for (const char* body : {"", "[]", "{", R"({"token_id":3})", R"({"token_id":"a","secret":"b"})"}) {
    EXPECT_EQ(site.send(body).status, 400) << body;
  }
  EXPECT_EQ(site.rig.call("GET", "/aiv/v1/tokens/" + token.id).body.at("uses_left"), 16);
}

TEST(Enrolment, ARemovedNodeIsNamedToTheGatewayAndItsNameCanJoinAgain) {
  Site site;
  const JoinToken token = site.token();
  ASSERT_EQ(site.join(token, "pc4", Site::machine()).status, 200);
  const Answer removed = site.rig.call("DELETE", "/aiv/v1/nodes/pc4");
  ASSERT_EQ(removed.status, 200) << removed.body.dump();
  EXPECT_EQ(removed.body.at("revision"), site.rig.cluster->revision()) << "of the change, not a constant";
  const auto& denied = site.rig.cluster->state().denied_nodes;
  ASSERT_EQ(denied.size(), 1U);
  EXPECT_EQ(denied.front().node, "pc4");
  EXPECT_GT(denied.front().issued_before_s, now_ms() / 1000 - 2);
  const Answer again = site.join(token, "pc4", Site::machine());
  ASSERT_EQ(again.status, 200) << again.body.dump();
  const auto facts = net::certificate_facts(again.body.at("certificate").get<std::string>());
  EXPECT_GE(facts->issued_at_s, denied.front().issued_before_s) << "or the new certificate would be refused too";
}

// A node that has joined, and its certificate.
struct Joined {
  explicit Joined(Site& site, const std::string& name = "pc4") {
    const Answer answer = site.join(site.token(), name, machine);
    EXPECT_EQ(answer.status, 200) << answer.body.dump();
    certificate = answer.body.value("certificate", "");
  }
  net::NewRequest machine = Site::machine();
  std::string certificate;
};

TEST(LapsedCertificates, ANodeThatWasSwitchedOffForTenDaysGetsANewOneForItsKey) {
  Site site;
  const Joined node(site);
  site.later_ms = 10 * kDayMs;
  const Answer answer = site.come_back("pc4", node.machine, node.certificate);
  ASSERT_EQ(answer.status, 200) << answer.body.dump();
  const std::string renewed = answer.body.at("certificate");
  EXPECT_NE(renewed, node.certificate);
  EXPECT_TRUE(net::check_issued(renewed, node.machine.key, answer.body.at("authority"), "node/pc4"));
  const auto events = site.rig.call("GET", "/aiv/v1/events").body.at("items");
  const bool told = std::ranges::any_of(events, [](const Json& event) {
    return event.at("kind") == "node.certificate_renewed" && event.at("subject") == "node/pc4";
  });
  EXPECT_TRUE(told);
}

TEST(LapsedCertificates, UntilThirtyDaysAfterTheLapseAndThenTheCommandsAreNamed) {
  Site site;
  const Joined node(site);
  site.later_ms = 37 * kDayMs - 60'000;
  EXPECT_EQ(site.come_back("pc4", node.machine, node.certificate).status, 200);
  site.later_ms = 37 * kDayMs + 60'000;
  const Answer late = site.come_back("pc4", node.machine, node.certificate);
  EXPECT_EQ(late.status, 401);
  EXPECT_TRUE(late.message().contains("aiv node rm pc4")) << late.message();
  EXPECT_TRUE(late.message().contains("aiv token create --node pc4")) << late.message();
}

TEST(LapsedCertificates, ARemovedNodeIsNotLetInByItsOldCertificate) {
  Site site;
  const Joined node(site);
  ASSERT_EQ(site.rig.call("DELETE", "/aiv/v1/nodes/pc4").status, 200);
  EXPECT_EQ(site.come_back("pc4", node.machine, node.certificate).status, 401);
  site.later_ms = 10 * kDayMs;
  const Answer answer = site.come_back("pc4", node.machine, node.certificate);
  EXPECT_EQ(answer.status, 401);
  EXPECT_TRUE(answer.message().contains("was removed")) << answer.message();
  // Nor when somebody else has the name now.
  site.later_ms = 0;
  const Joined other(site);
  EXPECT_EQ(site.come_back("pc4", node.machine, node.certificate).status, 401);
  EXPECT_EQ(site.come_back("pc4", other.machine, other.certificate).status, 200);
}

TEST(LapsedCertificates, AreOfUseToNobodyWithoutTheirKeyUnderTheirNameFromOurAuthority) {
  Site site;
  const Joined node(site);
  const Joined second(site, "pc5");
  site.later_ms = 10 * kDayMs;
  EXPECT_EQ(site.come_back("pc4", Site::machine(), node.certificate).status, 401)
      << "a certificate is no secret: the key is";
  EXPECT_EQ(site.come_back("pc5", node.machine, node.certificate).status, 401) << "another node's name";
  EXPECT_EQ(site.come_back("pc5", second.machine, node.certificate).status, 401);
  ASSERT_TRUE(net::ensure_authority(site.dir + "/other", "aiv"));
  const auto forged = net::sign_request(site.dir + "/other", "node/pc4", node.machine.request, 7 * kDayS);
  ASSERT_TRUE(forged);
  EXPECT_EQ(site.come_back("pc4", node.machine, forged->certificate).status, 401) << "another authority's";
  const auto server = net::sign_request(site.authority(), "server/pc4", node.machine.request, 7 * kDayS);
  ASSERT_TRUE(server);
  EXPECT_EQ(site.come_back("pc4", node.machine, server->certificate).status, 401) << "not a node's";
  const auto unknown = net::sign_request(site.authority(), "node/pc9", node.machine.request, 7 * kDayS);
  ASSERT_TRUE(unknown);
  EXPECT_EQ(site.come_back("pc9", node.machine, unknown->certificate).status, 401) << "nobody we know of";
  for (const char* junk : {"x", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"}) {
    EXPECT_EQ(site.come_back("pc4", node.machine, junk, "10.0.0.9").status / 100, 4) << junk;
  }
  EXPECT_EQ(site.come_back("pc4", node.machine, node.certificate, "10.0.0.7").status, 200)
      << "and all that cost the node nothing";
}

TEST(LapsedCertificates, AClockThatIsWrongIsSaidInWords) {
  Site site;
  const Joined node(site);
  Json wish;
  wish["certificate"] = node.certificate;
  wish["node"] = "pc4";
  wish["request"] = node.machine.request;
  wish["time_ms"] = now_ms() + kDayMs;
  const Answer answer = site.send(dump_json(wish));
  EXPECT_EQ(answer.status, 400);
  EXPECT_TRUE(answer.message().contains("clocks differ")) << answer.message();
}

TEST(Enrolment, EveryDeleteAnswersWithTheRevisionOfItsChange) {
  Site site;
  const JoinToken token = site.token();
  site.rig.join("n1", {8 * kGiB});
  const Answer key = site.rig.call("POST", "/aiv/v1/keys", R"({"name":"s7"})");
  ASSERT_EQ(site.rig.call("POST", "/aiv/v1/deployments", R"({"name":"chat","model":"fake-small"})").status, 201);
  for (const std::string& path : {"tokens/" + token.id, "keys/" + key.body.at("id").get<std::string>(),
                                 std::string("deployments/chat"), std::string("models/fake-small")}) {
    const std::int64_t before = site.rig.cluster->revision();
    const Answer gone = site.rig.call("DELETE", "/aiv/v1/" + path);
    ASSERT_EQ(gone.status, 200) << path << gone.body.dump();
    EXPECT_GT(gone.body.at("revision").get<std::int64_t>(), before) << path;
    EXPECT_LE(gone.body.at("revision").get<std::int64_t>(), site.rig.cluster->revision()) << path;
  }
}

TEST(JoinTokens, AreReadBackAndWhatIsNotOneIsSaidWithoutRepeatingIt) {
  const JoinToken token{"abc123", std::string(26, 'Z'), std::string(42, 'a') + "_"};
  EXPECT_EQ(parse_join_token(format_join_token(token)).value(), token);
  const std::string text = format_join_token(token);
  for (std::size_t cut = 0; cut < text.size(); ++cut) {
    const auto parsed = parse_join_token(std::string_view(text).substr(0, cut));
    ASSERT_FALSE(parsed);
    EXPECT_FALSE(parsed.error().message().contains("ZZZ"));
  }
  EXPECT_FALSE(parse_join_token(text + "x"));
  EXPECT_FALSE(parse_join_token("aivj2" + text.substr(5)));
}

}  // namespace
}  // namespace aiv::controller
