// "What if this node dies?", answered by the real step on a copy of the state.
#pragma once
#include "core/reconcile.hpp"

namespace aiv {

struct DropAnswer {
  std::string node;
  // A replica that would be loaded elsewhere.
  struct Replacement {
    std::string deployment;
    std::string node;
    std::vector<DeviceBytes> devices;
    std::string why;
    friend bool operator==(const Replacement&, const Replacement&) = default;
  };
  // A deployment with replicas there.
  struct Hit {
    std::string deployment;
    int ready_before = 0;
    int ready_left = 0;   // at once, before anything is loaded elsewhere
    int wanted = 0;
    int after = 0;        // replicas it has once all replacements are loaded
    std::string reason;   // why that is fewer than wanted
    friend bool operator==(const Hit&, const Hit&) = default;
  };
  std::vector<Replacement> replacements;
  std::vector<Hit> hit;
  bool survives = true;  // every deployment that is served now is still served at once
  bool restored = true;  // every deployment gets all the replicas back that it has now
};

// kNotFound: there is no such node. kUnavailable: nothing is planned just now (observation window, state read-only).
[[nodiscard]] Result<DropAnswer> what_if_dropped(const ControllerState& state, const std::string& node, Instant now);

}  // namespace aiv
