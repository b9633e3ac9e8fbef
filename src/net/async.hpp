// Coroutines, timers and wake-ups, so that the other parts need not name Boost.Asio.
//
// Rules (g++ 12.2): no lambda with captures inside a co_await expression; coroutine parameters by value, or a
// reference to what outlives the run; no reference into shared state across a co_await.
#pragma once
#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/this_coro.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace aiv::net {

template <class T = void>
using Task = boost::asio::awaitable<T>;
using Executor = boost::asio::any_io_executor;
using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;
using std::chrono::seconds;

// Runs `task` on its own; an exception that escapes is logged as "task.failed" with the name and ends only it.
void spawn(Executor executor, Task<> task, std::string_view name);
Task<Executor> this_executor();
Task<> sleep_for(Clock::duration duration);
Task<> sleep_until(Clock::time_point when);

// A condition to wait on: notify() wakes all who wait now, and, if nobody waits, the next one who does.
class Signal {
 public:
  explicit Signal(Executor executor);
  void notify();
  // True when notified, false when `deadline` passed first. Spurious wake-ups happen: re-check the condition.
  Task<bool> wait_until(Clock::time_point deadline);
  Task<> wait();

 private:
  boost::asio::steady_timer timer_;
  bool pending_ = false;
  int waiters_ = 0;
};

// Runs a blocking function on a small pool of named threads and resumes the caller on its own executor.
// (file hashing, fsync, NVML, SQL of the API). The function must not touch the caller's state.
Task<> run_blocking(std::function<void()> function);

// Calls `on_signal(signo)` for SIGTERM, SIGINT, SIGHUP until the context stops.
void watch_signals(boost::asio::io_context& context, std::function<void(int)> on_signal);

}  // namespace aiv::net
