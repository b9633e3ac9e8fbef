// Starts the fake engine as a process and speaks HTTP with it over its socket. Blocking, with deadlines.
#pragma once
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace aiv::fake {

class Peer {
 public:
  explicit Peer(const std::string& socket_path);
  ~Peer();
  Peer(const Peer&) = delete;
  Peer& operator=(const Peer&) = delete;
  [[nodiscard]] bool connected() const { return fd_ >= 0; }
  void send(const std::string& bytes) const;
  void post(const std::string& path, const std::string& body) const;
  // Reads until `end` has been seen, the peer closes, or 5 s have passed.
  std::string read_until(const std::string& end);
  // True when the peer closes within 5 s.
  bool closed_by_peer();
  void close();

 private:
  int fd_ = -1;
  std::string buffer_;
};

class EngineProcess {
 public:
  explicit EngineProcess(const std::string& model, std::vector<std::string> more = {});
  ~EngineProcess();
  EngineProcess(const EngineProcess&) = delete;
  EngineProcess& operator=(const EngineProcess&) = delete;

  // The whole answer to one request on a connection of its own.
  std::string get(const std::string& path);
  std::string post(const std::string& path, const std::string& body);
  bool wait_ready();
  // Waits until `path` answers with `text` in it; false after 5 s.
  bool wait_for(const std::string& path, const std::string& text);
  // Status as of waitpid; nullopt if the process still runs after 5 s.
  std::optional<int> wait_exit();
  // What the child said on stdout by now.
  std::string output();
  std::string log();
  void tell(const std::string& line) const;
  void close_stdin();
  [[nodiscard]] pid_t pid() const { return pid_; }
  [[nodiscard]] const std::string& socket() const { return socket_; }

 private:
  std::string dir_;
  std::string socket_;
  pid_t pid_ = -1;
  int in_ = -1;
  int out_ = -1;
  std::string output_;
};

}  // namespace aiv::fake
