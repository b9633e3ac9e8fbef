// Task<T>: a coroutine that runs when it is awaited, on the loop of the task that awaits it.
//
// RULES
// - A spawned task and all it awaits form a chain with one root. At any time at most one of them waits for something:
//   the chain is resumed there and nowhere else.
// - What is awaited starts at once, on the awaiting one's stack. If it ends without having waited, nothing was
//   suspended: a read of what is there already costs a call. Rationale: on the token path most awaits do not wait.
// - When something later ends, its awaiter is resumed from the loop, not from within: the stack never grows with the
//   number of awaits, in builds without optimisation too (g++ 12 makes no tail call of a symmetric transfer there).
// - spawn() runs its task at once up to the first wait when it is called on its loop. Apart from that nothing is
//   resumed from inside notify() or a library's callback, always from the loop: no caller has to expect that the
//   world changed under it.
// - Frames are kept per thread in size classes (at most kFrameCacheBytes each) and used again.
// - When the loop's io_context is destroyed, chains that still wait are destroyed with their frames.
#pragma once
#include <boost/asio/io_context.hpp>
#include <boost/intrusive/list.hpp>
#include <chrono>
#include <concepts>
#include <coroutine>
#include <exception>
#include <optional>
#include <utility>

namespace aiv::net {

using Executor = boost::asio::io_context::executor_type;
using Clock = std::chrono::steady_clock;

namespace detail {

class Loop;
namespace intrusive = boost::intrusive;

inline constexpr std::size_t kFrameCacheBytes = 64 * 1024;
void* allocate_frame(std::size_t bytes);
void free_frame(void* frame, std::size_t bytes) noexcept;

struct RootTag;
// The bottom of a chain; lives in the frame of the coroutine that spawn() makes.
struct Root : intrusive::list_base_hook<intrusive::tag<RootTag>, intrusive::link_mode<intrusive::auto_unlink>> {
  explicit Root(const Executor& on) : executor(on) {}
  Root(const Root&) = delete;
  Root& operator=(const Root&) = delete;

  // Runs the chain from `at` until it waits again or has ended; then it is gone.
  void run(std::coroutine_handle<> at);

  Executor executor;
  Loop* loop = nullptr;
  std::coroutine_handle<> self;
  std::coroutine_handle<> next;  // who goes on when what runs now has ended
  bool ended = false;
};

struct PromiseBase {
  struct Final {
    [[nodiscard]] bool await_ready() const noexcept { return false; }
    template <class Promise>
    void await_suspend(std::coroutine_handle<Promise> ended) const noexcept {
      PromiseBase& promise = ended.promise();
      if (!promise.on_awaiters_stack) promise.root->next = promise.awaiter;
    }
    void await_resume() const noexcept {}
  };
  [[nodiscard]] std::suspend_always initial_suspend() const noexcept { return {}; }
  [[nodiscard]] Final final_suspend() const noexcept { return {}; }
  void unhandled_exception() noexcept { error = std::current_exception(); }
  static void* operator new(std::size_t bytes) { return allocate_frame(bytes); }
  static void operator delete(void* frame, std::size_t bytes) noexcept { free_frame(frame, bytes); }

  Root* root = nullptr;
  std::coroutine_handle<> awaiter;
  bool on_awaiters_stack = false;
  std::exception_ptr error;
};

template <class T>
struct Promise : PromiseBase {
  std::coroutine_handle<Promise> get_return_object() { return std::coroutine_handle<Promise>::from_promise(*this); }
  template <class U = T>
    requires std::constructible_from<T, U>
  void return_value(U&& result) {
    value.emplace(std::forward<U>(result));
  }
  std::optional<T> value;
};

template <>
struct Promise<void> : PromiseBase {
  std::coroutine_handle<Promise> get_return_object() { return std::coroutine_handle<Promise>::from_promise(*this); }
  void return_void() const noexcept {}
};

}  // namespace detail

template <class T = void>
class [[nodiscard]] Task {
 public:
  using promise_type = detail::Promise<T>;
  Task(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  Task(Task&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Task& operator=(Task&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Task() {
    if (handle_) handle_.destroy();
  }

  // Awaited once.
  [[nodiscard]] bool await_ready() const noexcept { return false; }
  template <class Promise>
  bool await_suspend(std::coroutine_handle<Promise> awaiter) {
    promise_type& promise = handle_.promise();
    promise.root = awaiter.promise().root;
    promise.awaiter = awaiter;
    promise.on_awaiters_stack = true;
    handle_.resume();
    if (handle_.done()) return false;
    promise.on_awaiters_stack = false;
    return true;
  }
  T await_resume() {
    promise_type& promise = handle_.promise();
    if (promise.error) std::rethrow_exception(std::move(promise.error));
    if constexpr (!std::is_void_v<T>) return std::move(*promise.value);
  }

 private:
  std::coroutine_handle<promise_type> handle_;
};

namespace detail {

struct ReadyTag;
using ReadyHook = intrusive::list_base_hook<intrusive::tag<ReadyTag>, intrusive::link_mode<intrusive::auto_unlink>>;

// One place where a chain waits. It lies in the frame that waits, and unlinks itself when that is destroyed.
struct Waiter : ReadyHook {
  Waiter() = default;
  Waiter(const Waiter&) = delete;
  Waiter& operator=(const Waiter&) = delete;
  template <class Promise>
  void hold(std::coroutine_handle<Promise> at) {
    root = at.promise().root;
    handle = at;
  }
  void go_on() { root->run(handle); }
  Root* root = nullptr;
  std::coroutine_handle<> handle;
};

}  // namespace detail
}  // namespace aiv::net
