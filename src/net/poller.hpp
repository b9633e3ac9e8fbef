// Readiness of sockets without a call to the kernel for each wait. For the sources of net only.
//
// RULES
// - All sockets of a loop are in one epoll set, which the loop's io_context watches as a whole. They are
//   entered once, edge-triggered. Rationale: Asio's async_wait() tells epoll anew what it wants at each wait,
//   so an agent made one call more for each token.
// - A read that brings less than asked for has emptied the socket, so the next waits for an event: no read to
//   EAGAIN. Where the peer's end or urgent data was told of, there is: both may lie behind what it brought.
// - Nobody is resumed while events are taken, so no event can name a socket that is gone.
#pragma once
#include <boost/asio/posix/basic_stream_descriptor.hpp>
#include <cstdint>
#include <span>
#include <string_view>

#include "net/async.hpp"

namespace aiv::net::detail {

// At most so much is read, or made of what was read, at once.
inline constexpr std::size_t kReadMax = 256 * 1024;
// All connections of a thread read into one buffer, so that an idle one has none.
std::span<char> thread_buffer();

enum class Moved { kSome, kNothingNow, kEnd, kFailed };

class Poller;

// Owns a socket.
class PolledSocket {
 public:
  // Takes over `fd` and makes it non-blocking.
  PolledSocket(const Executor& executor, int fd);
  ~PolledSocket() { close(); }
  PolledSocket(const PolledSocket&) = delete;
  PolledSocket& operator=(const PolledSocket&) = delete;

  // Reads once into the thread's buffer; `bytes` is what came. kFailed leaves the reason in errno.
  Moved receive(std::span<const char>& bytes);
  // Sends from the front of `bytes`, and removes what has gone; kNothingNow when not all of it has.
  Moved send(std::string_view& bytes);
  // Awaited after kNothingNow; wakes also when the socket is closed, and sometimes for nothing.
  SignalWait readable() { return readable_.wait(); }
  SignalWait writable();
  void end_output();
  // Who waits is told, and gets ECANCELED from then on. `both_ways`: what was sent must still arrive where
  // the peer's bytes were not read to their end (TCP).
  void close(bool both_ways = false);

 private:
  friend class Poller;
  void happened(std::uint32_t events);
  Poller& poller_;
  int fd_;
  bool may_read_ = false;
  bool read_to_end_ = false;
  bool asks_for_room_ = false;
  Signal readable_;
  Signal writable_;
};

// The epoll set of one loop.
class Poller {
 public:
  explicit Poller(const Executor& executor);
  void enter(PolledSocket& socket, int fd);
  void ask_for_room(PolledSocket& socket, int fd);
  void leave(int fd);
  // Calls `on_events` once when there are events, unless stopped before.
  template <class OnEvents>
  void wait(OnEvents on_events) {
    if (waiting_ || sockets_ == 0) return;
    waiting_ = true;
    set_.async_wait(Set::wait_read, [this, on_events](const boost::system::error_code& stopped) {
      if (stopped) return;
      waiting_ = false;
      on_events();
    });
  }
  void stop();
  // Marks sockets that have something and wakes who waits for them; true if there may be more.
  bool take_events();

 private:
  using Set = boost::asio::posix::basic_stream_descriptor<Executor>;
  Set set_;
  std::size_t sockets_ = 0;
  bool waiting_ = false;
};

}  // namespace aiv::net::detail
