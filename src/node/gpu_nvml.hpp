// NVIDIA cards by NVML, opened with dlopen: nothing of NVIDIA's is needed to build, nor to run without a
// card. AIV_NVML_PATH names another library (a stand-in in tests).
//
// Calls may hang when a driver does: make them off the loop (net::run_blocking).
#pragma once
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "core/documents.hpp"

namespace aiv::node {

struct NvmlGpu {
  std::string uuid;  // "GPU-6ba7b810-..."
  std::string pci;   // "0000:01:00.0"
  std::string name;
  std::optional<Bytes> total;
  std::optional<Bytes> free;
  std::optional<int> sm_count;
  std::optional<std::pair<int, int>> compute_capability;
  std::vector<std::pair<std::int64_t, Bytes>> processes;  // pid and bytes, where the driver tells
  bool processes_known = false;
};

struct NvmlReport {
  std::string driver;  // "535.247.01"
  std::vector<NvmlGpu> gpus;
};

class Nvml {
 public:
  // kNotFound: no NVIDIA driver here (normal). kUnavailable: there is one and it does not work, with the fix.
  static Result<std::shared_ptr<Nvml>> open();
  virtual ~Nvml() = default;
  // Everything as it is now. A figure the card does not have is left empty.
  virtual NvmlReport read() = 0;
};

}  // namespace aiv::node
