// Coroutines, timers and wake-ups, so that the other parts need not name Boost.Asio.
//
// Rules (g++ 12.2): no lambda with captures inside a co_await expression; coroutine parameters by value, or a
// reference to what outlives the run; no reference into shared state across a co_await.
#pragma once
#include <boost/asio/io_context.hpp>
#include <boost/intrusive/set_hook.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "net/task.hpp"

namespace aiv::net {

using std::chrono::milliseconds;
using std::chrono::seconds;

class Signal;

namespace detail {

struct SignalTag;
struct DeadlineTag;
using SignalHook = intrusive::list_base_hook<intrusive::tag<SignalTag>, intrusive::link_mode<intrusive::auto_unlink>>;
using DeadlineHook = intrusive::set_base_hook<intrusive::tag<DeadlineTag>, intrusive::link_mode<intrusive::auto_unlink>>;

// Waits for a signal (if any), at most until a time.
class [[nodiscard]] TimedWait : public Waiter, public SignalHook, public DeadlineHook {
 public:
  TimedWait(Signal* signal, Clock::time_point until) : deadline(until), signal_(signal) {}
  [[nodiscard]] bool await_ready();
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> at) {
    hold(at);
    enlist();
  }
  bool await_resume() const { return notified; }

  const Clock::time_point deadline;
  bool notified = false;

 private:
  void enlist();
  Signal* signal_;
};

struct SleepWait : TimedWait {
  explicit SleepWait(Clock::time_point until) : TimedWait(nullptr, until) {}
  void await_resume() const {}
};

struct SignalWait : TimedWait {
  explicit SignalWait(Signal* signal) : TimedWait(signal, Clock::time_point::max()) {}
  void await_resume() const {}
};

struct ExecutorWait {
  [[nodiscard]] bool await_ready() const { return false; }
  template <class Promise>
  bool await_suspend(std::coroutine_handle<Promise> at) {
    root = at.promise().root;
    return false;
  }
  [[nodiscard]] Executor await_resume() const { return root->executor; }
  const Root* root = nullptr;
};

}  // namespace detail

// Runs `task` on its own; an exception that escapes is logged as "task.failed" with the name and ends only it. On the
// loop's own thread the task runs at once until it waits for the first time; from elsewhere it is handed over.
void spawn(Executor executor, Task<> task, std::string_view name);
// The executor of the task that awaits this.
[[nodiscard]] inline detail::ExecutorWait this_executor() { return {}; }
inline detail::SleepWait sleep_until(Clock::time_point when) { return detail::SleepWait(when); }
inline detail::SleepWait sleep_for(Clock::duration duration) { return detail::SleepWait(Clock::now() + duration); }

// A condition to wait on: notify() wakes all who wait now, and, if nobody waits, the next one who does. All on one
// loop. One that is destroyed wakes who waits.
class Signal {
 public:
  Signal() = default;
  explicit Signal(const Executor&) {}
  ~Signal() { wake_all(); }
  Signal(const Signal&) = delete;
  Signal& operator=(const Signal&) = delete;
  void notify() {
    if (waiters_.empty()) {
      pending_ = true;
    } else {
      wake_all();
    }
  }
  // Awaited: true when notified, false when `deadline` passed first. Spurious wake-ups happen: re-check the condition.
  detail::TimedWait wait_until(Clock::time_point deadline) { return {this, deadline}; }
  detail::SignalWait wait() { return detail::SignalWait(this); }

 private:
  friend class detail::TimedWait;
  void wake_all();
  detail::intrusive::list<detail::TimedWait, detail::intrusive::base_hook<detail::SignalHook>,
                          detail::intrusive::constant_time_size<false>>
      waiters_;
  bool pending_ = false;
};

inline bool detail::TimedWait::await_ready() {
  if (signal_ == nullptr || !signal_->pending_) return false;
  signal_->pending_ = false;
  notified = true;
  return true;
}

// Runs a blocking function on a small pool of named threads and resumes the caller on its own loop
// (file hashing, fsync, NVML, SQL of the API). The function must not touch the caller's state.
Task<> run_blocking(std::function<void()> function);

// Calls `on_signal(signo)` for SIGTERM, SIGINT, SIGHUP until the context stops.
void watch_signals(boost::asio::io_context& context, std::function<void(int)> on_signal);

}  // namespace aiv::net
