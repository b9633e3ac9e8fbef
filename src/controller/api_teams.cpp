// Teams: keys that share limits. A team is made by name, or by the first key that names it; it goes when no key belongs to
// it any more.
#include <algorithm>
#include <set>

#include "base/units.hpp"
#include "controller/api.hpp"
#include "wire/documents.hpp"

namespace aiv::controller {

namespace {

constexpr std::size_t kTeamsMax = 10'000;

ApiReply no_team(const std::string& name) {
  return reply_error({ErrorCode::kNotFound, "there is no team of this name", printable(name, 128)}, {}, "aiv team ls");
}

std::int64_t keys_of(const Cluster& cluster, const std::string& team) {
  return std::ranges::count_if(cluster.keys(), [&](const auto& entry) { return entry.second.key.team == team; });
}

bool team_exists(const Cluster& cluster, const std::string& name) {
  return cluster.teams().contains(name) || (!name.empty() && keys_of(cluster, name) > 0);
}

// Stores the record if it is still as this change saw it.
net::Task<Result<std::int64_t>> store_team(Cluster& cluster, TeamRecord record, std::string actor, std::string action) {
  const std::string key = kTeamPrefix + record.name;
  Cluster::Change change = Cluster::Change::of(std::move(actor), std::move(action), "team/" + record.name);
  change.txn.compares.push_back(cluster.still_as_known(key));
  change.txn.ops.push_back(Op::put(key, team_to_text(record)));
  auto done = co_await cluster.change(std::move(change));
  co_return done;
}

}  // namespace

KeyLimits key_limits_asked(JsonReader& reader, const std::string& key, const KeyLimits& present) {
  const Json& asked = reader.object(key, false);
  if (!asked.is_object() || asked.empty()) return present;
  Json whole{{key, wire::to_json(present)}};
  for (const auto& [name, value] : asked.items()) {
    if (!whole[key].contains(name)) {
      reader.fail_at(key + "." + printable(name, 60), "is not a known field");
      return present;
    }
    if (!value.is_null()) whole[key][name] = value;
  }
  JsonReader merged(whole, "");
  const KeyLimits limits = wire::key_limits_of(merged, key);
  reader.absorb(merged);
  return limits;
}

Result<> join_team(const Cluster& cluster, const std::string& team, const KeyLimits& limits, bool limits_given, Txn& txn) {
  if (auto sound = check_name(team); !sound) return fail(ErrorCode::kInvalidArgument, sound.error().reason, "team");
  const bool exists = team_exists(cluster, team);
  const KeyLimits present = cluster.team_limits(team);
  if (exists && limits_given && limits != present) {
    return fail(ErrorCode::kConflict, "the team has other limits, which a key that joins it cannot change", "team_limits");
  }
  const std::string key = kTeamPrefix + team;
  const auto found = cluster.teams().find(team);
  const bool stored = found != cluster.teams().end();
  if (!stored && cluster.teams().size() >= kTeamsMax) return fail(ErrorCode::kConflict, "there are 10000 teams", "team");
  // Written again though nothing of it changes: a deletion that saw no key of it compares its revision.
  txn.compares.push_back(cluster.still_as_known(key));
  const TeamRecord record = stored ? found->second : TeamRecord{team, exists ? present : limits, Cluster::now().unix_ms};
  txn.ops.push_back(Op::put(key, team_to_text(record)));
  return {};
}

namespace handlers {

net::Task<ApiReply> list_teams(ApiContext& context, ApiRequest) {
  std::set<std::string> names;
  for (const auto& [name, record] : context.cluster.teams()) names.insert(name);
  for (const auto& [id, record] : context.cluster.keys()) names.insert(record.key.team);
  names.erase("");
  Json items = Json::array();
  for (const std::string& name : names) items.push_back(view_team(context.cluster, name));
  co_return reply_list(context, std::move(items));
}

net::Task<ApiReply> get_team(ApiContext& context, ApiRequest request) {
  const std::string& name = request.arguments.front();
  if (!team_exists(context.cluster, name)) co_return no_team(name);
  co_return ApiReply{200, view_team(context.cluster, name)};
}

net::Task<ApiReply> post_team(ApiContext& context, ApiRequest request) {
  Cluster& cluster = context.cluster;
  const auto json = read_object(request.body);
  if (!json) co_return reply_error(json.error());
  JsonReader reader(*json, "");
  TeamRecord team;
  team.name = reader.string("name", 128);
  team.limits = key_limits_asked(reader, "limits", {});
  reader.refuse_unknown();
  if (!reader.ok()) co_return reply_error(reader.error());
  if (auto sound = check_name(team.name); !sound) {
    co_return reply_error({ErrorCode::kInvalidArgument, sound.error().reason, "name"});
  }
  if (team_exists(cluster, team.name)) {
    co_return reply_error({ErrorCode::kConflict, "there is a team of this name already", "name"}, "exists", "aiv team set NAME --rpm N");
  }
  if (cluster.teams().size() >= kTeamsMax) {
    co_return reply_error({ErrorCode::kConflict, "there are 10000 teams; remove old ones first", ""}, "too_many", "aiv team rm NAME");
  }
  team.created_ms = Cluster::now().unix_ms;
  const std::string name = team.name;
  auto stored = co_await store_team(cluster, std::move(team), request.actor, "team.created");
  if (!stored) co_return reply_error(stored.error());
  co_return ApiReply{201, view_team(cluster, name)};
}

net::Task<ApiReply> patch_team(ApiContext& context, ApiRequest request) {
  Cluster& cluster = context.cluster;
  const std::string name = request.arguments.front();
  const auto json = read_object(request.body);
  if (!json) co_return reply_error(json.error());
  TeamRecord team{.name = name, .limits = cluster.team_limits(name), .created_ms = Cluster::now().unix_ms};
  JsonReader reader(*json, "");
  reader.object("limits");
  team.limits = key_limits_asked(reader, "limits", team.limits);
  reader.refuse_unknown();
  if (!reader.ok()) co_return reply_error(reader.error());
  if (!team_exists(cluster, name)) co_return no_team(name);
  if (const auto found = cluster.teams().find(name); found != cluster.teams().end()) team.created_ms = found->second.created_ms;
  auto stored = co_await store_team(cluster, std::move(team), request.actor, "team.changed");
  if (!stored) co_return reply_error(stored.error());
  co_return ApiReply{200, view_team(cluster, name)};
}

net::Task<ApiReply> delete_team(ApiContext& context, ApiRequest request) {
  Cluster& cluster = context.cluster;
  const std::string name = request.arguments.front();
  if (!team_exists(cluster, name)) co_return no_team(name);
  if (const std::int64_t keys = keys_of(cluster, name); keys > 0) {
    co_return reply_error({ErrorCode::kConflict, std::to_string(keys) + (keys == 1 ? " key belongs" : " keys belong") + " to it", ""},
                          "in_use", "aiv key set ID --team ''");
  }
  Cluster::Change change = Cluster::Change::of(request.actor, "team.deleted", "team/" + name);
  change.txn.compares.push_back(cluster.still_as_known(kTeamPrefix + name));
  change.txn.ops.push_back(Op::erase(kTeamPrefix + name));
  auto stored = co_await cluster.change(std::move(change));
  co_return reply_changed("name", name, stored);
}

}  // namespace handlers
}  // namespace aiv::controller
