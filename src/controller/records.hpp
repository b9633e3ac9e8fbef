// What the store holds: keys and JSON forms. An unknown field is ignored (a newer version may have written it), a
// missing or mistyped one refuses the record by field name; the rest of the state goes on.
//
//   /aiv/leader            {"holder","epoch","seq"}
//   /aiv/epoch             the number; written by a takeover alone and compared by every other write (fencing)
//   /aiv/models/ID         /aiv/deployments/NAME   /aiv/placements/REPLICA   /aiv/keys/ID
//   /aiv/nodes/ID          what an admin set for a node
//   /aiv/audit/N           who changed what, N with 16 digits
#pragma once
#include <string>

#include "base/json.hpp"
#include "core/controller_state.hpp"

namespace aiv::controller {

inline constexpr const char* kLeaderKey = "/aiv/leader";
inline constexpr const char* kEpochKey = "/aiv/epoch";
inline constexpr const char* kModelPrefix = "/aiv/models/";
inline constexpr const char* kDeploymentPrefix = "/aiv/deployments/";
inline constexpr const char* kPlacementPrefix = "/aiv/placements/";
inline constexpr const char* kKeyPrefix = "/aiv/keys/";
inline constexpr const char* kNodePrefix = "/aiv/nodes/";
inline constexpr const char* kAuditPrefix = "/aiv/audit/";

struct NodeSettings {
  std::string id;
  bool draining = false;
  std::string failure_domain;
};

struct KeyRecord {
  RouteKey key;
  std::int64_t created_ms = 0;
};

std::string model_to_text(const ModelRecord& model);
// Without what is read from the file (facts); `fake` is filled in.
Result<ModelRecord> model_from_text(const std::string& text);
std::string deployment_to_text(const Deployment& deployment);
Result<Deployment> deployment_from_text(const std::string& text);
std::string placement_to_text(const Placement& placement);
Result<Placement> placement_from_text(const std::string& text);
std::string key_to_text(const KeyRecord& key);
Result<KeyRecord> key_from_text(const std::string& text);
std::string node_to_text(const NodeSettings& node);
Result<NodeSettings> node_from_text(const std::string& text);

// [A-Za-z0-9][A-Za-z0-9._:/-]{0,127} without "..", "//" or a trailing "/": what models, deployments, nodes and keys may
// be called. kInvalidArgument says what is wrong with it, without repeating it.
Result<> check_name(std::string_view name);

}  // namespace aiv::controller
