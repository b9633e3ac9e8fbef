#include "node/child_main.hpp"

#include <string_view>

#include "node/shim.hpp"
#include "node/vulkan_probe.hpp"

namespace aiv::node {

std::optional<int> child_main(int argc, char** argv) {
  if (argc < 2) return std::nullopt;
  const std::string_view verb = argv[1];
  if (verb == "engine-shim") return engine_shim_main(argc - 1, argv + 1);
  if (verb == "vulkan-probe") return vulkan_probe_main();
  return std::nullopt;
}

}  // namespace aiv::node
