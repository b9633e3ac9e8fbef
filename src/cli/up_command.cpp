#include <fmt/format.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <iostream>
#include <thread>

#include "base/units.hpp"
#include "cli/api_client.hpp"
#include "cli/commands.hpp"

namespace aiv::cli {
namespace {

struct UpOptions {
  ServerOptions server;
  std::string model;
  std::string name;
  std::string replicas = "1";
  int priority = 0;
  bool pinned = false;
  bool on_demand = false;
  std::vector<std::string> on;
  std::vector<std::string> tolerates;
  std::int64_t ctx = 0;
  int slots = 0;
  std::string kind;
  std::string pooling;
  std::vector<std::string> aliases;
  bool dry_run = false;
  bool pending = false;
  bool no_wait = false;
  std::string timeout = "10m";
};

void interrupted(int) {
  constexpr std::string_view kText =
      "\naiv: interrupted; the work goes on (aiv ps shows it, aiv down NAME ends it)\n";
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, kText.data(), kText.size());
  ::_exit(static_cast<int>(ExitCode::kInterrupted));
}

// "qwen3-8b: 1 of 2 ready, loading on n2 (43 %)"
std::string progress_line(const std::string& name, const Json& deployment, const Json& replicas) {
  std::string parts;
  for (const Json& replica : replicas) {
    if (replica.value("deployment", "") != name || replica.value("state", "") == "ready") continue;
    const double progress = replica.value("progress", 0.0);
    parts += fmt::format(", {} on {}", replica.value("state", ""), replica.value("node", "?"));
    if (progress > 0) parts += fmt::format(" ({:.0f} %)", progress * 100);
  }
  const Json counts = deployment.value("replicas", Json::object());
  return fmt::format("{}: {} of {} ready{}", name, counts.value("ready", 0), counts.value("min", 0), parts);
}

// "2" or "1..4".
Result<Json> read_replicas(const std::string& text) {
  constexpr int kMost = 1000;
  const auto number = [](std::string_view digits) {
    const bool sound = !digits.empty() && digits.size() <= 4 &&
                       digits.find_first_not_of("0123456789") == std::string_view::npos;
    return sound ? std::stoi(std::string(digits)) : -1;
  };
  const auto dots = text.find("..");
  const int least = number(std::string_view(text).substr(0, dots));
  const int most = dots == std::string::npos ? least : number(std::string_view(text).substr(dots + 2));
  if (least < 0 || most < least || most > kMost) {
    return fail(ErrorCode::kInvalidArgument, "is N or MIN..MAX, at most 1000",
                "--replicas " + printable(text, 40));
  }
  return Json{{"min", least}, {"max", most}};
}

class ProgressPrinter {
 public:
  void show(const std::string& line) {
    if (line == last_) return;
    last_ = line;
    if (terminal_) {
      std::cerr << "\r\x1b[K" << line << std::flush;
    } else {
      std::cerr << line << "\n";
    }
  }
  void end() {
    if (terminal_ && !last_.empty()) std::cerr << "\n";
    last_.clear();
  }

 private:
  bool terminal_ = ::isatty(STDERR_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr &&
                   std::string_view(std::getenv("TERM") != nullptr ? std::getenv("TERM") : "dumb") != "dumb";
  std::string last_;
};

// The controller has accepted the deployment; clients find it once the gateway has heard of it too,
// milliseconds later.
void wait_until_known(const ApiClient& api, const std::string& name) {
  for (int tries = 0; tries < 200; ++tries) {
    const auto answer = api.exchange("GET", "/v1/models/" + name);
    if (!answer || answer->status != 404) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(25));
  }
}

int wait_until_ready(const ApiClient& api, const UpOptions& options, const std::string& name,
                     std::int64_t limit_ms) {
  std::signal(SIGINT, interrupted);
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(limit_ms);
  ProgressPrinter progress;
  for (;;) {
    const auto deployment = api.call("GET", "/aiv/v1/deployments/" + name);
    if (!deployment) {
      progress.end();
      return report(deployment.error());
    }
    const std::string state = deployment->value("state", "");
    if (state == "ready") {
      const auto replicas = api.call("GET", "/aiv/v1/replicas");
      if (replicas) progress.show(progress_line(name, *deployment, (*replicas)["items"]));
      progress.end();
      if (options.server.json) {
        print(dump_json(*deployment, 2) + "\n");
      } else {
        print(fmt::format("{} is ready; talk to it: aiv chat {}\n", name, name));
      }
      return 0;
    }
    const std::string reason = deployment->value("reason", "");
    if (state == "failed" || (state == "pending" && !options.pending && !reason.empty() &&
                              deployment->value("placeable", true) == false)) {
      progress.end();
      return report({state == "failed" ? ErrorCode::kInternal : ErrorCode::kRefused, reason, name});
    }
    const auto replicas = api.call("GET", "/aiv/v1/replicas");
    std::string line = progress_line(name, *deployment, replicas ? (*replicas)["items"] : Json::array());
    if (!reason.empty()) line += " - " + printable(reason);
    progress.show(line);
    if (std::chrono::steady_clock::now() > deadline) {
      progress.end();
      return report(
          {ErrorCode::kTimeout,
           fmt::format("not ready after {}{}", options.timeout, reason.empty() ? "" : ": " + reason), name},
          "aiv ps; the load goes on");
    }
    std::this_thread::sleep_for(kPollPeriod);
  }
}

int run_up(const UpOptions& options) {
  const auto limit = duration_option("--timeout", options.timeout);
  if (!limit) return report_usage(limit.error());
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());

