// What runs the tasks of one io_context: those that may go on, those that wait for a time, and all roots. For the
// sources of net only.
#pragma once
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/steady_timer.hpp>
#include <array>
#include <boost/intrusive/set.hpp>
#include <condition_variable>
#include <limits>
#include <memory>
#include <mutex>
#include <vector>

#include "net/async.hpp"
#include "net/poller.hpp"

namespace aiv::net::detail {

// A deadline further away than about two of these waits in a bucket until its time has come. Rationale: nearly all end
// before. Most are a fixed time from now, so they come to a bucket in their order and are put at its end, where in one
// set of all there are others behind them; to find a place among a thousand costs more than the rest of a token's relay.
inline constexpr Clock::duration kFarTick = milliseconds(250);
inline constexpr std::int64_t kFarBuckets = 256;

// Before I/O is asked again; then a flood of wake-ups cannot keep the sockets waiting.
inline constexpr int kResumesPerTurn = 4096;
// Of events and their turns, before timers are asked again.
inline constexpr int kRoundsPerPoll = 16;

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
  using Deadlines = intrusive::multiset<TimedWait, intrusive::base_hook<DeadlineHook>, intrusive::compare<ByDeadline>,
                                        intrusive::constant_time_size<false>>;
  static std::int64_t far_tick_of(Clock::time_point when) { return when.time_since_epoch() / kFarTick; }
  Deadlines& far_bucket(std::int64_t tick) { return far_[static_cast<std::size_t>(tick % kFarBuckets)]; }
  void open_far_buckets(std::int64_t until);
  void schedule();
  void turn();
  void arm();
  void expire();

  Executor executor_;
  boost::asio::steady_timer timer_;
  Clock::time_point armed_ = Clock::time_point::max();
  std::uint64_t arming_ = 0;
  Deadlines deadlines_;
  // Bucket of a tick: deadlines within it, and in the last one also those beyond. All ticks up to far_opened_ are empty,
  // and so are those before far_first_.
  std::array<Deadlines, kFarBuckets> far_;
  std::int64_t far_opened_ = 0;
  std::int64_t far_first_ = std::numeric_limits<std::int64_t>::max();
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
