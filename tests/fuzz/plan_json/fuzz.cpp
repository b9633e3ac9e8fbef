// Any bytes as a cluster file: it is refused with a place, or planned with no rule broken and no value above the bound.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "core/placement.hpp"
#include "plan_checker.hpp"
#include "wire/plan_json.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace aiv;
  const auto json = parse_json(std::string_view(reinterpret_cast<const char*>(data), size));
  if (!json) return 0;
  const auto input = wire::plan_input_from_json(*json);
  if (!input) {
    if (input.error().message().empty()) std::abort();
    return 0;
  }
  PlanOptions options;
  options.steps = 20;
  const Plan result = plan(*input, options);
  for (const auto& fault : test::check_plan(*input, result)) {
    std::fprintf(stderr, "%s\n", fault.c_str());
    std::abort();
  }
  if (!(result.upper_bound >= result.value)) std::abort();
  return wire::to_json(result).is_object() ? 0 : 1;
}
