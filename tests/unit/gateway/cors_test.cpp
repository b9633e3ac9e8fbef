#include "gateway/cors.hpp"

#include <gtest/gtest.h>

namespace aiv::gateway {
namespace {

net::RequestHead from(std::string origin, std::string path = "/v1/models", std::string method = "GET") {
  return {std::move(method), std::move(path), "", {{"origin", std::move(origin)}}};
}

std::string header(const net::Headers& headers, std::string_view name) {
  return net::header_or(headers, name, "-");
}

TEST(Cors, NobodyIsAllowedUnlessNamed) {
  const Cors off;
  EXPECT_FALSE(off.allows(from("https://chat.example.org")));
  const auto one = Cors::make({"https://chat.example.org", "http://localhost:3000"}, true);
  ASSERT_TRUE(one);
  EXPECT_TRUE(one->allows(from("https://chat.example.org")));
  EXPECT_TRUE(one->allows(from("http://localhost:3000", "/api/chat", "POST")));
  for (const char* other :
       {"http://chat.example.org", "https://chat.example.org:8443", "https://chat.example.org.evil.net",
        "https://evil.net/https://chat.example.org", "https://CHAT.example.org", "null", ""}) {
    EXPECT_FALSE(one->allows(from(other))) << other;
  }
}

TEST(Cors, OurOwnApiAndPageStayOurs) {
  const auto any = Cors::make({"*"}, true);
  ASSERT_TRUE(any);
  EXPECT_TRUE(any->allows(from("https://a.org", "/v1/chat/completions")));
  EXPECT_TRUE(any->allows(from("https://a.org", "/health")));
  for (const char* path : {"/aiv/v1/keys", "/aiv/v1/nodes", "/", "/index.html", "/metrics", "/v1evil"}) {
    EXPECT_FALSE(any->allows(from("https://a.org", path))) << path;
  }
}

TEST(Cors, WhatIsNoOriginIsRefusedWithTheWayToWriteIt) {
  for (const char* bad : {"chat.example.org", "https://", "https://a.org/", "https://a.org/path",
                          "https://A.org", "ftp://a.org", "https://a.org:443", "http://a.org:80",
                          "https://a.org:0", "https://a.org:99999", "https://a.org:x", "https://*.a.org",
                          "null", "", "https://a.org\r\nx: y", "https://u@a.org", "https://[::1"}) {
    const auto made = Cors::make({bad}, true);
    ASSERT_FALSE(made) << bad;
    EXPECT_NE(made.error().message().find("--cors-origin"), std::string::npos);
  }
  EXPECT_TRUE(Cors::make({"https://[::1]:8443", "http://192.168.0.2:5173"}, true));
  EXPECT_FALSE(Cors::make({"*", "https://a.org"}, true)) << "either any or some";
  EXPECT_FALSE(Cors::make({"*"}, false)) << "every page could use the models without a key";
}

TEST(Cors, TheAnswerNamesTheOriginAndNeverAllowsCredentials) {
  const auto one = Cors::make({"https://a.org", "https://b.org"}, true);
  const auto any = Cors::make({"*"}, true);
  net::Headers named;
  net::Headers all;
  one->add_headers(from("https://b.org"), named);
  any->add_headers(from("https://b.org"), all);
  EXPECT_EQ(header(named, "access-control-allow-origin"), "https://b.org");
  EXPECT_EQ(header(named, "vary"), "origin");
  EXPECT_EQ(header(all, "access-control-allow-origin"), "*");
  EXPECT_NE(header(named, "access-control-expose-headers").find("retry-after"), std::string::npos);
  for (const auto* headers : {&named, &all})
    EXPECT_EQ(header(*headers, "access-control-allow-credentials"), "-");
}

TEST(Cors, TheFirstQuestionIsAnsweredWithWhatIsAsked) {
  net::RequestHead head = from("https://a.org", "/v1/chat/completions", "OPTIONS");
  EXPECT_FALSE(Cors::preflight(head)) << "no question without the method it is about";
  head.headers.push_back({"access-control-request-method", "POST"});
  head.headers.push_back({"access-control-request-headers", "authorization, content-type,x-stainless-lang"});
  auto answer = Cors::preflight(head);
  ASSERT_TRUE(answer);
  EXPECT_EQ(answer->status, 204);
  EXPECT_EQ(header(answer->headers, "access-control-allow-headers"),
            "authorization, content-type,x-stainless-lang");
  EXPECT_NE(header(answer->headers, "access-control-allow-methods").find("POST"), std::string::npos);
  head.headers.back().value = "x: y";
  EXPECT_EQ(header(Cors::preflight(head)->headers, "access-control-allow-headers"), "-");
  head.method = "POST";
  EXPECT_FALSE(Cors::preflight(head));
}

}  // namespace
}  // namespace aiv::gateway
