// The node's devices as they are now, and who may load onto which: one load at a time per device, against
// free memory as measured at that moment. The controller's view may be old, so the agent decides.
#pragma once
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "node/devices.hpp"
#include "node/supervisor.hpp"

namespace aiv::node {

class DeviceBook : public Room {
 public:
  // `own_use` tells what replicas other than the named one hold or are about to hold.
  using OwnUseFn = std::function<std::vector<OwnUse>(const std::string& except)>;
  DeviceBook(std::unique_ptr<DeviceSource> source, OwnUseFn own_use)
      : source_(std::move(source)), own_use_(std::move(own_use)) {}

  net::Task<RoomAnswer> ask(ReplicaSpec spec) override;
  void loading_done(const std::string& replica_id) override;
  net::Task<> wait_released(ReplicaSpec spec, std::map<std::string, Bytes> free_before) override;
  Result<EngineView> view(const std::vector<std::string>& device_ids) override {
    return source_->view(device_ids);
  }

  // Measures again; true if a figure that others plan with has changed.
  net::Task<bool> refresh();
  [[nodiscard]] const std::vector<Device>& devices() const { return devices_; }
  [[nodiscard]] std::string engine_name() const { return source_->engine_name(); }

 private:
  const Device* find(const std::string& id) const;
  std::unique_ptr<DeviceSource> source_;
  OwnUseFn own_use_;
  std::vector<Device> devices_;
  std::map<std::string, std::string> loading_;  // device -> replica
};

}  // namespace aiv::node
