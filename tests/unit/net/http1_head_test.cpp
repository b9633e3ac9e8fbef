#include "net/http1_head.hpp"

#include <gtest/gtest.h>

namespace aiv::net {
namespace {

int status_of(std::string_view raw) {
  const auto parsed = parse_request_head(raw, 100);
  return parsed ? 200 : parsed.error().status;
}

TEST(RequestHead, AnOrdinaryRequestIsRead) {
  const auto parsed = parse_request_head(
      "POST /v1/chat/completions?x=1 HTTP/1.1\r\nHost: localhost:8080\r\nContent-Length: 12\r\nX-A:  b \r\n\r\n", 100);
  ASSERT_TRUE(parsed);
  EXPECT_EQ(parsed->head.path, "/v1/chat/completions");
  EXPECT_EQ(parsed->head.query, "x=1");
  EXPECT_EQ(header_or(parsed->head.headers, "x-a", ""), "b");
  EXPECT_EQ(parsed->body.length, 12U);
  EXPECT_TRUE(parsed->keep_alive);
}

TEST(RequestHead, WhatTwoParsersCouldReadDifferentlyIsRefused) {
  const std::string start = "POST / HTTP/1.1\r\nHost: a\r\n";
  EXPECT_EQ(status_of(start + "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n"), 400);
  EXPECT_EQ(status_of(start + "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
  EXPECT_EQ(status_of(start + "Content-Length: 4\r\nContent-Length: 4\r\n\r\n"), 400);
  EXPECT_EQ(status_of(start + "Content-Length: 5, 5\r\n\r\n"), 400);
  EXPECT_EQ(status_of(start + "Content-Length: +5\r\n\r\n"), 400);
  EXPECT_EQ(status_of(start + "Transfer-Encoding: xchunked\r\n\r\n"), 501);
  EXPECT_EQ(status_of(start + "Transfer-Encoding: identity\r\n\r\n"), 501);
  EXPECT_EQ(status_of(start + "Transfer-Encoding: gzip, chunked\r\n\r\n"), 501);
  EXPECT_EQ(status_of(start + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
  EXPECT_EQ(status_of("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), 400);
  EXPECT_EQ(status_of(start + "X: a\r\n folded\r\n\r\n"), 400);
  EXPECT_EQ(status_of(start + "X : a\r\n\r\n"), 400);
  EXPECT_EQ(status_of(start + "X: a\nY: b\r\n\r\n"), 400);
  EXPECT_EQ(status_of(start + std::string("X: a\0b\r\n\r\n", 11)), 400);
  EXPECT_EQ(status_of(start + ": a\r\n\r\n"), 400);
}

TEST(RequestHead, ExactlyOneSoundHost) {
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n"), 200);
}

TEST(RequestHead, PathTricksAreRefused) {
  for (const char* path : {"/../etc", "/a/..", "/a%2fb", "/a%00", "/a%2e%2e/%2e%2e/x", "//evil", "/a b", "/a#b",
                           "/%", "/%zz", "/caf\xc3\xa9", "/a%5cb", "/%252e%252e", "a"}) {
    EXPECT_EQ(status_of(std::string("GET ") + path + " HTTP/1.1\r\nHost: a\r\n\r\n"), 400) << path;
  }
}

TEST(RequestHead, OtherProtocolsAndMethodsAreAnswered) {
  EXPECT_EQ(status_of("PRI * HTTP/2.0\r\n\r\n"), 400);
  EXPECT_EQ(status_of("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), 505);
  EXPECT_EQ(status_of("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"), 405);
  EXPECT_EQ(status_of("POST / HTTP/1.1\r\nHost: a\r\nExpect: magic\r\n\r\n"), 417);
}

TEST(RequestHead, TheNumberOfFieldsIsBounded) {
  std::string raw = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 0; i < 99; ++i) raw += "X: y\r\n";
  EXPECT_EQ(status_of(raw + "\r\n"), 200);
  EXPECT_EQ(status_of(raw + "X: y\r\n\r\n"), 431);
}

TEST(ChunkedDecoder, PiecesOfAnySizeGiveTheSameBody) {
  const std::string wire = "5\r\nhello\r\n1;ext=1\r\n \r\nA\r\n0123456789\r\n0\r\nTrailer: x\r\n\r\nNEXT";
  for (std::size_t step = 1; step < wire.size(); ++step) {
    ChunkedDecoder decoder;
    std::string out;
    std::string rest;
    for (std::size_t at = 0; at < wire.size(); at += step) {
      std::string_view piece = std::string_view(wire).substr(at, step);
      ASSERT_TRUE(decoder.feed(piece, out)) << step;
      rest += piece;
    }
    EXPECT_TRUE(decoder.done());
    EXPECT_EQ(out, "hello 0123456789");
    EXPECT_EQ(rest, "NEXT");
  }
}

TEST(ChunkedDecoder, BrokenFramingIsRefused) {
  for (const char* wire : {"\r\n", "g\r\n", "5\n", "5\r\nhelloX", "5\r\nhello\rX", "ffffffffffffffffff\r\n", "-1\r\n",
                           "1;aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\n",
                           "0\r\nX: y\n"}) {
    ChunkedDecoder decoder;
    std::string out;
    std::string_view in = wire;
    EXPECT_FALSE(decoder.feed(in, out)) << wire;
  }
}

TEST(ResponseHead, ABodyWithoutLengthRunsToTheClose) {
  EXPECT_EQ(parse_response_head("HTTP/1.1 200 OK\r\n\r\n", false)->body.kind, BodyFraming::Kind::kUntilClose);
  EXPECT_EQ(parse_response_head("HTTP/1.1 204 No Content\r\n\r\n", false)->body.kind, BodyFraming::Kind::kNone);
  EXPECT_FALSE(parse_response_head("HTTP/1.1 2x0 OK\r\n\r\n", false));
}

}  // namespace
}  // namespace aiv::net
