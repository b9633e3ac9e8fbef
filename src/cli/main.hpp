// The command line's entry: one binary, roles and verbs as subcommands.
#pragma once

namespace aiv::cli {

// Runs the verb named in argv; returns the process's exit code (base/exit_code.hpp).
int run(int argc, char** argv);

}  // namespace aiv::cli
