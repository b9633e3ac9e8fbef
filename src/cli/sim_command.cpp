#include "cli/sim_command.hpp"

#include <CLI/CLI.hpp>
#include <cstdio>
#include <memory>
#include <string>

#include "base/json.hpp"
#include "base/units.hpp"
#include "sim/world.hpp"

namespace aiv {
namespace {

constexpr int kExitFile = 1;
constexpr int kExitLiveness = 128;
constexpr int kExitSafety = 129;

struct SimArguments {
  std::string scenario;
  std::uint64_t seed = 1;
  std::uint64_t seeds = 1;
  bool json = false;
  bool log_hash = false;
  bool log = false;
};

Json to_json(const sim::RunResult& run, const std::string& scenario, std::uint64_t seed) {
  Json json;
  json["scenario"] = scenario;
  json["seed"] = seed;
  json["simulated_ms"] = run.simulated_ms;
  json["events"] = run.events;
  json["faults"] = run.faults;
  json["admin_writes"] = run.admin_writes;
  json["requests"] = {{"total", run.requests.total},   {"good", run.requests.good},     {"bad", run.requests.bad()},
                      {"refused", run.requests.refused}, {"broken", run.requests.broken}, {"late", run.requests.late},
                      {"resumed", run.requests.resumed}, {"limited", run.requests.limited}};
  json["worst_window"] = run.worst_window;
  json["converged_ms"] = run.converged_ms;
  json["route_gone_ms"] = run.times.route_gone_ms;
  json["replaced_ms"] = run.times.replaced_ms;
  json["violations"] = Json::array();
  for (const sim::Violation& violation : run.violations) {
    json["violations"].push_back({{"rule", violation.rule}, {"at_ms", violation.at_ms}, {"detail", violation.detail}});
  }
  json["log_hash"] = run.log_hash;
  return json;
}

void print_text(const sim::RunResult& run, const std::string& scenario, std::uint64_t seed) {
  std::printf("%s seed %llu: %s simulated, %lld events, %lld faults; requests %lld, good %lld; ", scenario.c_str(),
              static_cast<unsigned long long>(seed), format_duration_ms(run.simulated_ms).c_str(), static_cast<long long>(run.events),
              static_cast<long long>(run.faults), static_cast<long long>(run.requests.total), static_cast<long long>(run.requests.good));
  std::printf(run.violations.empty() ? "all rules held\n" : "%zu rules broken\n", run.violations.size());
  for (const sim::Violation& violation : run.violations) {
    std::printf("  %s at %.3f s: %s\n", violation.rule.c_str(), static_cast<double>(violation.at_ms) / 1000.0,
                printable(violation.detail, 400).c_str());
  }
}

int run_sim(const SimArguments& arguments) {
  const auto scenario = sim::read_scenario(arguments.scenario);
  if (!scenario) {
    std::fprintf(stderr, "aiv sim: %s\n", printable(scenario.error().message(), 400).c_str());
    return kExitFile;
  }
  int exit_code = 0;
  for (std::uint64_t seed = arguments.seed; seed < arguments.seed + arguments.seeds; ++seed) {
    sim::EventLog::Sink sink;
    if (arguments.log) sink = [](const std::string& line) { std::printf("%s\n", line.c_str()); };
    sim::World world(*scenario, seed, sink);
    const auto run = world.run();
    if (!run) {
      std::fprintf(stderr, "aiv sim: %s: %s\n", printable(arguments.scenario, 200).c_str(), printable(run.error().message(), 400).c_str());
      return kExitFile;
    }
    if (arguments.json) std::printf("%s\n", dump_json(to_json(*run, scenario->name, seed)).c_str());
    else if (arguments.log_hash) std::printf("%s\n", run->log_hash.c_str());
    else if (arguments.seeds == 1 || !run->violations.empty()) print_text(*run, scenario->name, seed);
    if (run->safety_broken) exit_code = kExitSafety;
    else if (run->liveness_broken && exit_code == 0) exit_code = kExitLiveness;
  }
  if (arguments.seeds > 1 && !arguments.json && !arguments.log_hash) {
    std::printf("%s: %llu seeds from %llu: %s\n", scenario->name.c_str(), static_cast<unsigned long long>(arguments.seeds),
                static_cast<unsigned long long>(arguments.seed), exit_code == 0 ? "all rules held" : "rules were broken");
  }
  if (std::fflush(stdout) != 0) {
    std::fprintf(stderr, "aiv sim: cannot write to standard output\n");
    return kExitFile;
  }
  return exit_code;
}

}  // namespace

void add_sim_command(CLI::App& app, int& exit_code) {
  auto arguments = std::make_shared<SimArguments>();
  CLI::App* verb = app.add_subcommand("sim", "A cluster in a virtual clock, with faults: are the rules kept?");
  verb->add_option("scenario", arguments->scenario, "scenario file (TOML)")->required();
  verb->add_option("--seed", arguments->seed, "all chance comes from it")->capture_default_str();
  verb->add_option("--seeds", arguments->seeds, "that many runs, with seeds counting up")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1'000'000}))
      ->capture_default_str();
  verb->add_flag("--json", arguments->json, "one JSON object per run");
  verb->add_flag("--log-hash", arguments->log_hash, "only the hash of the event log");
  verb->add_flag("--log", arguments->log, "print the event log");
  verb->callback([arguments, &exit_code] { exit_code = run_sim(*arguments); });
}

}  // namespace aiv
