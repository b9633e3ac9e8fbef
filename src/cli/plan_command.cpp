#include "cli/plan_command.hpp"

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <string>

#include "base/exit_code.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "base/units.hpp"
#include "cli/commands.hpp"
#include "core/placement.hpp"
#include "wire/plan_json.hpp"

namespace aiv {
namespace {

constexpr std::size_t kFileBytesMax = 512U << 20U;
constexpr std::int64_t kTimeLimitMsMax = 3'600'000;

struct PlanArguments {
  std::string input;
  std::int64_t time_limit_ms = 1000;
  std::string drop;
  std::string server;
  std::string key_file;
  std::uint64_t seed = 1;
  bool json = false;
};

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

std::string devices_text(const std::vector<PlanPart>& parts) {
  std::string text;
  for (const PlanPart& part : parts) {
    if (!text.empty()) text += " + ";
    text += printable(part.device, 64);
    if (parts.size() > 1) text += " (" + format_bytes(part.bytes) + ")";
  }
  return text;
}

void print_table(const Plan& plan) {
  std::size_t width = 5;
  for (const PlanPlacement& p : plan.placements) width = std::max(width, p.model.size() + p.variant.size() + 1);
  width = std::min<std::size_t>(width, 60);
  for (const PlanPlacement& p : plan.placements) {
    Bytes bytes = 0;
    for (const PlanPart& part : p.parts) bytes += part.bytes;
    std::printf("%-*s  %10s  %s%s\n", static_cast<int>(width), printable(p.model + ":" + p.variant, 60).c_str(),
                format_bytes(bytes).c_str(), devices_text(p.parts).c_str(), p.keep ? "" : "  (load)");
  }
  for (const Unplaced& u : plan.unplaced) {
    std::printf("not placed: %s: %s\n", printable(u.model, 60).c_str(), printable(describe(u), 300).c_str());
  }
  if (!plan.steps.empty()) std::printf("steps:\n");
  for (std::size_t i = 0; i < plan.steps.size(); ++i) {
    const PlanStep& step = plan.steps[i];
    std::printf("%4zu %-6s %s  %s", i + 1, std::string(to_string(step.action)).c_str(),
                printable(step.model + ":" + step.variant, 60).c_str(), devices_text(step.parts).c_str());
    if (step.action == StepAction::kMove) std::printf("  from %s", devices_text(step.from_parts).c_str());
    if (step.reason != StepReason::kNone) std::printf("  (%s)", describe(step.reason).c_str());
    std::printf("\n");
  }
  std::printf("value %.1f of at most %.1f; %s to load\n", plan.value, plan.upper_bound,
              format_bytes(plan.bytes_moved).c_str());
}

Result<PlanInput> read_input(const std::string& path) {
  auto text = read_file(path, kFileBytesMax);
  if (!text) return std::unexpected(text.error());
  auto json = parse_json(*text);
  if (!json) return std::unexpected(json.error());
  return wire::plan_input_from_json(*json);
}

ExitCode run_plan(const PlanArguments& arguments) {
  const auto input = read_input(arguments.input);
  if (!input) {
    std::fprintf(stderr, "aiv plan: %s: %s\n", printable(arguments.input, 200).c_str(),
                 printable(input.error().message(), 400).c_str());
    return ExitCode::kFailure;
  }
  const auto start = Clock::now();
  PlanOptions options;
  options.seed = arguments.seed;
  options.steps = steps_for_limit(*input, arguments.time_limit_ms);
  // The budget of steps ends the search well before the limit on a machine that is not overloaded; where the clock cuts
  // something, the plan says "truncated" and is not reproducible.
  const auto limit = static_cast<double>(arguments.time_limit_ms);
  if (limit > 0) options.spent = [start, limit] { return ms_since(start) / limit; };
  const Plan result = plan(*input, options);
  const double elapsed = ms_since(start);
  if (!arguments.json) {
    print_table(result);
    return ExitCode::kOk;
  }
  Json json = wire::to_json(result);
  json["elapsed_ms"] = static_cast<double>(static_cast<std::int64_t>(elapsed * 1000)) / 1000;
  const std::string text = dump_json(json) + "\n";
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    std::fprintf(stderr, "aiv plan: cannot write to standard output\n");
    return ExitCode::kFailure;
  }
  return ExitCode::kOk;
}

}  // namespace

void add_plan_command(CLI::App& app, int& exit_code) {
  auto arguments = std::make_shared<PlanArguments>();
  CLI::App* verb = app.add_subcommand("plan", "What would run where, and what if a node dies; touches nothing");
  verb->add_option("--input", arguments->input, "cluster file (JSON)");
  verb->add_option("--drop", arguments->drop, "ask the running cluster what happens if this node dies");
  verb->add_option("--server", arguments->server, "URL of the server, for --drop");
  verb->add_option("--key-file", arguments->key_file, "file with the API key, for --drop");
  verb->add_flag("--json", arguments->json, "print JSON instead of a table");
  verb->add_option("--time-limit-ms", arguments->time_limit_ms, "0: first plan only")
      ->check(CLI::Range(std::int64_t{0}, kTimeLimitMsMax))
      ->capture_default_str();
  verb->add_option("--seed", arguments->seed, "of the search's random numbers")->capture_default_str();
  verb->callback([arguments, &exit_code] {
    if (!arguments->drop.empty()) {
      exit_code = cli::run_drop(arguments->drop, arguments->server, arguments->key_file, arguments->json);
    } else if (arguments->input.empty()) {
      throw CLI::RequiredError("--input or --drop");
    } else {
      exit_code = static_cast<int>(run_plan(*arguments));
    }
  });
}

}  // namespace aiv
