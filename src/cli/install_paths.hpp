// Where an installed or freshly built `aiv` finds its companions.
#pragma once
#include <string>

namespace aiv::cli {

// The demo model that comes with the product; empty if there is none.
std::string find_demo_model();
// Default data directory of `aiv dev`, below XDG_DATA_HOME.
std::string default_dev_data();

}  // namespace aiv::cli
