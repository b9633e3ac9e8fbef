// usage: what was used, per day, key, team, user and model.
#include "base/units.hpp"
#include "cli/api_client.hpp"
#include "cli/commands.hpp"
#include "cli/table.hpp"

namespace aiv::cli {
namespace {

struct UsageOptions {
  ServerOptions server;
  int days = 1;
  std::string by;
};

std::string upper_case(std::string text) {
  for (char& c : text) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 'a' + 'A' : c);
  return text;
}

int show(const UsageOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const std::string by = options.by.empty() ? "" : "&by=" + options.by;
  const auto usage = api->call("GET", "/aiv/v1/usage?days=" + std::to_string(options.days) + by);
  if (!usage) return report(usage.error());
  if (options.server.json) {
    print(dump_json(*usage, 2) + "\n");
    return 0;
  }
  const auto number = [](const Json& row, const char* key) { return std::to_string(row.value(key, std::int64_t{0})); };
  if (!options.by.empty()) {
    Table sums({"DAY", upper_case(options.by), "REQUESTS", "PROMPT", "GENERATED"});
    for (const Json& row : (*usage)["items"]) {
      const std::string value = row.value(options.by, "");
      const std::string name = options.by == "key" ? " " + row.value("name", "") : "";
      sums.add({row.value("day", ""), value.empty() ? "-" : printable(value + name), number(row, "requests"), number(row, "prompt_tokens"),
                number(row, "generated_tokens")});
    }
    print(sums.text());
    return 0;
  }
  Table table({"DAY", "KEY", "NAME", "TEAM", "USER", "MODEL", "REQUESTS", "PROMPT", "GENERATED"});
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
  CLI::App* verb = app.add_subcommand("usage", "Requests and tokens per day (UTC), key, team, user and model");
  verb->add_option("--days", options->days, "How many days, today included")->check(CLI::Range(1, 92));
  verb->add_option("--by", options->by, "Only the sums of each: key, team, user or model")->check(CLI::IsMember({"key", "team", "user", "model"}));
  add_server_options(*verb, options->server);
  verb->callback([options, &exit_code] { exit_code = show(*options); });
}

}  // namespace aiv::cli
