// Keeps child processes of this binary running: the whole of what the parent of a server does, so that it has
// nothing to crash on.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/process.hpp"

namespace aiv::cli {

struct ChildOptions {
  std::string name;                    // for the log
  std::vector<std::string> arguments;  // of this binary
};

// Starts the child and restarts it when it ends: at once, then after 100 ms, 200 ms ... 5 s; a child that lived
// 10 s starts afresh. While `settled()` is false an exit with a code is final: the start itself is at fault (a port
// in use), and repeating it would hide the message.
class SupervisedChild : public std::enable_shared_from_this<SupervisedChild> {
 public:
  static std::shared_ptr<SupervisedChild> start(net::Executor executor, ChildOptions options,
                                                std::function<bool()> settled,
                                                std::function<void(int exit_code)> on_final_exit);
  // SIGTERM, no more restarts; SIGKILL after `grace`. Returns when it is gone.
  net::Task<> stop(net::Clock::duration grace);
  void kill();
  void set_arguments(std::vector<std::string> arguments) { options_.arguments = std::move(arguments); }

 private:
  explicit SupervisedChild(ChildOptions options) : options_(std::move(options)) {}
  static net::Task<> run(std::shared_ptr<SupervisedChild> self, net::Executor executor);
  ChildOptions options_;
  std::function<bool()> settled_;
  std::function<void(int)> on_final_exit_;
  net::ProcessPtr process_;
  bool stopping_ = false;
  bool ended_ = false;
};

// Path of the running executable.
std::string own_program();

}  // namespace aiv::cli
