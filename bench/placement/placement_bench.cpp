// Quality and speed of the planner. The table against the solvers is made by labs.mjs, which calls `lab` and
// `decode`.
//
//   placement_bench lab SEED DIR [NODES]   one random lab of 3-8 nodes, or a site of NODES: DIR/SEED.lp, and
//   a JSON line
//                                     with our values
//   placement_bench decode SEED [NODES]   a solver's "name value" lines from stdin: checked and valued; a
//   JSON line placement_bench digest [COUNT]    a hash of the plan of each of COUNT labs, to be compared
//   between builds placement_bench bound NODES COUNT MS [SEEDS]   random sites against the printed bound,
//   with each of SEEDS seeds of the
//                                     search: a row per seed
//   placement_bench limits [NODES]    sites of 8 to 10,000 nodes with a clock that cuts: what a limit took; a
//   table placement_bench scale [NODES [SIZE_FACTOR]]  first plan, coverage, memory, re-plan after losses: a
//   table
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <string_view>

#include "core/placement.hpp"
#include "core/prng.hpp"
#include "labs.hpp"
#include "milp.hpp"
#include "plan_checker.hpp"
#include "wire/plan_json.hpp"

namespace {

using namespace aiv;
// All times are processor time of this (single-threaded) process, so that a busy machine does not blur them.
struct Clock {
  using time_point = std::clock_t;
  static time_point now() { return std::clock(); }
};

double ms_since(Clock::time_point start) {
  return 1000.0 * static_cast<double>(Clock::now() - start) / CLOCKS_PER_SEC;
}

// A lab of 3-8 nodes, or with `nodes` > 0 a site of that many: those of `bound`.
PlanInput lab(std::uint64_t seed, int nodes) {
  constexpr double kLoads[] = {0.8, 1.3, 2.0};
  test::LabShape shape;
  if (nodes > 0) {
    shape.nodes = nodes;
    shape.load = seed % 2 == 0 ? 1.3 : 2.0;
    return test::random_lab(1000 + seed, shape);
  }
  shape.nodes = 3 + static_cast<int>(seed % 6);
  shape.load = kLoads[seed / 6 % 3];
  return test::random_lab(seed, shape);
}

struct Timed {
  Plan plan;
  double ms = 0;
};

Timed timed_plan(const PlanInput& input, std::int64_t limit_ms, std::uint64_t seed = 1) {
  const auto start = Clock::now();
  PlanOptions options;
  options.seed = seed;
  options.steps = steps_for_limit(input, limit_ms);
  Timed result{.plan = plan(input, options), .ms = ms_since(start)};
  return result;
}

int run_lab(std::uint64_t seed, const std::string& dir, int nodes) {
  const PlanInput input = lab(seed, nodes);
  std::ofstream(dir + "/" + std::to_string(seed) + ".lp") << bench::to_lp(input);
  std::size_t devices = 0;
  for (const auto& node : input.nodes) devices += node.devices.size();
  const Timed first = timed_plan(input, 0);
  const Timed quick = timed_plan(input, 50);
  const Timed full = timed_plan(input, 1000);
  const auto faults = test::check_plan(input, full.plan);
  std::printf(
      "{\"seed\":%llu,\"nodes\":%zu,\"devices\":%zu,\"models\":%zu,\"first\":%.6f,\"ms50\":%.6f,\"ms1000\":%."
      "6f,"
      "\"bound\":%.6f,\"first_elapsed_ms\":%.3f,\"ms50_elapsed\":%.1f,\"ms1000_elapsed\":%.1f,\"faults\":%zu}"
      "\n",
      static_cast<unsigned long long>(seed), input.nodes.size(), devices, input.models.size(),
      first.plan.value, quick.plan.value, full.plan.value, full.plan.upper_bound, first.ms, quick.ms, full.ms,
      faults.size());
  for (const auto& fault : faults)
    std::fprintf(stderr, "seed %llu: %s\n", static_cast<unsigned long long>(seed), fault.c_str());
  return faults.empty() ? 0 : 1;
}

int run_decode(std::uint64_t seed, int nodes) {
  PlanInput input = lab(seed, nodes);
  const auto placements = bench::from_solution(input, std::cin);
  const double value = test::value_of(input, placements);
  // The solvers keep rows to about 1e-6 of MiBs; the checker counts bytes.
  for (auto& node : input.nodes) {
    for (auto& device : node.devices) device.free_bytes += 4096;
  }
  const auto faults = test::check_placements(input, placements);
  std::printf("{\"value\":%.6f,\"faults\":%zu}\n", value, faults.size());
  for (const auto& fault : faults)
    std::fprintf(stderr, "solver, seed %llu: %s\n", static_cast<unsigned long long>(seed), fault.c_str());
  return 0;
}

// The sites with one seed of the search; false if the checker found a fault.
bool bound_row(int nodes, int count, std::int64_t limit_ms, std::uint64_t seed, double target) {
  double sum = 0;
  double worst = 0;
  double first_sum = 0;
  double slowest = 0;
  std::size_t faults = 0;
  int beyond = 0;
  for (int i = 1; i <= count; ++i) {
    const PlanInput input = lab(static_cast<std::uint64_t>(i), nodes);
    const Timed first = timed_plan(input, 0);
    const Timed full = timed_plan(input, limit_ms, seed);
    faults += test::check_plan(input, full.plan).size();
    const double bound = full.plan.upper_bound;
    const double gap = 100 * (bound - full.plan.value) / bound;
    first_sum += 100 * (bound - first.plan.value) / bound;
    sum += gap;
    worst = std::max(worst, gap);
    beyond += gap > target ? 1 : 0;
    slowest = std::max(slowest, full.ms);
  }
  std::printf("| %d | %d | %llu | %.2f %% | %.2f %% | %.2f %% | %d | %.0f ms | %zu |\n", nodes, count,
              static_cast<unsigned long long>(seed), first_sum / count, sum / count, worst, beyond, slowest,
              faults);
  std::fflush(stdout);
  return faults == 0;
}

int run_bound(int nodes, int count, std::int64_t limit_ms, int seeds) {
  const double target = nodes <= 20 ? 1.0 : 2.0;
  std::printf(
      "Below the bound, sites with loads of 1.3 and 2.0, limit %lld ms, processor time\n"
      "| nodes | sites | search seed | first plan | mean | worst | beyond %.0f %% | slowest | faults |\n",
      static_cast<long long>(limit_ms), target);
  bool sound = true;
  for (int seed = 1; seed <= seeds; ++seed) {
    sound = bound_row(nodes, count, limit_ms, static_cast<std::uint64_t>(seed), target) && sound;
  }
  return sound ? 0 : 1;
}

// FNV-1a, 64 bits (Fowler, Noll, Vo).
std::uint64_t digest(std::string_view text) {
  std::uint64_t hash = 14695981039346656037ULL;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 1099511628211ULL;
  return hash;
}

// What `aiv plan --json` would print for labs of every kind, as one number per lab: equal for every compiler.
int run_digest(int count) {
  for (int i = 1; i <= count; ++i) {
    test::LabShape shape;
    shape.nodes = i % 8 == 0 ? 40 : 2 + i % 20;
    shape.load = i % 3 == 0 ? 2.0 : 1.1;
    shape.current = i % 2 == 0;
    const PlanInput input = test::random_lab(static_cast<std::uint64_t>(5000 + i), shape);
    PlanOptions options;
    options.seed = static_cast<std::uint64_t>(i);
    options.steps = i % 5 == 0 ? 0 : 2000;
    std::printf("%d %016llx\n", i,
                static_cast<unsigned long long>(digest(dump_json(wire::to_json(plan(input, options))))));
  }
  return 0;
}

double rss_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return static_cast<double>(usage.ru_maxrss) / 1024;
}

