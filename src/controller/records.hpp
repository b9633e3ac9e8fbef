// What the store holds: keys and JSON forms. An unknown field is ignored (a newer version may have written it), a
// missing or mistyped one refuses the record by field name; the rest of the state goes on.
//
//   /aiv/leader            {"holder","epoch","seq"}
//   /aiv/epoch             the number; written by a takeover alone and compared by every other write (fencing)
//   /aiv/models/ID         /aiv/deployments/NAME   /aiv/placements/REPLICA   /aiv/keys/ID
//   /aiv/teams/NAME        a team of keys and its limits
//   /aiv/nodes/ID          what an admin set for a node, and with which key it joined
//   /aiv/tokens/ID         join tokens, by the hash of their secret
//   /aiv/denied/NODE       a node that was removed: {"node","issued_before_s"}
//   /aiv/margins/HASH      what loads taught about estimates on one sort of card; HASH of its key, which the record holds
//   /aiv/audit/N           who changed what, N with 16 digits (controller/audit.hpp)
//   /aiv/audit-head        {"n","sha256"} of the newest of them
#pragma once
#include <string>
#include <utility>

#include "base/json.hpp"
#include "core/controller_state.hpp"

namespace aiv::controller {

inline constexpr const char* kLeaderKey = "/aiv/leader";
inline constexpr const char* kEpochKey = "/aiv/epoch";
inline constexpr const char* kModelPrefix = "/aiv/models/";
inline constexpr const char* kDeploymentPrefix = "/aiv/deployments/";
inline constexpr const char* kPlacementPrefix = "/aiv/placements/";
inline constexpr const char* kKeyPrefix = "/aiv/keys/";
inline constexpr const char* kTeamPrefix = "/aiv/teams/";
inline constexpr const char* kNodePrefix = "/aiv/nodes/";
inline constexpr const char* kTokenPrefix = "/aiv/tokens/";
inline constexpr const char* kDeniedPrefix = "/aiv/denied/";
inline constexpr const char* kMarginPrefix = "/aiv/margins/";
inline constexpr const char* kAuditPrefix = "/aiv/audit/";
inline constexpr const char* kAuditHeadKey = "/aiv/audit-head";

struct NodeSettings {
  NodePolicy policy;
  std::string id;
  std::string key_pin;       // of the key whose certificate we signed; empty = it was made on the server
  std::string joined_token;  // id of the token it joined with
  std::int64_t joined_ms = 0;
};

struct TokenRecord {
  std::string id;
  std::string secret_sha256;
  int uses = 1;
  int uses_left = 1;
  std::string node;  // the one name it is for; empty = any
  std::map<std::string, std::string> labels;  // for the nodes that join with it
  std::int64_t expires_at_ms = 0;
  std::int64_t created_ms = 0;
};

struct KeyRecord {
  RouteKey key;
  std::int64_t created_ms = 0;
};

// Keys name the team that they belong to. What a key of an older version says of its team's limits (RouteKey::team_limits)
// counts only where the team has no record of its own.
struct TeamRecord {
  std::string name;
  KeyLimits limits;
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
std::string team_to_text(const TeamRecord& team);
Result<TeamRecord> team_from_text(const std::string& text);
std::string node_to_text(const NodeSettings& node);
Result<NodeSettings> node_from_text(const std::string& text);
std::string token_to_text(const TokenRecord& token);
Result<TokenRecord> token_from_text(const std::string& text);
std::string denied_to_text(const DeniedNode& denied);
Result<DeniedNode> denied_from_text(const std::string& text);
// Under this key, because names of cards and drivers hold blanks and slashes.
std::string margin_key(const MarginKey& key);
std::string margin_to_text(const MarginKey& key, const MarginHistory& history);
Result<std::pair<MarginKey, MarginHistory>> margin_from_text(const std::string& text);
// {"KEY":"VALUE"}: at most 32, keys and values as check_name() has them, each at most 64 characters.
std::map<std::string, std::string> read_labels(JsonReader& reader, std::string_view key);

// [A-Za-z0-9][A-Za-z0-9._:/-]{0,127} without "..", "//" or a trailing "/": what models, deployments, nodes and keys may
// be called. kInvalidArgument says what is wrong with it, without repeating it.
Result<> check_name(std::string_view name);
// A node's name is also a word of its certificate and of paths: letters, digits, '-', '_' and '.', at most 63.
Result<> check_node_name(std::string_view name);

}  // namespace aiv::controller
