#include <fmt/format.h>

#include <iostream>

#include "base/units.hpp"
#include "cli/api_client.hpp"
#include "cli/commands.hpp"
#include "cli/table.hpp"

namespace aiv::cli {
namespace {

struct KeyOptions {
  ServerOptions server;
  std::string name;
  std::string role = "user";
  std::vector<std::string> models;
  std::string id;
};

int create(const KeyOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  Json request{{"name", options.name}, {"role", options.role}};
  if (!options.models.empty()) request["models"] = options.models;
  const auto made = api->call("POST", "/aiv/v1/keys", request);
  if (!made) return report(made.error());
  if (options.server.json) {
    print(dump_json(*made, 2) + "\n");
    return 0;
  }
  print(made->value("key", "") + "\n");
  std::cerr << "This is the only time the key is shown; the server keeps a hash.\n";
  return 0;
}

int list(const KeyOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto keys = api->call("GET", "/aiv/v1/keys");
  if (!keys) return report(keys.error());
  if (options.server.json) {
    print(dump_json(*keys, 2) + "\n");
    return 0;
  }
  Table table({"ID", "NAME", "ROLE", "STATE"});
  for (const Json& key : (*keys)["items"]) {
    table.add({key.value("id", ""), printable(key.value("name", "")), key.value("role", ""),
               key.value("disabled", false) ? "disabled" : "active"});
  }
  print(table.text());
  return 0;
}

int remove(const KeyOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto gone = api->call("DELETE", "/aiv/v1/keys/" + options.id);
  if (!gone) return report(gone.error());
  print(options.id + " is removed\n");
  return 0;
}

}  // namespace

void add_key_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<KeyOptions>();
  CLI::App* verb = app.add_subcommand("key", "API keys");
  verb->require_subcommand(1);
  CLI::App* made = verb->add_subcommand("create", "Make a key; it is shown once");
  made->add_option("name", options->name, "Whom or what it is for")->required();
  made->add_option("--role", options->role, "user, operator or admin")->check(CLI::IsMember({"user", "operator", "admin"}));
  made->add_option("--models", options->models, "Deployments it may use, comma separated (default: all)")->delimiter(',');
  add_server_options(*made, options->server);
  made->callback([options, &exit_code] { exit_code = create(*options); });
  CLI::App* listed = verb->add_subcommand("ls", "List the keys");
  add_server_options(*listed, options->server);
  listed->callback([options, &exit_code] { exit_code = list(*options); });
  CLI::App* removed = verb->add_subcommand("rm", "Remove a key: it stops working at once");
  removed->add_option("id", options->id, "Id of the key (aiv key ls)")->required();
  add_server_options(*removed, options->server);
  removed->callback([options, &exit_code] { exit_code = remove(*options); });
}

}  // namespace aiv::cli
