// What loads teach about estimates (core/vram_margin.hpp), and the margins that follow from it.
#include <algorithm>
#include <set>

#include "base/units.hpp"
#include "core/footprint.hpp"
#include "core/reconcile_parts.hpp"

namespace aiv::reconcile {
namespace {

const Device* device_of(const ControllerState& state, const Placement& placement, const std::string& id) {
  const auto node = state.nodes.find(placement.node);
  if (node == state.nodes.end() || !node->second.observed) return nullptr;
  const auto found = std::ranges::find(node->second.observed->devices, id, &Device::id);
  return found == node->second.observed->devices.end() ? nullptr : &*found;
}

// Empty architecture: nothing is estimated, so nothing can be learned.
std::string architecture_of(const ControllerState& state, const Placement& placement) {
  const auto model = state.models.find(placement.spec.model);
  return model == state.models.end() || !model->second.facts ? "" : model->second.facts->architecture;
}

// Others than real cards have margins of their own (margin_of).
bool learns(const Device& device) {
  return device.kind == DeviceKind::kGpu && device.backend != "fake";
}

MarginKey key_of(const Device& device, const std::string& architecture) {
  return {device.backend, device.driver, device.name, architecture};
}

// What the engine itself counts; the driver's context is in it only where both figures know it.
Bytes engine_bytes(const DeviceBytes& bytes, bool with_overhead) {
  return bytes.weights + bytes.kv + bytes.compute + (with_overhead ? bytes.overhead : 0);
}

void learned(Work& work, const MarginKey& key, MarginHistory history) {
  work.state.margins[key] = history;
  work.out.emplace_back(command::SaveMargin{key, std::move(history)});
  work.state.dirty = true;  // the margins may be others now
}

}  // namespace

void learn_residual(Work& work, const Placement& placement, const ReplicaStatus& status) {
  ControllerState& state = work.state;
  // Once for each load that was decided since the start: what was there before is in the store already.
  if (status.measured.empty() || state.unmeasured.erase(placement.spec.id) == 0) return;
  const std::string architecture = architecture_of(state, placement);
  if (architecture.empty()) return;
  for (const DeviceBytes& planned : placement.spec.devices) {
    const auto measured = std::ranges::find(status.measured, planned.device_id, &DeviceBytes::device_id);
    const Device* device = device_of(state, placement, planned.device_id);
    if (measured == status.measured.end() || device == nullptr || !learns(*device)) continue;
    const bool with_overhead = measured->overhead > 0;
    const MarginKey key = key_of(*device, architecture);
    learned(work, key,
            with_residual(state.margins[key], engine_bytes(*measured, with_overhead),
                          engine_bytes(planned, with_overhead)));
  }
}

void learn_out_of_memory(Work& work, const Placement& placement) {
  ControllerState& state = work.state;
  if (state.unmeasured.erase(placement.spec.id) == 0) return;
  const std::string architecture = architecture_of(state, placement);
  if (architecture.empty()) return;
  for (const DeviceBytes& planned : placement.spec.devices) {
    const Device* device = device_of(state, placement, planned.device_id);
    if (device == nullptr || !learns(*device)) continue;
    // Where somebody else took the memory meanwhile, the estimate was not at fault.
    if (used_bytes(state, device->id) > budget_of(*device)) continue;
    const MarginKey key = key_of(*device, architecture);
    // How much was missing nobody says: at least all that was kept free.
    learned(work, key,
            with_out_of_memory(state.margins[key], planned.total(), planned.total(), margin_of(*device)));
    work.tell("device.margin", "device/" + device->id,
              "out of memory with " + format_bytes(margin_of(*device)) + " kept free for " + architecture +
                  ": more is kept free on " + device->name + " from now on");
  }
}

// A device's margin is the largest that any architecture in use calls for: one that is not known yet calls
// for the start value. Rationale: the planner gives each device one budget, whatever is placed there.
void refresh_margins(ControllerState& state) {
  if (state.margins.empty()) return;
  std::set<std::string> architectures;
  for (const auto& [name, deployment] : state.deployments) {
    const auto model = state.models.find(deployment.model);
    if (model != state.models.end() && model->second.facts)
      architectures.insert(model->second.facts->architecture);
  }
  static const MarginHistory kNothing;
  for (auto& [id, node] : state.nodes) {
    if (!node.observed) continue;
    for (const Device& device : node.observed->devices) {
      if (!learns(device)) continue;
      Bytes margin = -1;
      for (const std::string& architecture : architectures) {
        const auto history = state.margins.find(key_of(device, architecture));
        margin = std::max(margin, margin_of(history == state.margins.end() ? kNothing : history->second,
                                            device.vram_bytes, false));
      }
      if (margin >= 0) node.margins[device.id] = margin;
    }
    apply_policy(node, state.week_minute);
  }
}

}  // namespace aiv::reconcile
