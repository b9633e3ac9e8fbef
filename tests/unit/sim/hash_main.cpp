// Prints "SCENARIO SEED HASH" for each scenario file and seed: equal lines from every compiler and build type
// are what scripts/same-everywhere.sh looks for. Not a test by itself.
//   aiv-sim-hash FIRST_SEED COUNT SCENARIO.toml...
#include <cstdio>
#include <cstdlib>
#include <string>

#include "sim/world.hpp"

namespace {

int print_hashes(std::uint64_t first, std::uint64_t count, const char* path) {
  const auto scenario = aiv::sim::read_scenario(path);
  if (!scenario) {
    std::fprintf(stderr, "%s\n", scenario.error().message().c_str());
    return 1;
  }
  for (std::uint64_t seed = first; seed < first + count; ++seed) {
    aiv::sim::World world(*scenario, seed);
    const auto run = world.run();
    if (!run) {
      std::fprintf(stderr, "%s\n", run.error().message().c_str());
      return 1;
    }
    std::printf("%s %llu %s\n", scenario->name.c_str(), static_cast<unsigned long long>(seed),
                run->log_hash.c_str());
    std::fflush(stdout);
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: %s FIRST_SEED COUNT SCENARIO.toml...\n", argv[0]);
    return 2;
  }
  for (int i = 3; i < argc; ++i) {
    const int failed =
        print_hashes(std::strtoull(argv[1], nullptr, 10), std::strtoull(argv[2], nullptr, 10), argv[i]);
    if (failed != 0) return failed;
  }
  return 0;
}
