// The verbs. Each add_* registers one verb with its options; when it was named its exit code is left in
// `exit_code`, which must outlive the app.
#pragma once
#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "base/json.hpp"

namespace aiv::cli {

void add_server_command(CLI::App& app, int& exit_code);  // server, and its hidden children
void add_dev_command(CLI::App& app, int& exit_code);
void add_up_command(CLI::App& app, int& exit_code);
void add_down_command(CLI::App& app, int& exit_code);
void add_ps_command(CLI::App& app, int& exit_code);
void add_ls_command(CLI::App& app, int& exit_code);
void add_show_command(CLI::App& app, int& exit_code);
void add_chat_command(CLI::App& app, int& exit_code);
void add_key_command(CLI::App& app, int& exit_code);
void add_team_command(CLI::App& app, int& exit_code);
void add_usage_command(CLI::App& app, int& exit_code);
void add_token_command(CLI::App& app, int& exit_code);
void add_events_command(CLI::App& app, int& exit_code);
void add_version_command(CLI::App& app, int& exit_code);
// Verbs below `aiv node` and `aiv gpu`, for people; the agent itself is node_command.cpp.
void add_node_admin_commands(CLI::App& node_verb, int& exit_code);
void add_gpu_command(CLI::App& app, int& exit_code);
void add_wait_command(CLI::App& app, int& exit_code);
void add_top_command(CLI::App& app, int& exit_code);
void add_doctor_command(CLI::App& app, int& exit_code);
void add_audit_command(CLI::App& app, int& exit_code);
// backup and restore, below `aiv server`.
void add_server_state_commands(CLI::App& server_verb, const std::string& default_data, int& exit_code);
// `aiv plan --drop NODE`: what the live cluster would do.
int run_drop(const std::string& node, const std::string& server, const std::string& key_file, bool json);

// What `option` was given as a duration, ms ("30s"); an error that names the option where it is none or below
// `least_ms`.
Result<std::int64_t> duration_option(const std::string& option, const std::string& text,
                                     std::int64_t least_ms = 0);
// {"NAME":"VALUE"} from words NAME=VALUE.
Result<Json> parse_labels(const std::vector<std::string>& pairs);

}  // namespace aiv::cli
