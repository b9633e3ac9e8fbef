#include "net/async.hpp"

#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <csignal>

#include "base/log.hpp"

namespace aiv::net {
namespace asio = boost::asio;

void spawn(Executor executor, Task<> task, std::string_view name) {
  asio::co_spawn(executor, std::move(task), [name = std::string(name)](std::exception_ptr error) {
    if (!error) return;
    try {
      std::rethrow_exception(error);
    } catch (const std::exception& failure) {
      log_error("task.failed", {{"task", name}, {"reason", failure.what()}});
    } catch (...) {
      log_error("task.failed", {{"task", name}, {"reason", "unknown exception"}});
    }
  });
}

Task<Executor> this_executor() { co_return co_await asio::this_coro::executor; }

Task<> sleep_until(Clock::time_point when) {
  asio::steady_timer timer(co_await asio::this_coro::executor, when);
  boost::system::error_code error;
  co_await timer.async_wait(asio::redirect_error(asio::use_awaitable, error));
}

Task<> sleep_for(Clock::duration duration) { return sleep_until(Clock::now() + duration); }

Signal::Signal(Executor executor) : timer_(executor) {}

void Signal::notify() {
  if (waiters_ == 0) {
    pending_ = true;
    return;
  }
  // Cancels every wait on this timer; a waiter that has not run yet is woken once.
  timer_.cancel();
}

Task<bool> Signal::wait_until(Clock::time_point deadline) {
  if (pending_) {
    pending_ = false;
    co_return true;
  }
  // The timer is shared: a second waiter would move the first one's deadline (and wake it, which is allowed).
  if (waiters_ == 0 || timer_.expiry() > deadline) timer_.expires_at(deadline);
  ++waiters_;
  boost::system::error_code error;
  co_await timer_.async_wait(asio::redirect_error(asio::use_awaitable, error));
  --waiters_;
  co_return error == asio::error::operation_aborted || Clock::now() < deadline;
}

Task<> Signal::wait() { co_await wait_until(Clock::time_point::max()); }

namespace {

// Two threads: what blocks is rare (hashing, fsync, NVML), and one slow disk must not hold up the other.
asio::thread_pool& blocking_pool() {
  static asio::thread_pool pool(2);
  return pool;
}

Task<> run_on_pool(std::function<void()> function) {
  function();
  co_return;
}

}  // namespace

Task<> run_blocking(std::function<void()> function) {
  co_await asio::co_spawn(blocking_pool(), run_on_pool(std::move(function)), asio::use_awaitable);
}

namespace {

Task<> signal_loop(std::shared_ptr<asio::signal_set> set, std::function<void(int)> on_signal) {
  for (;;) {
    boost::system::error_code error;
    const int signo = co_await set->async_wait(asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return;
    on_signal(signo);
  }
}

}  // namespace

void watch_signals(asio::io_context& context, std::function<void(int)> on_signal) {
  // A peer that closes while we write must be an error value, not a death.
  std::signal(SIGPIPE, SIG_IGN);
  auto set = std::make_shared<asio::signal_set>(context, SIGTERM, SIGINT, SIGHUP);
  spawn(context.get_executor(), signal_loop(set, std::move(on_signal)), "signals");
}

}  // namespace aiv::net
