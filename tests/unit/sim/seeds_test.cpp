// Every scenario with many seeds. AIV_SIM_SEEDS sets how many each (0: from the build type), AIV_SIM_FIRST the first one.
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "sim/world.hpp"

namespace aiv::sim {
namespace {

std::uint64_t number_of(const char* name, std::uint64_t otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr || *text == '\0' ? otherwise : std::strtoull(text, nullptr, 10);
}

#ifdef NDEBUG
constexpr std::uint64_t kSeeds = 42;
#else
constexpr std::uint64_t kSeeds = 2;  // unoptimised: enough to see that it runs
#endif

class EverySeed : public testing::TestWithParam<const char*> {};

TEST_P(EverySeed, KeepsAllRules) {
  const auto scenario = read_scenario(std::string(AIV_SCENARIOS) + "/" + GetParam() + ".toml");
  ASSERT_TRUE(scenario.has_value()) << scenario.error().message();
  const std::uint64_t first = number_of("AIV_SIM_FIRST", 1);
  const std::uint64_t count = number_of("AIV_SIM_SEEDS", kSeeds);
  std::int64_t faults = 0;
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    World world(*scenario, seed);
    const auto run = world.run();
    ASSERT_TRUE(run.has_value()) << run.error().message();
    faults += run->faults;
    for (const Violation& violation : run->violations) {
      ADD_FAILURE() << violation.rule << " at " << violation.at_ms << " ms: " << violation.detail << "\n  repeat: aiv sim tests/scenarios/"
                    << GetParam() << ".toml --log --seed " << seed;
    }
    EXPECT_GT(run->requests.total, 0) << "nothing was asked for, so nothing was shown; seed " << seed;
  }
  EXPECT_GT(faults, 0) << "no fault was injected, so nothing was shown";
}

INSTANTIATE_TEST_SUITE_P(Scenarios, EverySeed,
                         testing::Values("node_loss", "stall", "flap", "one_way_cut", "slow_load", "load_oom", "stale_epoch", "stolen_memory",
                                         "controller_crash", "mass_failure", "splits", "chaos"),
                         [](const auto& named) { return std::string(named.param); });

}  // namespace
}  // namespace aiv::sim
