// Development harness: gap to the bound on random clusters.
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "core/placement.hpp"
#include "labs.hpp"
#include "plan_checker.hpp"

int main(int argc, char** argv) {
  const int nodes = argc > 1 ? std::atoi(argv[1]) : 6;
  const int count = argc > 2 ? std::atoi(argv[2]) : 10;
  const long ms = argc > 3 ? std::atol(argv[3]) : 1000;
  const double load = argc > 4 ? std::atof(argv[4]) : 1.3;
  const int models = argc > 5 ? std::atoi(argv[5]) : 0;
  for (int seed = 1; seed <= count; ++seed) {
    aiv::test::LabShape shape{.nodes = nodes, .load = load};
    shape.models = models;
    const auto input = random_lab(static_cast<std::uint64_t>(seed), shape);
    auto t0 = std::chrono::steady_clock::now();
    aiv::Planner planner(input);
    auto t1 = std::chrono::steady_clock::now();
    planner.first_plan();
    auto t2 = std::chrono::steady_clock::now();
    const double v0 = planner.value();
    const double bound = planner.upper_bound();
    auto t3 = std::chrono::steady_clock::now();
    aiv::PlanOptions options;
    options.steps = aiv::steps_for_limit(input, ms);
    planner.improve(options);
    auto t4 = std::chrono::steady_clock::now();
    const auto plan = planner.result(options);
    auto t5 = std::chrono::steady_clock::now();
    const auto faults = nodes <= 300 ? aiv::test::check_plan(input, plan) : std::vector<std::string>{};
    const auto d = [](auto a, auto b) { return std::chrono::duration<double, std::milli>(b - a).count(); };
    std::printf("seed %d models %zu: compile %.1f first %.1f (%.0f, %.2f%%) bound %.1f search %.0f ms %lld steps -> %.1f gap %.2f%% result %.1f unplaced %zu faults %zu %s\n",
                seed, input.models.size(), d(t0, t1), d(t1, t2), v0, 100 * (bound - v0) / bound, d(t2, t3), d(t3, t4), static_cast<long long>(plan.search_steps),
                plan.value, 100 * (bound - plan.value) / bound, d(t4, t5), plan.unplaced.size(), faults.size(), faults.empty() ? "" : faults[0].c_str());
    std::fflush(stdout);
  }
}
