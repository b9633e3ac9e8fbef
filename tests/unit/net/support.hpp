// Runs a coroutine to its end on a context of its own, with a limit after which the test fails.
#pragma once
#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "net/async.hpp"

namespace aiv::net::test {

inline Task<> guarded(Task<> body, bool* done, boost::asio::io_context* context) {
  co_await std::move(body);
  *done = true;
  context->stop();
}

// `make_body(executor)` gives the test as a coroutine.
template <class MakeBody>
void run(MakeBody make_body) {
  boost::asio::io_context context(1);
  bool done = false;
  spawn(context.get_executor(), guarded(make_body(context.get_executor()), &done, &context), "test");
  context.run_for(seconds(90));
  EXPECT_TRUE(done) << "the test did not end within 90 s";
}

class TempDir {
 public:
  TempDir() { EXPECT_NE(mkdtemp(path_.data()), nullptr); }
  ~TempDir() { std::filesystem::remove_all(path_); }
  [[nodiscard]] const std::string& path() const { return path_; }

 private:
  std::string path_ = "/tmp/aiv-net-XXXXXX";
};

inline Clock::time_point soon() { return Clock::now() + seconds(10); }

}  // namespace aiv::net::test
