#include "cli/install_paths.hpp"

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <vector>

#include "base/file.hpp"

namespace aiv::cli {
namespace fs = std::filesystem;
namespace {

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

bool is_engine_dir(const fs::path& dir) {
  std::error_code ignored;
  return fs::exists(dir / "llama-server", ignored);
}

// Folders below `parent` that hold an engine, the wanted kind ("vulkan", "cuda") first, then the newest name.
std::vector<fs::path> engines_below(const fs::path& parent, const std::string& kind) {
  std::vector<fs::path> out;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(parent, ignored)) {
    if (is_engine_dir(entry.path())) out.push_back(entry.path());
  }
  std::sort(out.begin(), out.end(), [&](const fs::path& a, const fs::path& b) {
    const bool a_kind = a.filename().string().find(kind) != std::string::npos;
    const bool b_kind = b.filename().string().find(kind) != std::string::npos;
    return a_kind != b_kind ? a_kind : a > b;
  });
  return out;
}

}  // namespace

Result<std::string> find_engine_dir() {
  const std::string wanted = environment("AIV_ENGINE");
  for (const std::string& named : {environment("AIV_ENGINE_DIR"), wanted.find('/') != std::string::npos ? wanted : ""}) {
    if (named.empty()) continue;
    if (is_engine_dir(named)) return named;
    return fail(ErrorCode::kNotFound, "holds no llama-server; AIV_ENGINE names the folder of an engine build", named);
  }
  const std::string kind = wanted.empty() ? "vulkan" : wanted;
  const fs::path here = executable_dir();
  // Beside an installed binary; then the cache of the checkout that this binary was built in (build/PRESET/bin/aiv).
  for (const fs::path& parent : {here / "../lib/aivailable/engine", here / "../../../.cache/engine"}) {
    const auto found = engines_below(parent, kind);
    if (!found.empty()) return fs::weakly_canonical(found.front()).string();
  }
  return fail(ErrorCode::kNotFound, "no engine is installed; run `make engine`, or set AIV_ENGINE to the folder of one");
}

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
