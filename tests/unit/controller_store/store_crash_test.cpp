// kill -9 in the middle of writing: what was acknowledged is there, and nothing is half there.
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>

#include "controller/store_sqlite.hpp"
#include "core/prng.hpp"
#include "scratch.hpp"

namespace aiv::controller {
namespace {

// Writes two keys a transaction, always with the same number, and tells the parent each number once acknowledged.
[[noreturn]] void write_until_killed(const std::string& directory, int pipe_fd, std::int64_t from) {
  auto store = open_sqlite_store(directory, {.ballast_bytes = 0});
  if (!store) ::_exit(3);
  for (std::int64_t n = from;; ++n) {
    const std::string text = std::to_string(n);
    const Txn txn{{}, {Op::put("/left", text), Op::put("/right", text), Op::put("/n/" + text, text)}};
    if (!(*store)->txn(txn).committed()) ::_exit(4);
    if (::write(pipe_fd, &n, sizeof n) != sizeof n) ::_exit(5);
  }
}

TEST(StoreUnderKill, NoAcknowledgedChangeIsLostAndNoneIsHalf) {
  Scratch scratch;
  Prng prng(11);
  std::int64_t acknowledged = 0;
  int commits = 0;
  constexpr int kKills = 40;
  for (int kill_no = 0; kill_no < kKills; ++kill_no) {
    int fds[2];
    ASSERT_EQ(::pipe(fds), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::close(fds[0]);
      write_until_killed(scratch.path, fds[1], acknowledged + 1);
    }
    ::close(fds[1]);
    // Killed after a random number of acknowledgements, at whatever point of the next write it then is.
    const int until = 1 + static_cast<int>(prng.below(12));
    std::int64_t n = 0;
    for (int i = 0; i < until && ::read(fds[0], &n, sizeof n) == sizeof n; ++i) acknowledged = n;
    ::usleep(prng.below(1500));
    ::kill(child, SIGKILL);
    while (::read(fds[0], &n, sizeof n) == sizeof n) acknowledged = n;
    ::close(fds[0]);
    int status = 0;
    ::waitpid(child, &status, 0);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the writer stopped by itself with " << WEXITSTATUS(status);

    auto store = open_sqlite_store(scratch.path, {.ballast_bytes = 0});
    ASSERT_TRUE(store);
    ASSERT_EQ((*store)->status().health, StoreHealth::kOk) << (*store)->status().reason;
    const auto left = (*store)->range("/left", "")->kvs;
    const auto right = (*store)->range("/right", "")->kvs;
    ASSERT_EQ(left.size(), 1u);
    ASSERT_EQ(left[0].value, right[0].value) << "half a transaction";
    ASSERT_GE(std::stoll(left[0].value), acknowledged) << "an acknowledged change is gone";
    ASSERT_LE(std::stoll(left[0].value), acknowledged + 1);
    acknowledged = std::stoll(left[0].value);
    ASSERT_EQ((*store)->range("/n/", prefix_end("/n/"))->kvs.size(), static_cast<std::size_t>(acknowledged));
    commits = static_cast<int>(acknowledged);
  }
  RecordProperty("kills", kKills);
  RecordProperty("commits", commits);
}

}  // namespace
}  // namespace aiv::controller
