// Tasks, signals and deadlines: who is resumed, how often, and what is left when the loop is gone.
#include "net/async.hpp"

#include <boost/asio/post.hpp>
#include <memory>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "support.hpp"

namespace aiv::net {
namespace {

using test::run;

Task<> wait_once(Signal* signal, Clock::time_point until, std::vector<bool>* results) {
  const bool notified = co_await signal->wait_until(until);
  results->push_back(notified);
}

TEST(Async, AWaitThatIsNotifiedWhenItsDeadlineHasPassedIsResumedOnce) {
  boost::asio::io_context context(1);
  Signal signal;
  std::vector<bool> results;
  const auto deadline = Clock::now() + milliseconds(5);
  spawn(context.get_executor(), wait_once(&signal, deadline, &results), "waits");
  // The first handler keeps the loop busy until the timer is due; the second notifies before the timer's own handler.
  boost::asio::post(context, [&] {
    while (Clock::now() <= deadline) std::this_thread::yield();
    boost::asio::post(context, [&] { signal.notify(); });
  });
  context.run_for(seconds(20));
  EXPECT_EQ(results, std::vector<bool>{true});
}

TEST(Async, AWaitThatNobodyNotifiesEndsAtItsDeadline) {
  run([](const Executor&) -> Task<> {
    Signal signal;
    std::vector<bool> results;
    co_await wait_once(&signal, Clock::now() + milliseconds(1), &results);
    EXPECT_EQ(results, std::vector<bool>{false});
  });
}

TEST(Async, ANotificationThatNobodyWaitedForIsKeptForTheNextOne) {
  run([](const Executor&) -> Task<> {
    Signal signal;
    signal.notify();
    signal.notify();
    std::vector<bool> results;
    co_await wait_once(&signal, test::soon(), &results);
    co_await wait_once(&signal, Clock::now() + milliseconds(1), &results);
    EXPECT_EQ(results, (std::vector<bool>{true, false})) << "two notifications are kept as one";
  });
}

TEST(Async, NotifyWakesAllWhoWaitButFromTheLoopNotFromWithin) {
  boost::asio::io_context context(1);
  Signal signal;
  std::vector<bool> results;
  for (int i = 0; i < 3; ++i) spawn(context.get_executor(), wait_once(&signal, test::soon(), &results), "waits");
  boost::asio::post(context, [&] {
    signal.notify();
    EXPECT_TRUE(results.empty());
  });
  context.run_for(seconds(20));
  EXPECT_EQ(results, (std::vector<bool>{true, true, true}));
}

TEST(Async, ASignalThatIsDestroyedWakesWhoWaits) {
  boost::asio::io_context context(1);
  auto signal = std::make_unique<Signal>();
  std::vector<bool> results;
  spawn(context.get_executor(), wait_once(signal.get(), test::soon(), &results), "waits");
  boost::asio::post(context, [&] { signal.reset(); });
  context.run_for(seconds(20));
  EXPECT_EQ(results.size(), 1U);
}

Task<> note_after(Clock::time_point when, int number, std::vector<int>* order) {
  co_await sleep_until(when);
  order->push_back(number);
}

TEST(Async, SleepersWakeInTheOrderOfTheirTimesNotOfTheirStart) {
  boost::asio::io_context context(1);
  std::vector<int> order;
  const auto now = Clock::now();
  for (const int number : {3, 1, 2, 0}) {
    spawn(context.get_executor(), note_after(now + milliseconds(5 * number), number, &order), "sleeps");
  }
  context.run_for(seconds(20));
  EXPECT_EQ(order, (std::vector<int>{0, 1, 2, 3}));
}

Task<int> fail_after_a_wait() {
  co_await sleep_for(milliseconds(1));
  throw std::runtime_error("broken below");
}

Task<int> pass_on() {
  const int value = co_await fail_after_a_wait();
  co_return value;
}

TEST(Async, AnExceptionReachesTheOneWhoAwaits) {
  run([](const Executor&) -> Task<> {
    std::string caught;
    try {
      const int value = co_await pass_on();
      (void)value;
    } catch (const std::runtime_error& failure) {
      caught = failure.what();
    }
    EXPECT_EQ(caught, "broken below");
  });
}

struct CountsItsEnd {
  explicit CountsItsEnd(int* count) : ends(count) {}
  CountsItsEnd(const CountsItsEnd&) = delete;
  CountsItsEnd& operator=(const CountsItsEnd&) = delete;
  ~CountsItsEnd() { *ends += 1; }
  int* ends;
};

Task<> hold_and_wait(Signal* signal, int* ends) {
  const CountsItsEnd held(ends);
  co_await signal->wait();
}

Task<> await_one_who_holds(Signal* signal, int* ends) {
  const CountsItsEnd held(ends);
  co_await hold_and_wait(signal, ends);
}

TEST(Async, ChainsThatStillWaitAreDestroyedWithTheLoop) {
  Signal signal;
  int ends = 0;
  {
    boost::asio::io_context context(1);
    spawn(context.get_executor(), await_one_who_holds(&signal, &ends), "waits for ever");
    context.poll();
    EXPECT_EQ(ends, 0);
  }
  EXPECT_EQ(ends, 2);
}

Task<int> one_more(int value, bool wait) {
  if (wait) co_await sleep_for(Clock::duration::zero());
  co_return value + 1;
}

TEST(Async, AHundredThousandAwaitsInALoopNeedNoMoreStackThanOne) {
  run([](const Executor&) -> Task<> {
    int value = 0;
    for (int i = 0; i < 100'000; ++i) {
      value = co_await one_more(value, i % 8 == 0);
    }
    EXPECT_EQ(value, 100'000);
  });
}

Task<> fail_on_the_pool() {
  co_await run_blocking([] { throw std::runtime_error("no disk"); });
}

TEST(Async, BlockingWorkRunsElsewhereAndItsFailureIsTold) {
  run([](const Executor&) -> Task<> {
    const auto here = std::this_thread::get_id();
    std::thread::id there;
    std::function<void()> work = [&there] { there = std::this_thread::get_id(); };
    co_await run_blocking(std::move(work));
    EXPECT_NE(here, there);
    EXPECT_NE(there, std::thread::id());
    std::string caught;
    try {
      co_await fail_on_the_pool();
    } catch (const std::runtime_error& failure) {
      caught = failure.what();
    }
    EXPECT_EQ(caught, "no disk");
  });
}

}  // namespace
}  // namespace aiv::net
