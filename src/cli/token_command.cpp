// `aiv token`: one pasted line makes a machine a node.
#include <fmt/format.h>

#include <iostream>

#include "base/units.hpp"
#include "cli/api_client.hpp"
#include "cli/commands.hpp"
#include "cli/table.hpp"

namespace aiv::cli {
namespace {

struct TokenOptions {
  ServerOptions server;
  std::string ttl = "24h";
  int uses = 0;  // 0: 16, or 1 for a token that names its node
  std::string node;
  std::vector<std::string> labels;
  std::string id;
};

int create(const TokenOptions& options) {
  const auto ttl = duration_option("--ttl", options.ttl, 1000);
  if (!ttl) return report_usage(ttl.error());
  Json request{{"expires_in_s", *ttl / 1000}};
  if (options.uses > 0) request["uses"] = options.uses;
  if (!options.node.empty()) request["node"] = options.node;
  const auto labels = parse_labels(options.labels);
  if (!labels) return report_usage(labels.error());
  if (!labels->empty()) request["labels"] = *labels;
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto made = api->call("POST", "/aiv/v1/tokens", request);
  if (!made) return report(made.error());
  if (options.server.json) {
    print(dump_json(*made, 2) + "\n");
    return 0;
  }
  std::string server = made->value("server", "");
  if (server.empty()) server = "HOST:PORT";
  std::string id;
  if (!options.node.empty()) id = " --id " + options.node;
  print(fmt::format("aiv node --join {} --server {}{}\n", made->value("token", ""), server, id));
  const int uses = made->value("uses", 1);
  std::cerr << fmt::format("Paste this line on {}; valid {}. It is shown this once.\n",
                           uses == 1 ? "the new machine" : fmt::format("up to {} new machines", uses),
                           format_duration_ms(*ttl));
  if (server.starts_with("127.") || server.starts_with("localhost:")) {
    std::cerr << "This server takes nodes of its own machine only. For others start it with: "
                 "aiv server --link-listen 0.0.0.0:7443\n";
  }
  return 0;
}

int list(const TokenOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto tokens = api->call("GET", "/aiv/v1/tokens");
  if (!tokens) return report(tokens.error());
  if (options.server.json) {
    print(dump_json(*tokens, 2) + "\n");
    return 0;
  }
  Table table({"ID", "STATE", "USES LEFT", "NODE", "EXPIRES"});
  for (const Json& token : (*tokens)["items"]) {
    table.add({token.value("id", ""), token.value("state", ""),
               fmt::format("{}/{}", token.value("uses_left", 0), token.value("uses", 0)),
               printable(token.value("node", "")), token.value("expires_at", "")});
  }
  print(table.text());
  return 0;
}

int remove(const TokenOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto gone = api->call("DELETE", "/aiv/v1/tokens/" + options.id);
  if (!gone) return report(gone.error());
  print(options.server.json ? dump_json(*gone, 2) + "\n"
                            : options.id + " is removed; nodes that joined with it stay\n");
  return 0;
}

}  // namespace

void add_token_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<TokenOptions>();
  CLI::App* verb = app.add_subcommand("token", "Join tokens: with one of them a machine becomes a node");
  verb->require_subcommand(1);
  CLI::App* made = verb->add_subcommand("create", "Print the one line that makes a machine a node");
  made->add_option("--ttl", options->ttl, "How long it is valid (default 24h)");
  made->add_option("--uses", options->uses, "How many machines may use it (default 16, or 1 with --node)")
      ->check(CLI::Range(1, 10'000));
  made->add_option("--node", options->node, "Only for a node of this name");
  made->add_option("--labels", options->labels, "Labels of the nodes that join with it: zone=a,rack=3")
      ->delimiter(',');
  add_server_options(*made, options->server);
  made->callback([options, &exit_code] { exit_code = create(*options); });
  CLI::App* listed = verb->add_subcommand("ls", "List the tokens, without their secrets");
  add_server_options(*listed, options->server);
  listed->callback([options, &exit_code] { exit_code = list(*options); });
  CLI::App* removed = verb->add_subcommand("rm", "Remove a token");
  removed->add_option("id", options->id, "Id of the token (aiv token ls)")->required();
  add_server_options(*removed, options->server);
  removed->callback([options, &exit_code] { exit_code = remove(*options); });
}

}  // namespace aiv::cli
