#include "core/placement_bound.hpp"

#include <algorithm>
#include <vector>

namespace aiv::placement {
namespace {

struct Item {
  double value = 0;
  double bytes = 0;
};

}  // namespace

double simple_bound(const Problem& problem) {
  double room = 0;
  for (const DeviceData& device : problem.devices) {
    if (problem.nodes[device.node].state == NodePlanState::kUnschedulable) continue;
    room += static_cast<double>(device.capacity);
  }
  std::vector<Item> items;
  for (const ModelData& model : problem.models) {
    if (model.bound_need == 0 || model.max_replicas == 0) continue;
    const double weight = static_cast<double>(model.weight) / problem.scale;
    const double speed = kSpeedPoints * std::min(1.0, static_cast<double>(model.bound_share + 1) / static_cast<double>(kWhole));
    const auto need = static_cast<double>(model.bound_need);
    items.push_back({weight * (kFirstPoints + speed), need});
    if (model.max_replicas < 2) continue;
    const double rest = static_cast<double>(problem.second_points) + kSpeedPoints - speed;
    items.push_back({weight * rest, need});
  }
  std::sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.value * b.bytes > b.value * a.bytes; });
  double bound = 0;
  for (const Item& item : items) {
    const double part = item.bytes <= room ? 1.0 : room / item.bytes;
    bound += item.value * part;
    room -= item.bytes * part;
    if (room <= 0) break;
  }
  return bound;
}

}  // namespace aiv::placement
