// The verbs. Each add_* registers one verb with its options; when it was named its exit code is left in
// `exit_code`, which must outlive the app.
#pragma once
#include <CLI/CLI.hpp>

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
void add_usage_command(CLI::App& app, int& exit_code);
void add_events_command(CLI::App& app, int& exit_code);
void add_version_command(CLI::App& app, int& exit_code);

}  // namespace aiv::cli
