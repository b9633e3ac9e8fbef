// The planner's input and output as JSON (the forms of `aiv plan`).
#pragma once
#include "base/json.hpp"
#include "core/cluster.hpp"

namespace aiv::wire {

// Bounds of a cluster file; above them it is refused, naming the list.
inline constexpr std::size_t kPlanNodesMax = 100'000;
inline constexpr std::size_t kPlanDevicesPerNodeMax = 1'024;
inline constexpr std::size_t kPlanDevicesMax = 400'000;
inline constexpr std::size_t kPlanModelsMax = 200'000;
inline constexpr std::size_t kPlanVariantsMax = 256;
inline constexpr std::size_t kPlanCurrentMax = 1'000'000;

// Reads and validates. Error::where is the path of the fault: "models[3].variants[0].bytes". Unknown fields are
// ignored; `current` and `policy` may be absent.
Result<PlanInput> plan_input_from_json(const Json& json);
Json to_json(const PlanInput& input);

// Everything but the time it took, which the caller appends as the last field.
Json to_json(const Plan& plan);

}  // namespace aiv::wire
