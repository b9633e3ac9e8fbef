#include "server.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace aiv::fake {
namespace {

// Tags of epoll entries that are no connection.
constexpr std::uint64_t kListenerTag = ~std::uint64_t{0};
constexpr std::uint64_t kStdinTag = kListenerTag - 1;
constexpr std::uint64_t kSignalTag = kListenerTag - 2;
constexpr int kBacklog = 4096;
constexpr std::size_t kStdinLineMax = 4096;

void add_to_epoll(int epoll, int fd, std::uint32_t events, std::uint64_t tag) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = tag;
  epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

}  // namespace

Server::~Server() {
  for (auto& connection : connections_)
    if (connection && connection->fd >= 0) ::close(connection->fd);
  for (const int fd : {epoll_, listener_, signals_})
    if (fd >= 0) ::close(fd);
  ::unlink(options_.socket_path.c_str());
}

Result<> Server::listen() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (options_.socket_path.size() >= sizeof address.sun_path)
    return fail(ErrorCode::kInvalidArgument, "the socket's path is longer than 107 bytes",
                options_.socket_path);
  std::memcpy(address.sun_path, options_.socket_path.c_str(), options_.socket_path.size() + 1);
  epoll_ = epoll_create1(EPOLL_CLOEXEC);
  listener_ = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  // A socket file of a predecessor is in the way of bind, as with llama-server, which removes it too.
  ::unlink(options_.socket_path.c_str());
  if (bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener_, kBacklog) != 0)
    return fail(ErrorCode::kIo, fmt::format("cannot listen: {}", std::strerror(errno)), options_.socket_path);
  add_to_epoll(epoll_, listener_, EPOLLIN, kListenerTag);
  slots_.assign(static_cast<std::size_t>(options_.slots), nullptr);
  for (int slot = options_.slots; slot > 0; --slot) free_slots_.push_back(slot - 1);
  timespec t{};
  clock_gettime(CLOCK_REALTIME, &t);
  start_unix_ = t.tv_sec;
  return {};
}

int Server::run() {
  load_.begin(monotonic_ns());
  load_next_ns_ = 0;
  std::array<epoll_event, 512> events{};
  while (!exit_status_) {
    if (!ready_ && monotonic_ns() >= load_next_ns_) {
      exit_status_ = step_load();
      if (exit_status_) break;
    }
    const auto due = next_due();
    timespec wait{};
    const timespec* timeout = nullptr;
    if (due >= 0) {
      const auto left = std::max<std::int64_t>(due - monotonic_ns(), 0);
      wait = {left / 1'000'000'000, left % 1'000'000'000};
      timeout = &wait;
    }
    const int n = epoll_pwait2(epoll_, events.data(), static_cast<int>(events.size()), timeout, nullptr);
    for (int i = 0; i < n && !exit_status_; ++i) {
      const auto& event = events[static_cast<std::size_t>(i)];
      if (event.data.u64 == kListenerTag)
        accept_all();
      else if (event.data.u64 == kStdinTag)
        on_stdin();
      else if (event.data.u64 == kSignalTag)
        on_signal();
      else
        on_event(static_cast<std::uint32_t>(event.data.u64), static_cast<std::uint32_t>(event.data.u64 >> 32),
                 event.events);
    }
    run_timers();
    if (stopping_ && !exit_status_) {
      bool busy = waiting_ > 0;
      for (const auto* c : slots_) busy = busy || c != nullptr;
      // llama-server waits for the thread that reads stdin: SIGTERM alone does not end a router's child.
      if (!busy && !stdin_open_) exit_status_ = 0;
    }
  }
  return *exit_status_;
}

std::optional<int> Server::step_load() {
  const auto outcome = load_.step(monotonic_ns());
  load_next_ns_ = outcome.next_ns;
  if (outcome.exit_status) return outcome.exit_status;
  if (outcome.done) on_ready();
  return std::nullopt;
}

void Server::on_ready() {
  ready_ = true;
  if (options_.model.die_after_ms) die_ns_ = monotonic_ns() + *options_.model.die_after_ms * 1'000'000;
  // From here on SIGTERM is an orderly end; while loading it kills, as it does llama-server.
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigprocmask(SIG_BLOCK, &set, nullptr);
  signals_ = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
  add_to_epoll(epoll_, signals_, EPOLLIN, kSignalTag);
  if (!options_.router_child) return;
  tell_router("ready", model_object());
  fcntl(STDIN_FILENO, F_SETFL, fcntl(STDIN_FILENO, F_GETFL) | O_NONBLOCK);
  stdin_open_ = true;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = kStdinTag;
  // A file or /dev/null cannot be waited for: it is at its end.
  if (epoll_ctl(epoll_, EPOLL_CTL_ADD, STDIN_FILENO, &event) != 0) on_stdin();
}

void Server::on_stdin() {
  char buffer[1024];
  while (stdin_open_) {
    const auto n = ::read(STDIN_FILENO, buffer, sizeof buffer);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) {
      log_.server("srv    operator(): EOF on stdin detected, forcing shutdown...");
      exit_status_ = 1;
      return;
    }
    for (const char c : std::string_view(buffer, static_cast<std::size_t>(n))) {
      if (c != '\n') {
        if (stdin_line_.size() < kStdinLineMax) stdin_line_ += c;
        continue;
      }
      if (stdin_line_.find("cmd_router_to_child:exit") != std::string::npos) {
        log_.server("srv    operator(): exit command received, exiting...");
        epoll_ctl(epoll_, EPOLL_CTL_DEL, STDIN_FILENO, nullptr);
        stdin_open_ = false;
        begin_shutdown();
        return;
      }
      stdin_line_.clear();
    }
  }
}

