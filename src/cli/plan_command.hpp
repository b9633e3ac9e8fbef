// `aiv plan --input CLUSTER.json`: what would run where, and in which order to get there. Touches nothing else.
#pragma once

namespace CLI {
class App;
}

namespace aiv {

// Adds the verb; its callback leaves the exit code of the run in `exit_code`, which must outlive the app.
void add_plan_command(CLI::App& app, int& exit_code);

}  // namespace aiv
