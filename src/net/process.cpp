#include "net/process.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <boost/asio/posix/basic_stream_descriptor.hpp>
#include <boost/asio/write.hpp>
#include <cerrno>
#include <charconv>
#include <csignal>
#include <cstring>

#include "base/file.hpp"
#include "base/log.hpp"
#include "net/asio_wait.hpp"

namespace aiv::net {
namespace asio = boost::asio;
using boost::system::error_code;

namespace {

using Descriptor = asio::posix::basic_stream_descriptor<Executor>;
constexpr std::size_t kLineMax = 64 * 1024;

// glibc 2.36 has wrappers for both, older ones not; the numbers are the same on every architecture.
int pidfd_open(pid_t pid) { return static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)); }
int pidfd_signal(int fd, int signo) { return static_cast<int>(::syscall(SYS_pidfd_send_signal, fd, signo, nullptr, 0)); }

struct Pipe {
  int read_end = -1;
  int write_end = -1;
  bool open() {
    std::array<int, 2> ends{};
    if (::pipe2(ends.data(), O_CLOEXEC) != 0) return false;
    read_end = ends[0];
    write_end = ends[1];
    return true;
  }
  void close_all() {
    for (int* fd : {&read_end, &write_end}) {
      if (*fd >= 0) ::close(*fd);
      *fd = -1;
    }
  }
};

// What the child needs after fork, prepared before it: between fork and exec only async-signal-safe calls are allowed.
struct Prepared {
  std::vector<char*> argv;
  std::vector<char*> envp;
  int in = -1;
  int out = -1;
  int err = -1;
};

[[noreturn]] void become(const SpawnOptions& options, const Prepared& prepared, pid_t parent, int report) {
  const auto die = [&] {
    const int error = errno;
    [[maybe_unused]] const auto written = ::write(report, &error, sizeof error);
    ::_exit(127);
  };
  if (options.die_with_parent) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);  // it died between fork and prctl
  }
  if (options.new_session) ::setsid();
  if (!options.working_directory.empty() && ::chdir(options.working_directory.c_str()) != 0) die();
  if (::dup2(prepared.in, 0) < 0) die();
  if (prepared.out >= 0 && ::dup2(prepared.out, 1) < 0) die();
  if (prepared.err >= 0 && ::dup2(prepared.err, 2) < 0) die();
  for (int signo = 1; signo < NSIG; ++signo) ::signal(signo, SIG_DFL);
  sigset_t none;
  ::sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
  ::execve(options.program.c_str(), prepared.argv.data(), prepared.envp.data());
  die();
  ::_exit(127);
}

class ChildProcess final : public Process, public std::enable_shared_from_this<ChildProcess> {
 public:
  ChildProcess(Executor executor, pid_t pid, int pidfd)
      : pid_(pid), pidfd_(executor, pidfd), exited_(executor) {}
  ~ChildProcess() override {
    error_code ignored;
    pidfd_.close(ignored);
  }

  [[nodiscard]] pid_t pid() const override { return pid_; }
  [[nodiscard]] std::int64_t start_time() const override { return start_time_; }
  [[nodiscard]] bool running() const override { return !status_; }
  void signal(int signo) override {
    if (!status_) pidfd_signal(pidfd_.native_handle(), signo);
  }
  Task<ExitStatus> wait() override {
    const auto self = shared_from_this();
    while (!status_) co_await exited_.wait_until(Clock::now() + seconds(3600));
    co_return *status_;
  }
  Task<std::optional<std::string>> read_line() override;
  Task<Result<>> write_stdin(std::string_view bytes) override;
  void close_stdin() override { stdin_.reset(); }

  static Task<> reap(std::shared_ptr<ChildProcess> self) {
    auto ending = [&](auto handler) { self->pidfd_.async_wait(Descriptor::wait_read, std::move(handler)); };
    (void)co_await detail::asio_wait(ending);
    int status = 0;
    if (::waitpid(self->pid_, &status, 0) == self->pid_) {
      self->status_ = WIFSIGNALED(status) ? ExitStatus{true, WTERMSIG(status)} : ExitStatus{false, WEXITSTATUS(status)};
    } else {
      self->status_ = ExitStatus{false, 255};
    }
    self->exited_.notify();
  }

  pid_t pid_;
  Descriptor pidfd_;
  std::int64_t start_time_ = 0;
  std::optional<ExitStatus> status_;
  Signal exited_;
  std::unique_ptr<Descriptor> stdin_;
  std::unique_ptr<Descriptor> stdout_;
  std::string pending_;
};

Task<std::optional<std::string>> ChildProcess::read_line() {
  const auto self = shared_from_this();
  for (;;) {
    const auto end = pending_.find('\n');
    if (end != std::string::npos || pending_.size() > kLineMax) {
      std::string line = pending_.substr(0, std::min(end, kLineMax));
      pending_.erase(0, end == std::string::npos ? pending_.size() : end + 1);
      if (line.ends_with('\r')) line.pop_back();
      co_return line;
    }
    if (!stdout_) co_return std::nullopt;
    std::array<char, 4096> buffer;
    std::size_t got = 0;
    auto reading = [&](auto handler) {
      stdout_->async_read_some(asio::buffer(buffer), [&got, handler](const error_code& failed, std::size_t bytes) {
        got = bytes;
        handler(failed);
      });
    };
    const error_code error = co_await detail::asio_wait(reading);
    pending_.append(buffer.data(), got);
    if (error) {
      stdout_.reset();
      if (!pending_.empty()) pending_ += '\n';
    }
  }
}

