// The GPUs of this node, wherever they come from: real cards, software GPUs, or devices that exist only in
// the books of an agent with the fake engine.
//
// Rules: identity is a uuid, never an index; a device of type CPU is never a GPU; a card that cannot be used
// is listed with the reason and the fix (`Device::refused`) instead of being left out.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "core/documents.hpp"
#include "net/async.hpp"
#include "node/agent.hpp"

namespace aiv::node {

// What an engine of ours holds on a device, so that the rest can be told as foreign.
struct OwnUse {
  std::string device_id;
  std::int64_t pid = 0;  // 0: planned, but no process yet
  Bytes bytes = 0;       // as planned or measured from its log
};

// How an engine is made to see exactly some devices.
struct EngineView {
  std::vector<std::string> names;        // "Vulkan0", ... in the order asked for
  std::vector<std::string> environment;  // "NAME=value"
};

class DeviceSource {
 public:
  virtual ~DeviceSource() = default;
  // All devices with free and foreign bytes as they are now. Never fails: a figure that cannot be had keeps
  // its last value, and the device says so in `refused` once it is gone.
  virtual net::Task<std::vector<Device>> measure(std::vector<OwnUse> own) = 0;
  virtual Result<EngineView> view(const std::vector<std::string>& device_ids) = 0;
  // "llama.cpp v0.5.0 vulkan", for people.
  [[nodiscard]] virtual std::string engine_name() const = 0;
};

// kNotFound or kInvalidArgument with the fix in words when the node cannot serve at all (no engine in the
// directory, unreadable --gpus). A machine without a GPU is no error here: the list is empty.
net::Task<Result<std::unique_ptr<DeviceSource>>> make_device_source(AgentOptions options);

}  // namespace aiv::node
