#include "cli/main.hpp"
#include "node/child_main.hpp"

int main(int argc, char** argv) {
  if (const auto code = aiv::node::child_main(argc, argv)) return *code;
  return aiv::cli::run(argc, argv);
}
