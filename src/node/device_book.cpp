#include "node/device_book.hpp"

#include <algorithm>

#include "base/units.hpp"

namespace aiv::node {
namespace {

using net::Clock;
constexpr auto kReleaseLimit = net::seconds(5);
constexpr auto kReleaseStep = net::milliseconds(50);
// Drivers round and other programs move: a release counts when three quarters are back (as ollama's
// server/sched.go).
constexpr Bytes kReleasedNumerator = 3;
constexpr Bytes kReleasedDenominator = 4;
// Smaller movements of free memory are not worth a document.
constexpr Bytes kFreeStep = kMiB;

}  // namespace

const Device* DeviceBook::find(const std::string& id) const {
  const auto found = std::ranges::find(devices_, id, &Device::id);
  return found == devices_.end() ? nullptr : &*found;
}

net::Task<RoomAnswer> DeviceBook::ask(ReplicaSpec spec) {
  for (const DeviceBytes& want : spec.devices) {
    const auto taken = loading_.find(want.device_id);
    if (taken != loading_.end() && taken->second != spec.id)
      co_return RoomAnswer{.event = LifeEvent::kNotYet,
                           .detail = taken->second + " is loading on " + want.device_id,
                           .view = {},
                           .free_before = {}};
  }
  // Taken before the wait below, so that nobody else gets the same answer.
  for (const DeviceBytes& want : spec.devices) loading_[want.device_id] = spec.id;
  devices_ = co_await source_->measure(own_use_(spec.id));

  RoomAnswer answer{.event = LifeEvent::kRoom, .detail = {}, .view = {}, .free_before = {}};
  std::vector<std::string> ids;
  for (const DeviceBytes& want : spec.devices) {
    const Device* device = find(want.device_id);
    ids.push_back(want.device_id);
    if (device == nullptr) {
      answer.event = LifeEvent::kUnfit;
      answer.detail = "this node has no device " + want.device_id;
    } else if (!device->refused.empty()) {
      answer.event = LifeEvent::kUnfit;
      answer.detail = want.device_id + ": " + device->refused;
    } else if (device->max_storage_buffer_range > 0 &&
               spec.largest_tensor > device->max_storage_buffer_range) {
      answer.event = LifeEvent::kUnfit;
      answer.detail = "a tensor of " + format_bytes(spec.largest_tensor) + " is over the " +
                      format_bytes(device->max_storage_buffer_range) + " that " + want.device_id +
                      "'s driver can bind: the engine would compute it on the CPU";
    } else if (want.total() > device->vram_bytes) {
      answer.event = LifeEvent::kUnfit;
      answer.detail = "needs " + format_bytes(want.total()) + " on " + want.device_id + ", which has " +
                      format_bytes(device->vram_bytes);
    } else if (want.total() > device->free_bytes) {
      if (answer.event == LifeEvent::kRoom) answer.event = LifeEvent::kNoRoom;
      answer.detail = "needs " + format_bytes(want.total()) + " on " + want.device_id + ", " +
                      format_bytes(device->free_bytes) + " free";
      if (device->foreign_bytes > 0)
        answer.detail += " (" + format_bytes(device->foreign_bytes) + " held by other programs)";
    } else {
      answer.free_before[want.device_id] = device->free_bytes;
    }
  }
  if (answer.event == LifeEvent::kRoom) {
    auto seen = source_->view(ids);
    if (seen)
      answer.view = std::move(*seen);
    else
      answer = {.event = LifeEvent::kUnfit, .detail = seen.error().message(), .view = {}, .free_before = {}};
  }
  if (answer.event != LifeEvent::kRoom) loading_done(spec.id);
  co_return answer;
}

void DeviceBook::loading_done(const std::string& replica_id) {
  std::erase_if(loading_, [&](const auto& entry) { return entry.second == replica_id; });
}

net::Task<> DeviceBook::wait_released(ReplicaSpec spec, std::map<std::string, Bytes> free_before) {
  const auto until = Clock::now() + kReleaseLimit;
  while (true) {
    devices_ = co_await source_->measure(own_use_(spec.id));
    bool back = true;
    for (const DeviceBytes& held : spec.devices) {
      const Device* device = find(held.device_id);
      const auto before = free_before.find(held.device_id);
      if (device == nullptr || before == free_before.end())
        continue;  // adopted: what was free before is not known
      // Less may be free than before because others load meanwhile; their share is not missing.
      Bytes others = 0;
      for (const OwnUse& use : own_use_(spec.id))
        if (use.device_id == held.device_id) others += use.bytes;
      const Bytes missing = before->second - device->free_bytes - others;
      if (missing > held.total() - held.total() / kReleasedDenominator * kReleasedNumerator) back = false;
    }
    if (back || Clock::now() >= until) co_return;
    co_await net::sleep_for(kReleaseStep);
  }
}

net::Task<bool> DeviceBook::refresh() {
  std::vector<Device> now = co_await source_->measure(own_use_(""));
  bool changed = now.size() != devices_.size();
  for (std::size_t i = 0; !changed && i < now.size(); ++i) {
    Device same = now[i];
    const Device& old = devices_[i];
    const bool moved = std::abs(same.free_bytes - old.free_bytes) >= kFreeStep ||
                       std::abs(same.foreign_bytes - old.foreign_bytes) >= kFreeStep;
    same.free_bytes = old.free_bytes;
    same.foreign_bytes = old.foreign_bytes;
    changed = moved || same != old;
  }
  devices_ = std::move(now);
  co_return changed;
}

}  // namespace aiv::node
