// `aiv node ls|show|drain|undrain|rm|label` and `aiv gpu ls|reserve|release|exclusive|shared|off|on`: nodes and their GPUs, for people.
#include <fmt/format.h>

#include <chrono>
#include <iostream>
#include <thread>

#include "base/units.hpp"
#include "cli/api_client.hpp"
#include "cli/commands.hpp"
#include "cli/table.hpp"

namespace aiv::cli {
namespace {

struct NodeOptions {
  ServerOptions server;
  std::string id;
  bool wait = false;
  bool force = false;
  std::string timeout = "10m";
  std::vector<std::string> labels;
  std::vector<std::string> taints;
  std::string domain;
  bool clear_taints = false;
  std::string size;
  std::string hours;
};

std::string joined(const Json& labels) {
  std::string out;
  for (const auto& [name, value] : labels.items()) {
    out += (out.empty() ? "" : ",") + printable(name) + "=" + (value.is_string() ? printable(value.get<std::string>()) : "");
  }
  return out;
}

// One call, its answer as JSON or as `words`.
int change(const NodeOptions& options, const std::string& method, const std::string& path, const Json& body,
           const std::string& words) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto done = api->call(method, path, body);
  if (!done) return report(done.error());
  print(options.server.json ? dump_json(*done, 2) + "\n" : words + "\n");
  return 0;
}

int list_nodes(const NodeOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto nodes = api->call("GET", "/aiv/v1/nodes");
  if (!nodes) return report(nodes.error());
  if (options.server.json) {
    print(dump_json(*nodes, 2) + "\n");
    return 0;
  }
  Table table({"NODE", "STATE", "DOMAIN", "GPUS", "VRAM", "FREE", "REPLICAS", "LABELS"});
  for (const Json& node : (*nodes)["items"]) {
    std::int64_t vram = 0;
    std::int64_t free = 0;
    std::size_t replicas = 0;
    const Json devices = node.value("devices", Json::array());
    for (const Json& device : devices) {
      vram += number_at(device, "vram_bytes");
      free += number_at(device, "free_bytes");
      replicas += device.value("replicas", Json::array()).size();
    }
    table.add({text_at(node, "id"), text_at(node, "state"), text_at(node, "failure_domain"),
               std::to_string(devices.size()), format_bytes(vram), format_bytes(free), std::to_string(replicas),
               joined(node.value("labels", Json::object()))});
  }
  print(table.text());
  return 0;
}

int show_node(const NodeOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto node = api->call("GET", "/aiv/v1/nodes/" + options.id);
  if (!node) return report(node.error(), "aiv node ls");
  print(dump_json(*node, 2) + "\n");
  return 0;
}

// Until nothing is left on the node.
int drain(const NodeOptions& options) {
  const auto limit = duration_option("--timeout", options.timeout);
  if (!limit) return report_usage(limit.error());
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto asked = api->call("PATCH", "/aiv/v1/nodes/" + options.id, Json{{"draining", true}});
  if (!asked) return report(asked.error(), "aiv node ls");
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds(*limit);
  std::string told;
  while (options.wait) {
    const auto left = api->call("GET", "/aiv/v1/replicas?node=" + options.id);
    if (!left) return report(left.error());
    const Json& items = (*left)["items"];
    if (items.empty()) break;
    std::string line = fmt::format("{}: {} replica{} left", options.id, items.size(), items.size() == 1 ? "" : "s");
    for (const Json& replica : items) line += " " + text_at(replica, "id");
    if (line != told) std::cerr << line << "\n";
    told = line;
    if (std::chrono::steady_clock::now() > deadline) {
      return report({ErrorCode::kTimeout, "not empty after " + options.timeout + ": " + told, options.id},
                    "aiv ps says where there is room; draining goes on");
    }
    std::this_thread::sleep_for(kPollPeriod);
  }
  if (options.server.json) {
    const auto node = api->call("GET", "/aiv/v1/nodes/" + options.id);
    if (!node) return report(node.error());
    print(dump_json(*node, 2) + "\n");
  } else {
    print(options.id + (options.wait ? " is empty\n" : " is being drained: what runs there moves first\n"));
  }
  return 0;
}

int label(const NodeOptions& options) {
  Json body = Json::object();
  if (!options.labels.empty()) {
    const auto api = ApiClient::connect(options.server);
    if (!api) return report(api.error());
    const auto node = api->call("GET", "/aiv/v1/nodes/" + options.id);
    if (!node) return report(node.error(), "aiv node ls");
    Json labels = node->value("labels", Json::object());
    for (const std::string& word : options.labels) {
      if (word.ends_with('-') && word.find('=') == std::string::npos) {
        labels.erase(word.substr(0, word.size() - 1));
        continue;
      }
      const auto pair = parse_labels({word});
      if (!pair) return report_usage(pair.error(), "aiv node label NODE zone=a old-");
      labels.update(*pair);
    }
    body["labels"] = std::move(labels);
  }
  if (!options.taints.empty() || options.clear_taints) body["taints"] = options.taints;
  if (!options.domain.empty()) body["failure_domain"] = options.domain;
  if (body.empty()) {
    report({ErrorCode::kInvalidArgument, "nothing to change"}, "aiv node label NODE zone=a; or --taint, --domain");
    return static_cast<int>(ExitCode::kUsage);
  }
  return change(options, "PATCH", "/aiv/v1/nodes/" + options.id, body, options.id + " is changed");
}

// "exclusive, off Mo-Fr 08-18"
std::string policy_of(const Json& device) {
  std::string out = device.value("exclusive", false) ? "exclusive" : "shared";
  if (device.value("off", false)) out += ", off";
  const std::string hours = text_at(device, "off_hours");
  if (!hours.empty()) out += ", off " + hours;
  return out;
}

int list_gpus(const NodeOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto devices = api->call("GET", "/aiv/v1/devices");
  if (!devices) return report(devices.error());
  if (options.server.json) {
    print(dump_json(*devices, 2) + "\n");
    return 0;
  }
  Table table({"GPU", "NAME", "BACKEND", "VRAM", "OURS", "OTHERS", "KEPT FREE", "STATE", "POLICY"});
  for (const Json& device : (*devices)["items"]) {
    const bool off = device.value("off_now", false);
    const std::string software = text_at(device, "kind") == "software" ? " (software GPU)" : "";
    std::string state = text_at(device, "state");
    if (!text_at(device, "refused").empty()) state += ": " + text_at(device, "refused");
    table.add({text_at(device, "id"), text_at(device, "name") + software, text_at(device, "backend"),
               format_bytes(number_at(device, "vram_bytes")), format_bytes(number_at(device, "reserved_bytes")),
               format_bytes(number_at(device, "foreign_bytes")),
               off ? "all" : format_bytes(number_at(device, "reserve_bytes")), off ? "off" : state,
               policy_of(device)});
  }
  print(table.text());
  return 0;
}

int reserve(const NodeOptions& options) {
  const auto bytes = parse_bytes(options.size);
  if (!bytes) return report_usage({ErrorCode::kInvalidArgument, bytes.error().reason, "size"});
  return change(options, "PATCH", "/aiv/v1/devices/" + options.id, Json{{"reserve_bytes", *bytes}},
                fmt::format("{} of {} are kept free for others", format_bytes(*bytes), options.id));
}

// A verb below `parent` on one thing called `id`.
CLI::App* add_one(CLI::App& parent, const std::shared_ptr<NodeOptions>& options, const char* name, const char* help,
                  const char* what) {
  CLI::App* verb = parent.add_subcommand(name, help);
  verb->add_option("id", options->id, what)->required();
  add_server_options(*verb, options->server);
  return verb;
}

}  // namespace

