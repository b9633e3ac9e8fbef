// The shim with shell scripts as engines: what it keeps, tells and ends.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <stdlib.h>

#include <filesystem>

#include "base/file.hpp"
#include "net/process.hpp"
#include "node/child_main.hpp"
#include "node/replica_files.hpp"
#include "node/shim_link.hpp"

namespace aiv::node {
namespace {

using net::milliseconds;
using net::seconds;
using testing::HasSubstr;

class Shim : public testing::Test {
 protected:
  Shim() {
    char path[] = "/tmp/aivs-XXXXXX";
    EXPECT_NE(::mkdtemp(path), nullptr);
    dir_ = path;
    paths_ = {.dir = dir_, .engine_socket = dir_ + "/e.sock", .shim_socket = dir_ + "/e.shim"};
  }
  ~Shim() override {
    if (shim_ && shim_->running()) shim_->signal(SIGKILL);
    std::filesystem::remove_all(dir_);
  }
  void start(const std::string& script, std::vector<std::string> more = {}) {
    net::SpawnOptions o;
    o.program = std::filesystem::canonical("/proc/self/exe").string();
    o.arguments = {"engine-shim",
                   "--dir",
                   dir_,
                   "--socket",
                   paths_.shim_socket,
                   "--replica",
                   "r-1",
                   "--spec-hash",
                   "abc",
                   "--epoch",
                   "3",
                   "--rev",
                   "7"};
    o.arguments.insert(o.arguments.end(), more.begin(), more.end());
    for (const std::string& part : {std::string("--"), std::string("/bin/sh"), std::string("-c"), script})
      o.arguments.push_back(part);
    o.environment = {"PATH=/usr/bin:/bin", "ONLY=this"};
    o.stderr_file = dir_ + "/shim.log";
    auto started = net::Process::spawn(context_.get_executor(), o);
    ASSERT_TRUE(started) << started.error().message();
    shim_ = *started;
  }
  template <class T>
  T wait(net::Task<T> task) {
    std::optional<T> out;
    struct Keep {
      static net::Task<> run(net::Task<T> inner, std::optional<T>* to) { *to = co_await std::move(inner); }
    };
    net::spawn(context_.get_executor(), Keep::run(std::move(task), &out), "test");
    const auto until = net::Clock::now() + seconds(20);
    while (!out && net::Clock::now() < until) {
      context_.restart();
      context_.run_one_for(milliseconds(20));
    }
    if (!out) throw std::runtime_error("nothing came");
    return std::move(*out);
  }
  ShimLinkPtr connect() {
    auto link = wait(ShimLink::connect(paths_.shim_socket, net::Clock::now() + seconds(10)));
    EXPECT_TRUE(link);
    return link ? *link : nullptr;
  }
  // Lines until one begins so; that one is the last.
  std::vector<std::string> lines_until(const ShimLinkPtr& link, const std::string& beginning) {
    std::vector<std::string> out;
    while (true) {
      auto line = wait(link->read_line());
      if (!line) break;
      out.push_back(*line);
      if (line->starts_with(beginning)) break;
    }
    return out;
  }
  static bool alive(std::int64_t pid) { return net::process_start_time(static_cast<pid_t>(pid)).has_value(); }
  bool becomes_dead(std::int64_t pid) {
    const auto until = net::Clock::now() + seconds(10);
    while (alive(pid) && net::Clock::now() < until) context_.run_for(milliseconds(5)), context_.restart();
    return !alive(pid);
  }

