#include "node/engine_dir.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>

#include "base/file.hpp"

namespace aiv::node {
namespace fs = std::filesystem;

Result<std::string> find_engine_dir(const std::string& given) {
  std::string dir = given;
  if (dir.empty()) {
    const char* from_environment = std::getenv("AIV_ENGINE_DIR");
    dir = from_environment != nullptr && *from_environment != '\0' ? from_environment : executable_dir() + "/engine";
  }
  std::error_code error;
  // canonical: the engine opens its backends from the folder its program really lies in.
  const fs::path path = fs::canonical(dir, error);
  if (error || !fs::is_regular_file(path / "llama-server", error)) {
    return fail(ErrorCode::kNotFound,
                "no llama-server here; `make build` makes the engine, or name its folder with --engine-dir or "
                "AIV_ENGINE_DIR (`--engine fake` needs none)",
                dir);
  }
  if (::access((path / "llama-server").c_str(), X_OK) != 0) {
    return fail(ErrorCode::kRefused, "llama-server is not executable by this user; chmod +x it", path.string());
  }
  constexpr std::array kBackends = {"libggml-vulkan.so", "libggml-cuda.so", "libggml-hip.so"};
  const auto present = [&](const char* file) { return fs::exists(path / file, error); };
  if (std::none_of(kBackends.begin(), kBackends.end(), present)) {
    return fail(ErrorCode::kRefused,
                "no GPU backend (libggml-vulkan.so, libggml-cuda.so or libggml-hip.so) beside llama-server: it would "
                "serve from the CPU; run `make build`, or take an engine that was built with a GPU backend",
                path.string());
  }
  return path.string();
}

}  // namespace aiv::node
