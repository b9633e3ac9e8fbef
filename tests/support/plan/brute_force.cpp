#include "brute_force.hpp"

#include <algorithm>
#include <map>

#include "plan_checker.hpp"

namespace aiv::test {
namespace {

// Every way to put one replica of the model on the node, with free memory as it is.
class Tree {
 public:
  explicit Tree(const PlanInput& input) : input_(input) {
    for (const auto& node : input.nodes) {
      for (const auto& device : node.devices) free_[device.id] = device.free_bytes;
    }
  }

  double best() {
    descend(0, 0);
    return best_;
  }

 private:
  // Decides models in order, and for each the nodes in order: no replica, or one of the ways.
  void descend(std::size_t m, std::size_t n) {
    if (m == input_.models.size()) {
      best_ = std::max(best_, value_of(input_, placed_));
      return;
    }
    if (n == input_.nodes.size()) return descend(m + 1, 0);
    descend(m, n + 1);
    const PlanModel& model = input_.models[m];
    const auto count = std::count_if(placed_.begin(), placed_.end(), [&](const auto& p) { return p.model == model.id; });
    if (count >= model.max_replicas || input_.nodes[n].state != NodePlanState::kSchedulable) return;
    for (const auto& variant : model.variants) place(m, n, variant);
  }

  static bool runs(const PlanVariant& variant, const PlanDevice& device) {
    return std::find(variant.backends.begin(), variant.backends.end(), device.backend) != variant.backends.end();
  }

  void place(std::size_t m, std::size_t n, const PlanVariant& variant) {
    const auto& devices = input_.nodes[n].devices;
    for (std::size_t a = 0; a < devices.size(); ++a) {
      if (!runs(variant, devices[a])) continue;
      attempt(m, n, variant, {{devices[a].id, variant.bytes}});
      for (std::size_t b = a + 1; variant.splittable && b < devices.size(); ++b) {
        if (!runs(variant, devices[b])) continue;
        for (Bytes x = 1; x < variant.bytes; ++x) {
          attempt(m, n, variant, {{devices[a].id, x}, {devices[b].id, variant.bytes - x}});
        }
      }
    }
  }

  Bytes overhead(const std::string& id) const {
    for (const auto& node : input_.nodes) {
      for (const auto& device : node.devices) {
        if (device.id == id) return device.overhead_bytes;
      }
    }
    return 0;
  }

  void attempt(std::size_t m, std::size_t n, const PlanVariant& variant, const std::vector<PlanPart>& parts) {
    for (const auto& part : parts) {
      if (free_[part.device] < part.bytes + overhead(part.device)) return;
    }
    for (const auto& part : parts) free_[part.device] -= part.bytes + overhead(part.device);
    PlanPlacement p;
    p.model = input_.models[m].id;
    p.variant = variant.id;
    p.node = input_.nodes[n].id;
    p.parts = parts;
    placed_.push_back(p);
    descend(m, n + 1);
    placed_.pop_back();
    for (const auto& part : parts) free_[part.device] += part.bytes + overhead(part.device);
  }

  const PlanInput& input_;
  std::map<std::string, Bytes> free_;
  std::vector<PlanPlacement> placed_;
  double best_ = 0;
};

}  // namespace

double best_value(const PlanInput& input) { return Tree(input).best(); }

}  // namespace aiv::test