void add_node_admin_commands(CLI::App& node_verb, int& exit_code) {
  auto options = std::make_shared<NodeOptions>();
  CLI::App* listed = node_verb.add_subcommand("ls", "List the nodes");
  add_server_options(*listed, options->server);
  listed->callback([options, &exit_code] { exit_code = list_nodes(*options); });
  CLI::App* shown = add_one(node_verb, options, "show", "One node in full", "Node");
  shown->callback([options, &exit_code] { exit_code = show_node(*options); });
  CLI::App* drained = add_one(node_verb, options, "drain", "Move what runs there elsewhere, and place nothing new", "Node");
  drained->add_flag("--wait", options->wait, "Return when nothing is left there");
  drained->add_option("--timeout", options->timeout, "How long to wait (default 10m)");
  drained->callback([options, &exit_code] { exit_code = drain(*options); });
  CLI::App* undrained = add_one(node_verb, options, "undrain", "Use a drained node again", "Node");
  undrained->callback([options, &exit_code] {
    exit_code = change(*options, "PATCH", "/aiv/v1/nodes/" + options->id, Json{{"draining", false}},
                       options->id + " is used again");
  });
  CLI::App* removed = add_one(node_verb, options, "rm", "Remove a node: its certificate is refused from now on", "Node");
  removed->add_flag("--force", options->force, "Although it is connected and runs replicas");
  removed->callback([options, &exit_code] {
    exit_code = change(*options, "DELETE", "/aiv/v1/nodes/" + options->id + (options->force ? "?force=1" : ""), nullptr,
                       options->id + " is removed; it can join again with a new token");
  });
  CLI::App* labelled = add_one(node_verb, options, "label", "Set labels (zone=a), remove them (zone-), taints, domain", "Node");
  labelled->add_option("labels", options->labels, "NAME=VALUE, or NAME- to remove one");
  labelled->add_option("--taint", options->taints, "Only deployments that tolerate it go there (replaces all taints)")
      ->delimiter(',');
  labelled->add_flag("--no-taints", options->clear_taints, "Remove all taints");
  labelled->add_option("--domain", options->domain, "Failure domain: what fails together has the same");
  labelled->callback([options, &exit_code] { exit_code = label(*options); });
}

