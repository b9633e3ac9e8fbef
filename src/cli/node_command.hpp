// `aiv node`: this machine's agent.
#pragma once
#include <CLI/CLI.hpp>

namespace aiv::cli {

// Adds the verb; its exit code is left in `exit_code` once it has run.
void add_node_command(CLI::App& app, int& exit_code);

}  // namespace aiv::cli
