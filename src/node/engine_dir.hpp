// Where the engine is: a folder with llama-server and the backends it opens from its own directory.
#pragma once
#include <string>

#include "base/result.hpp"

namespace aiv::node {

// Absolute path of the engine folder. `given` (a flag's value) if not empty, else AIV_ENGINE_DIR, else `engine` beside
// this executable, where the build and the packages put it. kNotFound: nothing there. kRefused: llama-server is not
// executable, or no GPU backend lies beside it, with which every replica would run on the CPU. The reason says the fix.
Result<std::string> find_engine_dir(const std::string& given);

}  // namespace aiv::node
