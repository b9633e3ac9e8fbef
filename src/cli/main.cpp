#include "cli/main.hpp"

#include <CLI/CLI.hpp>

namespace aiv::cli {

int run(int argc, char** argv) {
  CLI::App app{"AIvailable: every open LLM that fits, on the GPUs you have"};
  CLI11_PARSE(app, argc, argv);
  return 0;
}

}  // namespace aiv::cli
