// `aiv sim SCENARIO.toml`: a whole cluster under a virtual clock, judged after every event.
#pragma once

namespace CLI {
class App;
}

namespace aiv {

// Exit: 0 all rules held, 1 usage or file, 128 a liveness rule failed, 129 a safety rule failed.
void add_sim_command(CLI::App& app, int& exit_code);

}  // namespace aiv
