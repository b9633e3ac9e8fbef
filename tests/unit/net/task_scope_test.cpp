#include "net/task_scope.hpp"

#include <boost/asio/io_context.hpp>
#include <thread>
#include <vector>

#include "support.hpp"

namespace aiv::net {
namespace {

// Says what happens to it, in order, to a log that outlives it.
struct Witness {
  Witness(std::vector<std::string>& to, std::string what) : log(to), name(std::move(what)) {}
  Witness(const Witness&) = delete;
  Witness& operator=(const Witness&) = delete;
  ~Witness() { log.push_back(name); }
  std::vector<std::string>& log;
  std::string name;
};

Task<> inner_wait(std::vector<std::string>& log, Signal& never) {
  const Witness held(log, "inner frame");
  co_await never.wait();
  log.emplace_back("resumed");
}

Task<> outer_wait(std::vector<std::string>& log, Signal& never) {
  const Witness held(log, "outer frame");
  co_await inner_wait(log, never);
}

TEST(TaskScope, WhatAFrameHoldsIsGoneBeforeWhatItRefersTo) {
  std::vector<std::string> log;
  {
    boost::asio::io_context context(1);
    const Witness server(log, "server");
    Signal never;
    const TaskScope tasks(context);
    spawn(context.get_executor(), outer_wait(log, never), "waits");
    context.poll();
    EXPECT_EQ(log.size(), 0U);
  }
  EXPECT_EQ(log, (std::vector<std::string>{"inner frame", "outer frame", "server"}));
}

TEST(TaskScope, OneThatWasNeverStartedIsDestroyedToo) {
  std::vector<std::string> log;
  {
    boost::asio::io_context context(1);
    Signal never;
    const TaskScope tasks(context);
    spawn(context.get_executor(), outer_wait(log, never), "never ran");
  }
  EXPECT_EQ(log.size(), 0U) << "its body had not begun";
}

TEST(TaskScope, TheEndOfBlockingWorkIsAwaitedBeforeAFrameIsDestroyed) {
  bool done = false;
  {
    boost::asio::io_context context(1);
    const TaskScope tasks(context);
    std::function<void()> slow = [&done] {
      std::this_thread::sleep_for(milliseconds(50));
      done = true;
    };
    spawn(context.get_executor(), run_blocking(slow), "blocks");
    context.poll();
  }
  EXPECT_TRUE(done);
}

}  // namespace
}  // namespace aiv::net