  boost::asio::io_context context_{1};
  std::string dir_;
  ReplicaPaths paths_;
  net::ProcessPtr shim_;
};

TEST_F(Shim, TellsTheLogFromItsBeginningToWhoeverComesLater) {
  start("echo one >&2; echo 'cmd_child_to_router:state:{}'; echo noise; echo two >&2; exec sleep 60");
  const auto first = connect();
  lines_until(first, "out ");
  first->close();
  const auto second = connect();
  ASSERT_TRUE(second);
  std::vector<std::string> lines = lines_until(second, "live");
  ASSERT_FALSE(lines.empty());
  EXPECT_THAT(lines.front(), testing::StartsWith("hello "));
  EXPECT_THAT(lines, testing::Contains("log one"));
  EXPECT_THAT(lines, testing::Contains("out cmd_child_to_router:state:{}"));
  const auto state = read_shim_state(paths_);
  ASSERT_TRUE(state);
  EXPECT_EQ(state->replica, "r-1");
  EXPECT_EQ(state->spec_hash, "abc");
  EXPECT_EQ(state->version, (Version{3, 7}));
  EXPECT_TRUE(shim_alive(*state));
  EXPECT_TRUE(alive(state->engine_pid));
}

TEST_F(Shim, GivesTheEngineItsOwnEnvironmentAndNothingElse) {
  start("env >&2; exit 3");
  const auto link = connect();
  const auto lines = lines_until(link, "exit ");
  EXPECT_THAT(lines, testing::Contains("log ONLY=this"));
  for (const std::string& line : lines) EXPECT_THAT(line, testing::Not(HasSubstr("HOME=")));
  EXPECT_EQ(lines.back(), "exit exit 3");
  EXPECT_EQ(wait(shim_->wait()).code, 0);
  EXPECT_EQ(read_file(paths_.exit(), 100).value_or(""), "exit 3\n");
  EXPECT_FALSE(std::filesystem::exists(paths_.shim_socket));
}

TEST_F(Shim, WhatAnEngineSaysAsItDiesIsNotLost) {
  start("printf 'no end of line' >&2; kill -SEGV $$");
  const auto lines = lines_until(connect(), "exit ");
  EXPECT_EQ(lines.back(), "exit killed by SIGSEGV");
  EXPECT_THAT(read_file(paths_.log(), 1000).value_or(""), HasSubstr("no end of line"));
}

TEST_F(Shim, AHundredMegabytesOfLogStayWithinTheBound) {
  start("yes 'a line of sixty-four bytes that says nothing of any use to us' | head -c 100000000 >&2; exit 0",
        {"--log-bytes-max", "1000000"});
  EXPECT_EQ(wait(shim_->wait()).code, 0);
  std::uintmax_t bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(dir_))
    if (entry.is_regular_file()) bytes += entry.file_size();
  EXPECT_LT(bytes, 2'200'000U);
  const std::string tail = tail_of_log(paths_, 64 * 1024);
  EXPECT_LE(tail.size(), 64U * 1024);
  EXPECT_GT(tail.size(), 60U * 1024);
}

TEST_F(Shim, AnAgentThatDoesNotReadHoldsNobodyUp) {
  const auto begin = net::Clock::now();
  start(
      "sleep 0.3; yes 'a line of sixty-four bytes that says nothing of any use to us' | head -c 20000000 "
      ">&2; exit 0");
  const auto link = connect();  // and never reads
  EXPECT_EQ(wait(shim_->wait()).code, 0);
  EXPECT_LT(net::Clock::now() - begin, seconds(15));
}

TEST_F(Shim, EndsAnEngineThatDoesNotListen) {
  start("trap '' TERM; echo up >&2; while :; do sleep 0.1; done");
  const auto link = connect();
  lines_until(link, "log up");
  const auto state = read_shim_state(paths_);
  ASSERT_TRUE(state);
  ASSERT_TRUE(wait(link->send("term")));
  EXPECT_THAT(lines_until(link, "exit ").back(), HasSubstr("killed by SIGKILL"));
  EXPECT_TRUE(becomes_dead(state->engine_pid));
}

// llama-server, run as a router's child, does not end of SIGTERM before its stdin has said so too.
TEST_F(Shim, AnEngineThatWaitsForItsStdinIsToldToGoThereAsWell) {
  start("trap 'read word; echo \"$word\" >&2; exit 0' TERM; echo up >&2; while :; do sleep 0.05; done");
  const auto link = connect();
  lines_until(link, "log up");
  ASSERT_TRUE(wait(link->send("term")));
  const auto lines = lines_until(link, "exit ");
  EXPECT_THAT(lines, testing::Contains("log cmd_router_to_child:exit"));
  EXPECT_EQ(lines.back(), "exit exit 0");
}

TEST_F(Shim, TheEngineDiesWithTheShimHoweverThatDies) {
  start("echo up >&2; exec sleep 60");
  lines_until(connect(), "log up");
  const auto state = read_shim_state(paths_);
  ASSERT_TRUE(state);
  shim_->signal(SIGKILL);
  const auto since = net::Clock::now();
  EXPECT_TRUE(becomes_dead(state->engine_pid));
  EXPECT_LT(net::Clock::now() - since, milliseconds(500));
  wait(shim_->wait());
  EXPECT_FALSE(shim_alive(*state));
}

TEST_F(Shim, WithoutAnAgentTheEngineIsStoppedAfterTheLimit) {
  start("exec sleep 60", {"--orphan-limit-ms", "100"});
  EXPECT_EQ(wait(shim_->wait()).code, 0);
  EXPECT_EQ(read_file(paths_.exit(), 100).value_or(""), "killed by SIGTERM\n");
}

TEST_F(Shim, SaysWhyAnEngineCannotBeStarted) {
  start("exec /no/such/engine");
  const auto lines = lines_until(connect(), "exit ");
  EXPECT_THAT(lines, testing::Contains(HasSubstr("/no/such/engine")));
  EXPECT_EQ(lines.back(), "exit exit 127");
}

}  // namespace
}  // namespace aiv::node

int main(int argc, char** argv) {
  if (const auto code = aiv::node::child_main(argc, argv)) return *code;
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
