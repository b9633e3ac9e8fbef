// Verbs that this executable runs as a child of the agent: engine-shim and vulkan-probe.
#pragma once
#include <optional>

namespace aiv::node {

// The exit code if argv names one of them, else nullopt. To be called at the very top of main, before
// anything is set up: a shim is meant to stay small.
std::optional<int> child_main(int argc, char** argv);

}  // namespace aiv::node
