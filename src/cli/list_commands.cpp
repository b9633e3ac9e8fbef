// The verbs that only look: ps, ls, show, events, version.
#include <fmt/format.h>

#include <iostream>
#include <map>
#include <set>

#include "base/units.hpp"
#include "cli/api_client.hpp"
#include "cli/commands.hpp"
#include "cli/table.hpp"

namespace aiv::cli {
namespace {

std::int64_t replica_bytes(const Json& replica) {
  std::int64_t total = 0;
  for (const Json& device : replica.value("devices", Json::array())) total += number_at(device, "bytes");
  return total;
}

// "GTX 1080 (software GPU)": what a person must never mistake for a card is said in words.
std::string device_label(const Json& device) {
  const bool software = text_at(device, "kind") == "software";
  return text_at(device, "name") + (software ? " (software GPU)" : "");
}

std::string ps_table(const Json& replicas, const Json& deployments, const Json& devices) {
  std::map<std::string, std::string> labels;
  for (const Json& device : devices) labels[text_at(device, "id")] = device_label(device);
  Table table({"NAME", "REPLICA", "SIZE", "PROCESSOR", "CONTEXT", "SLOTS", "GPU", "STATE", "REASON"});
  std::set<std::string> shown;
  for (const Json& replica : replicas) {
    const std::string name = text_at(replica, "deployment");
    shown.insert(name);
    std::string gpus;
    for (const Json& device : replica.value("devices", Json::array())) {
      const std::string id = text_at(device, "id");
      if (!gpus.empty()) gpus += ", ";
      gpus += id + " " + labels[id];
    }
    const std::string state = text_at(replica, "state");
    table.add({name, text_at(replica, "id"), format_bytes(replica_bytes(replica)), state == "ready" ? "100% GPU" : "-",
               std::to_string(number_at(replica, "ctx")),
               fmt::format("{}/{}", number_at(replica, "slots_busy"), number_at(replica, "slots")), gpus, state,
               text_at(replica, "reason")});
  }
  for (const Json& deployment : deployments) {
    const std::string name = text_at(deployment, "name");
    if (shown.contains(name)) continue;
    table.add({name, "-", "-", "-", std::to_string(number_at(deployment, "ctx")), "-", "-",
               text_at(deployment, "state"), text_at(deployment, "reason")});
  }
  return table.text();
}

// "if n2 dies: chat is gone until it is loaded elsewhere (n1)": one line per node whose death would be noticed.
std::string drop_lines(const Json& drops) {
  std::string out;
  for (const Json& drop : drops) {
    std::string words;
    for (const Json& hit : drop.value("deployments", Json::array())) {
      const std::string name = text_at(hit, "deployment");
      const bool gone = number_at(hit, "ready_before") > 0 && number_at(hit, "ready_left") == 0;
      const bool fewer = number_at(hit, "after") < number_at(hit, "wanted");
      if (!gone && !fewer) continue;
      std::string where;
      for (const Json& load : drop.value("loads", Json::array())) {
        if (text_at(load, "deployment") == name) where += (where.empty() ? "" : ", ") + text_at(load, "node");
      }
      if (!words.empty()) words += "; ";
      words += name + (gone ? " is gone" : " has fewer replicas");
      words += where.empty() ? ", there is no other place: " + text_at(hit, "reason") : " until it is loaded on " + where;
    }
    if (!words.empty()) out += fmt::format("if {} dies: {}\n", text_at(drop, "drop"), words);
  }
  return out;
}

int run_ps(const ServerOptions& options) {
  const auto api = ApiClient::connect(options);
  if (!api) return report(api.error());
  const auto replicas = api->call("GET", "/aiv/v1/replicas");
  if (!replicas) return report(replicas.error());
  if (options.json) {
    print(dump_json(*replicas, 2) + "\n");
    return 0;
  }
  const auto deployments = api->call("GET", "/aiv/v1/deployments");
  if (!deployments) return report(deployments.error());
  const auto devices = api->call("GET", "/aiv/v1/devices");
  if (!devices) return report(devices.error());
  print(ps_table((*replicas)["items"], (*deployments)["items"], (*devices)["items"]));
  // Not while the controller has just started: it plans nothing then.
  const auto drops = api->call("GET", "/aiv/v1/plans");
  if (!drops || (*replicas)["items"].empty()) return 0;
  const std::string lines = drop_lines((*drops)["items"]);
  print("\n" + (lines.empty() ? std::string("survives the loss of any one node\n") : lines));
  return 0;
}

int run_ls(const ServerOptions& options) {
  const auto api = ApiClient::connect(options);
  if (!api) return report(api.error());
  const auto models = api->call("GET", "/aiv/v1/models");
  if (!models) return report(models.error());
  if (options.json) {
    print(dump_json(*models, 2) + "\n");
    return 0;
  }
  Table table({"NAME", "DIGEST", "SIZE", "ARCHITECTURE", "PATH"});
  for (const Json& model : (*models)["items"]) {
    std::string digest = text_at(model, "digest");
    digest = digest.substr(digest.starts_with("sha256:") ? 7 : 0, 12);
    table.add({text_at(model, "id"), digest, format_bytes(number_at(model, "size_bytes")),
               text_at(model, "architecture"), text_at(model, "path")});
  }
  print(table.text());
  return 0;
}

// A name may be a deployment, a node or a replica; KIND/NAME says which.
int run_show(const ServerOptions& options, const std::string& name) {
  const auto api = ApiClient::connect(options);
  if (!api) return report(api.error());
  const auto slash = name.find('/');
  const std::string kind = slash == std::string::npos ? "" : name.substr(0, slash);
  const std::string id = slash == std::string::npos ? name : name.substr(slash + 1);
  for (const std::string& resource : {std::string("deployments"), std::string("nodes"), std::string("replicas")}) {
    if (!kind.empty() && kind + "s" != resource) continue;
    const auto answer = api->exchange("GET", "/aiv/v1/" + resource + "/" + id);
    if (!answer) return report(answer.error());
    if (answer->status == 404) continue;
    const auto found = api->call("GET", "/aiv/v1/" + resource + "/" + id);
    if (!found) return report(found.error());
    print(dump_json(*found, 2) + "\n");
    return 0;
  }
  return report({ErrorCode::kNotFound, fmt::format("no deployment, node or replica is called \"{}\"", printable(name))},
                "aiv ps");
}

int run_events(const ServerOptions& options, bool follow) {
  const auto api = ApiClient::connect(options);
  if (!api) return report(api.error());
  const auto line_of = [&](const Json& event) {
    if (options.json) return dump_json(event) + "\n";
    return fmt::format("{}  {:<22} {:<28} {}\n", text_at(event, "time"), text_at(event, "kind"),
                       text_at(event, "subject"), text_at(event, "reason"));
  };
  const auto events = api->call("GET", "/aiv/v1/events");
  if (!events) return report(events.error());
  std::int64_t last = 0;
  for (const Json& event : (*events)["items"]) {
    last = std::max(last, number_at(event, "seq"));
    print(line_of(event));
  }
  if (!follow) return 0;
  const auto ended = api->stream("GET", fmt::format("/aiv/v1/events?stream=1&since={}", last), nullptr,
                                 [&](const std::string& data) {
                                   const auto event = parse_json(data);
                                   if (event) print(line_of(*event));
                                   return static_cast<bool>(std::cout);
                                 });
  return ended ? 0 : report(ended.error());
}

}  // namespace

int run_drop(const std::string& node, const std::string& server, const std::string& key_file, bool json) {
  const auto api = ApiClient::connect({.server = server, .key_file = key_file, .json = json});
  if (!api) return report(api.error());
  const auto answer = api->call("POST", "/aiv/v1/plans", Json{{"drop", node}});
  if (!answer) return report(answer.error(), "aiv node ls");
  if (json) {
    print(dump_json(*answer, 2) + "\n");
    return 0;
  }
  Table table({"DEPLOYMENT", "READY NOW", "LEFT AT ONCE", "AFTER", "WANTED", "REASON"});
  for (const Json& hit : answer->value("deployments", Json::array())) {
    table.add({text_at(hit, "deployment"), std::to_string(number_at(hit, "ready_before")),
               std::to_string(number_at(hit, "ready_left")), std::to_string(number_at(hit, "after")),
               std::to_string(number_at(hit, "wanted")), text_at(hit, "reason")});
  }
  print(table.text());
  for (const Json& load : answer->value("loads", Json::array())) {
    print(fmt::format("load {} on {}: {}\n", text_at(load, "deployment"), text_at(load, "node"), text_at(load, "why")));
  }
  const bool survives = answer->value("survives", false);
  print(survives ? "all that is served stays served\n" : "something is not served until it is loaded elsewhere\n");
  return 0;
}

void add_ps_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ServerOptions>();
  CLI::App* verb = app.add_subcommand("ps", "Replicas: where they run, how much VRAM they hold, and why not");
  add_server_options(*verb, *options);
  verb->callback([options, &exit_code] { exit_code = run_ps(*options); });
}

