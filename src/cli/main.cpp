#include "cli/main.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <iostream>

#include "base/exit_code.hpp"
#include "base/units.hpp"
#include "cli/commands.hpp"
#include "cli/estimate_command.hpp"
#include "cli/gpu_check_command.hpp"
#include "cli/node_command.hpp"
#include "cli/plan_command.hpp"
#include "cli/sim_command.hpp"
#include "cli/suggest.hpp"

namespace aiv::cli {
namespace {

std::vector<std::string> names_of_verbs(CLI::App& app) {
  std::vector<std::string> out;
  for (CLI::App* verb : app.get_subcommands([](const CLI::App* each) { return !each->get_group().empty(); })) {
    out.push_back(verb->get_name());
  }
  return out;
}

std::vector<std::string> names_of_options(const CLI::App& app) {
  std::vector<std::string> out;
  for (const CLI::Option* option : app.get_options()) {
    for (const std::string& name : option->get_lnames()) out.push_back("--" + name);
  }
  return out;
}

// The verb of that name directly below `app`, or nullptr.
CLI::App* verb_named(CLI::App& app, const std::string& name) {
  for (CLI::App* verb : app.get_subcommands([&](const CLI::App* each) { return each->get_name() == name; })) return verb;
  return nullptr;
}

// The verb the user was at when parsing failed: the deepest one that stands in the arguments.
CLI::App* verb_at(CLI::App& app, const std::vector<std::string>& words) {
  CLI::App* at = &app;
  for (const std::string& word : words) {
    CLI::App* next = verb_named(*at, word);
    if (next == nullptr) break;
    at = next;
  }
  return at;
}

// CLI11's own message, and the nearest name where a word is not known.
int usage_error(CLI::App& app, const CLI::ParseError& error, const std::vector<std::string>& words) {
  CLI::App* at = verb_at(app, words);
  std::string message = error.what();
  std::string suggestion;
  for (const std::string& word : words) {
    if (word.starts_with("--")) {
      const std::string name = word.substr(0, word.find('='));
      const auto known = names_of_options(*at);
      if (std::find(known.begin(), known.end(), name) != known.end()) continue;
      message = fmt::format("unknown option {}", printable(name, 60));
      suggestion = nearest(name, known);
      break;
    }
    if (at == &app && verb_named(app, word) == nullptr) {
      message = fmt::format("unknown verb {}", printable(word, 60));
      suggestion = nearest(word, names_of_verbs(app));
      break;
    }
  }
  while (message.ends_with('\n')) message.pop_back();
  std::cerr << "aiv: " << message << "\n";
  const std::string path = at == &app ? "aiv" : "aiv " + at->get_name();
  if (!suggestion.empty()) {
    std::cerr << "  try: " << (suggestion.starts_with("--") ? path + " " + suggestion : "aiv " + suggestion) << "\n";
  } else {
    std::cerr << "  try: " << path << " --help\n";
  }
  return static_cast<int>(ExitCode::kUsage);
}

}  // namespace

int run(int argc, char** argv) {
  CLI::App app{"AIvailable: every open LLM that fits, on the GPUs you have"};
  app.name("aiv");
  app.require_subcommand(1);
  int exit_code = 0;
  add_dev_command(app, exit_code);
  add_server_command(app, exit_code);
  add_node_command(app, exit_code);
  add_up_command(app, exit_code);
  add_down_command(app, exit_code);
  add_ps_command(app, exit_code);
  add_ls_command(app, exit_code);
  add_show_command(app, exit_code);
  add_chat_command(app, exit_code);
  add_key_command(app, exit_code);
  add_team_command(app, exit_code);
  add_usage_command(app, exit_code);
  add_token_command(app, exit_code);
  add_gpu_command(app, exit_code);
  add_events_command(app, exit_code);
  add_wait_command(app, exit_code);
  add_top_command(app, exit_code);
  add_doctor_command(app, exit_code);
  add_audit_command(app, exit_code);
  add_estimate_command(app, exit_code);
  add_plan_command(app, exit_code);
  add_sim_command(app, exit_code);
  add_gpu_check_command(app, exit_code);
  add_version_command(app, exit_code);
  app.add_flag_callback("--version", [] { throw CLI::CallForVersion("aiv " AIV_VERSION, 0); }, "Print the version");
  const std::vector<std::string> words(argv + 1, argv + argc);
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& asked) {  // --help, --version
    return app.exit(asked);
  } catch (const CLI::ParseError& error) {
    return usage_error(app, error, words);
  } catch (const std::exception& error) {
    std::cerr << "aiv: " << error.what() << "\n";
    return static_cast<int>(ExitCode::kFailure);
  }
  return exit_code;
}

}  // namespace aiv::cli
