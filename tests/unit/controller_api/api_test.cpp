#include "controller/api.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "api_rig.hpp"
#include "base/hash.hpp"
#include "core/keys.hpp"

namespace aiv::controller {
namespace {

using test::Answer;
using test::Rig;

TEST(Api, EveryRouteRefusesEveryRoleBelowItsOwnBeforeItReadsAnything) {
  Rig rig;
  for (const ApiRoute& route : api_routes()) {
    std::string path(route.pattern);
    for (const char* argument : {"{id*}", "{name*}", "{id}"}) {
      if (const auto at = path.find(argument); at != std::string::npos) path.replace(at, std::string(argument).size(), "x");
    }
    const std::string method(route.method);
    for (const auto& [role, access] : {std::pair{"", Access::kPublic}, {"user", Access::kUser},
                                       {"operator", Access::kOperator}, {"nonsense", Access::kPublic}}) {
      if (access >= route.access) continue;
      const Answer answer = rig.call(method, path, "not json", role);
      EXPECT_EQ(answer.status, access == Access::kPublic ? 401 : 403) << method << " " << path << " as " << role;
    }
  }
  EXPECT_EQ(rig.call("GET", "/aiv/v1/nothing", "", "").status, 401) << "a stranger does not learn what exists";
  EXPECT_EQ(rig.call("GET", "/aiv/v1/nothing").status, 404);
  EXPECT_EQ(rig.call("PUT", "/aiv/v1/nodes").status, 405);
  EXPECT_EQ(rig.call("GET", "/aiv/v1/version", "", "").status, 200);
}

TEST(Api, TheOpenApiDocumentAndTheRouteTableSayTheSame) {
  Rig rig;
  const Answer answer = rig.call("GET", "/aiv/v1/openapi.json", "", "");
  ASSERT_EQ(answer.status, 200);
  std::set<std::string> described;
  for (const auto& [path, operations] : answer.body.at("paths").items()) {
    for (const auto& [method, operation] : operations.items()) {
      std::string upper = method;
      for (char& c : upper) c = static_cast<char>(std::toupper(c));
      if (operation.value("x-aiv-served-by", "controller") == "controller") described.insert(upper + " " + path);
      EXPECT_TRUE(operation.contains("x-aiv-role")) << method << " " << path << " is in no route";
    }
  }
  std::set<std::string> served;
  for (const ApiRoute& route : api_routes()) {
    std::string pattern(route.pattern);
    std::erase(pattern, '*');
    served.insert(std::string(route.method) + " " + pattern);
    EXPECT_EQ(answer.body.at("paths").at(pattern).at([&] {
                std::string lower(route.method);
                for (char& c : lower) c = static_cast<char>(std::tolower(c));
                return lower;
              }()).at("x-aiv-role"),
              to_string(route.access));
  }
  EXPECT_EQ(described, served);
}

TEST(Api, EveryListHasItemsAndARevision) {
  Rig rig;
  for (const char* name : {"nodes", "devices", "models", "deployments", "replicas", "keys", "events"}) {
    const Answer answer = rig.call("GET", std::string("/aiv/v1/") + name);
    EXPECT_EQ(answer.status, 200) << name;
    EXPECT_TRUE(answer.body.at("items").is_array()) << name;
    EXPECT_TRUE(answer.body.at("revision").is_number_integer()) << name;
  }
}

TEST(Api, ADeploymentIsStoredPlannedAndShown) {
  Rig rig;
  rig.join("n1", {8 * kGiB});
  const Answer made = rig.call("POST", "/aiv/v1/deployments", R"({"name":"chat","model":"fake-small","replicas":1,"ctx":2048})");
  ASSERT_EQ(made.status, 201) << made.body.dump();
  EXPECT_EQ(made.body.at("name"), "chat");
  EXPECT_EQ(made.body.at("ctx"), 2048);
  EXPECT_EQ(made.body.at("slots"), 2);
  rig.run_until([&] { return rig.cluster->desired_for("n1") != nullptr && rig.cluster->desired_for("n1")->replicas.size() == 1; });
  const Answer replicas = rig.call("GET", "/aiv/v1/replicas?deployment=chat");
  ASSERT_EQ(replicas.body.at("items").size(), 1u);
  const Json& replica = replicas.body.at("items").at(0);
  EXPECT_EQ(replica.at("node"), "n1");
  EXPECT_EQ(replica.at("state"), "pending");
  const Json& device = replica.at("devices").at(0);
  EXPECT_EQ(device.at("bytes").get<Bytes>(), device.at("weights_bytes").get<Bytes>() + device.at("kv_bytes").get<Bytes>() +
                                                 device.at("compute_bytes").get<Bytes>() + device.at("overhead_bytes").get<Bytes>());
  const Answer devices = rig.call("GET", "/aiv/v1/devices/n1/0");
  EXPECT_EQ(devices.body.at("reserved_bytes"), device.at("bytes"));
  const std::string events = rig.call("GET", "/aiv/v1/events?since=0").body.dump();
  EXPECT_NE(events.find("replica.placed"), std::string::npos);
}

TEST(Api, ASecondPostOfTheSameDeploymentChangesNothing) {
  Rig rig;
  rig.join("n1", {8 * kGiB});
  const std::string body = R"({"name":"chat","model":"fake-small"})";
  const Answer first = rig.call("POST", "/aiv/v1/deployments", body);
  const Answer second = rig.call("POST", "/aiv/v1/deployments", body);
  EXPECT_EQ(first.status, 201);
  EXPECT_EQ(second.status, 200);
  EXPECT_EQ(first.body.at("revision"), second.body.at("revision"));
}

TEST(Api, WhatFitsNowhereIsRefusedWithNumbersAndLeavesNothingBehind) {
  Rig rig;
  rig.join("n1", {4 * kGiB});
  const std::string wish = R"({"name":"big","model":"fake:big?weights=6GiB"})";
  const Answer refused = rig.call("POST", "/aiv/v1/deployments", wish);
  EXPECT_EQ(refused.status, 422);
  EXPECT_EQ(refused.code(), "does_not_fit");
  EXPECT_NE(refused.message().find("GiB"), std::string::npos) << refused.message();
  EXPECT_TRUE(rig.call("GET", "/aiv/v1/deployments").body.at("items").empty());
  EXPECT_TRUE(rig.call("GET", "/aiv/v1/models").body.at("items").empty());
  const Answer kept = rig.call("POST", "/aiv/v1/deployments",
                               R"({"name":"big","model":"fake:big?weights=6GiB","pending":true})");
  EXPECT_EQ(kept.status, 201);
  EXPECT_EQ(kept.body.at("state"), "pending");
  EXPECT_FALSE(kept.body.at("reason").get<std::string>().empty());
}

TEST(Api, ADryRunShowsThePlanAndStoresNothing) {
  Rig rig;
  rig.join("n1", {8 * kGiB});
  const Answer answer = rig.call("POST", "/aiv/v1/deployments", R"({"name":"chat","model":"fake-small","dry_run":true})");
  ASSERT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body.at("plan").at("placements").at(0).at("node"), "n1");
  EXPECT_TRUE(rig.call("GET", "/aiv/v1/deployments").body.at("items").empty());
}

TEST(Api, APatchTakesAPlainNumberOrARangeOfReplicas) {
  Rig rig;
  rig.join("n1", {8 * kGiB});
  rig.join("n2", {8 * kGiB});
  rig.call("POST", "/aiv/v1/deployments", R"({"name":"chat","model":"fake-small"})");
  EXPECT_EQ(rig.call("PATCH", "/aiv/v1/deployments/chat", R"({"replicas":2})").body.at("replicas").at("min"), 2);
  const Answer range = rig.call("PATCH", "/aiv/v1/deployments/chat", R"({"replicas":{"min":1,"max":2}})");
  EXPECT_EQ(range.body.at("replicas").at("max"), 2);
  EXPECT_EQ(rig.call("PATCH", "/aiv/v1/deployments/chat", R"({"replicas":{"min":3,"max":2}})").status, 400);
}

TEST(Api, AnOldRevisionIsRefusedWithThePresentOne) {
  Rig rig;
  rig.join("n1", {8 * kGiB});
  const Answer made = rig.call("POST", "/aiv/v1/deployments", R"({"name":"chat","model":"fake-small"})");
  const std::int64_t revision = made.body.at("revision");
  const std::string change = R"({"slots":1,"revision":)" + std::to_string(revision) + "}";
  EXPECT_EQ(rig.call("PATCH", "/aiv/v1/deployments/chat", change).status, 200);
  const Answer late = rig.call("PATCH", "/aiv/v1/deployments/chat", change);
  EXPECT_EQ(late.status, 409);
  EXPECT_EQ(late.body.at("current").at("slots"), 1);
  EXPECT_GT(late.body.at("current").at("revision").get<std::int64_t>(), revision);
}

TEST(Api, BadInputIsRefusedByTheNameOfTheField) {
  Rig rig;
  rig.join("n1", {8 * kGiB});
  const std::vector<std::pair<std::string, std::string>> cases{
      {R"({"model":"fake-small","colour":1})", "colour"},
      {R"({"model":"fake-small","ctx":"many"})", "ctx"},
      {R"({"model":"fake-small","ctx":-1})", "ctx"},
      {R"({"model":"fake-small","slots":0})", "slots"},
      {R"({"model":"fake-small","replicas":1.5})", "replicas"},
      {R"({"model":"fake-small","replicas":{"min":1,"mox":2}})", "mox"},
      {R"({"model":"fake-small","name":"../etc"})", "name"},
      {R"({"model":"fake-small","name":"a\u0000b"})", "name"},
      {R"({"name":"x"})", "model"},
      {R"({"model":5})", "model"},
      {R"({"model":"fake:x?wieghts=1"})", "wieghts"},
      {R"({"model":"relative/path.gguf"})", "absolute"},
      {R"({"model":)", "JSON"},
      {"[]", "object"}};
  for (const auto& [body, word] : cases) {
    const Answer answer = rig.call("POST", "/aiv/v1/deployments", body);
    EXPECT_EQ(answer.status, 400) << body;
    EXPECT_NE(answer.message().find(word), std::string::npos) << body << ": " << answer.message();
  }
  EXPECT_EQ(rig.call("POST", "/aiv/v1/deployments", R"({"model":"nobody"})").status, 404);
  EXPECT_EQ(rig.call("POST", "/aiv/v1/deployments", R"({"model":"/no/such.gguf"})").status, 404);
  const Answer large = rig.call("POST", "/aiv/v1/deployments", std::string(kApiBodyBytesMax + 1, ' '));
  EXPECT_EQ(large.status, 413);
  EXPECT_TRUE(rig.call("GET", "/aiv/v1/deployments").body.at("items").empty());
}

TEST(Api, AKeyIsShownOnceAndKnownByItsHashAlone) {
  Rig rig;
  rig.call("POST", "/aiv/v1/keys", R"({"name":"boss","role":"admin"})");
  const Answer made = rig.call("POST", "/aiv/v1/keys", R"({"name":"student7","role":"user","models":["chat"]})");
  ASSERT_EQ(made.status, 201);
  const auto parsed = parse_api_key(made.body.at("key").get<std::string>());
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->id, made.body.at("id").get<std::string>());
  const std::string listed = rig.call("GET", "/aiv/v1/keys").body.dump();
  EXPECT_EQ(listed.find(parsed->secret), std::string::npos);
  EXPECT_EQ(listed.find(sha256_hex(parsed->secret)), std::string::npos);
  const auto stored = static_cast<Store*>(rig.memory)->range("/", prefix_end("/"));
  bool hashed = false;
  for (const KeyValue& kv : stored->kvs) {
    EXPECT_EQ(kv.value.find(parsed->secret), std::string::npos) << kv.key;
    hashed = hashed || kv.value.find(sha256_hex(parsed->secret)) != std::string::npos;
  }
  EXPECT_TRUE(hashed);
  ASSERT_NE(rig.cluster->routes(), nullptr);
  EXPECT_EQ(rig.cluster->routes()->keys.size(), 2u);
  const std::string path = "/aiv/v1/keys/" + parsed->id;
  EXPECT_EQ(rig.call("PATCH", path, R"({"disabled":true})").body.at("disabled"), true);
  EXPECT_EQ(rig.call("DELETE", path).status, 200);
  EXPECT_EQ(rig.call("GET", path).status, 404);
}

