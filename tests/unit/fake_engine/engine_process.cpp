#include "engine_process.hpp"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <stdexcept>
#include <thread>
#include <utility>

namespace aiv::fake {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::seconds(5);

bool wait_until(const std::function<bool()>& condition) {
  const auto end = Clock::now() + kPatience;
  while (!condition()) {
    if (Clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

}  // namespace

Peer::Peer(const std::string& socket_path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::strncpy(address.sun_path, socket_path.c_str(), sizeof address.sun_path - 1);
  fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) close();
}

Peer::~Peer() {
  close();
}

void Peer::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

void Peer::send(const std::string& bytes) const {
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const auto n = ::send(fd_, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;
    sent += static_cast<std::size_t>(n);
  }
}

void Peer::post(const std::string& path, const std::string& body) const {
  send("POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: " + std::to_string(body.size()) +
       "\r\n\r\n" + body);
}

std::string Peer::read_until(const std::string& end) {
  const auto deadline = Clock::now() + kPatience;
  while (true) {
    const auto at = end.empty() ? std::string::npos : buffer_.find(end);
    if (at != std::string::npos) {
      auto found = buffer_.substr(0, at + end.size());
      buffer_.erase(0, at + end.size());
      return found;
    }
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd ready{fd_, POLLIN, 0};
    if (left <= 0 || poll(&ready, 1, static_cast<int>(left)) <= 0) break;
    char bytes[65'536];
    const auto n = recv(fd_, bytes, sizeof bytes, 0);
    if (n <= 0) break;
    buffer_.append(bytes, static_cast<std::size_t>(n));
  }
  return std::exchange(buffer_, {});
}

bool Peer::closed_by_peer() {
  const auto deadline = Clock::now() + kPatience;
  char bytes[4096];
  while (true) {
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
    pollfd ready{fd_, POLLIN, 0};
    if (left <= 0 || poll(&ready, 1, static_cast<int>(left)) <= 0) return false;
    if (recv(fd_, bytes, sizeof bytes, 0) <= 0) return true;
  }
}

EngineProcess::EngineProcess(const std::string& model, std::vector<std::string> more) {
  char pattern[] = "/tmp/aiv-fake-XXXXXX";
  if (mkdtemp(pattern) == nullptr) throw std::runtime_error("no directory for the engine");
  dir_ = pattern;
  socket_ = dir_ + "/x.sock";
  std::vector<std::string> arguments = {AIV_FAKE_ENGINE,
                                        "-m",
                                        model,
                                        "--host",
                                        socket_,
                                        "-dev",
                                        "Fake0",
                                        "-ngl",
                                        "all",
                                        "--fit",
                                        "off",
                                        "-sm",
                                        "none",
                                        "-kvo",
                                        "-c",
                                        "8192",
                                        "-np",
                                        "2",
                                        "--no-kv-unified",
                                        "-fa",
                                        "on",
                                        "-ub",
                                        "512",
                                        "-ctk",
                                        "f16",
                                        "-ctv",
                                        "f16",
                                        "-lv",
                                        "4",
                                        "--log-file",
                                        dir_ + "/log",
                                        "--no-ui",
                                        "--metrics",
                                        "--slots",
                                        "--cache-ram",
                                        "0",
                                        "--offline"};
  arguments.insert(arguments.end(), more.begin(), more.end());
  std::vector<char*> argv;
  for (auto& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  char router[] = "LLAMA_SERVER_ROUTER_PORT=1";
  // LeakSanitizer cannot trace inside some containers; leaks of the engine are covered by its in-process
  // tests.
  char* environment[] = {router, nullptr};
  int in[2];
  int out[2];
  if (pipe2(in, O_CLOEXEC) != 0 || pipe2(out, O_CLOEXEC) != 0) throw std::runtime_error("no pipes");
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in[0], STDIN_FILENO);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, (dir_ + "/stderr").c_str(), O_WRONLY | O_CREAT,
                                   0600);
  const int failed = posix_spawn(&pid_, AIV_FAKE_ENGINE, &actions, nullptr, argv.data(), environment);
  posix_spawn_file_actions_destroy(&actions);
  ::close(in[0]);
  ::close(out[1]);
  in_ = in[1];
  out_ = out[0];
  fcntl(out_, F_SETFL, O_NONBLOCK);
  if (failed != 0) throw std::runtime_error("the fake engine cannot be started");
}

EngineProcess::~EngineProcess() {
  if (pid_ > 0) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  close_stdin();
  ::close(out_);
  std::error_code ignored;
  std::filesystem::remove_all(dir_, ignored);
}

std::string EngineProcess::get(const std::string& path) {
  Peer peer(socket_);
  if (!peer.connected()) return {};
  peer.send("GET " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  return peer.read_until("");
}

std::string EngineProcess::post(const std::string& path, const std::string& body) {
  Peer peer(socket_);
  if (!peer.connected()) return {};
  peer.send("POST " + path + " HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: " +
            std::to_string(body.size()) + "\r\n\r\n" + body);
  return peer.read_until("");
}

bool EngineProcess::wait_for(const std::string& path, const std::string& text) {
  return wait_until([&] { return get(path).find(text) != std::string::npos; });
}

bool EngineProcess::wait_ready() {
  return wait_for("/health", R"({"status":"ok"})");
}

std::optional<int> EngineProcess::wait_exit() {
  int status = 0;
  if (!wait_until([&] { return waitpid(pid_, &status, WNOHANG) == pid_; })) return std::nullopt;
  pid_ = -1;
  return status;
}

std::string EngineProcess::output() {
  char bytes[4096];
  for (ssize_t n = 0; (n = read(out_, bytes, sizeof bytes)) > 0;)
    output_.append(bytes, static_cast<std::size_t>(n));
  return output_;
}

std::string EngineProcess::log() {
  std::ifstream file(dir_ + "/log");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void EngineProcess::tell(const std::string& line) const {
  const auto text = line + "\n";
  if (write(in_, text.data(), text.size()) < 0) throw std::runtime_error("the engine's stdin is closed");
}

void EngineProcess::close_stdin() {
  if (in_ >= 0) ::close(in_);
  in_ = -1;
}

}  // namespace aiv::fake