// Models that could have a replica in an empty site, and those that have one.
void print_coverage(const PlanInput& input, const Plan& plan) {
  std::size_t hopeless = 0;
  for (const auto& u : plan.unplaced) hopeless += u.reason != UnplacedReason::kNoRoom ? 1 : 0;
  const std::size_t could = input.models.size() - hopeless;
  std::printf(
      "  covered: %zu of %zu models that fit an empty site (%.2f %%)\n",
      input.models.size() - plan.unplaced.size(), could,
      100.0 * static_cast<double>(input.models.size() - plan.unplaced.size()) / static_cast<double>(could));
}

void print_losses(Planner& planner, const PlanInput& input) {
  std::vector<double> times;
  Prng prng(7);
  for (int i = 0; i < 2000; ++i) {
    const auto& node = input.nodes[prng.below(static_cast<std::uint32_t>(input.nodes.size()))];
    const auto start = Clock::now();
    planner.lose_node(node.id);
    times.push_back(ms_since(start));
    if (node.state == NodePlanState::kSchedulable) planner.return_node(node.id);
  }
  std::sort(times.begin(), times.end());
  std::printf("  a node lost (2000 times): p50 %.3f ms, p99 %.3f ms, max %.3f ms\n", times[times.size() / 2],
              times[times.size() * 99 / 100], times.back());
  const auto start = Clock::now();
  for (std::size_t n = 0; n < input.nodes.size() / 20; ++n) planner.lose_node(input.nodes[n].id);
  std::printf("  5 %% of the nodes lost at once: %.1f ms\n", ms_since(start));
}

