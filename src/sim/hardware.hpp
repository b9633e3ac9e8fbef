// What the simulated cluster is made of: devices from "NAME:SIZE" and a catalogue of model shapes.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/controller_state.hpp"

namespace aiv::sim {

// "GTX 1080:8GiB,RX 580:8GiB" -> the devices of one node. Bandwidths of known cards are their makers'
// figures, of others 200 GB/s.
Result<std::vector<Device>> make_devices(const std::string& node, const std::string& gpus);

// The n-th model of the catalogue (it repeats): dense transformers of 1 to 32 billion parameters in 4 to 8
// bits.
ModelRecord make_model(std::size_t n);
[[nodiscard]] std::size_t catalogue_size();

}  // namespace aiv::sim
