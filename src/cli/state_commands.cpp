// `aiv server backup|restore` and `aiv audit`: what must never be lost, and who changed what.
#include <fmt/format.h>

#include <filesystem>
#include <iostream>

#include "base/units.hpp"
#include "cli/api_client.hpp"
#include "cli/commands.hpp"
#include "cli/table.hpp"
#include "controller/audit.hpp"
#include "controller/store_backup.hpp"

namespace aiv::cli {
namespace {

struct StateOptions {
  std::string data;
  std::string file;
  bool yes = false;
  bool json = false;
};

Json view(const controller::BackupFacts& facts, const std::string& file) {
  return {{"file", file}, {"revision", facts.revision}, {"epoch", facts.epoch}, {"bytes", facts.bytes}};
}

int backup(const StateOptions& options) {
  const auto made = controller::backup_state(options.data, options.file);
  if (!made) return report(made.error());
  print(options.json ? dump_json(view(*made, options.file), 2) + "\n"
                     : fmt::format("{}: the state at revision {}, {}, verified\n", options.file, made->revision,
                                   format_bytes(made->bytes)));
  if (!options.json) std::cerr << "The authority's key is not in it: keep a copy of " << options.data << "/ca somewhere safe.\n";
  return 0;
}

int restore(const StateOptions& options) {
  if (!options.yes) {
    const auto facts = controller::check_backup(options.file);
    if (!facts) return report(facts.error());
    report({ErrorCode::kInvalidArgument,
            fmt::format("{} is sound and holds revision {}; it would replace the state of {}", options.file,
                        facts->revision, options.data)},
           "the same with --yes");
    return static_cast<int>(ExitCode::kUsage);
  }
  const auto done = controller::restore_state(options.data, options.file);
  if (!done) {
    const bool runs = done.error().code == ErrorCode::kConflict;
    return report(done.error(), runs ? "stop it first" : "");
  }
  if (options.json) {
    Json json = view(done->facts, options.file);
    json["kept"] = done->kept;
    print(dump_json(json, 2) + "\n");
    return 0;
  }
  print(fmt::format("{} has the state of revision {} again{}\n", options.data, done->facts.revision,
                    done->kept.empty() ? "" : "; the old one is kept as " + done->kept));
  return 0;
}

// All records, oldest first, and the head, as stored.
Result<Json> read_audit(const ApiClient& api) { return api.call("GET", "/aiv/v1/audit"); }

int list_audit(const ServerOptions& options) {
  const auto api = ApiClient::connect(options);
  if (!api) return report(api.error());
  const auto audit = read_audit(*api);
  if (!audit) return report(audit.error());
  if (options.json) {
    print(dump_json(*audit, 2) + "\n");
    return 0;
  }
  Table table({"N", "TIME", "ACTOR", "ACTION", "OBJECT"});
  for (const Json& item : (*audit)["items"]) {
    table.add({std::to_string(item.value("n", std::int64_t{0})), item.value("time", ""), printable(item.value("actor", "")),
               printable(item.value("action", "")), printable(item.value("object", ""))});
  }
  print(table.text());
  return 0;
}

// Judged here and not by the server: the texts are hashed as they are stored.
int verify(const ServerOptions& options) {
  const auto api = ApiClient::connect(options);
  if (!api) return report(api.error());
  const auto audit = read_audit(*api);
  if (!audit) return report(audit.error());
  std::vector<std::string> texts;
  for (const Json& item : (*audit)["items"]) texts.push_back(item.value("record", ""));
  const controller::AuditVerdict verdict = controller::verify_audit(texts, audit->value("head", ""));
  const Json json{{"whole", verdict.reason.empty()}, {"records", verdict.records}, {"first", verdict.first},
                  {"last", verdict.last}, {"bad", verdict.bad}, {"reason", verdict.reason}};
  if (options.json) print(dump_json(json, 2) + "\n");
  if (!verdict.reason.empty()) {
    return report({ErrorCode::kCorrupt, fmt::format("audit record {} {}", verdict.bad, verdict.reason)});
  }
  if (!options.json) print(fmt::format("{} records, {} to {}: the chain is whole\n", verdict.records, verdict.first, verdict.last));
  return 0;
}

}  // namespace

void add_server_state_commands(CLI::App& server_verb, const std::string& default_data, int& exit_code) {
  auto options = std::make_shared<StateOptions>();
  options->data = default_data;
  const auto add = [&](const char* name, const char* help, const char* what) {
    CLI::App* verb = server_verb.add_subcommand(name, help);
    verb->add_option("file", options->file, what)->required();
    verb->add_option("--data", options->data, "Data directory of the server")->capture_default_str();
    verb->add_flag("--json", options->json, "Print JSON");
    return verb;
  };
  CLI::App* made = add("backup", "Write a verified copy of the state; the server may run", "File to write");
  made->callback([options, &exit_code] { exit_code = backup(*options); });
  CLI::App* restored = add("restore", "Put a copy in the place of the state; the server must be stopped", "Copy");
  restored->add_flag("--yes", options->yes, "Do it; without it the copy is only checked");
  restored->callback([options, &exit_code] { exit_code = restore(*options); });
}

void add_audit_command(CLI::App& app, int& exit_code) {
  auto options = std::make_shared<ServerOptions>();
  CLI::App* verb = app.add_subcommand("audit", "Who changed what");
  verb->require_subcommand(1);
  CLI::App* listed = verb->add_subcommand("ls", "List the changes, oldest first");
  add_server_options(*listed, *options);
  listed->callback([options, &exit_code] { exit_code = list_audit(*options); });
  CLI::App* verified = verb->add_subcommand("verify", "Check that no record was changed, removed or added");
  add_server_options(*verified, *options);
  verified->callback([options, &exit_code] { exit_code = verify(*options); });
}

}  // namespace aiv::cli
