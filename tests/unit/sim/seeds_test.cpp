// Every scenario with many seeds. AIV_SIM_SEEDS sets how many each, AIV_SIM_FIRST the first one.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <string>

#include "sim/world.hpp"

namespace aiv::sim {
namespace {

std::uint64_t number_of(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == '\0' ? otherwise : std::strtoull(text, nullptr, 10);
}

#ifdef AIV_SIM_FEW_SEEDS
constexpr std::uint64_t kSeeds = 2;  // under a sanitizer: each run takes ten times as long
#else
constexpr std::uint64_t kSeeds = AIV_SIM_SEEDS_EACH;
#endif
constexpr std::int64_t kCalmMs =
    180'000;  // all as wanted for so long: what is left of the run shows nothing new

class EverySeed : public testing::TestWithParam<const char*> {};

TEST_P(EverySeed, KeepsAllRules) {
  const auto scenario = read_scenario(std::string(AIV_SCENARIOS) + "/" + GetParam() + ".toml");
  ASSERT_TRUE(scenario.has_value()) << scenario.error().message();
  const std::uint64_t first = number_of("AIV_SIM_FIRST", 1);
  const std::uint64_t count = number_of("AIV_SIM_SEEDS", kSeeds);
  const bool with_faults = scenario->faults_per_hour > 0 || !scenario->faults.empty();
  std::int64_t faults = 0;
  std::int64_t simulated_ms = 0;
  const std::clock_t started = std::clock();
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    World world(*scenario, seed);
    if (with_faults) world.end_when_calm_for(kCalmMs);
    const auto run = world.run();
    ASSERT_TRUE(run.has_value()) << run.error().message();
    faults += run->faults;
    simulated_ms += run->simulated_ms;
    for (const Violation& violation : run->violations) {
      ADD_FAILURE() << violation.rule << " at " << violation.at_ms << " ms: " << violation.detail
                    << "\n  repeat: aiv sim tests/scenarios/" << GetParam() << ".toml --log --seed " << seed;
    }
    EXPECT_GT(run->requests.total, 0) << "nothing was asked for, so nothing was shown; seed " << seed;
  }
  const double cpu_s = static_cast<double>(std::clock() - started) / CLOCKS_PER_SEC;
  const double days = static_cast<double>(simulated_ms) / 86'400'000.0;
  std::printf(
      "%s: seeds %llu to %llu, %lld faults, %.2f simulated days in %.1f s of CPU: %.2f days per CPU minute\n",
      GetParam(), static_cast<unsigned long long>(first), static_cast<unsigned long long>(first + count - 1),
      static_cast<long long>(faults), days, cpu_s, cpu_s > 0 ? days * 60 / cpu_s : 0.0);
  EXPECT_EQ(faults > 0, with_faults) << "no fault was injected, so nothing was shown";
}

INSTANTIATE_TEST_SUITE_P(Scenarios, EverySeed, testing::Values(AIV_SIM_SCENARIOS),
                         [](const auto& named) { return std::string(named.param); });

}  // namespace
}  // namespace aiv::sim
