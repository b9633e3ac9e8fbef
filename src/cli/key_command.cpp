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
  std::string team;
  std::string expires;
  std::int64_t rpm = 0;
  std::int64_t tpm = 0;
  std::int64_t concurrency = 0;
  std::int64_t tpd = 0;
  std::int64_t team_rpm = 0;
  std::int64_t team_tpm = 0;
  std::int64_t team_concurrency = 0;
  std::int64_t team_tpd = 0;
  bool disable = false;
  bool enable = false;
};

// The limits that an option was given for, under their names in the API.
Json limits_asked(const CLI::App& verb, const KeyOptions& options) {
  Json limits = Json::object();
  if (verb.count("--rpm") > 0) limits["requests_per_min"] = options.rpm;
  if (verb.count("--tpm") > 0) limits["tokens_per_min"] = options.tpm;
  if (verb.count("--concurrency") > 0) limits["concurrency"] = options.concurrency;
  if (verb.count("--tpd") > 0) limits["tokens_per_day"] = options.tpd;
  return limits;
}

Json limits_json(std::int64_t rpm, std::int64_t tpm, std::int64_t concurrency, std::int64_t tpd) {
  return {{"requests_per_min", rpm}, {"tokens_per_min", tpm}, {"concurrency", concurrency}, {"tokens_per_day", tpd}};
}

// "90d", "12h", "30m" in seconds; 0 for anything else.
std::int64_t seconds_of(const std::string& text) {
  if (text.size() < 2 || text.size() > 7 || text.find_first_not_of("0123456789") != text.size() - 1) return 0;
  const std::int64_t number = std::stoll(text);
  switch (text.back()) {
    case 'd': return number * 86'400;
    case 'h': return number * 3'600;
    case 'm': return number * 60;
    default: return 0;
  }
}

std::string limits_text(const Json& key) {
  std::string out;
  const Json limits = key.value("limits", Json::object());
  const auto add = [&](const char* field, const char* word) {
    const std::int64_t value = limits.value(field, std::int64_t{0});
    if (value > 0) out += (out.empty() ? "" : ", ") + std::to_string(value) + " " + word;
  };
  add("requests_per_min", "rpm");
  add("tokens_per_min", "tpm");
  add("concurrency", "at once");
  add("tokens_per_day", "tpd");
  return out.empty() ? "-" : out;
}

int create(const KeyOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  Json request{{"name", options.name}, {"role", options.role}};
  if (!options.models.empty()) request["models"] = options.models;
  request["limits"] = limits_json(options.rpm, options.tpm, options.concurrency, options.tpd);
  if (!options.team.empty()) {
    request["team"] = options.team;
    request["team_limits"] = limits_json(options.team_rpm, options.team_tpm, options.team_concurrency, options.team_tpd);
  }
  if (!options.expires.empty()) request["expires_in_s"] = seconds_of(options.expires);
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
  Table table({"ID", "NAME", "ROLE", "STATE", "TEAM", "LIMITS", "EXPIRES"});
  for (const Json& key : (*keys)["items"]) {
    table.add({key.value("id", ""), printable(key.value("name", "")), key.value("role", ""),
               key.value("disabled", false) ? "disabled" : "active", printable(key.value("team", "")), limits_text(key),
               key.contains("expires_at") && key["expires_at"].is_string() ? key["expires_at"].get<std::string>() : "never"});
  }
  print(table.text());
  return 0;
}

int change(const CLI::App& verb, const KeyOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  Json request = Json::object();
  if (Json limits = limits_asked(verb, options); !limits.empty()) request["limits"] = std::move(limits);
  if (verb.count("--team") > 0) request["team"] = options.team;
  if (options.disable || options.enable) request["disabled"] = options.disable;
  if (request.empty()) return report({ErrorCode::kInvalidArgument, "nothing to change: give a limit, --team, --disable or --enable", ""});
  const auto changed = api->call("PATCH", "/aiv/v1/keys/" + options.id, request);
  if (!changed) return report(changed.error());
  if (options.server.json) {
    print(dump_json(*changed, 2) + "\n");
    return 0;
  }
  print(options.id + ": " + limits_text(*changed) + "\n");
  return 0;
}

int create_team(const CLI::App& verb, const KeyOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto made = api->call("POST", "/aiv/v1/teams", Json{{"name", options.team}, {"limits", limits_asked(verb, options)}});
  if (!made) return report(made.error());
  print(options.server.json ? dump_json(*made, 2) + "\n" : printable(options.team) + ": " + limits_text(*made) + "\n");
  return 0;
}

int change_team(const CLI::App& verb, const KeyOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  Json limits = limits_asked(verb, options);
  if (limits.empty()) return report({ErrorCode::kInvalidArgument, "nothing to change: give a limit (0 takes one away)", ""});
  const auto changed = api->call("PATCH", "/aiv/v1/teams/" + options.team, Json{{"limits", std::move(limits)}});
  if (!changed) return report(changed.error());
  print(options.server.json ? dump_json(*changed, 2) + "\n" : printable(options.team) + ": " + limits_text(*changed) + "\n");
  return 0;
}

