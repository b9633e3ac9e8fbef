#include "cli/supervise.hpp"

#include <csignal>
#include <filesystem>

#include "base/log.hpp"
#include "net/process_table.hpp"

namespace aiv::cli {
namespace {

constexpr auto kDelayFirst = net::milliseconds(100);
constexpr auto kDelayMax = net::seconds(5);
// Who lived that long was started well and starts again at once; once a second is no loop that costs anybody anything.
constexpr auto kLivedLong = net::seconds(1);

}  // namespace

std::string own_program() {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? "aiv" : path.string();
}

std::shared_ptr<SupervisedChild> SupervisedChild::start(net::Executor executor, ChildOptions options,
                                                        std::function<bool()> settled,
                                                        std::function<void(int)> on_final_exit) {
  std::shared_ptr<SupervisedChild> child(new SupervisedChild(std::move(options)));
  child->settled_ = std::move(settled);
  child->on_final_exit_ = std::move(on_final_exit);
  net::spawn(executor, run(child, executor), "supervise." + child->options_.name);
  return child;
}

net::Task<> SupervisedChild::run(std::shared_ptr<SupervisedChild> self, net::Executor executor) {
  net::Clock::duration delay{};
  while (!self->stopping_) {
    net::SpawnOptions options;
    options.program = own_program();
    options.arguments = self->options_.arguments;
    options.environment = net::own_environment();
    options.die_with_parent = true;
    const auto started = net::Clock::now();
    const auto process = net::Process::spawn(executor, options);
    if (!process) {
      log_error("child.not_started", {{"child", self->options_.name}, {"reason", process.error().message()}});
      self->on_final_exit_(1);
      break;
    }
    self->process_ = *process;
    const net::ExitStatus status = co_await self->process_->wait();
    if (self->stopping_) break;
    if (!self->settled_() && !status.signalled) {
      self->on_final_exit_(status.code == 0 ? 1 : status.code);
      break;
    }
    if (net::Clock::now() - started > kLivedLong) delay = {};
    log_warn("child.ended", {{"child", self->options_.name}, {"how", status.describe()}});
    if (delay > net::Clock::duration{}) co_await net::sleep_for(delay);
    delay = delay == net::Clock::duration{} ? kDelayFirst : std::min<net::Clock::duration>(2 * delay, kDelayMax);
  }
  self->ended_ = true;
}

net::Task<> SupervisedChild::stop(net::Clock::duration grace) {
  const auto self = shared_from_this();
  stopping_ = true;
  if (process_) process_->signal(SIGTERM);
  const auto deadline = net::Clock::now() + grace;
  while (!ended_ && net::Clock::now() < deadline) co_await net::sleep_for(net::milliseconds(5));
  kill();
  while (!ended_) co_await net::sleep_for(net::milliseconds(5));
}

void SupervisedChild::kill() {
  stopping_ = true;
  if (process_) process_->signal(SIGKILL);
}

}  // namespace aiv::cli