// Until gateways are told these limits of a key's team.
void wait_for_team_limits(Rig& rig, const std::string& id, const KeyLimits& limits) {
  rig.run_until([&] {
    const RouteTable* routes = rig.cluster->routes();
    return routes != nullptr && std::ranges::any_of(routes->keys, [&](const RouteKey& key) { return key.id == id && key.team_limits == limits; });
  });
}

TEST(Api, ATeamIsMadeListedChangedAndRemovedAndItsKeysFollow) {
  Rig rig;
  const Answer made = rig.call("POST", "/aiv/v1/teams", R"({"name":"robots","limits":{"requests_per_min":5,"tokens_per_day":9}})");
  ASSERT_EQ(made.status, 201) << made.body.dump();
  EXPECT_EQ(rig.call("POST", "/aiv/v1/teams", R"({"name":"robots"})").code(), "exists");
  const Answer key = rig.call("POST", "/aiv/v1/keys", R"({"name":"a","team":"robots"})");
  ASSERT_EQ(key.status, 201) << key.body.dump();
  const std::string id = key.body.at("id").get<std::string>();
  EXPECT_EQ(key.body.at("team_limits").at("requests_per_min"), 5);
  wait_for_team_limits(rig, id, {.requests_per_min = 5, .tokens_per_day = 9});

  const Answer changed = rig.call("PATCH", "/aiv/v1/teams/robots", R"({"limits":{"requests_per_min":50}})");
  EXPECT_EQ(changed.body.at("limits").at("requests_per_min"), 50);
  EXPECT_EQ(changed.body.at("limits").at("tokens_per_day"), 9) << "what is left out stays";
  wait_for_team_limits(rig, id, {.requests_per_min = 50, .tokens_per_day = 9});
  EXPECT_EQ(rig.call("PATCH", "/aiv/v1/teams/robots", R"({"limits":{"rpm":1}})").status, 400);
  EXPECT_EQ(rig.call("PATCH", "/aiv/v1/teams/robots", R"({})").status, 400);

  const Answer listed = rig.call("GET", "/aiv/v1/teams");
  ASSERT_EQ(listed.body.at("items").size(), 1U);
  EXPECT_EQ(listed.body.at("items")[0].at("keys"), 1);
  EXPECT_EQ(rig.call("DELETE", "/aiv/v1/teams/robots").code(), "in_use");
  EXPECT_EQ(rig.call("PATCH", "/aiv/v1/keys/" + id, R"({"team":""})").body.at("team"), "");
  wait_for_team_limits(rig, id, {});
  EXPECT_EQ(rig.call("DELETE", "/aiv/v1/teams/robots").status, 200);
  EXPECT_EQ(rig.call("GET", "/aiv/v1/teams/robots").status, 404);
  EXPECT_EQ(rig.call("PATCH", "/aiv/v1/teams/robots", R"({"limits":{"concurrency":1}})").status, 404);
}

