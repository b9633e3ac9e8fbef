// What runs the tasks of one io_context: those that may go on, those that wait for a time, and all roots. For the
// sources of net only.
#pragma once
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/intrusive/set.hpp>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "net/async.hpp"
#include "net/poller.hpp"

namespace aiv::net::detail {

// Before I/O is asked again; then a flood of wake-ups cannot keep the sockets waiting.
inline constexpr int kResumesPerTurn = 4096;

class Loop final : public boost::asio::execution_context::service {
 public:
  static boost::asio::execution_context::id id;
  explicit Loop(boost::asio::execution_context& context);
  ~Loop() override = default;
  static Loop& of(const Executor& executor);

  // Takes over a chain and runs it until it waits.
  void start(Root& root);
  // `waiter` goes on at this loop's next turn.
  void wake(Waiter& waiter);
  void add_deadline(TimedWait& wait);
  // Destroys all chains with their frames; nothing is resumed or started on this loop any more.
  void end_tasks();
  void after_root();

  // Work on other threads, which must end before frames that it refers to are destroyed.
  struct Blocking {
    std::mutex mutex;
    std::condition_variable idle;
    int running = 0;
    bool open = true;
  };
  [[nodiscard]] const std::shared_ptr<Blocking>& blocking() const { return blocking_; }
  [[nodiscard]] Poller& poller() { return poller_; }
  // Waits for the sockets' events, while there is somebody to wake.
  void poll();

 private:
  struct ByDeadline {
    bool operator()(const TimedWait& a, const TimedWait& b) const { return a.deadline < b.deadline; }
  };
  void shutdown() override { end_tasks(); }
  void schedule();
  void turn();
  void arm();
  void expire();

  Executor executor_;
  boost::asio::steady_timer timer_;
  Clock::time_point armed_ = Clock::time_point::max();
  std::uint64_t arming_ = 0;
  intrusive::multiset<TimedWait, intrusive::base_hook<DeadlineHook>, intrusive::compare<ByDeadline>,
                      intrusive::constant_time_size<false>>
      deadlines_;
  intrusive::list<Root, intrusive::base_hook<intrusive::list_base_hook<intrusive::tag<RootTag>,
                                                                       intrusive::link_mode<intrusive::auto_unlink>>>,
                  intrusive::constant_time_size<false>>
      roots_;
  intrusive::list<Waiter, intrusive::base_hook<ReadyHook>, intrusive::constant_time_size<false>> ready_;
  Poller poller_;
  bool scheduled_ = false;
  bool down_ = false;
  std::optional<boost::asio::executor_work_guard<Executor>> work_;  // while there are roots
  std::shared_ptr<Blocking> blocking_ = std::make_shared<Blocking>();
};

}  // namespace aiv::net::detail
