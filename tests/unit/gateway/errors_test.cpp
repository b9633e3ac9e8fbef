#include <gtest/gtest.h>

#include "base/json.hpp"
#include "gateway/api_error.hpp"
#include "gateway/api_table.hpp"
#include "gateway/metrics.hpp"
#include "gateway/public_api.hpp"

namespace aiv::gateway {
namespace {

Json body_of(const ApiError& error) {
  const auto json = parse_json(openai_error_body(error));
  EXPECT_TRUE(json);
  return json ? (*json)["error"] : Json();
}

std::string header(const ApiError& error, std::string_view name) {
  return net::header_or(error_headers(error), name, "-");
}

TEST(ApiError, EveryFormHasAllFourKeysAndACodeThatIsAString) {
  for (const ApiError& error : {bad_request("x", "temperature"), unauthorized(), forbidden("x"), not_found("GET", "/x"),
                                method_not_allowed("PUT", "/x", "GET"), body_too_large(4096), model_not_found("m", {"a"}),
                                overloaded("x", "loading", 7), replica_failed("x"), timed_out("x")}) {
    const Json json = body_of(error);
    ASSERT_EQ(json.size(), 4u);
    EXPECT_TRUE(json["message"].is_string());
    EXPECT_TRUE(json["type"].is_string());
    EXPECT_TRUE(json["param"].is_string() || json["param"].is_null());
    EXPECT_TRUE(json["code"].is_string() || json["code"].is_null());
  }
}

TEST(ApiError, ClientsAreToldWhenToComeBackAndWhenNotTo) {
  EXPECT_EQ(header(overloaded("x", "loading", 7), "retry-after"), "7");
  EXPECT_EQ(header(overloaded("x", "loading", 7), "retry-after-ms"), "7000");
  EXPECT_EQ(header(overloaded("x", "loading", 7), "x-should-retry"), "-");
  EXPECT_EQ(header(bad_request("x"), "x-should-retry"), "false");
  EXPECT_EQ(header(replica_failed("x"), "x-should-retry"), "false");
  EXPECT_EQ(header(unauthorized(), "www-authenticate"), "Bearer");
}

TEST(ApiError, AnUnknownModelListsWhatTheKeyMayUse) {
  const Json json = body_of(model_not_found("gpt-4", {"qwen", "llama"}));
  EXPECT_EQ(json["code"], "model_not_found");
  EXPECT_EQ(json["param"], "model");
  EXPECT_NE(json["message"].get<std::string>().find("qwen, llama"), std::string::npos);
}

TEST(ApiError, TheEnginesOwnErrorsAreMapped) {
  const auto context = from_engine_error(
      400, R"({"error":{"code":400,"message":"too long","type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":4}})");
  EXPECT_EQ(context.code, "context_length_exceeded");
  EXPECT_EQ(context.type, "invalid_request_error");
  EXPECT_EQ(context.status, 400);
  EXPECT_EQ(from_engine_error(501, R"({"error":{"code":501,"message":"no","type":"not_supported_error"}})").code, "not_supported");
  EXPECT_EQ(from_engine_error(500, "nonsense").type, "api_error");
  EXPECT_EQ(from_engine_error(200, R"({"error":{"code":500,"message":"Compute error.","type":"server_error"}})").status, 500);
}

TEST(ApiError, JsonStringsAreEscapedAndInvalidUtf8IsReplaced) {
  std::string out;
  append_json_string(out, std::string_view("a\"\\\n\x01\xff\xC3\xA4\0z", 10));
  const auto json = parse_json("[" + out + "]");
  ASSERT_TRUE(json) << out;
  EXPECT_EQ((*json)[0].get<std::string>(), std::string("a\"\\\n\x01\xEF\xBF\xBD\xC3\xA4\0z", 12));
  for (const char* bad : {"\xC0\x80", "\xED\xA0\x80", "\xF5\x80\x80\x80", "\xE2\x82", "\x80"}) {
    out.clear();
    append_json_string(out, bad);
    EXPECT_TRUE(parse_json("[" + out + "]")) << out;
  }
}

TEST(ApiTable, TheEnginesOwnRoutesAreUnknown) {
  for (const char* path : {"/slots", "/completion", "/infill", "/lora-adapters", "/tokenize", "/apply-template", "/props",
                           "/v1/stream", "/models/load", "/v1/chat/completions/", "/v1/chat/completions/x", "/aiv/v1/", "/v1/models/"}) {
    EXPECT_EQ(match_api("POST", path).rule, nullptr) << path;
    EXPECT_EQ(match_api("GET", path).rule, nullptr) << path;
  }
}

TEST(ApiTable, EveryRouteTimesEveryRoleGivesWhatTheTableSays) {
  EXPECT_EQ(match_api("POST", "/v1/chat/completions").rule->access, Access::kUser);
  EXPECT_EQ(match_api("GET", "/aiv/v1/nodes").rule->access, Access::kOperator);
  EXPECT_EQ(match_api("GET", "/aiv/v1/nodes/n1").rule->access, Access::kOperator);
  for (const char* path : {"/aiv/v1/keys", "/aiv/v1/keys/x", "/aiv/v1/tokens", "/aiv/v1/whatever"}) {
    EXPECT_EQ(match_api("POST", path).rule->access, Access::kAdmin) << path;
  }
  EXPECT_FALSE(allowed(Access::kUser, false, Role::kAdmin));
  EXPECT_TRUE(allowed(Access::kUser, true, Role::kUser));
  EXPECT_FALSE(allowed(Access::kOperator, true, Role::kUser));
  EXPECT_TRUE(allowed(Access::kOperator, true, Role::kAdmin));
  EXPECT_FALSE(allowed(Access::kAdmin, true, Role::kOperator));
  EXPECT_TRUE(allowed(Access::kPublic, false, Role::kUser));
}

TEST(ApiTable, AWrongMethodOnAKnownPathIsToldWhatIsPossible) {
  const auto match = match_api("DELETE", "/v1/chat/completions");
  EXPECT_EQ(match.rule, nullptr);
  EXPECT_TRUE(match.path_known);
  EXPECT_EQ(match.allowed, "POST");
  EXPECT_EQ(match_api("POST", "/aiv/v1/version").rule, nullptr) << "the catch-all must not open other methods";
  EXPECT_FALSE(match_api("GET", "/nothing").path_known);
}

TEST(PublicApi, PagesOfOtherOriginsAndForeignHostNamesAreKnown) {
  EXPECT_TRUE(same_origin({{"host", "127.0.0.1:8080"}}));
  EXPECT_TRUE(same_origin({{"host", "127.0.0.1:8080"}, {"origin", "http://127.0.0.1:8080"}}));
  EXPECT_FALSE(same_origin({{"host", "127.0.0.1:8080"}, {"origin", "http://evil.example"}}));
  EXPECT_FALSE(same_origin({{"host", "127.0.0.1:8080"}, {"origin", "null"}}));
  EXPECT_TRUE(host_is_local("localhost:8080"));
  EXPECT_TRUE(host_is_local("127.0.0.1"));
  EXPECT_TRUE(host_is_local("[::1]:8080"));
  EXPECT_FALSE(host_is_local("rebound.example:8080"));
  EXPECT_FALSE(host_is_local(""));
}

TEST(PublicApi, TheCallersRequestIdIsEchoedOnlyIfItIsHarmless) {
  EXPECT_EQ(echoed_request_id({{"x-request-id", "abc-123"}}), "abc-123");
  EXPECT_EQ(echoed_request_id({{"x-request-id", "a b"}}), "");
  EXPECT_EQ(echoed_request_id({{"x-request-id", std::string(129, 'a')}}), "");
  EXPECT_EQ(echoed_request_id({}), "");
}

TEST(AccessLog, ALineIsOneJsonObjectWhateverThePathHolds) {
  std::string line;
  append_access_line(line, {.unix_ms = 1'700'000'000'000, .id = "req-1", .method = "GET", .path = "/x\"\n\x1b[31m", .status = 404, .total_ms = 1.25});
  ASSERT_TRUE(line.ends_with("}\n"));
  EXPECT_EQ(std::count(line.begin(), line.end(), '\n'), 1);
  const auto json = parse_json(line.substr(0, line.size() - 1));
  ASSERT_TRUE(json) << line;
  EXPECT_EQ((*json)["status"], 404);
}

TEST(Metrics, LabelsAreEscaped) { EXPECT_EQ(escape_label("a\"b\\c\nd"), "a\\\"b\\\\c\\nd"); }

}  // namespace
}  // namespace aiv::gateway
