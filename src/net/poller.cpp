#include "net/poller.hpp"

#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <vector>

#include "net/loop.hpp"

namespace aiv::net::detail {
namespace {

// Then whom they wake goes on. With 512, what came of the first left after what came of the last: of a thousand
// streams that get their tokens together, each waited for all others in the agent, and in the gateway once more.
constexpr int kEventsAtOnce = 32;
constexpr std::uint32_t kReadEvents = EPOLLIN | EPOLLRDHUP | EPOLLPRI | EPOLLET;

int new_epoll_set() {
  const int fd = ::epoll_create1(EPOLL_CLOEXEC);
  AIV_ASSERT(fd >= 0);
  return fd;
}

}  // namespace

std::span<char> thread_buffer() {
  thread_local std::vector<char> buffer(kReadMax);
  return buffer;
}

// ---- socket ----------------------------------------------------------------------------------------------

PolledSocket::PolledSocket(const Executor& executor, int fd) : poller_(Loop::of(executor).poller()), fd_(fd) {
  int on = 1;
  ::ioctl(fd, FIONBIO, &on);
  poller_.enter(*this, fd);
  Loop::of(executor).poll();
}

Moved PolledSocket::receive(std::span<const char>& bytes) {
  if (fd_ < 0) {
    errno = ECANCELED;
    return Moved::kFailed;
  }
  if (!may_read_) return Moved::kNothingNow;
  const std::span<char> buffer = thread_buffer();
  for (;;) {
    const ssize_t got = ::recv(fd_, buffer.data(), buffer.size(), 0);
    if (got > 0) {
      bytes = buffer.first(static_cast<std::size_t>(got));
      if (bytes.size() < buffer.size() && !read_to_end_) may_read_ = false;
      return Moved::kSome;
    }
    if (got == 0) return Moved::kEnd;
    if (errno == EINTR) continue;
    if (errno != EAGAIN && errno != EWOULDBLOCK) return Moved::kFailed;
    may_read_ = false;
    return Moved::kNothingNow;
  }
}

Moved PolledSocket::send(std::string_view& bytes) {
  if (fd_ < 0) {
    errno = ECANCELED;
    return Moved::kFailed;
  }
  for (;;) {
    const ssize_t gone = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (gone >= 0) {
      const bool all = static_cast<std::size_t>(gone) == bytes.size();
      bytes.remove_prefix(static_cast<std::size_t>(gone));
      return all ? Moved::kSome : Moved::kNothingNow;
    }
    if (errno == EINTR) continue;
    return errno == EAGAIN || errno == EWOULDBLOCK ? Moved::kNothingNow : Moved::kFailed;
  }
}

SignalWait PolledSocket::writable() {
  // Most sockets never run full, so room is not asked for before. To ask tells at once if there is some.
  if (fd_ >= 0 && !asks_for_room_) {
    asks_for_room_ = true;
    poller_.ask_for_room(*this, fd_);
  }
  return writable_.wait();
}

void PolledSocket::end_output() {
  if (fd_ >= 0) ::shutdown(fd_, SHUT_WR);
}

void PolledSocket::close(bool both_ways) {
  if (fd_ < 0) return;
  // Explicitly: a child between fork and exec still holds the socket, so closing alone would not take it out.
  poller_.leave(fd_);
  if (both_ways) ::shutdown(fd_, SHUT_RDWR);
  ::close(std::exchange(fd_, -1));
  readable_.notify();
  writable_.notify();
}

void PolledSocket::happened(std::uint32_t events) {
  if ((events & ~std::uint32_t{EPOLLOUT}) != 0) {
    may_read_ = true;
    if ((events & ~std::uint32_t{EPOLLOUT | EPOLLIN}) != 0) read_to_end_ = true;
    readable_.notify();
  }
  if ((events & (EPOLLOUT | EPOLLERR | EPOLLHUP)) != 0) writable_.notify();
}

// ---- set -------------------------------------------------------------------------------------------------

Poller::Poller(const Executor& executor) : set_(executor, new_epoll_set()) {}

void Poller::enter(PolledSocket& socket, int fd) {
  epoll_event event{.events = kReadEvents, .data = {.ptr = &socket}};
  // Fails only for want of memory; then the socket stays silent and its deadlines end what waits for it.
  ::epoll_ctl(set_.native_handle(), EPOLL_CTL_ADD, fd, &event);
  sockets_ += 1;
}

void Poller::ask_for_room(PolledSocket& socket, int fd) {
  epoll_event event{.events = kReadEvents | EPOLLOUT, .data = {.ptr = &socket}};
  ::epoll_ctl(set_.native_handle(), EPOLL_CTL_MOD, fd, &event);
}

void Poller::leave(int fd) {
  ::epoll_ctl(set_.native_handle(), EPOLL_CTL_DEL, fd, nullptr);
  sockets_ -= 1;
}

void Poller::stop() {
  if (!std::exchange(waiting_, false)) return;
  boost::system::error_code ignored;
  set_.cancel(ignored);
}

bool Poller::take_events() {
  std::array<epoll_event, kEventsAtOnce> events;
  const int count = ::epoll_wait(set_.native_handle(), events.data(), kEventsAtOnce, 0);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    static_cast<PolledSocket*>(event.data.ptr)->happened(event.events);
  }
  return count == kEventsAtOnce;
}

}  // namespace aiv::net::detail
