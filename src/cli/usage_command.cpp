// usage: what was used, per day, key, user and model.
#include "base/units.hpp"
#include "cli/api_client.hpp"
#include "cli/commands.hpp"
#include "cli/table.hpp"

namespace aiv::cli {
namespace {

struct UsageOptions {
  ServerOptions server;
  int days = 1;
};

int show(const UsageOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto usage = api->call("GET", "/aiv/v1/usage?days=" + std::to_string(options.days));
  if (!usage) return report(usage.error());
  if (options.server.json) {
    print(dump_json(*usage, 2) + "\n");
    return 0;
  }
  Table table({"DAY", "KEY", "NAME", "TEAM", "USER", "MODEL", "REQUESTS", "PROMPT", "GENERATED"});
  const auto number = [](const Json& row, const char* key) { return std::to_string(row.value(key, std::int64_t{0})); };
  for (const Json& row : (*usage)["items"]) {
    table.add({row.value("day", ""), row.value("key", ""), printable(row.value("name", "")), printable(row.value("team", "")),
               printable(row.value("user", "")), printable(row.value("model", "")), number(row, "requests"),
               number(row, "prompt_tokens"), number(row, "generated_tokens")});
  }
  print(table.text());
  return 0;
}

}  // namespace

void add_usage_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<UsageOptions>();
  CLI::App* verb = app.add_subcommand("usage", "Requests and tokens per day (UTC), key, user and model");
  verb->add_option("--days", options->days, "How many days, today included")->check(CLI::Range(1, 92));
  add_server_options(*verb, options->server);
  verb->callback([options, &exit_code] { exit_code = show(*options); });
}

}  // namespace aiv::cli
