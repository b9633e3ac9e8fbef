#include "vgpu/accounting.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

namespace aiv::vgpu {
namespace {

constexpr std::uint64_t kMib = 1024 * 1024;

DeviceUuid device(std::uint8_t n) {
  DeviceUuid uuid{};
  uuid[15] = n;
  return uuid;
}

class AccountingTest : public ::testing::Test {
 protected:
  AccountingTest() {
    std::string pattern = (std::filesystem::temp_directory_path() / "aiv-vgpu-test-XXXXXX").string();
    dir_ = ::mkdtemp(pattern.data());
    path_ = dir_ + "/accounting";
  }
  ~AccountingTest() override { std::filesystem::remove_all(dir_); }

  std::unique_ptr<Accounting> open() {
    auto accounting = Accounting::open(path_);
    EXPECT_TRUE(accounting.has_value()) << (accounting ? "" : accounting.error().message());
    return accounting ? std::move(*accounting) : nullptr;
  }

  std::string dir_;
  std::string path_;
};

// A child that runs `work` and then waits to be killed. The constructor returns once `work` is done.
class Child {
 public:
  template <class Work>
  explicit Child(Work work) {
    int done[2];
    if (::pipe(done) != 0) throw std::runtime_error("pipe");
    pid_ = ::fork();
    if (pid_ == 0) {
      ::close(done[0]);
      const char result = work() ? 'y' : 'n';
      if (::write(done[1], &result, 1) != 1) ::_exit(1);
      for (;;) ::pause();
    }
    ::close(done[1]);
    if (::read(done[0], &result_, 1) != 1) result_ = '?';
    ::close(done[0]);
  }
  ~Child() {
    kill();
    reap();
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  [[nodiscard]] bool succeeded() const { return result_ == 'y'; }
  [[nodiscard]] pid_t pid() const { return pid_; }
  // Dead afterwards, but a zombie until reap().
  void kill() {
    if (killed_) return;
    killed_ = true;
    ::kill(pid_, SIGKILL);
    siginfo_t info{};
    ::waitid(P_PID, static_cast<id_t>(pid_), &info, WEXITED | WNOWAIT);
  }
  void reap() {
    if (reaped_) return;
    reaped_ = true;
    ::waitpid(pid_, nullptr, 0);
  }

 private:
  pid_t pid_ = 0;
  char result_ = '?';
  bool killed_ = false;
  bool reaped_ = false;
};

TEST_F(AccountingTest, a_process_is_charged_and_released) {
  const auto accounting = open();
  EXPECT_EQ(accounting->charge(device(1), 100 * kMib, 256 * kMib), Charge::kOk);
  EXPECT_EQ(accounting->usage(device(1)).total, 100 * kMib);
  EXPECT_EQ(accounting->usage(device(1)).own, 100 * kMib);
  EXPECT_EQ(accounting->usage(device(2)).total, 0U) << "devices do not share";
  accounting->release(device(1), 100 * kMib);
  EXPECT_EQ(accounting->usage(device(1)).total, 0U);
  EXPECT_TRUE(accounting->holders(device(1)).empty());
}

TEST_F(AccountingTest, the_last_byte_fits_and_one_more_does_not) {
  const auto accounting = open();
  EXPECT_EQ(accounting->charge(device(1), 255 * kMib, 256 * kMib), Charge::kOk);
  EXPECT_EQ(accounting->charge(device(1), kMib + 1, 256 * kMib), Charge::kNoRoom);
  EXPECT_EQ(accounting->charge(device(1), kMib, 256 * kMib), Charge::kOk);
  EXPECT_EQ(accounting->charge(device(1), 1, 256 * kMib), Charge::kNoRoom);
  EXPECT_EQ(accounting->charge(device(1), UINT64_MAX, 256 * kMib), Charge::kNoRoom) << "no overflow";
  EXPECT_EQ(accounting->usage(device(1)).own, 256 * kMib) << "what was refused is not counted";
}

TEST_F(AccountingTest, releasing_more_than_is_held_leaves_nothing_rather_than_a_huge_number) {
  const auto accounting = open();
  ASSERT_EQ(accounting->charge(device(1), kMib, 2 * kMib), Charge::kOk);
  accounting->release(device(1), 5 * kMib);
  EXPECT_EQ(accounting->usage(device(1)).total, 0U);
  accounting->release(device(1), kMib);
  EXPECT_EQ(accounting->usage(device(1)).total, 0U);
}

TEST_F(AccountingTest, another_process_is_seen_by_pid_and_start_time) {
  Child child([&] {
    const auto accounting = open();
    return accounting->charge(device(1), 7 * kMib, 64 * kMib) == Charge::kOk;
  });
  ASSERT_TRUE(child.succeeded());
  const auto accounting = open();
  const auto holders = accounting->holders(device(1));
  ASSERT_EQ(holders.size(), 1U);
  EXPECT_EQ(holders[0].pid, child.pid());
  EXPECT_EQ(holders[0].bytes, 7 * kMib);
  EXPECT_EQ(holders[0].start_time, start_time_of(child.pid()).value());
  EXPECT_EQ(accounting->usage(device(1)).own, 0U);
}

TEST_F(AccountingTest, kill_9_frees_even_while_the_dead_process_is_a_zombie) {
  const auto accounting = open();
  Child child([&] { return accounting->charge(device(1), 60 * kMib, 64 * kMib) == Charge::kOk; });
  ASSERT_TRUE(child.succeeded());
  EXPECT_EQ(accounting->charge(device(1), 60 * kMib, 64 * kMib), Charge::kNoRoom);
  child.kill();
  EXPECT_EQ(accounting->charge(device(1), 60 * kMib, 64 * kMib), Charge::kOk) << "found when it would be refused";
  accounting->release(device(1), 60 * kMib);
  child.reap();
  EXPECT_EQ(accounting->usage(device(1)).total, 0U);
}

TEST_F(AccountingTest, a_forked_child_has_an_account_of_its_own) {
  const auto accounting = open();
  ASSERT_EQ(accounting->charge(device(1), kMib, 64 * kMib), Charge::kOk);
  Child child([&] {
    return accounting->charge(device(1), 2 * kMib, 64 * kMib) == Charge::kOk &&
           accounting->usage(device(1)).own == 2 * kMib;
  });
  EXPECT_TRUE(child.succeeded());
  EXPECT_EQ(accounting->usage(device(1)).own, kMib);
  EXPECT_EQ(accounting->usage(device(1)).total, 3 * kMib);
}

// Changes stored bytes, as a reused pid or another boot would have left them.
template <class Old, class New>
int replace_in_file(const std::string& path, const Old& from, const New& to) {
  static_assert(sizeof(Old) == sizeof(New));
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  std::string bytes((std::istreambuf_iterator<char>(file)), {});
  const std::string_view pattern(reinterpret_cast<const char*>(&from), sizeof(Old));
  const std::string_view replacement(reinterpret_cast<const char*>(&to), sizeof(New));
  int replaced = 0;
  for (std::size_t at = bytes.find(pattern); at != std::string::npos; at = bytes.find(pattern, at + 1)) {
    file.seekp(static_cast<std::streamoff>(at));
    file.write(replacement.data(), static_cast<std::streamsize>(replacement.size()));
    ++replaced;
  }
  return replaced;
}

TEST_F(AccountingTest, a_reused_pid_does_not_inherit_what_the_dead_process_held) {
  const auto accounting = open();
  ASSERT_EQ(accounting->charge(device(1), 9 * kMib, 64 * kMib), Charge::kOk);
  // The entry of an earlier process with our pid, which started at another time.
  const std::uint64_t mine = start_time_of(::getpid()).value();
  ASSERT_EQ(replace_in_file(path_, mine, mine - 1), 1);
  EXPECT_EQ(accounting->usage(device(1)).total, 0U);
  EXPECT_EQ(accounting->charge(device(1), kMib, 64 * kMib), Charge::kOk);
  EXPECT_EQ(accounting->usage(device(1)).own, kMib);
}

TEST_F(AccountingTest, a_reboot_clears_the_table) {
  {
    const auto accounting = open();
    ASSERT_EQ(accounting->charge(device(1), 9 * kMib, 64 * kMib), Charge::kOk);
    ASSERT_TRUE(accounting->set_foreign(device(1), kMib, "other"));
  }
  std::ifstream boot("/proc/sys/kernel/random/boot_id");
  std::array<char, 8> start{};
  ASSERT_TRUE(boot.read(start.data(), start.size()));
  ASSERT_EQ(replace_in_file(path_, start, std::array<char, 8>{'0', '1', '2', '3', '4', '5', '6', '7'}), 1);
  EXPECT_EQ(open()->usage(device(1)).total, 0U);
}

TEST_F(AccountingTest, a_full_table_refuses_instead_of_not_counting_and_recovers_when_processes_die) {
  const auto accounting = open();
  for (std::size_t i = 0; i < kEntriesMax - 1; ++i) {
    ASSERT_TRUE(accounting->set_foreign(device(1), 1, "program " + std::to_string(i)));
  }
  Child child([&] { return accounting->charge(device(1), kMib, 64 * kMib) == Charge::kOk; });
  ASSERT_TRUE(child.succeeded());
  EXPECT_EQ(accounting->charge(device(1), kMib, 64 * kMib), Charge::kTableFull);
  const auto refused = accounting->set_foreign(device(2), 1, "one more");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kRefused);
  child.kill();
  EXPECT_EQ(accounting->charge(device(1), kMib, 64 * kMib), Charge::kOk);
}

TEST_F(AccountingTest, another_program_holds_3_gib_until_it_is_taken_away) {
  const auto accounting = open();
  const std::uint64_t capacity = 8192 * kMib;
  ASSERT_TRUE(accounting->set_foreign(device(1), 3072 * kMib, "student7"));
  EXPECT_EQ(accounting->usage(device(1)).foreign, 3072 * kMib);
  EXPECT_EQ(accounting->charge(device(1), 5121 * kMib, capacity), Charge::kNoRoom);
  EXPECT_EQ(accounting->charge(device(1), 5120 * kMib, capacity), Charge::kOk);
  const auto holders = accounting->holders(device(1));
  ASSERT_EQ(holders.size(), 2U);
  EXPECT_EQ(holders[0].pid, 0);
  EXPECT_EQ(holders[0].label, "student7");
  ASSERT_TRUE(accounting->set_foreign(device(1), 1024 * kMib, "student7")) << "the same program, changed";
  EXPECT_EQ(accounting->usage(device(1)).foreign, 1024 * kMib);
  ASSERT_TRUE(accounting->set_foreign(device(1), 0, "student7"));
  EXPECT_EQ(accounting->usage(device(1)).foreign, 0U);
  EXPECT_EQ(accounting->usage(device(1)).total, 5120 * kMib);
}

TEST_F(AccountingTest, threads_and_processes_together_never_exceed_the_capacity_and_end_at_zero) {
  constexpr std::uint64_t kCapacity = 10;
  constexpr int kProcesses = 4;
  constexpr int kRounds = 300;
  const auto accounting = open();
  const auto work = [&] {
    const auto shared = open();
    std::atomic<bool> fine = true;
    std::vector<std::jthread> threads;
    for (int t = 0; t < 3; ++t) {
      threads.emplace_back([&] {
        for (int i = 0; i < kRounds; ++i) {
          if (shared->charge(device(1), 3, kCapacity) != Charge::kOk) continue;
          if (shared->usage(device(1)).total > kCapacity) fine = false;
          shared->release(device(1), 3);
        }
      });
    }
    threads.clear();
    return fine.load() && shared->usage(device(1)).own == 0;
  };
  std::vector<pid_t> pids;
  for (int p = 0; p < kProcesses; ++p) {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(work() ? 0 : 1);
    pids.push_back(pid);
  }
  for (const pid_t pid : pids) {
    int status = -1;
    ASSERT_EQ(::waitpid(pid, &status, 0), pid);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(accounting->usage(device(1)).total, 0U);
}

TEST_F(AccountingTest, a_process_killed_inside_the_lock_does_not_lock_out_the_others) {
  const auto accounting = open();
  for (int round = 0; round < 20; ++round) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      const auto mine = open();
      for (;;) {
        (void)mine->charge(device(1), 1, 1000);
        mine->release(device(1), 1);
      }
    }
    for (int i = 0; i < 50 + round; ++i) {  // it dies at another point each time
      (void)accounting->charge(device(1), 1, 1000);
      accounting->release(device(1), 1);
    }
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    ASSERT_EQ(accounting->usage(device(1)).total, 0U);
  }
}

TEST_F(AccountingTest, the_file_is_readable_by_its_owner_only) {
  const auto accounting = open();
  struct stat info {};
  ASSERT_EQ(::stat(path_.c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600U);
}

TEST_F(AccountingTest, a_file_that_is_something_else_is_refused_with_a_reason_and_left_alone) {
  std::ofstream(path_) << "shopping list";
  const auto refused = Accounting::open(path_);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kCorrupt);
  EXPECT_EQ(std::filesystem::file_size(path_), 13U);
}

TEST_F(AccountingTest, a_file_of_the_right_size_with_foreign_bytes_is_refused) {
  open();
  const auto size = std::filesystem::file_size(path_);
  std::ofstream(path_, std::ios::binary | std::ios::trunc) << std::string(size, 'x');
  const auto refused = Accounting::open(path_);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kCorrupt);
}