int list_teams(const KeyOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto teams = api->call("GET", "/aiv/v1/teams");
  if (!teams) return report(teams.error());
  if (options.server.json) {
    print(dump_json(*teams, 2) + "\n");
    return 0;
  }
  Table table({"NAME", "KEYS", "LIMITS"});
  for (const Json& team : (*teams)["items"]) {
    table.add({printable(team.value("name", "")), std::to_string(team.value("keys", std::int64_t{0})), limits_text(team)});
  }
  print(table.text());
  return 0;
}

int remove_team(const KeyOptions& options) {
  const auto api = ApiClient::connect(options.server);
  if (!api) return report(api.error());
  const auto gone = api->call("DELETE", "/aiv/v1/teams/" + options.team);
  if (!gone) return report(gone.error());
  print(options.team + " is removed\n");
  return 0;
}

void add_limit_options(CLI::App& verb, KeyOptions& options) {
  verb.add_option("--rpm", options.rpm, "Requests per minute")->check(CLI::NonNegativeNumber);
  verb.add_option("--tpm", options.tpm, "Tokens per minute, prompts and answers")->check(CLI::NonNegativeNumber);
  verb.add_option("--concurrency", options.concurrency, "Requests at once")->check(CLI::NonNegativeNumber);
  verb.add_option("--tpd", options.tpd, "Tokens per day (UTC)")->check(CLI::NonNegativeNumber);
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
  made->add_option("--expires", options->expires, "After how long it stops working: 90d, 12h, 30m (default: never)")
      ->check([](const std::string& text) {
        return seconds_of(text) > 0 ? std::string() : "'" + text + "' is not a time such as 90d, 12h or 30m";
      });
  add_limit_options(*made, *options);
  CLI::Option* team = made->add_option("--team", options->team, "Team it belongs to; made if it is new");
  made->add_option("--team-rpm", options->team_rpm, "Requests per minute of the whole team, if it is new")->needs(team)->check(CLI::NonNegativeNumber);
  made->add_option("--team-tpm", options->team_tpm, "Tokens per minute of the whole team")->needs(team)->check(CLI::NonNegativeNumber);
  made->add_option("--team-concurrency", options->team_concurrency, "Requests at once of the whole team")->needs(team)->check(CLI::NonNegativeNumber);
  made->add_option("--team-tpd", options->team_tpd, "Tokens per day of the whole team")->needs(team)->check(CLI::NonNegativeNumber);
  add_server_options(*made, options->server);
  made->callback([options, &exit_code] { exit_code = create(*options); });
  CLI::App* listed = verb->add_subcommand("ls", "List the keys");
  add_server_options(*listed, options->server);
  listed->callback([options, &exit_code] { exit_code = list(*options); });
  CLI::App* changed = verb->add_subcommand("set", "Change a key's limits (0: none) or team, disable or enable it");
  changed->add_option("id", options->id, "Id of the key (aiv key ls)")->required();
  add_limit_options(*changed, *options);
  changed->add_option("--team", options->team, "Team it belongs to from now on; '' for none");
  CLI::Option* disable = changed->add_flag("--disable", options->disable, "It is refused until it is enabled again");
  changed->add_flag("--enable", options->enable, "It works again")->excludes(disable);
  add_server_options(*changed, options->server);
  changed->callback([options, changed, &exit_code] { exit_code = change(*changed, *options); });
  CLI::App* removed = verb->add_subcommand("rm", "Remove a key: it stops working at once");
  removed->add_option("id", options->id, "Id of the key (aiv key ls)")->required();
  add_server_options(*removed, options->server);
  removed->callback([options, &exit_code] { exit_code = remove(*options); });
}

void add_team_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<KeyOptions>();
  CLI::App* verb = app.add_subcommand("team", "Teams: keys that share limits");
  verb->require_subcommand(1);
  const auto named = [&](const char* name, const char* what) {
    CLI::App* sub = verb->add_subcommand(name, what);
    sub->add_option("name", options->team, "Name of the team")->required();
    add_server_options(*sub, options->server);
    return sub;
  };
  CLI::App* made = named("create", "Make a team; keys join it with --team");
  add_limit_options(*made, *options);
  made->callback([options, made, &exit_code] { exit_code = create_team(*made, *options); });
  CLI::App* listed = verb->add_subcommand("ls", "List the teams");
  add_server_options(*listed, options->server);
  listed->callback([options, &exit_code] { exit_code = list_teams(*options); });
  CLI::App* changed = named("set", "Change a team's limits; those that are not named stay, 0 takes one away");
  add_limit_options(*changed, *options);
  changed->callback([options, changed, &exit_code] { exit_code = change_team(*changed, *options); });
  CLI::App* removed = named("rm", "Remove a team that no key belongs to");
  removed->callback([options, &exit_code] { exit_code = remove_team(*options); });
}

}  // namespace aiv::cli
