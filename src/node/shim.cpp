#include "node/shim.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string>
#include <string_view>
#include <vector>

namespace aiv::node {
namespace {

// Of 16 KiB each in one turn: an engine that floods its log must not keep the agent's commands waiting.
constexpr int kLogReadsMax = 64;
constexpr std::size_t kLineBytesMax = 64 * 1024;  // longer lines are cut
constexpr std::size_t kKeptLogBytesMax =
    256 * 1024;  // start of the log, replayed to an agent; a load writes 15 KiB
constexpr std::size_t kOutboxBytesMax =
    2 * 1024 * 1024;  // an agent slower than this is dropped; it may come again
constexpr std::size_t kInboxBytesMax = 4096;
constexpr std::size_t kClientsMax = 4;
constexpr std::int64_t kKillAfterTermMs = 5'000;
constexpr std::int64_t kFirstAgentMs = 15'000;
constexpr std::int64_t kFarewellMs = 2'000;  // to hand the last lines to the agent once the engine is gone
constexpr std::string_view kProtocol = "cmd_child_to_router:";

struct Options {
  std::string dir;
  std::string socket;
  std::string replica;
  std::string spec_hash;
  std::int64_t epoch = 0;
  std::int64_t rev = 0;
  std::int64_t orphan_limit_ms = 10 * 60 * 1000;
  std::int64_t log_bytes_max = 4 * 1024 * 1024;
  char** command = nullptr;
};

std::int64_t now_ms() {
  timespec t{};
  ::clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<std::int64_t>(t.tv_sec) * 1000 + t.tv_nsec / 1'000'000;
}

bool read_number(std::string_view text, std::int64_t& out) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), out);
  return error == std::errc{} && end == text.data() + text.size() && out >= 0;
}

bool parse_options(int argc, char** argv, Options& o) {
  int i = 1;
  for (; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name == "--") break;
    if (i + 1 >= argc) return false;
    const std::string_view value = argv[++i];
    if (name == "--dir")
      o.dir = value;
    else if (name == "--socket")
      o.socket = value;
    else if (name == "--replica")
      o.replica = value;
    else if (name == "--spec-hash")
      o.spec_hash = value;
    else if (name == "--epoch") {
      if (!read_number(value, o.epoch)) return false;
    } else if (name == "--rev") {
      if (!read_number(value, o.rev)) return false;
    } else if (name == "--orphan-limit-ms") {
      if (!read_number(value, o.orphan_limit_ms)) return false;
    } else if (name == "--log-bytes-max") {
      if (!read_number(value, o.log_bytes_max)) return false;
    } else
      return false;
  }
  if (i + 1 >= argc) return false;
  o.command = argv + i + 1;
  return !o.dir.empty() && !o.socket.empty() && o.dir[0] == '/' && o.socket[0] == '/';
}