TEST_F(AccountingTest, a_missing_directory_is_an_error_that_names_the_path) {
  const auto refused = Accounting::open(dir_ + "/no/such/dir/accounting");
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, ErrorCode::kIo);
  EXPECT_THAT(refused.error().message(), ::testing::HasSubstr("/no/such/dir/accounting"));
}

TEST(StartTime, is_equal_for_the_same_process_and_absent_for_a_dead_one) {
  EXPECT_EQ(start_time_of(::getpid()).value(), start_time_of(::getpid()).value());
  pid_t pid = 0;
  {
    Child child([] { return true; });
    pid = child.pid();
    EXPECT_TRUE(start_time_of(pid).has_value());
    child.kill();
    EXPECT_FALSE(start_time_of(pid).has_value()) << "a zombie has ended";
  }
  EXPECT_FALSE(start_time_of(pid).has_value());
}

TEST(Uuid, is_written_as_32_digits_and_read_with_and_without_dashes) {
  const auto uuid = parse_uuid("00112233-4455-6677-8899-AABBCCDDEEFF");
  ASSERT_TRUE(uuid.has_value());
  EXPECT_EQ(format_uuid(*uuid), "00112233445566778899aabbccddeeff");
  EXPECT_EQ(parse_uuid(format_uuid(*uuid)), uuid);
  for (const char* bad : {"", "00", "00112233445566778899aabbccddeef", "0011223344556677 899aabbccddeeff0",
                          "g0112233445566778899aabbccddeeff", "00112233445566778899aabbccddeeff00"}) {
    EXPECT_FALSE(parse_uuid(bad).has_value()) << bad;
  }
}

}  // namespace
}  // namespace aiv::vgpu
