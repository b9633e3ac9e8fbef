// HTTP/2 to clients that nobody knows: the same server, chosen by ALPN over TLS.
#include "net/h2.hpp"
#include "net/http_server.hpp"
#include "net/pki.hpp"
#include "support.hpp"

namespace aiv::net {
namespace {

using test::run;
using test::soon;

const ResponseHead kOk{200, {}};
const Headers kAuthority{{"x-a", "b"}};

// What the handler was given: method, path, query and host; "/refuse" does not read the body.
Task<> serve(ExchangePtr exchange, std::string* body_seen) {
  const RequestHead& head = exchange->request();
  if (head.path == "/refuse") {
    co_await exchange->respond_json(413, "{}");
    co_return;
  }
  if (head.path == "/flood") {
    co_await exchange->start(kOk);
    const std::string piece(100'000, 'x');
    Result<> written;
    while (written) written = co_await exchange->write(piece);
    *body_seen = written.error().reason;
    co_return;
  }
  const auto body = co_await exchange->read_body(1 << 20);
  if (!body) {
    *body_seen = body.error().reason;
    co_await exchange->respond_json(body.error().code == ErrorCode::kTimeout ? 408 : 400, "{}");
    co_return;
  }
  *body_seen = *body;
  co_await exchange->respond(
      kOk, head.method + " " + head.path + " " + head.query + " " + header_or(head.headers, "host", "-"));
}

struct Fixture {
  explicit Fixture(Executor executor, HttpLimits limits = {}) {
    const std::string ca = dir.path() + "/ca";
    EXPECT_TRUE(ensure_authority(ca, "lab"));
    const auto files = ensure_certificate(ca, "server/srv1", ca, "server", 30);
    auto tls = TlsContext::make(true, files->cert, files->key, "", false, "h2,http/1.1");
    auto opened = HttpServer::open(
        executor, "tcp:127.0.0.1:0", *tls,
        [this](ExchangePtr exchange) { return serve(std::move(exchange), &seen); }, limits);
    EXPECT_TRUE(opened) << opened.error().message();
    server = std::move(*opened);
    address = "tcp:127.0.0.1:" + std::to_string(server->port());
  }
  test::TempDir dir;
  std::string seen;
  std::unique_ptr<HttpServer> server;
  std::string address;
};

Task<StreamPtr> dial_with(std::string address, std::string alpn) {
  auto tls = TlsContext::make(false, "", "", "", false, alpn);
  auto stream = co_await dial(address, *tls, seconds(5));
  EXPECT_TRUE(stream) << stream.error().message();
  co_return std::move(*stream);
}

Task<> run_connection(H2Ptr connection, std::string* ended) {
  const Error why = co_await connection->run();
  *ended = why.reason;
}

// A client whose connection runs until it ends, with the reason in `ended` then.
Task<H2Ptr> connect_to(std::string address, std::string* ended) {
  StreamPtr stream = co_await dial_with(address, "h2");
  H2Ptr client = H2Connection::client(std::move(stream));
  const Executor executor = co_await this_executor();
  spawn(executor, run_connection(client, ended), "client");
  co_return client;
}

Task<std::string> fetch(H2Ptr client, std::string method, std::string path, std::string body) {
  RequestHead head{std::move(method), std::move(path), "", kAuthority};
  auto exchange = co_await client->open(std::move(head), std::move(body));
  if (!exchange) co_return "open: " + exchange.error().reason;
  const auto answer = co_await (*exchange)->head(soon());
  if (!answer) co_return "head: " + answer.error().reason;
  const auto text = co_await (*exchange)->read_body(64 << 20, soon());
  co_return std::to_string(answer->status) + " " + (text ? *text : "broken: " + text.error().reason);
}

TEST(H2Public, TheClientChoosesTheProtocol) {
  run([](Executor executor) -> Task<> {
    Fixture f(executor);
    const StreamPtr old = co_await dial_with(f.address, "http/1.1");
    EXPECT_EQ(old->protocol(), "http/1.1");
    const StreamPtr both = co_await dial_with(f.address, "http/1.1,h2");
    EXPECT_EQ(both->protocol(), "h2");
    StreamPtr plain = co_await dial_with(f.address, "");
    co_await plain->write_all("GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    std::string answer;
    for (bool more = true; more;) {
      const auto read = co_await plain->read_more(answer);
      more = read && *read;
    }
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 200")) << answer;
  });
}

TEST(H2Public, RequestsAreHeldToTheRulesOfHttp1) {
  run([](Executor executor) -> Task<> {
    Fixture f(executor);
    std::string ended;
    const H2Ptr client = co_await connect_to(f.address, &ended);
    EXPECT_EQ(co_await fetch(client, "POST", "/a%20b?q=1", "body"), "200 POST /a b q=1 aiv");
    EXPECT_EQ(f.seen, "body");
    for (const std::string path : {"/a/../b", "/a%2fb", "//a", "/%00", "/a#b", "nothing"}) {
      const std::string answer = co_await fetch(client, "GET", path, "");
      // Some of these nghttp2 refuses itself, with a reset.
      EXPECT_TRUE(answer.starts_with("400 ") || answer.starts_with("head: the stream was reset"))
          << path << ": " << answer;
    }
    EXPECT_TRUE((co_await fetch(client, "TRACE", "/", "")).starts_with("405 "));
    EXPECT_TRUE((co_await fetch(client, "GET", "/" + std::string(20'000, 'a'), "")).starts_with("431 "));
    EXPECT_EQ(co_await fetch(client, "GET", "/still", ""), "200 GET /still  aiv");
    EXPECT_EQ(co_await fetch(client, "HEAD", "/still", ""), "200 ");
    EXPECT_EQ(ended, "");
  });
}

TEST(H2Public, ARefusalEndsTheUploadAndNotTheConnection) {
  run([](Executor executor) -> Task<> {
    Fixture f(executor);
    std::string ended;
    const H2Ptr client = co_await connect_to(f.address, &ended);
    for (int i = 0; i < 3; ++i)
      EXPECT_EQ(co_await fetch(client, "POST", "/refuse", std::string(9'000'000, 'a')), "413 {}");
    EXPECT_EQ(co_await fetch(client, "GET", "/x", ""), "200 GET /x  aiv");
    // Nothing is left of the uploads that were broken off.
    for (int i = 0; i < 500 && client->active_streams() > 0; ++i) co_await sleep_for(milliseconds(2));
    EXPECT_EQ(client->active_streams(), 0U);
  });
}

TEST(H2Public, AFloodOfResetsEndsTheConnection) {
  run([](Executor executor) -> Task<> {
    Fixture f(executor);
    std::string ended;
    const H2Ptr client = co_await connect_to(f.address, &ended);
    for (int batch = 0; batch < 60 && client->open_for_requests(); ++batch) {
      std::vector<ClientExchangePtr> open;
      for (int i = 0; i < 50; ++i) {
        RequestHead head{"GET", "/flood", "", kAuthority};
        auto exchange = co_await client->open(std::move(head), "");
        if (exchange) open.push_back(*exchange);
      }
      // They have left when they are given up.
      co_await sleep_for(milliseconds(2));
    }
    for (int i = 0; i < 2500 && client->open_for_requests(); ++i) co_await sleep_for(milliseconds(2));
    EXPECT_FALSE(client->open_for_requests());
  });
}

TEST(H2Public, WhatAClientLetsLieIsGivenUp) {
  run([](Executor executor) -> Task<> {
    HttpLimits limits;
    limits.write_stall_max = milliseconds(200);
    limits.idle_time_max = milliseconds(1500);
    Fixture f(executor, limits);
    std::string ended;
    const H2Ptr client = co_await connect_to(f.address, &ended);
    RequestHead head{"GET", "/flood", "", kAuthority};
    auto exchange = co_await client->open(std::move(head), "");
    const auto answer = co_await (*exchange)->head(soon());
    EXPECT_TRUE(answer);
    // Its window is never opened again.
    for (int i = 0; i < 2500 && f.seen.empty(); ++i) co_await sleep_for(milliseconds(2));
    EXPECT_NE(f.seen, "");
    exchange->reset();
    // Then the connection is not used any more.
    for (int i = 0; i < 2500 && ended.empty(); ++i) co_await sleep_for(milliseconds(2));
    EXPECT_NE(ended, "");
    for (int i = 0; i < 2500 && f.server->connections() > 0; ++i) co_await sleep_for(milliseconds(2));
    EXPECT_EQ(f.server->connections(), 0U);
  });
}

TEST(H2Public, ADrainingServerLetsRequestsEndAndTakesNoMore) {
  run([](Executor executor) -> Task<> {
    Fixture f(executor);
    std::string ended;
    const H2Ptr client = co_await connect_to(f.address, &ended);
    EXPECT_EQ(co_await fetch(client, "GET", "/x", ""), "200 GET /x  aiv");
    f.server->drain();
    for (int i = 0; i < 2500 && ended.empty(); ++i) co_await sleep_for(milliseconds(2));
    EXPECT_NE(ended, "");
    // The client can see the end before the server has closed its own.
    for (int i = 0; i < 2500 && f.server->connections() > 0; ++i) co_await sleep_for(milliseconds(2));
    EXPECT_EQ(f.server->connections(), 0U);
  });
}

}  // namespace
}  // namespace aiv::net
