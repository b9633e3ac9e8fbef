// `aiv gpu-check`: the product's promises on this machine's real GPU, and a report of what was seen.
#pragma once
#include <CLI/CLI.hpp>

namespace aiv::cli {

// Adds the verb; its exit code is left in `exit_code`: 0 every check held, 1 one did not, 3 there is no GPU.
void add_gpu_check_command(CLI::App& app, int& exit_code);

}  // namespace aiv::cli
