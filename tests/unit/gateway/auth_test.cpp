#include "gateway/auth.hpp"

#include <gtest/gtest.h>

#include "base/hash.hpp"
#include "core/keys.hpp"

namespace aiv::gateway {
namespace {

struct Keys {
  ApiKey user{std::string(kKeyIdCharacters, 'u'), std::string(kKeySecretCharacters, 's')};
  ApiKey old{std::string(kKeyIdCharacters, 'o'), std::string(kKeySecretCharacters, 't')};
  ApiKey off{std::string(kKeyIdCharacters, 'x'), std::string(kKeySecretCharacters, 'y')};
  RouteTable table() const {
    RouteTable t;
    t.keys = {RouteKey{.id = user.id, .secret_sha256 = sha256_hex(user.secret), .name = "me", .role = Role::kOperator},
              RouteKey{.id = old.id, .secret_sha256 = sha256_hex(old.secret), .name = "old", .expires_at_ms = 1000},
              RouteKey{.id = off.id, .secret_sha256 = sha256_hex(off.secret), .name = "off", .disabled = true}};
    return t;
  }
};

constexpr std::int64_t kNow = 2000;

TEST(Auth, AGoodKeyGivesItsRoleByEitherHeader) {
  const Keys keys;
  const Routes routes(keys.table());
  const std::string text = format_api_key(keys.user);
  for (const net::Headers& headers : {net::Headers{{"authorization", "Bearer " + text}}, net::Headers{{"authorization", "bearer  " + text}},
                                      net::Headers{{"x-api-key", text}}}) {
    const auto caller = authenticate(headers, routes, true, kNow);
    ASSERT_TRUE(caller);
    EXPECT_TRUE(caller->known);
    EXPECT_EQ(caller->role, Role::kOperator);
    EXPECT_EQ(caller->key_id, keys.user.id);
    EXPECT_NE(caller->tenant, 0u);
  }
}

TEST(Auth, UnknownWrongExpiredDisabledAndMalformedKeysAllGetTheSameAnswer) {
  const Keys keys;
  const Routes routes(keys.table());
  ApiKey wrong = keys.user;
  wrong.secret[5] = 'Q';
  ApiKey unknown = keys.user;
  unknown.id[0] = 'Z';
  for (const std::string& text : {format_api_key(wrong), format_api_key(unknown), format_api_key(keys.old), format_api_key(keys.off),
                                  std::string("aiv-nonsense"), std::string(), std::string(100'000, 'a'), std::string("sk-123")}) {
    const auto caller = authenticate({{"authorization", "Bearer " + text}}, routes, true, kNow);
    ASSERT_FALSE(caller) << text.substr(0, 50);
    EXPECT_EQ(openai_error_body(caller.error()), openai_error_body(unauthorized()));
    EXPECT_EQ(openai_error_body(caller.error()).find("secret"), std::string::npos);
  }
  EXPECT_FALSE(authenticate({{"authorization", "Basic abc"}}, routes, true, kNow));
}

TEST(Auth, NoKeyAtAllIsNobodyAndTheRouteDecides) {
  const Keys keys;
  const Routes routes(keys.table());
  const auto caller = authenticate({}, routes, true, kNow);
  ASSERT_TRUE(caller);
  EXPECT_FALSE(caller->known);
}

TEST(Auth, TwoDifferentKeysAreABadRequest) {
  const Keys keys;
  const Routes routes(keys.table());
  const auto caller = authenticate({{"authorization", "Bearer " + format_api_key(keys.user)}, {"x-api-key", format_api_key(keys.off)}}, routes, true, kNow);
  ASSERT_FALSE(caller);
  EXPECT_EQ(caller.error().status, 400);
  EXPECT_TRUE(authenticate({{"authorization", "Bearer " + format_api_key(keys.user)}, {"x-api-key", format_api_key(keys.user)}}, routes, true, kNow));
}

TEST(Auth, WithAuthenticationOffEverybodyIsAnAdmin) {
  const Routes routes(RouteTable{});
  const auto caller = authenticate({}, routes, false, kNow);
  ASSERT_TRUE(caller);
  EXPECT_TRUE(caller->known);
  EXPECT_EQ(caller->role, Role::kAdmin);
}

TEST(Auth, AKeysModelsMayBeGlobs) {
  const RouteKey key{.id = "k", .models = {"qwen*", "llama3"}};
  EXPECT_TRUE(key_allows(&key, "qwen3-8b"));
  EXPECT_TRUE(key_allows(&key, "llama3"));
  EXPECT_FALSE(key_allows(&key, "llama31"));
  EXPECT_TRUE(key_allows(nullptr, "anything"));
}

}  // namespace
}  // namespace aiv::gateway
