#include "net/http1.hpp"

#include "net/http_server.hpp"
#include "support.hpp"

namespace aiv::net {
namespace {

using test::run;
using test::soon;

// g++ 12 cannot compile initializer lists inside co_await expressions, hence the named values.
const ResponseHead kOk{200, {}};
const Headers kClose{{"connection", "close"}};
const ResponseHead kText{200, {{"content-type", "text/plain"}}};
RequestHead request(std::string method, std::string path) {
  return {std::move(method), std::move(path), "", {}};
}

// Echoes the body; "/stream" answers in three writes; "/cut" breaks off; "/wait" waits for the client to
// leave.
Task<> echo(ExchangePtr exchange, bool* left, Executor executor) {
  const std::string path = exchange->request().path;
  if (path == "/stream" || path == "/cut") {
    co_await exchange->start(kText);
    co_await exchange->write("one ");
    co_await exchange->write("two ");
    if (path == "/cut") {
      exchange->abort();
      co_return;
    }
    co_await exchange->write("three");
    co_await exchange->finish();
    co_return;
  }
  if (path == "/wait") {
    auto signal = std::make_shared<Signal>(executor);
    exchange->on_gone([signal] { signal->notify(); });
    co_await signal->wait();
    *left = exchange->gone();
    co_return;
  }
  if (path == "/silent") co_return;
  if (path == "/refuse") {
    co_await exchange->respond_json(413, "{}", kClose);
    co_return;
  }
  if (path == "/large") {
    co_await exchange->respond(kOk, std::string(24'000'000, 'x'));
    co_return;
  }
  const auto body = co_await exchange->read_body(1000);
  if (!body) {
    co_await exchange->respond_json(body.error().code == ErrorCode::kTooLarge ? 413 : 400, "{}");
    co_return;
  }
  co_await exchange->respond(kOk, exchange->request().method + " " + *body);
}

struct Fixture {
  explicit Fixture(Executor executor, HttpLimits limits = {}) {
    auto opened = HttpServer::open(
        executor, "tcp:127.0.0.1:0", nullptr,
        [this, executor](ExchangePtr exchange) { return echo(std::move(exchange), &left, executor); },
        limits);
    EXPECT_TRUE(opened) << opened.error().message();
    server = std::move(*opened);
    address = "tcp:127.0.0.1:" + std::to_string(server->port());
    client = make_http1_client(address, true);
  }
  bool left = false;
  std::unique_ptr<HttpServer> server;
  std::string address;
  std::shared_ptr<HttpClient> client;
};

Task<std::string> fetch(std::shared_ptr<HttpClient> client, std::string method, std::string path,
                        std::string body) {
  auto exchange = co_await client->open(request(method, path), std::move(body));
  if (!exchange) co_return "open: " + exchange.error().reason;
  const auto head = co_await (*exchange)->head(soon());
  if (!head) co_return "head: " + head.error().reason;
  const auto answer = co_await (*exchange)->read_body(10'000'000, soon());
  if (!answer) co_return std::to_string(head->status) + " broken";
  co_return std::to_string(head->status) + " " + *answer;
}

// Sends raw bytes, returns all that comes until the server closes.
Task<std::string> raw(std::string address, std::string bytes) {
  auto stream = co_await dial(address, nullptr, seconds(5));
  if (!stream) co_return "no connection";
  co_await (*stream)->write_all(bytes);
  std::string out;
  for (;;) {
    const auto more = co_await (*stream)->read_more(out);
    if (!more || !*more) co_return out;
  }
}

TEST(Http1, OneConnectionCarriesManyExchanges) {
  run([](Executor executor) -> Task<> {
    Fixture f(executor);
    for (int i = 0; i < 20; ++i) {
      EXPECT_EQ(co_await fetch(f.client, "POST", "/x", "hello"), "200 POST hello");
      EXPECT_EQ(co_await fetch(f.client, "GET", "/stream", ""), "200 one two three");
    }
    EXPECT_EQ(f.server->connections(), 1U);
  });
}

TEST(Http1, AnAnswerThatBreaksOffIsNeverTakenForComplete) {
  run([](Executor executor) -> Task<> {
    Fixture f(executor);
    EXPECT_EQ(co_await fetch(f.client, "GET", "/cut", ""), "200 broken");
    EXPECT_TRUE((co_await fetch(f.client, "GET", "/silent", "")).starts_with("500 "));
  });
}

TEST(Http1, ABodyOverTheBoundIsRefusedAndTheNextRequestIsServed) {
  run([](Executor executor) -> Task<> {
    Fixture f(executor);
    EXPECT_EQ(co_await fetch(f.client, "POST", "/x", std::string(1'000'000, 'a')), "413 {}");
    EXPECT_EQ(co_await fetch(f.client, "POST", "/x", "ok"), "200 POST ok");
  });
}

TEST(Http1, AClientThatLeavesIsNoticedWhileNothingIsRead) {
  run([](Executor executor) -> Task<> {
    Fixture f(executor);
    {
      auto exchange = co_await f.client->open(request("GET", "/wait"), "");
      EXPECT_TRUE(exchange);
      co_await sleep_for(milliseconds(20));
    }
    for (int i = 0; i < 500 && !f.left; ++i) co_await sleep_for(milliseconds(2));
    EXPECT_TRUE(f.left);
  });
}

TEST(Http1, PipelinedAndMalformedBytes) {
  run([](Executor executor) -> Task<> {
    Fixture f(executor);
    const std::string two = co_await raw(
        f.address,
        "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    EXPECT_NE(two.find("connection: close"), std::string::npos);
    EXPECT_EQ(std::count(two.begin(), two.end(), 'G'), 2) << two;
    // What stands behind a refused request is not read.
    const std::string smuggled = co_await raw(f.address,
                                              "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: "
                                              "xchunked\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_TRUE(smuggled.starts_with("HTTP/1.1 501"));
    EXPECT_EQ(smuggled.find("200 OK"), std::string::npos);
    const std::string hello = co_await raw(f.address, "\x16\x03\x01\x02");
    EXPECT_TRUE(hello.starts_with("HTTP/1.1 400"));
    const std::string flood = co_await raw(f.address, "GET / HTTP/1.1\r\nX: " + std::string(20'000, 'a'));
    EXPECT_TRUE(flood.starts_with("HTTP/1.1 431"));
  });
}

TEST(Http1, AChunkedBodyAndAnExpectationAreHonoured) {
  run([](Executor executor) -> Task<> {
    Fixture f(executor);
    const std::string answer =
        co_await raw(f.address,
                     "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n"
                     "Connection: close\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    EXPECT_NE(answer.find("POST abc"), std::string::npos) << answer;
  });
}

TEST(Http1, ASlowHeadIsAnswered408) {
  run([](Executor executor) -> Task<> {
    HttpLimits limits;
    limits.head_time_max = milliseconds(100);
    Fixture f(executor, limits);
    EXPECT_TRUE((co_await raw(f.address, "GET / HT")).starts_with("HTTP/1.1 408"));
  });
}

TEST(Http1, ARefusalReachesAClientThatIsStillSendingItsBody) {
  run([](Executor executor) -> Task<> {
    Fixture f(executor);
    const std::string head = "POST /refuse HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n";
    // All of it is written before anything is read: most clients drop the answer when a reset makes a write fail.
    auto stream = co_await dial(f.address, nullptr, seconds(5));
    const Result<> sent = co_await (*stream)->write_all(head + std::string(9'000'000, 'a'));
    EXPECT_TRUE(sent);
    std::string answer;
    for (bool more = true; more;) {
      const auto read = co_await (*stream)->read_more(answer);
      EXPECT_TRUE(read) << "the end is a clean one";
      more = read && *read;
    }
    EXPECT_TRUE(answer.starts_with("HTTP/1.1 413")) << answer.substr(0, 100);
    EXPECT_EQ(answer.find("connection: close"), answer.rfind("connection: close"));
    const std::string flood = co_await raw(f.address, "GET / HTTP/1.1\r\nX: " + std::string(3'000'000, 'a'));
    EXPECT_TRUE(flood.starts_with("HTTP/1.1 431")) << flood.substr(0, 100);
  });
}

TEST(Http1, WhoNeverStopsSendingIsCutOffAllTheSame) {
  run([](Executor executor) -> Task<> {
    HttpLimits limits;
    limits.linger_max = milliseconds(200);
    Fixture f(executor, limits);
    auto stream = co_await dial(f.address, nullptr, seconds(5));
    co_await (*stream)->write_all("POST /refuse HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n");
    Result<> sent;
    const auto end = soon();
    while (sent && Clock::now() < end) {
      co_await sleep_for(milliseconds(1));
      sent = co_await (*stream)->write_all("1000\r\n" + std::string(0x1000, 'a') + "\r\n");
    }
    EXPECT_FALSE(sent);
    EXPECT_EQ(f.server->connections(), 0U);
  });
}

TEST(Http1, AReaderWhoPausesGetsTheRestAndOneWhoTakesNothingIsCut) {
  run([](Executor executor) -> Task<> {
    Fixture f(executor);
    auto stream = co_await dial(f.address, nullptr, seconds(5));
    co_await (*stream)->write_all("GET /large HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    // More than the 3 s after which a link between machines counts as broken.
    co_await sleep_for(milliseconds(5500));
    std::string answer;
    for (bool more = true; more;) {
      const auto read = co_await (*stream)->read_more(answer);
      more = read && *read;
    }
    EXPECT_GT(answer.size(), 24'000'000U);

    HttpLimits limits;
    limits.write_stall_max = milliseconds(100);
    Fixture strict(executor, limits);
    auto stalled = co_await dial(strict.address, nullptr, seconds(5));
    co_await (*stalled)->write_all("GET /large HTTP/1.1\r\nHost: x\r\n\r\n");
    for (int i = 0; i < 2500 && strict.server->connections() == 0; ++i) co_await sleep_for(milliseconds(2));
    for (int i = 0; i < 2500 && strict.server->connections() > 0; ++i) co_await sleep_for(milliseconds(2));
    EXPECT_EQ(strict.server->connections(), 0U);
  });
}

TEST(Http1, OneAddressHasSoManyConnectionsAndIsToldSo) {
  run([](Executor executor) -> Task<> {
    HttpLimits limits;
    limits.connections_per_address_max = 2;
    Fixture f(executor, limits);
    {
      auto one = co_await dial(f.address, nullptr, seconds(5));
      auto two = co_await dial(f.address, nullptr, seconds(5));
      for (int i = 0; i < 2500 && f.server->connections() < 2; ++i) co_await sleep_for(milliseconds(2));
      auto three = co_await dial(f.address, nullptr, seconds(5));
      std::string answer;
      for (bool more = true; more;) {
        const auto read = co_await (*three)->read_more(answer);
        more = read && *read;
      }
      EXPECT_TRUE(answer.starts_with("HTTP/1.1 503")) << answer;
      const std::size_t body = answer.find("\r\n\r\n") + 4;
      EXPECT_NE(answer.find("content-length: " + std::to_string(answer.size() - body)), std::string::npos)
          << answer;
    }
    for (int i = 0; i < 2500 && f.server->connections() > 0; ++i) co_await sleep_for(milliseconds(2));
    EXPECT_EQ(co_await fetch(f.client, "POST", "/x", "again"), "200 POST again");
  });
}

TEST(Http1, AConnectionToNobodyFailsWithTheAddress) {
  run([](Executor) -> Task<> {
    const auto client = make_http1_client("tcp:127.0.0.1:1");
    const auto exchange = co_await client->open(request("GET", "/"), "");
    EXPECT_FALSE(exchange);
    EXPECT_NE(exchange.error().message().find("127.0.0.1:1"), std::string::npos);
  });
}

}  // namespace
}  // namespace aiv::net