TEST(Api, TheFirstKeyMakesItsTeamAndALaterOneCannotChangeIt) {
  Rig rig;
  const Answer first = rig.call("POST", "/aiv/v1/keys", R"({"name":"a","team":"lab/3","team_limits":{"concurrency":2}})");
  ASSERT_EQ(first.status, 201) << first.body.dump();
  EXPECT_EQ(rig.call("GET", "/aiv/v1/teams/lab/3").body.at("limits").at("concurrency"), 2);
  EXPECT_EQ(rig.call("POST", "/aiv/v1/keys", R"({"name":"b","team":"lab/3","team_limits":{"concurrency":2}})").status, 201);
  EXPECT_EQ(rig.call("POST", "/aiv/v1/keys", R"({"name":"c","team":"lab/3","team_limits":{"concurrency":9}})").status, 409);
  EXPECT_EQ(rig.call("POST", "/aiv/v1/keys", R"({"name":"d","team":"../x"})").status, 400);
  EXPECT_EQ(rig.call("POST", "/aiv/v1/keys", R"({"name":"e","limits":{"rpm":1}})").status, 400);
  const std::string id = first.body.at("id").get<std::string>();
  const Answer limited = rig.call("PATCH", "/aiv/v1/keys/" + id, R"({"limits":{"requests_per_min":3}})");
  EXPECT_EQ(limited.body.at("limits").at("requests_per_min"), 3);
  const Answer moved = rig.call("PATCH", "/aiv/v1/keys/" + id, R"({"team":"new"})");
  EXPECT_EQ(moved.body.at("team"), "new");
  EXPECT_EQ(moved.body.at("limits").at("requests_per_min"), 3) << "a change of team leaves the limits";
  EXPECT_EQ(rig.call("GET", "/aiv/v1/teams/new").body.at("keys"), 1);
  EXPECT_EQ(rig.call("GET", "/aiv/v1/teams/lab/3").body.at("keys"), 1);
}

