// Where an installed or freshly built `aiv` finds its companions.
#pragma once
#include <string>

#include "base/result.hpp"

namespace aiv::cli {

// Folder of llama-server and its backends: AIV_ENGINE_DIR, AIV_ENGINE where it is a path, the installed place, the
// build tree's. kNotFound says what to run.
Result<std::string> find_engine_dir();
// The demo model that comes with the product; empty if there is none.
std::string find_demo_model();
// Default data directory of `aiv dev`, below XDG_DATA_HOME.
std::string default_dev_data();

}  // namespace aiv::cli
