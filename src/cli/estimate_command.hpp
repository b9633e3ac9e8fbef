// `aiv estimate FILE.gguf`: what a model takes on each device, from its header alone.
#pragma once

namespace CLI {
class App;
}

namespace aiv {

// Adds the verb; its callback leaves the exit code of the run in `exit_code`, which must outlive the app.
void add_estimate_command(CLI::App& app, int& exit_code);

}  // namespace aiv