TEST(Api, TeamsOfAnOlderStateGoOnAndOneThatAKeyJoinsCannotVanish) {
  Rig rig;
  RouteKey old;
  old.id = "0123456789";
  old.secret_sha256 = std::string(64, '0');
  old.name = "old";
  old.team = "veterans";
  old.team_limits.concurrency = 4;
  Cluster::Change change;
  change.txn.ops.push_back(Op::put(std::string(kKeyPrefix) + old.id, key_to_text({old, 1})));
  rig.apply(std::move(change));
  EXPECT_EQ(rig.call("GET", "/aiv/v1/teams/veterans").body.at("limits").at("concurrency"), 4);
  EXPECT_EQ(rig.call("POST", "/aiv/v1/keys", R"({"name":"new","team":"veterans"})").status, 201);
  wait_for_team_limits(rig, old.id, {.concurrency = 4});
  // What is raised holds, whatever the old key says.
  EXPECT_EQ(rig.call("PATCH", "/aiv/v1/teams/veterans", R"({"limits":{"concurrency":8}})").status, 200);
  wait_for_team_limits(rig, old.id, {.concurrency = 8});
  // A deletion that was begun before a key joined.
  ASSERT_EQ(rig.call("POST", "/aiv/v1/teams", R"({"name":"brief","limits":{"concurrency":1}})").status, 201);
  const std::int64_t seen = rig.cluster->revision_of("/aiv/teams/brief");
  EXPECT_EQ(rig.call("POST", "/aiv/v1/keys", R"({"name":"x","team":"brief"})").status, 201);
  EXPECT_NE(rig.cluster->revision_of("/aiv/teams/brief"), seen);
}

