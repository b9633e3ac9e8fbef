#include "net/h2.hpp"

#include "support.hpp"

namespace aiv::net {
namespace {

using test::run;
using test::soon;

struct Pair {
  H2Ptr server;
  H2Ptr client;
  std::unique_ptr<Listener> listener;
  int gone = 0;
  int running = 0;
};

// g++ 12 cannot compile initializer lists inside co_await expressions, hence the named values.
const ResponseHead kOk{200, {}};
const Headers kComplete{{"aiv-end", "complete"}};
RequestHead request(std::string method, std::string path) {
  return {std::move(method), std::move(path), "", {}};
}

Task<> run_connection(H2Ptr connection) {
  co_await connection->run();
}

// "/echo" gives the body back; "/many" writes until told to stop; "/hang" waits; "/abort" breaks off.
Task<> serve(ExchangePtr exchange, Pair* pair, Executor executor) {
  const std::string path = exchange->request().path;
  ++pair->running;
  if (path == "/echo") {
    const auto body = co_await exchange->read_body(64 << 20);
    co_await exchange->start(kOk);
    if (body) co_await exchange->write(*body);
    co_await exchange->finish(kComplete);
  } else if (path == "/many") {
    co_await exchange->start(kOk);
    const std::string chunk(10'000, 'x');
    Result<> written;
    while (written) written = co_await exchange->write(chunk);
  } else if (path == "/hang") {
    auto signal = std::make_shared<Signal>(executor);
    exchange->on_gone([signal, pair] {
      ++pair->gone;
      signal->notify();
    });
    co_await signal->wait();
  } else if (path == "/abort") {
    co_await exchange->start(kOk);
    co_await exchange->write("part");
    co_await sleep_for(milliseconds(20));
    exchange->abort();
  } else {
    co_await exchange->respond_json(404, "{}");
  }
  --pair->running;
}

Task<std::unique_ptr<Pair>> connect(Executor executor, std::string path, H2Limits limits = {},
                                    H2Limits server_limits = {}) {
  auto pair = std::make_unique<Pair>();
  Pair* raw = pair.get();
  auto listener = Listener::open(executor, "unix:" + path, nullptr, [raw, executor, server_limits](StreamPtr stream) {
    Handler handler = [raw, executor](ExchangePtr exchange) { return serve(std::move(exchange), raw, executor); };
    raw->server = H2Connection::server(std::move(stream), std::move(handler), server_limits);
    spawn(executor, run_connection(raw->server), "server");
  });
  EXPECT_TRUE(listener) << listener.error().message();
  pair->listener = std::move(*listener);
  auto stream = co_await dial("unix:" + path, nullptr, seconds(5));
  EXPECT_TRUE(stream);
  pair->client = H2Connection::client(std::move(*stream), limits);
  spawn(executor, run_connection(pair->client), "client");
  co_return pair;
}

Task<> drain(H2Ptr connection, bool* done) {
  co_await connection->shutdown(seconds(60));
  *done = true;
}

Task<std::string> fetch(H2Ptr client, std::string path, std::string body) {
  auto exchange = co_await client->open(request("POST", path), std::move(body));
  if (!exchange) co_return "open: " + exchange.error().reason;
  const auto head = co_await (*exchange)->head(soon());
  if (!head) co_return "head: " + head.error().reason;
  const auto answer = co_await (*exchange)->read_body(64 << 20, soon());
  if (!answer) co_return "broken";
  co_return std::to_string(head->status) + " " + *answer + " " +
      header_or((*exchange)->trailers(), "aiv-end", "-");
}

TEST(H2, LargeBodiesGoThereAndBackWithTheirTrailer) {
  run([](Executor executor) -> Task<> {
    test::TempDir dir;
    auto pair = co_await connect(executor, dir.path() + "/s");
    const std::string big(3'000'000, 'b');
    EXPECT_EQ(co_await fetch(pair->client, "/echo", big), "200 " + big + " complete");
    EXPECT_EQ(co_await fetch(pair->client, "/echo", ""), "200  complete");
    EXPECT_EQ(co_await fetch(pair->client, "/none", "x"), "404 {} -");
    EXPECT_EQ(pair->client->active_streams(), 0U);
    pair->client->close("test over");
    co_await sleep_for(milliseconds(20));
  });
}

TEST(H2, AnAbortedAnswerIsAnErrorNotAnEnd) {
  run([](Executor executor) -> Task<> {
    test::TempDir dir;
    auto pair = co_await connect(executor, dir.path() + "/s");
    EXPECT_EQ(co_await fetch(pair->client, "/abort", "x"), "broken");
    pair->client->close("test over");
    co_await sleep_for(milliseconds(20));
  });
}

TEST(H2, LeavingAnExchangeReachesTheServerAtOnce) {
  run([](Executor executor) -> Task<> {
    test::TempDir dir;
    auto pair = co_await connect(executor, dir.path() + "/s");
    {
      auto exchange = co_await pair->client->open(request("GET", "/hang"), "");
      EXPECT_TRUE(exchange);
      for (int i = 0; i < 500 && pair->running == 0; ++i) co_await sleep_for(milliseconds(1));
    }
    for (int i = 0; i < 500 && pair->gone == 0; ++i) co_await sleep_for(milliseconds(1));
    EXPECT_EQ(pair->gone, 1);
    pair->client->close("test over");
    co_await sleep_for(milliseconds(20));
  });
}

TEST(H2, ThousandsWhoLeaveAtOnceDoNotEndTheConnection) {
  run([](Executor executor) -> Task<> {
    test::TempDir dir;
    auto pair = co_await connect(executor, dir.path() + "/s");
    constexpr int kBatch = 100;
    constexpr int kBatches = 30;  // nghttp2 by itself says GOAWAY after 1,000 resets
    for (int batch = 0; batch < kBatches && pair->client->open_for_requests(); ++batch) {
      {
        std::vector<ClientExchangePtr> exchanges;
        for (int i = 0; i < kBatch; ++i) {
          auto exchange = co_await pair->client->open(request("GET", "/hang"), "");
          if (exchange) exchanges.push_back(*exchange);
        }
        for (int i = 0; i < 500 && pair->running < kBatch; ++i) co_await sleep_for(milliseconds(1));
      }
      for (int i = 0; i < 500 && pair->running > 0; ++i) co_await sleep_for(milliseconds(1));
    }
    EXPECT_EQ(pair->gone, kBatch * kBatches);
    EXPECT_TRUE(pair->client->open_for_requests());
    const std::string answer = co_await fetch(pair->client, "/echo", "still here");
    EXPECT_EQ(answer, "200 still here complete");
    pair->client->close("test over");
    co_await sleep_for(milliseconds(20));
  });
}

TEST(H2, AReaderThatTakesNothingHoldsUpOnlyItsOwnStream) {
  run([](Executor executor) -> Task<> {
    test::TempDir dir;
    auto pair = co_await connect(executor, dir.path() + "/s");
    std::vector<ClientExchangePtr> slow;
    for (int i = 0; i < 100;
         ++i) {  // far more than the connection's window would hold if its credit stayed away
      auto exchange = co_await pair->client->open(request("GET", "/many"), "");
      EXPECT_TRUE(exchange);
      if (exchange) slow.push_back(*exchange);
    }
    co_await sleep_for(milliseconds(100));
    EXPECT_EQ(co_await fetch(pair->client, "/echo", "quick"), "200 quick complete");
    slow.clear();
    for (int i = 0; i < 1000 && pair->running > 0; ++i) co_await sleep_for(milliseconds(1));
    EXPECT_EQ(pair->running, 0);
    pair->client->close("test over");
    co_await sleep_for(milliseconds(20));
  });
}

TEST(H2, WhenTheConnectionEndsEveryExchangeFails) {
  run([](Executor executor) -> Task<> {
    test::TempDir dir;
    auto pair = co_await connect(executor, dir.path() + "/s");
    auto exchange = co_await pair->client->open(request("GET", "/hang"), "");
    EXPECT_TRUE(exchange);
    for (int i = 0; i < 500 && pair->running == 0; ++i) co_await sleep_for(milliseconds(1));
    pair->server->close("cut");
    const auto head = co_await (*exchange)->head(soon());
    EXPECT_FALSE(head);
    EXPECT_EQ(pair->gone, 1);
    const auto again = co_await pair->client->open(request("GET", "/echo"), "");
    EXPECT_FALSE(again);
  });
}

TEST(H2, WhatThePeerDoesNotTakeIsRefusedBeforeAnythingIsSentAndThereIsRoomAgainWhenOneEnds) {
  run([](Executor executor) -> Task<> {
    test::TempDir dir;
    H2Limits few;
    few.max_concurrent_streams = 2;
    auto pair = co_await connect(executor, dir.path() + "/s", {}, few);
    // The peer's settings come with its first answer.
    EXPECT_EQ(co_await fetch(pair->client, "/echo", "x"), "200 x complete");
    EXPECT_EQ(pair->client->room(), 2U);
    auto first = co_await pair->client->open(request("GET", "/hang"), "");
    auto second = co_await pair->client->open(request("GET", "/hang"), "");
    EXPECT_TRUE(first && second);
    EXPECT_EQ(pair->client->room(), 0U);
    const auto third = co_await pair->client->open(request("GET", "/hang"), "");
    EXPECT_FALSE(third);
    EXPECT_EQ(third.error().code, ErrorCode::kRefused);
    (*first)->cancel();
    for (int i = 0; i < 5000 && pair->client->room() == 0; ++i) co_await sleep_for(milliseconds(1));
    EXPECT_EQ(co_await fetch(pair->client, "/echo", "again"), "200 again complete");
    EXPECT_EQ(pair->running, 1);
    pair->client->close("test over");
    co_await sleep_for(milliseconds(20));
  });
}

TEST(H2, ADrainingPeerIsLeftWhenItsLastRequestHasEndedWhateverIsWatched) {
  run([](Executor executor) -> Task<> {
    test::TempDir dir;
    auto pair = co_await connect(executor, dir.path() + "/s");
    RequestHead head = request("GET", "/hang");
    head.endless = true;
    auto watch = co_await pair->client->open(std::move(head), "");
    auto request_running = co_await pair->client->open(request("GET", "/hang"), "");
    EXPECT_TRUE(watch && request_running);
    for (int i = 0; i < 5000 && pair->running < 2; ++i) co_await sleep_for(milliseconds(1));
    bool left = false;
    spawn(executor, drain(pair->server, &left), "drain");
    for (int i = 0; i < 5000 && pair->client->open_for_requests(); ++i) co_await sleep_for(milliseconds(1));
    EXPECT_FALSE(pair->client->open_for_requests());
    EXPECT_EQ(pair->gone, 0) << "what runs goes on";
    (*request_running)->cancel();
    for (int i = 0; i < 5000 && !left; ++i) co_await sleep_for(milliseconds(1));
    EXPECT_TRUE(left) << "long before the 60 s that the peer gave";
    EXPECT_EQ(pair->gone, 2);
    const auto answer = co_await (*watch)->head(soon());
    EXPECT_FALSE(answer);
  });
}

H2Limits quick_pings() {
  H2Limits limits;
  limits.ping_every = milliseconds(20);
  limits.ping_limit = milliseconds(200);
  return limits;
}

TEST(H2, APeerThatSaysNothingAnyMoreIsGivenUp) {
  run([](Executor executor) -> Task<> {
    test::TempDir dir;
    // Takes the connection and never answers: a frozen machine whose kernel still acknowledges.
    std::vector<StreamPtr> silent;
    auto listener = Listener::open(executor, "unix:" + dir.path() + "/s", nullptr,
                                   [&silent](StreamPtr stream) { silent.push_back(std::move(stream)); });
    EXPECT_TRUE(listener);
    auto stream = co_await dial("unix:" + dir.path() + "/s", nullptr, seconds(5));
    EXPECT_TRUE(stream);
    auto client = H2Connection::client(std::move(*stream), quick_pings());
    const Error ended = co_await client->run();
    EXPECT_NE(ended.reason.find("silent"), std::string::npos) << ended.reason;
  });
}

TEST(H2, AnIdlePeerThatAnswersItsPingsIsKept) {
  run([](Executor executor) -> Task<> {
    test::TempDir dir;
    auto pair = co_await connect(executor, dir.path() + "/s", quick_pings());
    int answers = 0;
    auto seen = pair->client->last_read();
    for (int i = 0; i < 5000 && answers < 5; ++i) {
      co_await sleep_for(milliseconds(1));
      if (pair->client->last_read() > seen) ++answers;
      seen = pair->client->last_read();
    }
    EXPECT_EQ(answers, 5);
    EXPECT_EQ(co_await fetch(pair->client, "/echo", "here"), "200 here complete");
    pair->client->close("test over");
    co_await sleep_for(milliseconds(20));
  });
}

}  // namespace
}  // namespace aiv::net
