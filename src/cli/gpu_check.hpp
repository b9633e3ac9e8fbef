// The steps of `aiv gpu-check`, each seen from outside through a cluster of its own on loopback: one server, one agent
// with the machine's GPUs. What it measures it takes from the driver and from the engine's own log, not from the
// agent's word.
#pragma once
#include <string>
#include <vector>

#include "base/json.hpp"
#include "core/documents.hpp"

namespace aiv::cli {

struct GpuCheckOptions {
  std::string model;     // GGUF file; empty: a random model of about 450 MB is written
  std::string software;  // GPUs as --gpus wants them, to try the check itself without a card
  std::string data_dir;  // empty: a temporary folder, removed afterwards
  std::string report;    // file for the report besides stdout
};

// A check's name, whether it held, and what was seen.
struct GpuCheckStep {
  std::string name;
  bool held = false;
  std::string detail;
};

struct GpuCheckReport {
  bool gpu_found = false;
  Json body = Json::object();
  std::vector<GpuCheckStep> steps;
  [[nodiscard]] bool held() const;
  [[nodiscard]] Json to_json() const;
};

// Runs everything; progress goes to stderr. Never fails as a whole: what went wrong is a step that did not hold.
GpuCheckReport run_gpu_check(const GpuCheckOptions& options);

}  // namespace aiv::cli