int run_scale(int nodes, double size_factor) {
  test::LabShape shape;
  shape.nodes = nodes;
  shape.models = nodes;
  shape.two_devices = true;
  shape.size_factor = size_factor;
  const PlanInput input = test::random_lab(1, shape);
  std::size_t devices = 0;
  Bytes there = 0;
  Bytes wanted = 0;
  for (const auto& node : input.nodes) {
    devices += node.devices.size();
    for (const auto& device : node.devices) there += device.free_bytes;
  }
  for (const auto& model : input.models) wanted += 2 * model.variants[0].bytes;
  std::printf("%zu nodes, %zu GPUs, %zu models, load %.2f\n", input.nodes.size(), devices,
              input.models.size(), static_cast<double>(wanted) / static_cast<double>(there));
  const double input_mib = rss_mib();
  const auto start = Clock::now();
  Planner planner(input);
  planner.first_plan();
  const double first_ms = ms_since(start);
  PlanOptions options;
  options.with_steps = false;
  const Plan first = planner.result(options);
  std::printf("  first plan: %.0f ms, %.2f %% below the bound\n", first_ms,
              100 * (first.upper_bound - first.value) / first.upper_bound);
  print_coverage(input, first);
  options.steps = steps_for_limit(input, 10'000);
  const auto search_start = Clock::now();
  planner.improve(options);
  const Plan improved = planner.result(options);
  std::printf("  limit 10 s: %.2f %% below the bound (%.1f s)\n",
              100 * (improved.upper_bound - improved.value) / improved.upper_bound,
              ms_since(search_start) / 1000);
  print_coverage(input, improved);
  print_losses(planner, input);
  std::printf("  memory: %.0f MiB at the most, %.0f MiB of it the input\n", rss_mib(), input_mib);
  return 0;
}

// Processor time of a plan that a clock cuts (ten times the limit's steps), its share of the limit, and what
// was placed.
int run_limits(int only) {
  std::printf("| nodes | current | limit ms | took ms | over | models with a replica | below the bound |\n");
  for (const int nodes : {8, 20, 200, 2'000, 10'000}) {
    if (only > 0 && nodes != only) continue;
    for (const bool current : {false, true}) {
      test::LabShape shape;
      shape.nodes = nodes;
      if (nodes >= 2'000) shape.models = nodes;
      shape.current = current;
      const PlanInput input = test::random_lab(1, shape);
      for (const std::int64_t limit : {50, 100, 200, 500, 1000}) {
        PlanOptions options;
        options.steps = 10 * steps_for_limit(input, limit);
        const auto start = Clock::now();
        options.spent = [start, limit] { return ms_since(start) / static_cast<double>(limit); };
        const Plan result = plan(input, options);
        const double took = ms_since(start);
        const double gap = 100 * (result.upper_bound - result.value) / std::max(1e-9, result.upper_bound);
        std::printf("| %d | %s | %lld | %.1f | %+.1f %% | %zu of %zu | %.2f %% |\n", nodes,
                    current ? "yes" : "no", static_cast<long long>(limit), took,
                    100 * (took / static_cast<double>(limit) - 1),
                    input.models.size() - result.unplaced.size(), input.models.size(), gap);
        std::fflush(stdout);
      }
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "";
  const auto argument = [&](int i, const char* fallback) { return argc > i ? argv[i] : fallback; };
  if (what == "lab" && argc > 3)
    return run_lab(std::strtoull(argv[2], nullptr, 10), argv[3], std::atoi(argument(4, "0")));
  if (what == "decode" && argc > 2)
    return run_decode(std::strtoull(argv[2], nullptr, 10), std::atoi(argument(3, "0")));
  if (what == "digest") return run_digest(std::atoi(argument(2, "40")));
  if (what == "bound" && argc > 4) {
    return run_bound(std::atoi(argv[2]), std::atoi(argv[3]), std::atol(argv[4]), std::atoi(argument(5, "1")));
  }
  if (what == "limits") return run_limits(std::atoi(argument(2, "0")));
  if (what == "scale") return run_scale(std::atoi(argument(2, "10000")), std::atof(argument(3, "1")));
  std::fprintf(stderr,
               "usage: placement_bench lab SEED DIR [NODES] | decode SEED [NODES] | digest [COUNT] | bound "
               "NODES COUNT MS [SEEDS] | limits [NODES] | scale [NODES [SIZE_FACTOR]]\n");
  return 2;
}