void add_ls_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ServerOptions>();
  CLI::App* verb = app.add_subcommand("ls", "Models that the server knows");
  add_server_options(*verb, *options);
  verb->callback([options, &exit_code] { exit_code = run_ls(*options); });
}

void add_show_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ServerOptions>();
  auto name = std::make_shared<std::string>();
  CLI::App* verb = app.add_subcommand("show", "One deployment, node or replica in full, with the reasons");
  verb->add_option("name", *name, "NAME, or deployment/NAME, node/NAME, replica/NAME")->required();
  add_server_options(*verb, *options);
  verb->callback([options, name, &exit_code] { exit_code = run_show(*options, *name); });
}

void add_events_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ServerOptions>();
  auto follow = std::make_shared<bool>(false);
  CLI::App* verb = app.add_subcommand("events", "What happened, and why");
  verb->add_flag("--follow,-f", *follow, "Go on printing");
  add_server_options(*verb, *options);
  verb->callback([options, follow, &exit_code] { exit_code = run_events(*options, *follow); });
}

void add_version_command(CLI::App& app, int&) {
  auto json = std::make_shared<bool>(false);
  CLI::App* verb = app.add_subcommand("version", "Version of this program");
  verb->add_flag("--json", *json, "Print JSON");
  verb->callback([json] { print(*json ? "{\"version\":\"" AIV_VERSION "\"}\n" : "aiv " AIV_VERSION "\n"); });
}

}  // namespace aiv::cli