  Json request = Json::object();
  std::error_code ignored;
  const bool looks_like_path =
      options.model.find('/') != std::string::npos || options.model.ends_with(".gguf");
  std::string model = options.model;
  if (looks_like_path && std::filesystem::exists(model, ignored)) {
    model = std::filesystem::absolute(model, ignored).lexically_normal().string();
  }
  request["model"] = model;
  if (!options.name.empty()) request["name"] = options.name;
  const auto replicas = read_replicas(options.replicas);
  const auto labels = parse_labels(options.on);
  if (!replicas || !labels) return report_usage(replicas ? labels.error() : replicas.error());
  request["replicas"] = *replicas;
  // None is kept loaded: the first request loads one, and it goes again when nobody asks.
  if (options.on_demand) request["replicas"]["min"] = 0;
  if (options.pinned) request["pinned"] = true;
  if (!labels->empty()) request["on"] = *labels;
  if (options.priority > 0) request["priority"] = options.priority;
  if (!options.tolerates.empty()) request["tolerates"] = options.tolerates;
  if (options.ctx > 0) request["ctx"] = options.ctx;
  if (options.slots > 0) request["slots"] = options.slots;
  if (!options.kind.empty()) request["kind"] = options.kind;
  if (!options.pooling.empty()) request["pooling"] = options.pooling;
  if (!options.aliases.empty()) request["aliases"] = options.aliases;
  if (options.dry_run) request["dry_run"] = true;
  if (options.pending) request["pending"] = true;

  const auto made = api->call("POST", "/aiv/v1/deployments", request);
  if (!made) return report(made.error());
  if (options.dry_run) {
    print(dump_json(*made, 2) + "\n");
    return 0;
  }
  const std::string name = made->value("name", "");
  if (options.no_wait || options.on_demand) {
    if (!options.no_wait) wait_until_known(*api, name);
    print(options.server.json ? dump_json(*made, 2) + "\n" : name + "\n");
    return 0;
  }
  return wait_until_ready(*api, options, name, *limit);
}

}  // namespace

void add_up_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<UpOptions>();
  CLI::App* verb =
      app.add_subcommand("up", "Deploy a model, or change its deployment, and wait until it answers");
  verb->add_option("model", options->model, "GGUF file, or the name of a known model")->required();
  verb->add_option("--name", options->name, "Name clients ask for (default: from the file)");
  verb->add_option("--replicas", options->replicas, "Engine processes, each on another node: N, or MIN..MAX");
  verb->add_option("--priority", options->priority,
                   "1 to 100 (default 10): whose replicas the room goes to first")
      ->check(CLI::Range(1, 100));
  verb->add_flag("--pin", options->pinned, "Never unload its replicas to make room for others");
  verb->add_flag("--on-demand", options->on_demand, "Load on the first request, unload when idle");
  verb->add_option("--on", options->on, "Only nodes with these labels: zone=a")->delimiter(',');
  verb->add_option("--tolerate", options->tolerates, "Taints of nodes that it may go to all the same")
      ->delimiter(',');
  verb->add_option("--ctx", options->ctx,
                   "Context of each slot in tokens (default: up to 4096, as the model was trained)")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 30));
  verb->add_option("--slots", options->slots, "Requests a replica serves at once")->check(CLI::Range(1, 256));
  verb->add_option("--kind", options->kind, "What it serves (default: what the model was made for)")
      ->check(CLI::IsMember({"chat", "embedding", "rerank"}));
  verb->add_option("--pooling", options->pooling,
                   "How the vectors of an input's tokens become one (default: the model's)")
      ->check(CLI::IsMember({"mean", "cls", "last"}));
  verb->add_option("--alias", options->aliases, "A further name that clients may say (may be given again)");
  verb->add_flag("--dry-run", options->dry_run, "Print what would happen, change nothing");
  verb->add_flag("--pending", options->pending, "Keep a deployment that fits nowhere yet");
  verb->add_flag("--no-wait", options->no_wait, "Return as soon as the server has accepted it");
  verb->add_option("--timeout", options->timeout, "How long to wait (default 10m)");
  add_server_options(*verb, options->server);
  verb->callback([options, &exit_code] { exit_code = run_up(*options); });
}

void add_down_command(CLI::App& app, int& exit_code) {
  struct DownOptions {
    ServerOptions server;
    std::string name;
  };
  auto options = std::make_shared<DownOptions>();
  CLI::App* verb = app.add_subcommand("down", "Stop a deployment and free its VRAM");
  verb->add_option("name", options->name, "Deployment")->required();
  add_server_options(*verb, options->server);
  verb->callback([options, &exit_code] {
    const auto api = ApiClient::connect(options->server);
    if (!api) {
      exit_code = report(api.error());
      return;
    }
    const auto done = api->call("DELETE", "/aiv/v1/deployments/" + options->name);
    if (!done) {
      exit_code = report(done.error());
      return;
    }
    print(options->server.json ? dump_json(*done, 2) + "\n" : options->name + " is stopped\n");
  });
}

}  // namespace aiv::cli