void add_gpu_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<NodeOptions>();
  CLI::App* verb = app.add_subcommand("gpu", "GPUs, and what of them is kept for people");
  verb->require_subcommand(1);
  CLI::App* listed = verb->add_subcommand("ls", "List the GPUs of all nodes");
  add_server_options(*listed, options->server);
  listed->callback([options, &exit_code] { exit_code = list_gpus(*options); });
  CLI::App* reserved = add_one(*verb, options, "reserve", "Keep memory of a GPU free for other programs", "GPU, such as n1/0");
  reserved->add_option("size", options->size, "How much, such as 6GiB")->required();
  reserved->callback([options, &exit_code] { exit_code = reserve(*options); });
  const auto patch = [&](const char* name, const char* help, Json body, const char* words) {
    CLI::App* each = add_one(*verb, options, name, help, "GPU, such as n1/0");
    each->callback([options, body = std::move(body), words, &exit_code] {
      exit_code = change(*options, "PATCH", "/aiv/v1/devices/" + options->id, body, options->id + words);
    });
  };
  patch("release", "Keep nothing of a GPU free any more", Json{{"reserve_bytes", 0}}, " is released");
  patch("exclusive", "Place at most one replica at a time on a GPU", Json{{"exclusive", true}}, " takes one replica at a time");
  patch("shared", "Place as many replicas on a GPU as fit (the default)", Json{{"exclusive", false}}, " is shared");
  CLI::App* off = add_one(*verb, options, "off", "Use a GPU no more: what runs there moves", "GPU, such as n1/0");
  off->add_option("--hours", options->hours, "Only in these hours of the week, by the server's clock: 'Mo-Fr 08-18', 'Sa,Su 10-14; 22-06'");
  off->callback([options, &exit_code] {
    const bool always = options->hours.empty();
    exit_code = change(*options, "PATCH", "/aiv/v1/devices/" + options->id,
                       always ? Json{{"off", true}} : Json{{"off_hours", options->hours}},
                       options->id + (always ? " is off: what runs there moves first" : " is off " + options->hours));
  });
  patch("on", "Use a GPU again, at all hours", Json{{"off", false}, {"off_hours", ""}}, " is used again");
}

}  // namespace aiv::cli