std::string read_small(const char* path) {
  std::string out;
  const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return out;
  char buffer[1024];
  const ssize_t n = ::read(fd, buffer, sizeof buffer);
  if (n > 0) out.assign(buffer, static_cast<std::size_t>(n));
  ::close(fd);
  while (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

// Field 22 of /proc/PID/stat, in clock ticks since boot; the name in field 2 may hold blanks and brackets.
std::int64_t start_time_of(pid_t pid) {
  const std::string stat = read_small(("/proc/" + std::to_string(pid) + "/stat").c_str());
  const std::size_t bracket = stat.rfind(')');
  if (bracket == std::string::npos) return 0;
  std::size_t at = bracket + 2;
  for (int field = 3; field < 22; ++field) {
    at = stat.find(' ', at);
    if (at == std::string::npos) return 0;
    ++at;
  }
  std::int64_t value = 0;
  std::from_chars(stat.data() + at, stat.data() + stat.size(), value);
  return value;
}

// Temp file, fsync, rename: a reader sees the whole file or none.
void write_whole(const std::string& name, const std::string& content) {
  const std::string temp = name + ".new";
  const int fd = ::open(temp.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return;
  const ssize_t n = ::write(fd, content.data(), content.size());
  if (n == static_cast<ssize_t>(content.size()) && ::fsync(fd) == 0) ::rename(temp.c_str(), name.c_str());
  ::close(fd);
}

std::string describe(int status) {
  if (WIFSIGNALED(status)) {
    const char* name = ::sigabbrev_np(WTERMSIG(status));
    return std::string("killed by SIG") + (name != nullptr ? name : "?");
  }
  return "exit " + std::to_string(WEXITSTATUS(status));
}

// Splits a stream into lines, each cut to kLineBytesMax.
class LineSplitter {
 public:
  template <class F>
  void feed(std::string_view bytes, F&& on_line) {
    while (!bytes.empty()) {
      const std::size_t end = bytes.find('\n');
      const std::string_view part = bytes.substr(0, end);
      if (held_.size() < kLineBytesMax) held_.append(part.substr(0, kLineBytesMax - held_.size()));
      if (end == std::string_view::npos) return;
      on_line(std::string_view(held_));
      held_.clear();
      bytes.remove_prefix(end + 1);
    }
  }
  // What a dying engine wrote without an end of line.
  template <class F>
  void finish(F&& on_line) {
    if (!held_.empty()) on_line(std::string_view(held_));
    held_.clear();
  }

 private:
  std::string held_;
};

// engine.log, moved to engine.log.1 at its bound: at most twice the bound on disk, whatever the engine
// prints.
class LogFile {
 public:
  explicit LogFile(std::int64_t bytes_max) : bytes_max_(bytes_max) { reopen(); }
  ~LogFile() {
    if (fd_ >= 0) ::close(fd_);
  }
  LogFile(const LogFile&) = delete;
  LogFile& operator=(const LogFile&) = delete;

  void write_line(std::string_view line) {
    if (fd_ < 0) return;
    std::string text(line);
    text += '\n';
    // A full disk must not stop the engine: what cannot be written is lost.
    const ssize_t n = ::write(fd_, text.data(), text.size());
    if (n > 0) size_ += n;
    if (size_ >= bytes_max_) {
      ::close(fd_);
      ::rename("engine.log", "engine.log.1");
      reopen();
    }
  }

 private:
  void reopen() {
    fd_ = ::open("engine.log", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    struct stat st{};
    size_ = fd_ >= 0 && ::fstat(fd_, &st) == 0 ? st.st_size : 0;
  }
  int fd_ = -1;
  std::int64_t size_ = 0;
  std::int64_t bytes_max_;
};

struct Client {
  int fd = -1;
  std::string outbox;
  std::string inbox;
  bool quiet = false;
};

class Shim {
 public:
  explicit Shim(Options options) : options_(std::move(options)), log_(options_.log_bytes_max) {}
  int run();

 private:
  bool start_engine();
  bool listen_on_socket();
  void write_state();
  void loop();
  bool poll_once(std::int64_t wait_ms);
  void accept_client();
  void serve_client(Client& client);
  void command(Client& client, std::string_view line);
  void flush(Client& client);
  void drop(Client& client);
  // False when nothing was there.
  bool read_stream(int& fd, LineSplitter& splitter, bool is_stdout);
  void stdout_line(std::string_view line);
  void log_line(std::string_view line);
  void tell(std::string_view kind, std::string_view text, bool is_log);
  void reap();
  void terminate();
  void check_time();
  [[nodiscard]] std::int64_t next_wake() const;
  // An agent that started this shim connects at once. One that died before it did knows nothing of this
  // engine.
  [[nodiscard]] std::int64_t alone_limit() const {
    return had_client_ ? options_.orphan_limit_ms : std::min(options_.orphan_limit_ms, kFirstAgentMs);
  }
  void farewell();

  Options options_;
  LogFile log_;
  pid_t pid_ = -1;
  std::int64_t start_time_ = 0;
  int stdin_ = -1, stdout_ = -1, stderr_ = -1, listen_ = -1, signals_ = -1;
  LineSplitter out_lines_, err_lines_;
  std::vector<Client> clients_;
  std::string kept_log_;
  std::string last_out_;
  bool exited_ = false;
  bool had_client_ = false;
  int status_ = 0;
  std::int64_t kill_at_ms_ = 0;
  std::int64_t alone_since_ms_ = now_ms();
};

bool Shim::listen_on_socket() {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (options_.socket.size() >= sizeof address.sun_path) return false;
  std::memcpy(address.sun_path, options_.socket.data(), options_.socket.size());
  ::unlink(options_.socket.c_str());
  listen_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  return listen_ >= 0 && ::bind(listen_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0 &&
         ::listen(listen_, 8) == 0;
}

bool Shim::start_engine() {
  int in[2], out[2], err[2];
  if (::pipe2(in, O_CLOEXEC) != 0 || ::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0)
    return false;
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ < 0) return false;
  if (pid_ == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);  // the shim died before the line above
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ::dup2(in[0], 0);
    ::dup2(out[1], 1);
    ::dup2(err[1], 2);
    sigset_t none;
    ::sigemptyset(&none);
    ::sigprocmask(SIG_SETMASK, &none, nullptr);
    for (const int signo : {SIGPIPE, SIGHUP}) ::signal(signo, SIG_DFL);
    ::execv(options_.command[0], options_.command);
    const char* reason = ::strerror(errno);
    ::dprintf(2, "cannot start %s: %s\n", options_.command[0], reason);
    ::_exit(127);
  }
  ::close(in[0]);
  ::close(out[1]);
  ::close(err[1]);
  stdin_ = in[1];
  stdout_ = out[0];
  stderr_ = err[0];
  for (const int fd : {stdin_, stdout_, stderr_}) ::fcntl(fd, F_SETFL, ::fcntl(fd, F_GETFL) | O_NONBLOCK);
  start_time_ = start_time_of(pid_);
  return true;
}

void Shim::write_state() {
  std::string text;
  auto put = [&text](std::string_view key, const std::string& value) {
    text.append(key).append("=").append(value).append("\n");
  };
  put("replica", options_.replica);
  put("spec_hash", options_.spec_hash);
  put("epoch", std::to_string(options_.epoch));
  put("rev", std::to_string(options_.rev));
  put("boot_id", read_small("/proc/sys/kernel/random/boot_id"));
  put("shim_pid", std::to_string(::getpid()));
  put("shim_start", std::to_string(start_time_of(::getpid())));
  put("engine_pid", std::to_string(pid_));
  put("engine_start", std::to_string(start_time_));
  write_whole("state", text);
}

int Shim::run() {
  // So that `ps` tells the shims from the agent.
  ::prctl(PR_SET_NAME, "aiv-engine-shim");
  ::signal(SIGPIPE, SIG_IGN);
  ::signal(SIGHUP, SIG_IGN);
  sigset_t caught;
  ::sigemptyset(&caught);
  for (const int signo : {SIGCHLD, SIGTERM, SIGINT}) ::sigaddset(&caught, signo);
  ::sigprocmask(SIG_BLOCK, &caught, nullptr);
  signals_ = ::signalfd(-1, &caught, SFD_CLOEXEC | SFD_NONBLOCK);
  ::unlink("exit");
  if (signals_ < 0 || !listen_on_socket()) {
    std::fprintf(stderr, "engine-shim: cannot listen on %s: %s\n", options_.socket.c_str(),
                 std::strerror(errno));
    return 1;
  }
  if (!start_engine()) {
    std::fprintf(stderr, "engine-shim: cannot start a process: %s\n", std::strerror(errno));
    return 1;
  }
  write_state();
  loop();
  return 0;
}

void Shim::loop() {
  while (!exited_) {
    poll_once(next_wake());
    check_time();
  }
  farewell();
}

std::int64_t Shim::next_wake() const {
  std::int64_t at = -1;
  auto sooner = [&at](std::int64_t when) { at = at < 0 ? when : std::min(at, when); };
  if (kill_at_ms_ > 0) sooner(kill_at_ms_);
  if (clients_.empty()) sooner(alone_since_ms_ + alone_limit());
  return at < 0 ? -1 : std::max<std::int64_t>(0, at - now_ms());
}

void Shim::check_time() {
  const std::int64_t now = now_ms();
  if (exited_) return;
  if (kill_at_ms_ > 0 && now >= kill_at_ms_) {
    ::kill(pid_, SIGKILL);
    kill_at_ms_ = now + 1000;
  } else if (kill_at_ms_ == 0 && clients_.empty() && now - alone_since_ms_ >= alone_limit()) {
    log_line("engine-shim: no agent for too long, stopping the engine");
    terminate();
  }
}

void Shim::terminate() {
  if (exited_ || kill_at_ms_ > 0) return;
  ::kill(pid_, SIGTERM);
  // As a router's child an engine that is ready ends after SIGTERM only once its stdin has told it to go as
  // well; one that is loading reads no stdin, and dies of the signal. What cannot be written is left to
  // SIGKILL.
  constexpr std::string_view kExit = "cmd_router_to_child:exit\n";
  [[maybe_unused]] const ssize_t told = ::write(stdin_, kExit.data(), kExit.size());
  kill_at_ms_ = now_ms() + kKillAfterTermMs;
}

// True if anything happened.
bool Shim::poll_once(std::int64_t wait_ms) {
  std::vector<pollfd> fds;
  auto watch = [&fds](int fd, short events) { fds.push_back({fd, events, 0}); };
  watch(signals_, POLLIN);
  watch(clients_.size() < kClientsMax ? listen_ : -1, POLLIN);
  watch(stdout_, POLLIN);
  watch(stderr_, POLLIN);
  for (const Client& client : clients_) {
    const int events = POLLIN | (client.outbox.empty() ? 0 : POLLOUT);
    watch(client.fd, static_cast<short>(events));
  }
  const int n = ::poll(fds.data(), fds.size(), static_cast<int>(std::min<std::int64_t>(wait_ms, 3'600'000)));
  if (n <= 0) return false;
  const std::size_t watched = clients_.size();
  // The log first, and all of it: the engine writes its buffers there before it says "ready" on stdout, and
  // the proof is made at that word.
  const bool spoke = fds[2].revents != 0;
  bool more = spoke || fds[3].revents != 0;
  for (int reads = 0; more && stderr_ >= 0 && reads < kLogReadsMax; ++reads)
    more = read_stream(stderr_, err_lines_, false);
  if (spoke) read_stream(stdout_, out_lines_, true);
  for (std::size_t i = 0; i < watched; ++i) {
    const short events = fds[4 + i].revents;
    if ((events & POLLOUT) != 0) flush(clients_[i]);
    if ((events & (POLLIN | POLLHUP | POLLERR)) != 0) serve_client(clients_[i]);
  }
  if (fds[1].revents != 0) accept_client();
  if (fds[0].revents != 0) reap();
  std::erase_if(clients_, [](const Client& client) { return client.fd < 0; });
  return true;
}

void Shim::reap() {
  signalfd_siginfo info{};
  while (::read(signals_, &info, sizeof info) == static_cast<ssize_t>(sizeof info))
    if (info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT) terminate();
  if (!exited_ && ::waitpid(pid_, &status_, WNOHANG) == pid_) exited_ = true;
}

bool Shim::read_stream(int& fd, LineSplitter& splitter, bool is_stdout) {
  char buffer[16 * 1024];
  const ssize_t n = ::read(fd, buffer, sizeof buffer);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  if (n <= 0) {
    ::close(fd);
    fd = -1;
    return false;
  }
  splitter.feed(std::string_view(buffer, static_cast<std::size_t>(n)), [&](std::string_view line) {
    if (is_stdout)
      stdout_line(line);
    else
      log_line(line);
  });
  return true;
}

void Shim::stdout_line(std::string_view line) {
  if (line.empty()) return;
  if (!line.starts_with(kProtocol)) return log_line(line);
  last_out_ = line;
  tell("out ", line, false);
}

void Shim::log_line(std::string_view line) {
  log_.write_line(line);
  if (kept_log_.size() + line.size() + 5 <= kKeptLogBytesMax)
    kept_log_.append("log ").append(line).append("\n");
  tell("log ", line, true);
}

void Shim::tell(std::string_view kind, std::string_view text, bool is_log) {
  for (Client& client : clients_) {
    if (client.fd < 0 || (is_log && client.quiet)) continue;
    client.outbox.append(kind).append(text).append("\n");
    if (client.outbox.size() > kOutboxBytesMax)
      drop(client);
    else
      flush(client);
  }
}

void Shim::accept_client() {
  const int fd = ::accept4(listen_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd < 0) return;
  ucred peer{};
  socklen_t size = sizeof peer;
  // The folder is 0700 already; this also keeps out a process that was given the socket by mistake.
  if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 ||
      (peer.uid != ::getuid() && peer.uid != 0)) {
    ::close(fd);
    return;
  }
  Client client;
  client.fd = fd;
  client.outbox = "hello " + std::to_string(pid_) + " " + std::to_string(start_time_) + "\n" + kept_log_;
  if (!last_out_.empty()) client.outbox.append("out ").append(last_out_).append("\n");
  client.outbox += "live\n";
  had_client_ = true;
  clients_.push_back(std::move(client));
  flush(clients_.back());
}

void Shim::serve_client(Client& client) {
  if (client.fd < 0) return;
  char buffer[1024];
  const ssize_t n = ::read(client.fd, buffer, sizeof buffer);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0 || client.inbox.size() + static_cast<std::size_t>(n) > kInboxBytesMax) return drop(client);
  client.inbox.append(buffer, static_cast<std::size_t>(n));
  std::size_t end = 0;
  while (client.fd >= 0 && (end = client.inbox.find('\n')) != std::string::npos) {
    const std::string line = client.inbox.substr(0, end);
    client.inbox.erase(0, end + 1);
    command(client, line);
  }
}

void Shim::command(Client& client, std::string_view line) {
  if (exited_) return;
  if (line == "term")
    terminate();
  else if (line == "kill")
    ::kill(pid_, SIGKILL);
  else if (line == "quiet")
    client.quiet = true;
  else
    drop(client);
}

void Shim::flush(Client& client) {
  while (client.fd >= 0 && !client.outbox.empty()) {
    const ssize_t n = ::send(client.fd, client.outbox.data(), client.outbox.size(), MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) return drop(client);
    client.outbox.erase(0, static_cast<std::size_t>(n));
  }
}

void Shim::drop(Client& client) {
  if (client.fd < 0) return;
  ::close(client.fd);
  client.fd = -1;
  alone_since_ms_ = now_ms();
}

// The engine is gone: take its last words, leave its status in a file and with the agent, and go.
void Shim::farewell() {
  const std::int64_t until = now_ms() + kFarewellMs;
  // A grandchild may still hold the pipes: never wait for their end without a limit.
  while ((stdout_ >= 0 || stderr_ >= 0) && now_ms() < until)
    if (!poll_once(50)) break;
  err_lines_.finish([this](std::string_view line) { log_line(line); });
  const std::string status = describe(status_);
  write_whole("exit", status + "\n");
  // An engine that refuses its command line is gone before the agent has connected: its words would be lost.
  while (!had_client_ && now_ms() < until) poll_once(50);
  poll_once(0);
  tell("exit ", status, false);
  auto unsent = [this] {
    return std::ranges::any_of(clients_, [](const Client& c) { return c.fd >= 0 && !c.outbox.empty(); });
  };
  while (unsent() && now_ms() < until) poll_once(50);
  ::unlink(options_.socket.c_str());
}

}  // namespace

int engine_shim_main(int argc, char** argv) {
  Options options;
  if (!parse_options(argc, argv, options)) {
    std::fprintf(
        stderr,
        "usage: engine-shim --dir DIR --socket PATH --replica ID --spec-hash HASH --epoch N --rev N\n"
        "                   [--orphan-limit-ms N] [--log-bytes-max N] -- PROGRAM ARGS...\n");
    return 2;
  }
  ::umask(0077);
  if (::chdir(options.dir.c_str()) != 0) {
    std::fprintf(stderr, "engine-shim: %s: %s\n", options.dir.c_str(), std::strerror(errno));
    return 1;
  }
  return Shim(std::move(options)).run();
}

}  // namespace aiv::node
