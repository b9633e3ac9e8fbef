#include "net/async.hpp"

#include <openssl/crypto.h>

#include <boost/asio/post.hpp>
#include <boost/asio/signal_set.hpp>
#include <boost/asio/thread_pool.hpp>
#include <csignal>

#include "base/log.hpp"
#include "net/asio_wait.hpp"
#include "net/loop.hpp"
#include "net/task_scope.hpp"

namespace aiv::net {
namespace asio = boost::asio;

namespace {

// The root of a chain: awaits the task, logs what escapes from it, and ends.
struct Supervisor {
  struct promise_type : detail::PromiseBase {
    // The arguments of supervise().
    promise_type(const Executor& executor, const Task<>&, const std::string&) : bottom(executor) {
      root = &bottom;
      bottom.self = std::coroutine_handle<promise_type>::from_promise(*this);
    }
    struct Ended {
      [[nodiscard]] bool await_ready() const noexcept { return false; }
      void await_suspend(std::coroutine_handle<promise_type> at) const noexcept { at.promise().bottom.ended = true; }
      void await_resume() const noexcept {}
    };
    Supervisor get_return_object() { return {&bottom}; }
    [[nodiscard]] Ended final_suspend() const noexcept { return {}; }
    void return_void() const noexcept {}
    detail::Root bottom;
  };
  detail::Root* root;
};

Supervisor supervise(Executor, Task<> task, std::string name) {
  try {
    co_await task;
  } catch (const std::exception& failure) {
    log_error("task.failed", {{"task", name}, {"reason", failure.what()}});
  } catch (...) {
    log_error("task.failed", {{"task", name}, {"reason", "unknown exception"}});
  }
}

struct DestroyRoot {
  void operator()(detail::Root* root) const { root->self.destroy(); }
};

struct StartRoot {
  std::unique_ptr<detail::Root, DestroyRoot> owned;
  void operator()() {
    detail::Root& root = *owned.release();
    detail::Loop::of(root.executor).start(root);
  }
};

}  // namespace

void spawn(Executor executor, Task<> task, std::string_view name) {
  detail::Root* root = supervise(executor, std::move(task), std::string(name)).root;
  if (executor.running_in_this_thread()) {
    detail::Loop::of(executor).start(*root);
  } else {
    // Until the loop has taken it over, the handler owns it.
    asio::post(executor, StartRoot{std::unique_ptr<detail::Root, DestroyRoot>(root)});
  }
}

TaskScope::~TaskScope() { detail::Loop::of(context_.get_executor()).end_tasks(); }

void detail::TimedWait::enlist() {
  if (signal_ != nullptr) signal_->waiters_.push_back(*this);
  if (deadline != Clock::time_point::max()) root->loop->add_deadline(*this);
}

void Signal::wake_all() {
  while (!waiters_.empty()) {
    detail::TimedWait& wait = waiters_.front();
    waiters_.pop_front();
    // It waits for nothing more: its deadline may pass before its turn comes, and must not wake it a second time.
    static_cast<detail::DeadlineHook&>(wait).unlink();
    wait.notified = true;
    wait.root->loop->wake(wait);
  }
}

namespace {

// Two threads: what blocks is rare (hashing, fsync, NVML), and one slow disk must not hold up the other.
asio::thread_pool& blocking_pool() {
  // Before the threads: what OpenSSL keeps for each of them is given back as they end, unless it has gone first at exit.
  [[maybe_unused]] static const int openssl = OPENSSL_init_crypto(OPENSSL_INIT_LOAD_CRYPTO_STRINGS, nullptr);
  static asio::thread_pool pool(2);
  return pool;
}

class BlockingWait : public detail::Waiter {
 public:
  explicit BlockingWait(std::function<void()> function) : function_(std::move(function)) {}
  [[nodiscard]] bool await_ready() const { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> at) {
    hold(at);
    auto gate = root->loop->blocking();
    {
      const std::lock_guard lock(gate->mutex);
      gate->running += 1;
    }
    asio::post(blocking_pool(), [this, gate] { work(*gate); });
  }
  void await_resume() {
    if (error_) std::rethrow_exception(std::move(error_));
  }

 private:
  void work(detail::Loop::Blocking& gate) {
    try {
      function_();
    } catch (...) {
      error_ = std::current_exception();
    }
    const std::lock_guard lock(gate.mutex);
    if (gate.open) asio::post(root->executor, [this] { go_on(); });
    gate.running -= 1;
    gate.idle.notify_all();
  }
  std::function<void()> function_;
  std::exception_ptr error_;
};

}  // namespace

Task<> run_blocking(std::function<void()> function) {
  BlockingWait wait(std::move(function));
  co_await wait;
}

namespace {

Task<> signal_loop(std::shared_ptr<asio::signal_set> set, std::function<void(int)> on_signal) {
  for (;;) {
    int signo = 0;
    auto start = [&](auto handler) {
      set->async_wait([&signo, handler](boost::system::error_code error, int number) {
        signo = number;
        handler(error);
      });
    };
    const boost::system::error_code error = co_await detail::asio_wait(start);
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