Task<Result<>> ChildProcess::write_stdin(std::string_view bytes) {
  const auto self = shared_from_this();
  if (!stdin_) co_return fail(ErrorCode::kUnavailable, "the child's stdin is closed");
  auto writing = [&](auto handler) {
    asio::async_write(*stdin_, asio::buffer(bytes.data(), bytes.size()), std::move(handler));
  };
  const error_code error = co_await detail::asio_wait(writing);
  if (error) co_return fail(ErrorCode::kUnavailable, error.message());
  co_return Result<>{};
}

int open_log(const std::string& path) {
  return ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

}  // namespace

std::string ExitStatus::describe() const {
  if (!signalled) return fmt::format("exit {}", code);
  const char* name = ::sigabbrev_np(code);
  return fmt::format("killed by SIG{}", name != nullptr ? name : std::to_string(code));
}

Result<std::shared_ptr<Process>> Process::spawn(Executor executor, SpawnOptions options) {
  Pipe in;
  Pipe out;
  Pipe report;
  Prepared prepared;
  std::vector<int> opened;
  const auto clean_up = [&] {
    in.close_all();
    out.close_all();
    report.close_all();
    for (const int fd : opened) ::close(fd);
  };
  const auto failed = [&](const std::string& what, int error) {
    clean_up();
    return fail(error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, what + ": " + std::strerror(error),
                options.program);
  };

  options.arguments.insert(options.arguments.begin(), options.program);
  for (std::string& argument : options.arguments) prepared.argv.push_back(argument.data());
  prepared.argv.push_back(nullptr);
  for (std::string& variable : options.environment) prepared.envp.push_back(variable.data());
  prepared.envp.push_back(nullptr);

  if (!report.open()) return failed("cannot make a pipe", errno);
  if (options.pipe_stdin) {
    if (!in.open()) return failed("cannot make a pipe", errno);
    prepared.in = in.read_end;
  } else {
    prepared.in = ::open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (prepared.in < 0) return failed("cannot open /dev/null", errno);
    opened.push_back(prepared.in);
  }
  if (!options.stdout_file.empty()) {
    prepared.out = open_log(options.stdout_file);
    if (prepared.out < 0) return failed("cannot open " + options.stdout_file, errno);
    opened.push_back(prepared.out);
  } else if (options.pipe_stdout) {
    if (!out.open()) return failed("cannot make a pipe", errno);
    prepared.out = out.write_end;
  }
  if (!options.stderr_file.empty()) {
    prepared.err = options.stderr_file == options.stdout_file ? prepared.out : open_log(options.stderr_file);
    if (prepared.err < 0) return failed("cannot open " + options.stderr_file, errno);
    if (prepared.err != prepared.out) opened.push_back(prepared.err);
  }

  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) return failed("cannot start a process", errno);
  if (pid == 0) become(options, prepared, parent, report.write_end);

  ::close(std::exchange(report.write_end, -1));
  int exec_error = 0;
  ssize_t got = 0;
  do {
    got = ::read(report.read_end, &exec_error, sizeof exec_error);
  } while (got < 0 && errno == EINTR);
  if (got == static_cast<ssize_t>(sizeof exec_error)) {
    ::waitpid(pid, nullptr, 0);
    return failed("cannot be started", exec_error);
  }
  const int pidfd = pidfd_open(pid);
  if (pidfd < 0) {
    const int error = errno;
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return failed("cannot watch the process", error);
  }
  auto child = std::make_shared<ChildProcess>(executor, pid, pidfd);
  child->start_time_ = process_start_time(pid).value_or(0);
  if (options.pipe_stdin) {
    child->stdin_ = std::make_unique<Descriptor>(executor, std::exchange(in.write_end, -1));
  }
  if (options.pipe_stdout && options.stdout_file.empty()) {
    child->stdout_ = std::make_unique<Descriptor>(executor, std::exchange(out.read_end, -1));
  }
  clean_up();
  net::spawn(executor, ChildProcess::reap(child), "process.reap");
  return child;
}

Result<std::int64_t> process_start_time(pid_t pid) {
  const Result<std::string> stat = read_file(fmt::format("/proc/{}/stat", pid), 4096);
  if (!stat) return fail(ErrorCode::kNotFound, "no such process", std::to_string(pid));
  // The name in parentheses may hold anything, so count fields from the last ')': the state is field 3.
  const auto close = stat->rfind(')');
  if (close == std::string::npos) return fail(ErrorCode::kCorrupt, "unreadable stat", std::to_string(pid));
  std::string_view rest = std::string_view(*stat).substr(close + 2);
  if (rest.starts_with('Z') || rest.starts_with('X')) {
    return fail(ErrorCode::kNotFound, "the process has ended", std::to_string(pid));
  }
  for (int field = 3; field < 22; ++field) {
    const auto space = rest.find(' ');
    if (space == std::string_view::npos) return fail(ErrorCode::kCorrupt, "unreadable stat", std::to_string(pid));
    rest.remove_prefix(space + 1);
  }
  std::int64_t value = 0;
  std::from_chars(rest.data(), rest.data() + rest.size(), value);
  return value;
}

Result<> signal_process(pid_t pid, std::int64_t start_time, int signo) {
  const int fd = pidfd_open(pid);
  if (fd < 0) return fail(ErrorCode::kNotFound, "no such process", std::to_string(pid));
  // Compared after the descriptor is held: from here on the number cannot change its owner.
  const Result<std::int64_t> now = process_start_time(pid);
  Result<> out;
  if (!now || *now != start_time) {
    out = fail(ErrorCode::kNotFound, "the process has ended", std::to_string(pid));
  } else if (pidfd_signal(fd, signo) != 0) {
    out = fail(ErrorCode::kIo, std::strerror(errno), std::to_string(pid));
  }
  ::close(fd);
  return out;
}

}  // namespace aiv::net
