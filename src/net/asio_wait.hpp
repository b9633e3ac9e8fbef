// Awaiting an asynchronous operation of Boost.Asio. For the sources of net only.
//
//   auto start = [&](auto handler) { socket.async_wait(Socket::wait_read, std::move(handler)); };
//   const error_code error = co_await asio_wait(start);
//
// The lambda has a name because g++ 12.2 destroys the captures of one that is written inside a co_await expression
// twice.
#pragma once
#include <boost/asio/basic_waitable_timer.hpp>
#include <boost/system/error_code.hpp>

#include "net/async.hpp"

namespace aiv::net::detail {

template <class Start>
class [[nodiscard]] AsioWait : public Waiter {
 public:
  explicit AsioWait(Start& start) : start_(start) {}
  [[nodiscard]] bool await_ready() const { return false; }
  template <class Promise>
  void await_suspend(std::coroutine_handle<Promise> at) {
    hold(at);
    start_(Handler{this});
  }
  boost::system::error_code await_resume() const { return error_; }

 private:
  struct Handler {
    AsioWait* wait;
    void operator()(boost::system::error_code error) const { (*this)(error, 0); }
    template <class Value>
    void operator()(boost::system::error_code error, Value&&) const {
      wait->error_ = error;
      wait->go_on();
    }
  };
  Start& start_;
  boost::system::error_code error_;
};

template <class Start>
AsioWait<Start> asio_wait(Start& start) {
  return AsioWait<Start>(start);
}

// Calls `act` on the loop once `duration` has passed, unless destroyed before.
class TimeLimit {
 public:
  TimeLimit(const Executor& executor, Clock::duration duration, std::function<void()> act)
      : timer_(executor, duration), act_(std::make_shared<std::function<void()>>(std::move(act))) {
    // The handler may be on its way already when this is destroyed, so it looks before it acts.
    timer_.async_wait([act = act_](const boost::system::error_code& stopped) {
      if (stopped || !*act) return;
      std::exchange(*act, nullptr)();
    });
  }
  TimeLimit(const TimeLimit&) = delete;
  TimeLimit& operator=(const TimeLimit&) = delete;
  ~TimeLimit() { *act_ = nullptr; }
  [[nodiscard]] bool passed() const { return !*act_; }

 private:
  boost::asio::basic_waitable_timer<Clock, boost::asio::wait_traits<Clock>, Executor> timer_;
  std::shared_ptr<std::function<void()>> act_;
};

}  // namespace aiv::net::detail
