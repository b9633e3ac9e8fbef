// `aiv wait`, `aiv top` and `aiv doctor`: waiting for a state, looking at one, and what is wrong with it.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <iostream>
#include <thread>

#include "base/units.hpp"
#include "cli/api_client.hpp"
#include "cli/commands.hpp"
#include "cli/table.hpp"

namespace aiv::cli {
namespace {

// ---- wait
// --------------------------------------------------------------------------------------------------

struct WaitOptions {
  ServerOptions server;
  std::string what;
  std::string goal = "ready";
  std::string timeout = "10m";
};

struct Target {
  std::string path;  // of the API
  std::string name;
};

Result<Target> target_of(const std::string& what) {
  const auto slash = what.find('/');
  const std::string kind = slash == std::string::npos ? "deployment" : what.substr(0, slash);
  const std::string name = slash == std::string::npos ? what : what.substr(slash + 1);
  for (const char* known : {"deployment", "node", "replica"}) {
    if (kind == known && !name.empty()) return Target{fmt::format("/aiv/v1/{}s/{}", kind, name), kind + "/" + name};
  }
  return fail(ErrorCode::kInvalidArgument, "wait for deployment/NAME, node/NAME or replica/ID", printable(what, 80));
}

int run_wait(const WaitOptions& options) {
  const auto limit = duration_option("--timeout", options.timeout);
  if (!limit) return report_usage(limit.error());
  const auto target = target_of(options.what);
  if (!target) return report_usage(target.error());
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(*limit);
  std::string last = "is not there";
  for (;;) {
    const auto answer = api->exchange("GET", target->path);
    if (!answer) return report(answer.error());
    const bool there = answer->status == 200;
    if (!there && answer->status != 404) {
      const auto failed = api->call("GET", target->path);
      if (!failed) return report(failed.error());
    }
    const std::string state = there ? text_at(answer->body, "state") : "";
    const std::string reason = there ? text_at(answer->body, "reason") : "";
    if (options.goal == "gone" ? !there : there && state == options.goal) {
      if (options.server.json) print(dump_json(there ? answer->body : Json::object(), 2) + "\n");
      return 0;
    }
    if (there) last = "is " + state + (reason.empty() ? "" : ": " + reason);
    if (std::chrono::steady_clock::now() > deadline) {
      return report({ErrorCode::kTimeout, fmt::format("not {} after {}; it {}", options.goal, options.timeout, last),
                     target->name});
    }
    std::this_thread::sleep_for(kPollPeriod);
  }
}

// ---- top ---------------------------------------------------------------------------------------------------

struct TopOptions {
  ServerOptions server;
  std::string interval = "1s";
};

std::string bar(std::int64_t part, std::int64_t whole) {
  constexpr std::int64_t kCells = 10;
  const std::int64_t full = whole > 0 ? std::clamp<std::int64_t>(part * kCells / whole, 0, kCells) : 0;
  return std::string(static_cast<std::size_t>(full), '#') + std::string(static_cast<std::size_t>(kCells - full), '.');
}

Result<Json> sample(const ApiClient& api) {
  Json all = Json::object();
  for (const char* resource : {"nodes", "devices", "deployments", "replicas"}) {
    auto list = api.call("GET", std::string("/aiv/v1/") + resource);
    if (!list) return std::unexpected(list.error());
    all[resource] = std::move((*list)["items"]);
  }
  return all;
}

std::string top_text(const Json& all) {
  Table gpus({"GPU", "NAME", "USED", "", "OURS", "OTHERS", "FREE", "STATE"});
  for (const Json& device : all["devices"]) {
    const std::int64_t vram = number_at(device, "vram_bytes");
    const std::int64_t free = number_at(device, "free_bytes");
    gpus.add({text_at(device, "id"), text_at(device, "name"), bar(vram - free, vram),
              fmt::format("{} %", vram > 0 ? (vram - free) * 100 / vram : 0), format_bytes(number_at(device, "reserved_bytes")),
              format_bytes(number_at(device, "foreign_bytes")), format_bytes(free), text_at(device, "state")});
  }
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> busy;
  for (const Json& replica : all["replicas"]) {
    auto& [in_use, slots] = busy[text_at(replica, "deployment")];
    in_use += number_at(replica, "slots_busy");
    if (text_at(replica, "state") == "ready") slots += number_at(replica, "slots");
  }
  Table models({"NAME", "STATE", "READY", "BUSY", "SURVIVES A NODE", "REASON"});
  for (const Json& deployment : all["deployments"]) {
    const Json counts = deployment.value("replicas", Json::object());
    const std::string name = text_at(deployment, "name");
    models.add({name, text_at(deployment, "state"), fmt::format("{}/{}", number_at(counts, "ready"), number_at(counts, "min")),
                fmt::format("{}/{}", busy[name].first, busy[name].second),
                deployment.value("survives_node_loss", false) ? "yes" : "no", text_at(deployment, "reason")});
  }
  return gpus.text() + "\n" + models.text();
}

int run_top(const TopOptions& options) {
  const auto interval = duration_option("--interval", options.interval, 100);
  if (!interval) return report_usage(interval.error());
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const bool live = !options.server.json && ::isatty(STDOUT_FILENO) == 1;
  for (;;) {
    const auto all = sample(*api);
    if (!all) return report(all.error());
    if (options.server.json) {
      print(dump_json(*all, 2) + "\n");
      return 0;
    }
    // Home and clear to the end: no flicker, and the scroll-back stays as it was.
    print((live ? "\x1b[H\x1b[J" : "") + top_text(*all));
    if (!live) return 0;
    std::this_thread::sleep_for(std::chrono::milliseconds(*interval));
  }
}

// ---- doctor ------------------------------------------------------------------------------------------------

struct Finding {
  std::string where;
  std::string what;
  std::string next;
};

void look_at_nodes(const Json& nodes, std::vector<Finding>& found) {
  if (nodes.empty()) found.push_back({"cluster", "there is no node", "aiv token create; paste the line on a machine with a GPU"});
  for (const Json& node : nodes) {
    const std::string id = text_at(node, "id");
    const std::string state = text_at(node, "state");
    if (state == "lost" || state == "suspect") {
      found.push_back({"node/" + id, fmt::format("is {}: not heard for {}", state, format_duration_ms(number_at(node, "silent_ms"))),
                       "is the machine on, and does aiv node run there? its log says why it cannot connect"});
    } else if (state == "quarantined") {
      found.push_back({"node/" + id, "was lost again and again; nothing new is placed there for a while", "aiv events"});
    } else if (state == "draining") {
      found.push_back({"node/" + id, "is drained", "aiv node undrain " + id});
    }
    const Json devices = node.value("devices", Json::array());
    if (devices.empty() && state == "ready") found.push_back({"node/" + id, "has no GPU that can be used", "aiv gpu-check there"});
    for (const Json& device : devices) {
      if (!text_at(device, "refused").empty()) found.push_back({"gpu/" + text_at(device, "id"), text_at(device, "refused"), "aiv gpu-check there"});
    }
  }
}

void look_at_deployments(const Json& deployments, std::vector<Finding>& found) {
  for (const Json& deployment : deployments) {
    const std::string name = text_at(deployment, "name");
    const std::string state = text_at(deployment, "state");
    if (state != "ready") {
      found.push_back({"deployment/" + name, "is " + state + ": " + text_at(deployment, "reason"), "aiv show " + name});
    } else if (!deployment.value("survives_node_loss", false)) {
      found.push_back({"deployment/" + name, "is gone if its node dies: its replicas share one failure domain",
                       "aiv up " + text_at(deployment, "model") + " --name " + name + " --replicas 2"});
    }
  }
}

int run_doctor(const ServerOptions& options) {
  const auto api = ApiClient::connect(options);
  if (!api) return report(api.error(), "is aiv server running? aiv doctor --server URL");
  const auto status = api->call("GET", "/aiv/v1/status");
  if (!status) return report(status.error());
  std::vector<Finding> found;
  if (text_at(*status, "health") != "ok") {
    found.push_back({"server", "takes no changes: " + text_at(*status, "reason"), "what it says; aiv server restore FILE brings a backup back"});
  }
  if (!status->value("auth", true)) found.push_back({"server", "asks for no key (--no-auth)", "leave --no-auth out"});
  for (const char* resource : {"nodes", "deployments"}) {
    const auto list = api->call("GET", std::string("/aiv/v1/") + resource);
    if (!list) return report(list.error());
    (std::string_view(resource) == "nodes" ? look_at_nodes : look_at_deployments)((*list)["items"], found);
  }
  if (options.json) {
    Json items = Json::array();
    for (const Finding& each : found) items.push_back({{"where", each.where}, {"what", each.what}, {"try", each.next}});
    print(dump_json(Json{{"items", std::move(items)}}, 2) + "\n");
  } else {
    for (const Finding& each : found) print(fmt::format("! {}: {}\n    try: {}\n", each.where, each.what, each.next));
    if (found.empty()) print("all is well\n");
  }
  return found.empty() ? 0 : static_cast<int>(ExitCode::kFailure);
}

}  // namespace

void add_wait_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<WaitOptions>();
  CLI::App* verb = app.add_subcommand("wait", "Block until something is as it should be; exit 7 when it takes too long");
  verb->add_option("what", options->what, "deployment/NAME, node/NAME or replica/ID")->required();
  verb->add_option("--for", options->goal, "A state, or gone (default ready)");
  verb->add_option("--timeout", options->timeout, "How long (default 10m)");
  add_server_options(*verb, options->server);
  verb->callback([options, &exit_code] { exit_code = run_wait(*options); });
}

void add_top_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<TopOptions>();
  CLI::App* verb = app.add_subcommand("top", "GPUs and deployments, live on a terminal, once otherwise");
  verb->add_option("--interval", options->interval, "How often (default 1s)");
  add_server_options(*verb, options->server);
  verb->callback([options, &exit_code] { exit_code = run_top(*options); });
}

void add_doctor_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ServerOptions>();
  CLI::App* verb = app.add_subcommand("doctor", "What is wrong, and what to do about it; exit 1 when there is something");
  add_server_options(*verb, *options);
  verb->callback([options, &exit_code] { exit_code = run_doctor(*options); });
}

}  // namespace aiv::cli
