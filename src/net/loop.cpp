#include "net/loop.hpp"

#include <array>
#include <boost/asio/post.hpp>
#include <new>

#include "base/result.hpp"

#if defined(__SANITIZE_ADDRESS__)
#define AIV_PLAIN_FRAMES 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define AIV_PLAIN_FRAMES 1
#endif
#endif

namespace aiv::net::detail {

// ---- frames ----------------------------------------------------------------------------------------------

namespace {

#ifndef AIV_PLAIN_FRAMES
constexpr std::size_t kFrameClassBytes = 32;  // an open stream keeps a dozen frames, half a class of each is waste
constexpr std::size_t kFrameClasses = 128;    // up to 4 KiB

struct FrameClass {
  struct Free {
    Free* next;
  };
  Free* first = nullptr;
  std::size_t count = 0;
};
// Without a destructor: frames may be given back while a thread ends.
thread_local constinit std::array<FrameClass, kFrameClasses> free_frames{};

std::size_t class_of(std::size_t bytes) { return (bytes - 1) / kFrameClassBytes; }
#endif

}  // namespace

#ifdef AIV_PLAIN_FRAMES

// AddressSanitizer must see each use of a frame that was freed.
void* allocate_frame(std::size_t bytes) { return ::operator new(bytes); }
void free_frame(void* frame, std::size_t) noexcept { ::operator delete(frame); }

#else

void* allocate_frame(std::size_t bytes) {
  const std::size_t index = class_of(bytes);
  if (index >= kFrameClasses) return ::operator new(bytes);
  FrameClass& frames = free_frames[index];
  if (frames.first == nullptr) return ::operator new((index + 1) * kFrameClassBytes);
  FrameClass::Free* frame = frames.first;
  frames.first = frame->next;
  frames.count -= 1;
  return frame;
}

void free_frame(void* frame, std::size_t bytes) noexcept {
  const std::size_t index = class_of(bytes);
  if (index >= kFrameClasses || free_frames[index].count * (index + 1) * kFrameClassBytes >= kFrameCacheBytes) {
    ::operator delete(frame);
    return;
  }
  FrameClass& frames = free_frames[index];
  frames.first = new (frame) FrameClass::Free{frames.first};
  frames.count += 1;
}

#endif

void Root::run(std::coroutine_handle<> at) {
  do {
    next = nullptr;
    at.resume();
    at = next;
  } while (at);
  if (!ended) return;
  Loop& its_loop = *loop;
  self.destroy();  // and with it this root
  its_loop.after_root();
}

// ---- loop ------------------------------------------------------------------------------------------------

boost::asio::execution_context::id Loop::id;

Loop::Loop(boost::asio::execution_context& context)
    : service(context), executor_(static_cast<boost::asio::io_context&>(context).get_executor()), timer_(executor_), far_opened_(far_tick_of(Clock::now())), poller_(executor_) {}

Loop& Loop::of(const Executor& executor) { return boost::asio::use_service<Loop>(executor.context()); }

void Loop::start(Root& root) {
  root.loop = this;
  roots_.push_back(root);
  if (!work_) work_.emplace(executor_);
  poll();
  root.run(root.self);
}

void Loop::poll() {
  if (down_ || roots_.empty()) return;
  poller_.wait([this] {
    bool more = true;
    for (int round = 0; more && round < kRoundsPerPoll && !down_; ++round) {
      // Whom the events wake goes on here, not with a turn of its own.
      const bool was_scheduled = std::exchange(scheduled_, true);
      more = poller_.take_events();
      if (was_scheduled) break;
      turn();
    }
    poll();
  });
}

void Loop::wake(Waiter& waiter) {
  ready_.push_back(waiter);
  schedule();
}

void Loop::schedule() {
  if (scheduled_ || down_) return;
  scheduled_ = true;
  boost::asio::post(executor_, [this] { turn(); });
}

void Loop::turn() {
  for (int resumed = 0; resumed < kResumesPerTurn && !ready_.empty(); ++resumed) {
    Waiter& waiter = ready_.front();
    ready_.pop_front();
    waiter.go_on();
  }
  scheduled_ = false;
  if (!ready_.empty()) schedule();
}

void Loop::add_deadline(TimedWait& wait) {
  const std::int64_t tick = far_tick_of(wait.deadline);
  if (tick <= far_opened_ + 1) {
    deadlines_.insert(wait);
  } else {
    const std::int64_t bucket = std::min(tick, far_opened_ + kFarBuckets - 1);
    Deadlines& far = far_bucket(bucket);
    far.insert(far.end(), wait);
    far_first_ = std::min(far_first_, bucket);
  }
  arm();
}

// What the buckets of these ticks hold is entered anew: by now its deadlines are near, or the bucket was the last one.
void Loop::open_far_buckets(std::int64_t until) {
  const std::int64_t last = std::min(until, far_opened_ + kFarBuckets - 1);
  const std::int64_t first = std::exchange(far_first_, std::max(far_first_, until + 1));
  far_opened_ = until;
  for (std::int64_t tick = first; tick <= last; ++tick) {
    // Taken out first: one of the last bucket may go into the very same again.
    Deadlines found;
    found.swap(far_bucket(tick));
    while (!found.empty()) {
      TimedWait& wait = *found.begin();
      found.erase(found.begin());
      add_deadline(wait);
    }
  }
  const std::int64_t end = until + kFarBuckets;
  while (far_first_ < end && far_bucket(far_first_).empty()) ++far_first_;
  if (far_first_ >= end) far_first_ = std::numeric_limits<std::int64_t>::max();
}

void Loop::arm() {
  if (down_) return;
  Clock::time_point earliest = deadlines_.empty() ? Clock::time_point::max() : deadlines_.begin()->deadline;
  if (far_first_ != std::numeric_limits<std::int64_t>::max()) {
    earliest = std::min(earliest, Clock::time_point(far_first_ * kFarTick));
  }
  // A wait that ended early leaves the timer as it is: it then fires once for nothing, which costs less than setting
  // it anew each time.
  if (earliest >= armed_) return;
  armed_ = earliest;
  timer_.expires_at(earliest);
  timer_.async_wait([this, arming = ++arming_](boost::system::error_code error) {
    if (error || arming != arming_) return;
    armed_ = Clock::time_point::max();
    expire();
  });
}

void Loop::expire() {
  const auto now = Clock::now();
  const std::int64_t tick = far_tick_of(now);
  if (tick > far_opened_) open_far_buckets(tick);
  while (!deadlines_.empty() && deadlines_.begin()->deadline <= now) {
    TimedWait& wait = *deadlines_.begin();
    deadlines_.erase(deadlines_.begin());
    static_cast<SignalHook&>(wait).unlink();
    wake(wait);
  }
  arm();
}

void Loop::after_root() {
  if (!roots_.empty()) return;
  // Nothing waits any more: what is left of timer and guard must not keep the context running.
  ++arming_;
  armed_ = Clock::time_point::max();
  timer_.cancel();
  poller_.stop();
  work_.reset();
}

void Loop::end_tasks() {
  down_ = true;
  {
    std::unique_lock lock(blocking_->mutex);
    blocking_->idle.wait(lock, [this] { return blocking_->running == 0; });
    blocking_->open = false;
  }
  while (!roots_.empty()) roots_.front().self.destroy();
  work_.reset();
}

}  // namespace aiv::net::detail