TEST(Api, TheLastAdminKeyCanNeitherBeDeletedNorDisabled) {
  Rig rig;
  const Answer made = rig.call("POST", "/aiv/v1/keys", R"({"name":"boss","role":"admin"})");
  const std::string path = "/aiv/v1/keys/" + made.body.at("id").get<std::string>();
  EXPECT_EQ(rig.call("DELETE", path).code(), "last_admin");
  EXPECT_EQ(rig.call("PATCH", path, R"({"disabled":true})").code(), "last_admin");
}

TEST(Api, TwoAdminsWhoRemoveEachOtherAtOnceLeaveOne) {
  Rig rig;
  const auto make = [&](const char* body) {
    return "/aiv/v1/keys/" + rig.call("POST", "/aiv/v1/keys", body).body.at("id").get<std::string>();
  };
  const std::string first = make(R"({"name":"first","role":"admin"})");
  const std::string second = make(R"({"name":"second","role":"admin"})");
  const auto one = rig.begin("DELETE", first);
  const auto other = rig.begin("PATCH", second, R"({"disabled":true})");
  EXPECT_EQ(rig.end(one).status, 200);
  EXPECT_EQ(rig.end(other).status, 409);
  EXPECT_EQ(rig.call("GET", second).body.at("disabled"), false);
}

TEST(Api, OfTwoChangesOfANodeAtOnceNoneIsLostUnsaid) {
  Rig rig;
  rig.join("pc1", {4 * kGiB});
  rig.run_until([&] { return rig.cluster->state().nodes.contains("pc1"); });
  const auto drain = rig.begin("PATCH", "/aiv/v1/nodes/pc1", R"({"draining":true})");
  const auto label = rig.begin("PATCH", "/aiv/v1/nodes/pc1", R"({"labels":{"zone":"a"}})");
  EXPECT_EQ(rig.end(drain).status, 200);
  EXPECT_EQ(rig.end(label).status, 409);
  EXPECT_EQ(rig.call("PATCH", "/aiv/v1/nodes/pc1", R"({"labels":{"zone":"a"}})").status, 200);
  const Json node = rig.call("GET", "/aiv/v1/nodes/pc1").body;
  EXPECT_EQ(node.at("draining"), true) << node;
  EXPECT_EQ(node.at("labels").at("zone"), "a") << node;
}

TEST(Api, AStateThatTakesNoWritesIs503WithTheReasonAndReadingGoesOn) {
  Rig rig;
  rig.memory->set_read_only("the disk is full");
  const Answer refused = rig.call("POST", "/aiv/v1/keys", R"({"name":"x"})");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.message(), "the disk is full");
  EXPECT_EQ(refused.body.at("error").at("outcome"), "none");
  EXPECT_EQ(rig.call("GET", "/aiv/v1/keys").status, 200);
  rig.memory->set_read_only("");
  EXPECT_EQ(rig.call("POST", "/aiv/v1/keys", R"({"name":"x"})").status, 201);
  rig.memory->fail_next({TxnOutcome::kUnknown, true});
  EXPECT_EQ(rig.call("POST", "/aiv/v1/keys", R"({"name":"y"})").body.at("error").at("outcome"), "unknown");
}

