#include "gateway/assets.hpp"

#include <algorithm>
#include <string>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

// These hold for any page that is built in: the real one, and the one that says how to build it.
namespace aiv::gateway {
namespace {

std::string header(const AssetReply& reply, std::string_view name) {
  for (const auto& each : reply.head.headers) {
    if (each.name == name) return each.value;
  }
  return {};
}

TEST(Assets, ThereIsAlwaysAPageToShow) {
  const Asset* index = find_asset("/index.html");
  ASSERT_NE(index, nullptr);
  EXPECT_THAT(std::string(index->bytes), testing::HasSubstr("<!doctype html>"));
  EXPECT_EQ(index->content_type, "text/html; charset=utf-8");
  EXPECT_FALSE(index->immutable);
}

TEST(Assets, TheTableIsSortedSoThatLookupMayBisect) {
  EXPECT_TRUE(std::ranges::is_sorted(all_assets(), {}, &Asset::path));
  for (const auto& asset : all_assets()) EXPECT_EQ(find_asset(asset.path), &asset) << asset.path;
}

TEST(Assets, AnAddressOfThePageIsAnsweredWithTheIndex) {
  const Asset* index = find_asset("/index.html");
  for (const char* path : {"/", "/cluster", "/deployments", "/cluster/"}) EXPECT_EQ(find_asset(path), index) << path;
}

TEST(Assets, AFileThatIsNotThereIsNotAnsweredWithAPage) {
  for (const char* path : {"/assets/index-0000.js", "/robots.txt", "/../etc/passwd.txt", "/.env", "", "index.html"}) {
    EXPECT_EQ(find_asset(path), nullptr) << path;
  }
  EXPECT_FALSE(answer_asset("/assets/old.js", {.accept_encoding = "gzip"}).has_value());
}

TEST(Assets, WhatIsNoPageIsOneOnlyForAPersonWhoMistypedAnAddress) {
  for (const char* path : {"/slots", "/props", "/lora-adapters", "/infill", "/apply-template", "/cluster/x", "/clustre", "/no/such/page"}) {
    EXPECT_EQ(find_asset(path), nullptr) << path;
    for (const char* accept : {"", "*/*", "application/json", "text/event-stream, text/htmlx"}) {
      EXPECT_FALSE(answer_asset(path, {.accept = accept}).has_value()) << path << " " << accept;
    }
    const auto reply = answer_asset(path, {.if_none_match = "*", .accept = "application/xhtml+xml, Text/HTML;q=0.9,*/*;q=0.8"});
    ASSERT_TRUE(reply.has_value()) << path;
    EXPECT_EQ(reply->head.status, 404) << path;
    EXPECT_EQ(reply->body, find_asset("/")->bytes);
    EXPECT_EQ(header(*reply, "cache-control"), "no-store");
    EXPECT_EQ(header(*reply, "etag"), "");
  }
  EXPECT_FALSE(answer_asset("/assets/old.js", {.accept = "text/html"}).has_value());
}

TEST(Assets, EveryFileHasItsBytesAndEveryPackedFormIsGzipAndSmaller) {
  for (const auto& asset : all_assets()) {
    EXPECT_FALSE(asset.bytes.empty()) << asset.path;
    EXPECT_TRUE(asset.etag.starts_with("W/\"") && asset.etag.ends_with('"')) << asset.path;
    if (asset.gzip.empty()) continue;
    EXPECT_LT(asset.gzip.size(), asset.bytes.size()) << asset.path;
    EXPECT_EQ(asset.gzip.substr(0, 3), "\x1f\x8b\x08") << asset.path;
    // The last four bytes of gzip are the length of what was packed (RFC 1952).
    const auto tail = asset.gzip.substr(asset.gzip.size() - 4);
    std::size_t length = 0;
    for (std::size_t at = 4; at-- > 0;) length = length << 8 | static_cast<unsigned char>(tail[at]);
    EXPECT_EQ(length, asset.bytes.size()) << asset.path;
  }
}

TEST(Assets, HashedFilesAreKeptForEverAndThePageIsAskedForAnew) {
  for (const auto& asset : all_assets()) {
    const auto reply = answer_asset(asset.path, {});
    ASSERT_TRUE(reply.has_value());
    const bool hashed = asset.path.starts_with("/assets/");
    EXPECT_EQ(header(*reply, "cache-control"), hashed ? "public, max-age=31536000, immutable" : "no-cache") << asset.path;
  }
}

TEST(Assets, GzipIsSentOnlyToThoseWhoTakeIt) {
  const Asset* index = find_asset("/");
  for (const char* accept : {"gzip", "br, GZIP;q=0.5", "*", "identity;q=0, gzip ; q=1.0", "deflate,gzip"}) {
    const auto reply = answer_asset("/", {.accept_encoding = accept});
    EXPECT_EQ(reply->body, index->gzip) << accept;
    EXPECT_EQ(header(*reply, "content-encoding"), "gzip") << accept;
  }
  for (const char* accept : {"", "br", "gzip;q=0", "gzip;q=0.000, *", "*;q=0", "gzipped", ",,;"}) {
    const auto reply = answer_asset("/", {.accept_encoding = accept});
    EXPECT_EQ(reply->body, index->bytes) << accept;
    EXPECT_EQ(header(*reply, "content-encoding"), "") << accept;
  }
}

TEST(Assets, WhatTheBrowserHasAlreadyIsNotSentAgain) {
  const std::string tag(find_asset("/")->etag);
  for (const auto& have : {tag, tag.substr(2), "\"other\", " + tag, std::string("*")}) {
    const auto reply = answer_asset("/", {.accept_encoding = "gzip", .if_none_match = have});
    EXPECT_EQ(reply->head.status, 304) << have;
    EXPECT_TRUE(reply->body.empty()) << have;
    EXPECT_EQ(header(*reply, "etag"), tag);
  }
  EXPECT_EQ(answer_asset("/", {.accept_encoding = "gzip", .if_none_match = "\"other\""})->head.status, 200);
}

TEST(Assets, EveryAnswerForbidsScriptsAndImagesFromElsewhere) {
  for (const char* path : {"/", "/index.html", "/cluster"}) {
    const auto reply = answer_asset(path, {.accept_encoding = "gzip"});
    const auto policy = header(*reply, "content-security-policy");
    EXPECT_THAT(policy, testing::HasSubstr("default-src 'self'"));
    EXPECT_THAT(policy, testing::HasSubstr("img-src 'self' data:"));
    EXPECT_THAT(policy, testing::HasSubstr("frame-ancestors 'none'"));
    EXPECT_THAT(policy, testing::Not(testing::HasSubstr("unsafe-eval")));
    EXPECT_EQ(policy.find("script-src"), std::string::npos);
    EXPECT_EQ(header(*reply, "x-content-type-options"), "nosniff");
    EXPECT_EQ(header(*reply, "referrer-policy"), "no-referrer");
  }
}

}  // namespace
}  // namespace aiv::gateway
