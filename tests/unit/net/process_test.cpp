#include "net/process.hpp"

#include <csignal>

#include "support.hpp"

namespace aiv::net {
namespace {

using test::run;

SpawnOptions program(std::string path, std::string argument = {}) {
  SpawnOptions out;
  out.program = std::move(path);
  if (!argument.empty()) out.arguments.push_back(std::move(argument));
  return out;
}

TEST(Process, LinesOfAChildAreReadAndItsEndIsTold) {
  run([](Executor executor) -> Task<> {
    SpawnOptions options = program("/bin/sh", "-c");
    options.arguments.emplace_back("echo one; read x; echo got $x; exit 3");
    options.pipe_stdin = options.pipe_stdout = true;
    auto child = Process::spawn(executor, options);
    EXPECT_TRUE(child);
    EXPECT_GT((*child)->start_time(), 0);
    EXPECT_EQ(co_await (*child)->read_line(), "one");
    co_await (*child)->write_stdin("two\n");
    EXPECT_EQ(co_await (*child)->read_line(), "got two");
    const auto end = co_await (*child)->read_line();
    EXPECT_FALSE(end.has_value());
    const ExitStatus status = co_await (*child)->wait();
    EXPECT_EQ(status.describe(), "exit 3");
  });
}

TEST(Process, TheEnvironmentIsExactlyWhatWasGiven) {
  run([](Executor executor) -> Task<> {
    ::setenv("AIV_LEAK", "1", 1);
    SpawnOptions options = program("/usr/bin/env");
    options.environment.emplace_back("ONLY=this");
    options.pipe_stdout = true;
    auto child = Process::spawn(executor, options);
    EXPECT_TRUE(child);
    EXPECT_EQ(co_await (*child)->read_line(), "ONLY=this");
    const auto end = co_await (*child)->read_line();
    EXPECT_FALSE(end.has_value());
  });
}

TEST(Process, AProgramThatIsNotThereIsAnErrorWithItsName) {
  run([](Executor executor) -> Task<> {
    auto child = Process::spawn(executor, program("/no/such/program"));
    EXPECT_FALSE(child);
    EXPECT_EQ(child.error().code, ErrorCode::kNotFound);
    EXPECT_EQ(child.error().where, "/no/such/program");
    co_return;
  });
}

TEST(Process, ASignalGoesOnlyToTheProcessThatWasMeant) {
  run([](Executor executor) -> Task<> {
    auto child = Process::spawn(executor, program("/bin/sleep", "100"));
    EXPECT_TRUE(child);
    EXPECT_FALSE(signal_process((*child)->pid(), (*child)->start_time() + 1, SIGKILL));
    EXPECT_TRUE((*child)->running());
    EXPECT_TRUE(signal_process((*child)->pid(), (*child)->start_time(), SIGKILL));
    const ExitStatus status = co_await (*child)->wait();
    EXPECT_EQ(status.describe(), "killed by SIGKILL");
    EXPECT_FALSE(process_start_time((*child)->pid()));
  });
}

}  // namespace
}  // namespace aiv::net