TEST(Api, EachChangeLeavesAnAuditRecordInTheSameTransaction) {
  Rig rig;
  rig.call("POST", "/aiv/v1/keys", R"({"name":"x"})");
  const auto audit = static_cast<Store*>(rig.memory)->range("/aiv/audit/", prefix_end("/aiv/audit/"));
  ASSERT_EQ(audit->kvs.size(), 1u);
  EXPECT_NE(audit->kvs[0].value.find("key/tester"), std::string::npos);
  const auto keys = static_cast<Store*>(rig.memory)->range("/aiv/keys/", prefix_end("/aiv/keys/"));
  EXPECT_EQ(keys->kvs[0].mod_rev, audit->kvs[0].mod_rev);
}

TEST(Api, TheEventStreamGivesWhatWasMissedAndThenFollows) {
  Rig rig;
  rig.cluster->tell("test.one", "cluster", "first");
  net::RequestHead head{"GET", "/aiv/v1/events", "since=0", {{"x-aiv-role", "operator"}, {"accept", "text/event-stream"}}};
  auto exchange = std::make_shared<test::FakeExchange>(std::move(head), "");
  net::spawn(rig.context.get_executor(), rig.api->handle(exchange), "stream");
  rig.run_until([&] { return exchange->text.contains("event: test.one\n"); });
  rig.cluster->tell("test.two", "cluster", "second");
  rig.run_until([&] { return exchange->text.contains("event: test.two\n"); });
  exchange->leave();
  rig.context.restart();
  rig.context.run_for(std::chrono::milliseconds(20));
}

TEST(Cluster, AnOtherLeaderInTheStateFencesThisOne) {
  Rig rig;
  std::string reason;
  rig.cluster->on_fenced = [&](const std::string& why) { reason = why; };
  rig.memory->txn({{}, {Op::put(kEpochKey, "99")}});
  EXPECT_EQ(rig.call("POST", "/aiv/v1/keys", R"({"name":"x"})").status, 409);
  EXPECT_FALSE(reason.empty());
  EXPECT_FALSE(rig.cluster->leads());
}

TEST(ApiWatch, AListIsSentWholeAndThenEachChangeOfIt) {
  Rig rig;
  rig.join("n1", {8 * kGiB});
  net::RequestHead head{
      "GET", "/aiv/v1/deployments", "", {{"x-aiv-role", "operator"}, {"accept", "text/event-stream"}}};
  auto exchange = std::make_shared<test::FakeExchange>(std::move(head), "");
  ASSERT_EQ(rig.call("POST", "/aiv/v1/deployments", R"({"name":"chat","model":"fake-small"})").status, 201);
  net::spawn(rig.context.get_executor(), rig.api->handle(exchange), "watch");
  rig.run_until([&] { return exchange->text.contains("event: synced\n"); });
  EXPECT_LT(exchange->text.find("\"name\":\"chat\""), exchange->text.find("event: synced"));
  ASSERT_EQ(rig.call("POST", "/aiv/v1/deployments", R"({"name":"next","model":"fake-small"})").status, 201);
  rig.run_until([&] { return exchange->text.contains("\"name\":\"next\""); });
  ASSERT_EQ(rig.call("DELETE", "/aiv/v1/deployments/chat").status, 200);
  rig.run_until([&] { return exchange->text.contains("event: delete\ndata: {\"name\":\"chat\"}\n"); });
  exchange->leave();
  rig.run_until([&] { return exchange.use_count() == 1; });
}

TEST(ApiWatch, AsksForTheSameRoleAsTheList) {
  Rig rig;
  net::RequestHead head{
      "GET", "/aiv/v1/keys", "", {{"x-aiv-role", "operator"}, {"accept", "text/event-stream"}}};
  auto exchange = std::make_shared<test::FakeExchange>(std::move(head), "");
  net::spawn(rig.context.get_executor(), rig.api->handle(exchange), "watch");
  rig.run_until([&] { return exchange->finished; });
  EXPECT_EQ(exchange->answer.status, 403);
}

}  // namespace
}  // namespace aiv::controller