void Server::on_signal() {
  signalfd_siginfo info{};
  while (::read(signals_, &info, sizeof info) == sizeof info) {
    if (stopping_) exit_status_ = 1;  // the second one
    begin_shutdown();
  }
}

// llama-server stops generating and waits for the peers of open streams to go.
void Server::begin_shutdown() {
  if (stopping_) return;
  stopping_ = true;
  log_.server("srv    operator(): operator(): cleaning up before exit...");
  epoll_ctl(epoll_, EPOLL_CTL_DEL, listener_, nullptr);
  while (!timers_.empty()) timers_.pop();
}

std::int64_t Server::next_due() const {
  std::int64_t due = -1;
  const auto earlier = [&](std::int64_t other) { due = due < 0 ? other : std::min(due, other); };
  if (!ready_) earlier(load_next_ns_);
  if (die_ns_) earlier(*die_ns_);
  if (!timers_.empty()) earlier(timers_.top().due_ns);
  return due;
}

void Server::run_timers() {
  const auto now = monotonic_ns();
  if (die_ns_ && now >= *die_ns_) _exit(options_.model.exit_code);
  while (!timers_.empty() && timers_.top().due_ns <= now && !exit_status_) {
    const auto timer = timers_.top();
    timers_.pop();
    auto& c = *connections_[timer.index];
    if (c.fd >= 0 && c.serial == timer.serial && c.task == timer.task && c.state == State::kGenerating)
      on_due(c, now);
  }
}

void Server::accept_all() {
  while (true) {
    const int fd = accept4(listener_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd < 0) return;
    if (free_indices_.empty()) {
      free_indices_.push_back(static_cast<std::uint32_t>(connections_.size()));
      connections_.push_back(std::make_unique<Connection>());
      connections_.back()->index = free_indices_.back();
    }
    auto& c = *connections_[free_indices_.back()];
    free_indices_.pop_back();
    c.fd = fd;
    c.state = State::kReading;
    c.interest = EPOLLIN | EPOLLRDHUP;
    add_to_epoll(epoll_, fd, c.interest, (std::uint64_t{c.serial} << 32) | c.index);
  }
}

void Server::on_event(std::uint32_t index, std::uint32_t serial, std::uint32_t events) {
  auto& c = *connections_[index];
  if (c.fd < 0 || c.serial != serial) return;
  if ((events & (EPOLLERR | EPOLLHUP)) != 0) return close_connection(c);
  if ((events & EPOLLIN) != 0) read_from(c);
  if (c.fd < 0 || c.serial != serial) return;
  // A peer that shuts its sending side has left: llama-server's library treats it so.
  if ((events & EPOLLRDHUP) != 0 && c.state != State::kReading) return close_connection(c);
  if ((events & EPOLLOUT) != 0) flush(c);
}

void Server::read_from(Connection& c) {
  char buffer[65'536];
  while (true) {
    const auto n = recv(c.fd, buffer, sizeof buffer, 0);
    if (n < 0 && errno == EAGAIN) break;
    if (n <= 0) return close_connection(c);
    c.in.append(buffer, static_cast<std::size_t>(n));
    if (static_cast<std::size_t>(n) < sizeof buffer) break;
  }
  if (c.state == State::kReading) handle_input(c);
}

void Server::handle_input(Connection& c) {
  const auto serial = c.serial;
  while (c.fd >= 0 && c.serial == serial && c.state == State::kReading && !c.in.empty()) {
    switch (c.reader.read(c.in, c.request)) {
      case RequestReader::State::kNeedMore:
        if (c.reader.take_expects_continue()) {
          c.out += "HTTP/1.1 100 Continue\r\n\r\n";
          flush(c);
        }
        return;
      case RequestReader::State::kBad:
        c.request.keep_alive = false;
        respond_error(c, 400, "invalid_request_error", "malformed HTTP request");
        return;
      case RequestReader::State::kComplete:
        handle_request(c);
        break;
    }
  }
}

void Server::watch(Connection& c, std::uint32_t events) {
  if (c.interest == events) return;
  c.interest = events;
  epoll_event event{};
  event.events = events;
  event.data.u64 = (std::uint64_t{c.serial} << 32) | c.index;
  epoll_ctl(epoll_, EPOLL_CTL_MOD, c.fd, &event);
}

void Server::flush(Connection& c) {
  while (c.out_sent < c.out.size()) {
    const auto n = send(c.fd, c.out.data() + c.out_sent, c.out.size() - c.out_sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EAGAIN) return watch(c, EPOLLIN | EPOLLRDHUP | EPOLLOUT);
    if (n < 0) return close_connection(c);
    c.out_sent += static_cast<std::size_t>(n);
  }
  c.out.clear();
  c.out_sent = 0;
  watch(c, EPOLLIN | EPOLLRDHUP);
  if (c.state == State::kClosing) return close_connection(c);
  if (c.state == State::kGenerating && c.generation->due_ns == 0) arm(c);  // it waited for the peer to read
}

void Server::finish_request(Connection& c) {
  c.state = c.request.keep_alive && !stopping_ ? State::kReading : State::kClosing;
  flush(c);
}

void Server::close_connection(Connection& c) {
  if (c.state == State::kQueued || c.state == State::kGenerating || c.state == State::kStalled)
    ++counters_.cancelled;
  if (c.state == State::kQueued) --waiting_;
  ::close(c.fd);
  c.fd = -1;
  ++c.serial;
  c.in.clear();
  c.out.clear();
  c.out_sent = 0;
  c.reader = {};
  const bool had_slot = c.slot >= 0;
  release(c);
  free_indices_.push_back(c.index);
  if (had_slot) give_slots();
}

}  // namespace aiv::fake
