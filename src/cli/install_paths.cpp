#include "cli/install_paths.hpp"

#include <cstdlib>
#include <filesystem>

#include "base/file.hpp"
#include "base/host.hpp"

namespace aiv::cli {
namespace fs = std::filesystem;
std::string find_demo_model() {
  const fs::path here = executable_dir();
  std::error_code ignored;
  for (const fs::path& path : {here / "../share/aivailable/demo.gguf", here / "../../../models/demo.gguf"}) {
    if (fs::exists(path, ignored)) return fs::weakly_canonical(path).string();
  }
  return {};
}

std::string default_dev_data() {
  const std::string base = environment("XDG_DATA_HOME");
  return (base.empty() ? environment("HOME") + "/.local/share" : base) + "/aiv/dev";
}

}  // namespace aiv::cli
