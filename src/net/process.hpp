// Child processes held by pidfd: no signal can reach a stranger that inherited the number.
#pragma once
#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "net/async.hpp"

namespace aiv::net {

struct SpawnOptions {
  std::string program;             // absolute path
  std::vector<std::string> arguments;
  std::vector<std::string> environment;  // the whole of it, "NAME=value"; nothing is inherited
  std::string working_directory;
  std::string stdout_file;  // appended to; empty: a pipe when `pipe_stdout`, else inherited
  std::string stderr_file;
  bool pipe_stdin = false;
  bool pipe_stdout = false;
  bool die_with_parent = false;  // PR_SET_PDEATHSIG SIGKILL
  bool new_session = false;      // setsid: outlives the terminal
};

struct ExitStatus {
  bool signalled = false;
  int code = 0;  // exit code, or the signal
  [[nodiscard]] std::string describe() const;  // "exit 1", "killed by SIGKILL"
};

class Process {
 public:
  static Result<std::shared_ptr<Process>> spawn(Executor executor, SpawnOptions options);
  virtual ~Process() = default;
  [[nodiscard]] virtual pid_t pid() const = 0;
  // Field 22 of /proc/PID/stat: with the pid it names a process for ever (of this boot).
  [[nodiscard]] virtual std::int64_t start_time() const = 0;
  virtual Task<ExitStatus> wait() = 0;  // may be awaited by several
  [[nodiscard]] virtual bool running() const = 0;
  virtual void signal(int signo) = 0;
  // Lines of a piped stdout, without the newline; nullopt at the end. Lines over 64 KiB are cut.
  virtual Task<std::optional<std::string>> read_line() = 0;
  virtual Task<Result<>> write_stdin(std::string_view bytes) = 0;
  virtual void close_stdin() = 0;
};
using ProcessPtr = std::shared_ptr<Process>;

// Start time of a running process, for adoption; kNotFound if it is gone.
Result<std::int64_t> process_start_time(pid_t pid);
// Signals a process that is not our child, only if its start time matches.
Result<> signal_process(pid_t pid, std::int64_t start_time, int signo);

}  // namespace aiv::net
