// JSON forms of core/documents.hpp. Unknown fields are ignored (a newer peer may send them); an unknown enum or a
// missing required field refuses the whole document by field name.
#pragma once
#include "base/json.hpp"
#include "core/documents.hpp"

namespace aiv::wire {

Json to_json(const NodeDesired& document);
Json to_json(const NodeObserved& document);
Json to_json(const RouteTable& document);
Json to_json(const ReplicaSpec& spec);
Json to_json(const ReplicaStatus& status);
Json to_json(const Device& device);
Json to_json(const DeviceBytes& bytes);
Json to_json(const KeyLimits& limits);
// The object at `key`; absent: no limits.
KeyLimits key_limits_of(JsonReader& reader, std::string_view key);

Result<NodeDesired> node_desired_from_json(const Json& json);
Result<NodeObserved> node_observed_from_json(const Json& json);
Result<RouteTable> route_table_from_json(const Json& json);
Result<ReplicaSpec> replica_spec_from_json(const Json& json, const std::string& path = "replica");

// Hash of everything that changes the engine's command line; `draining` is left out.
std::string spec_hash(const ReplicaSpec& spec);

std::string_view to_string(ReplicaState state);
std::string_view to_string(ModelKind kind);
std::string_view to_string(EngineKind kind);
std::string_view to_string(DeviceKind kind);
std::string_view to_string(Role role);
Result<Role> role_from_string(std::string_view text);
Result<ReplicaState> replica_state_from_string(std::string_view text);

}  // namespace aiv::wire
