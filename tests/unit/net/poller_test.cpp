// Readiness of sockets: what edge-triggered events could lose.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <memory>
#include <string>
#include <vector>

#include "net/stream.hpp"
#include "support.hpp"

namespace aiv::net {
namespace {

// A peer without a loop: what it does has happened when it returns.
class BlockingPeer {
 public:
  explicit BlockingPeer(int port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<std::uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
  }
  ~BlockingPeer() { leave(); }
  BlockingPeer(const BlockingPeer&) = delete;
  BlockingPeer& operator=(const BlockingPeer&) = delete;
  void say(const std::string& text) const {
    EXPECT_EQ(::send(fd_, text.data(), text.size(), MSG_NOSIGNAL), static_cast<ssize_t>(text.size()));
  }
  // What is there now.
  [[nodiscard]] std::string hear(std::size_t most) const {
    std::string out(most, '\0');
    const ssize_t got = ::recv(fd_, out.data(), out.size(), MSG_DONTWAIT);
    out.resize(got > 0 ? static_cast<std::size_t>(got) : 0);
    return out;
  }
  void leave() {
    if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  }

 private:
  int fd_;
};

struct Accepted {
  StreamPtr stream;
  Signal arrived;
};

std::unique_ptr<Listener> listen_for_one(const Executor& executor, Accepted& accepted) {
  auto listener = Listener::open(executor, "tcp:127.0.0.1:0", nullptr, [&accepted](StreamPtr stream) {
    accepted.stream = std::move(stream);
    accepted.arrived.notify();
  });
  EXPECT_TRUE(listener.has_value());
  return std::move(*listener);
}

Task<> last_words(Executor executor) {
  Accepted accepted;
  const auto listener = listen_for_one(executor, accepted);
  BlockingPeer peer(listener->port());
  peer.say("the last words");
  peer.leave();
  while (!accepted.stream) co_await accepted.arrived.wait();
  std::string heard;
  const Result<bool> words = co_await accepted.stream->read_more(heard);
  EXPECT_TRUE(words && *words);
  EXPECT_EQ(heard, "the last words");
  const Result<bool> end = co_await accepted.stream->read_more(heard);
  EXPECT_TRUE(end && !*end);
}

TEST(Poller, AnEndThatCameTogetherWithTheLastWordsIsNoticed) {
  test::run(last_words);
}

Task<> read_until(ByteStream* stream, std::size_t bytes, std::string* heard) {
  while (heard->size() < bytes) {
    const Result<bool> more = co_await stream->read_more(*heard);
    EXPECT_TRUE(more && *more);
    if (!more || !*more) co_return;
  }
}

Task<> word_by_word(Executor executor) {
  Accepted accepted;
  const auto listener = listen_for_one(executor, accepted);
  const BlockingPeer peer(listener->port());
  while (!accepted.stream) co_await accepted.arrived.wait();
  std::string heard;
  for (std::size_t i = 1; i <= 50; ++i) {
    peer.say("x");
    co_await read_until(accepted.stream.get(), i, &heard);
  }
  EXPECT_EQ(heard, std::string(50, 'x'));
}

TEST(Poller, EachWordIsHeardThoughTheSocketIsEnteredOnce) {
  test::run(word_by_word);
}

// More than are asked for at once, and all have something before the first is looked at.
Task<> many_at_once(Executor executor) {
  constexpr std::size_t kMany = 300;
  std::vector<StreamPtr> streams;
  Signal arrived;
  auto listener = Listener::open(executor, "tcp:127.0.0.1:0", nullptr, [&](StreamPtr stream) {
    streams.push_back(std::move(stream));
    arrived.notify();
  });
  EXPECT_TRUE(listener.has_value());
  std::vector<std::unique_ptr<BlockingPeer>> peers;
  while (peers.size() < kMany) peers.push_back(std::make_unique<BlockingPeer>((*listener)->port()));
  while (streams.size() < kMany) co_await arrived.wait();
  std::vector<std::string> heard(kMany);
  for (int word = 1; word <= 3; ++word) {
    for (const auto& peer : peers) peer->say("x");
    for (std::size_t i = 0; i < kMany; ++i) co_await read_until(streams[i].get(), static_cast<std::size_t>(word), &heard[i]);
  }
  for (const std::string& each : heard) EXPECT_EQ(each, "xxx");
}

TEST(Poller, AllAreHeardThoughMoreSpeakAtOnceThanAreAskedAtOnce) {
  test::run(many_at_once);
}

Task<> write_all_of(ByteStream* stream, std::string bytes, bool* done) {
  const Result<> written = co_await stream->write_all(bytes);
  *done = written.has_value();
}

Task<> full_socket(Executor executor) {
  constexpr std::size_t kMuch = std::size_t{16} << 20;
  Accepted accepted;
  const auto listener = listen_for_one(executor, accepted);
  const BlockingPeer peer(listener->port());
  while (!accepted.stream) co_await accepted.arrived.wait();
  bool done = false;
  spawn(executor, write_all_of(accepted.stream.get(), std::string(kMuch, 'y'), &done), "writer");
  EXPECT_FALSE(done);  // more than any socket holds
  std::size_t heard = 0;
  while (heard < kMuch || !done) {
    heard += peer.hear(kMuch).size();
    // Its turn for the writer.
    co_await sleep_for(milliseconds(1));
  }
  EXPECT_EQ(heard, kMuch);
}

TEST(Poller, AWriterGoesOnEachTimeTheSocketHasRoomAgain) {
  test::run(full_socket);
}

Task<> reader(ByteStream* stream, bool* failed, Signal* ended) {
  std::string nothing;
  const Result<bool> more = co_await stream->read_more(nothing);
  *failed = !more;
  ended->notify();
}

Task<> closed_by_us(Executor executor) {
  Accepted accepted;
  const auto listener = listen_for_one(executor, accepted);
  const BlockingPeer peer(listener->port());
  while (!accepted.stream) co_await accepted.arrived.wait();
  bool failed = false;
  Signal ended;
  spawn(executor, reader(accepted.stream.get(), &failed, &ended), "reader");
  accepted.stream->close();
  EXPECT_FALSE(failed);  // nobody is resumed from within close()
  co_await ended.wait();
  EXPECT_TRUE(failed);
  const Result<> late = co_await accepted.stream->write_all("too late");
  EXPECT_FALSE(late);
}

TEST(Poller, WhoWaitsOnASocketThatWeCloseIsTold) {
  test::run(closed_by_us);
}

Task<> note(Clock::duration after, int mark, std::vector<int>* order, bool* early, Signal* ended) {
  const auto due = Clock::now() + after;
  co_await sleep_until(due);
  if (Clock::now() < due) *early = true;
  order->push_back(mark);
  ended->notify();
}

Task<> far_and_near(Executor executor) {
  std::vector<int> order;
  bool early = false;
  Signal ended;
  spawn(executor, note(milliseconds(800), 3, &order, &early, &ended), "third");
  spawn(executor, note(milliseconds(600), 2, &order, &early, &ended), "second");
  spawn(executor, note(milliseconds(5), 1, &order, &early, &ended), "first");
  spawn(executor, note(std::chrono::hours(100), 4, &order, &early, &ended), "never");
  while (order.size() < 3) co_await ended.wait();
  EXPECT_EQ(order, (std::vector<int>{1, 2, 3}));
  EXPECT_FALSE(early);
}

TEST(Deadlines, NearAndFarOnesPassInTheirOrderAndNotBeforeTheirTime) {
  test::run(far_and_near);
}

}  // namespace
}  // namespace aiv::net
