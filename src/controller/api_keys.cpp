// API keys.
#include <algorithm>
#include <iterator>

#include "base/hash.hpp"
#include "base/units.hpp"
#include "controller/api_records.hpp"
#include "core/keys.hpp"
#include "wire/documents.hpp"

namespace aiv::controller {

namespace {

bool is_usable_admin(const RouteKey& key) {
  return key.role == Role::kAdmin && !key.disabled &&
         (key.expires_at_ms == 0 || key.expires_at_ms > Cluster::now().unix_ms);
}

ApiReply last_admin() {
  return reply_error({ErrorCode::kConflict, "it is the last usable admin key", ""}, "last_admin",
                     "aiv key create NAME --role admin");
}

// Before the key `id` can be used no more: nobody could make another admin over the API, so one must remain,
// and while this change is under way, too. False where there is no other.
bool leave_an_admin(const Cluster& cluster, const std::string& id, Txn& txn) {
  const auto found = cluster.keys().find(id);
  if (found == cluster.keys().end() || !is_usable_admin(found->second.key)) return true;
  const auto other = std::ranges::find_if(cluster.keys(), [&](const auto& entry) {
    return entry.first != id && is_usable_admin(entry.second.key);
  });
  if (other == cluster.keys().end()) return false;
  txn.compares.push_back(cluster.still_as_known(kKeyPrefix + other->first));
  return true;
}

Cluster::Change key_change(const KeyRecord& record, std::string actor, std::string action) {
  Cluster::Change change = Cluster::Change::of(std::move(actor), std::move(action), "key/" + record.key.id);
  change.txn.ops.push_back(Op::put(kKeyPrefix + record.key.id, key_to_text(record)));
  return change;
}

}  // namespace

net::Task<Result<NewKey>> create_key(ApiContext& context, RouteKey wanted, std::string actor, Txn team) {
  const ApiKey key{random_base62(kKeyIdCharacters), random_base62(kKeySecretCharacters)};
  NewKey made;
  made.text = format_api_key(key);
  made.record.key = std::move(wanted);
  made.record.key.id = key.id;
  made.record.key.secret_sha256 = sha256_hex(key.secret);
  made.record.created_ms = Cluster::now().unix_ms;
  Cluster::Change change = key_change(made.record, std::move(actor), "key.created");
  change.txn.compares.push_back(Compare::absent(kKeyPrefix + key.id));
  change.txn.add(std::move(team));
  auto stored = co_await context.cluster.change(std::move(change));
  if (!stored) co_return std::unexpected(stored.error());
  co_return made;
}

namespace handlers {

net::Task<ApiReply> list_keys(ApiContext& context, ApiRequest) {
  co_return reply_all(context, context.cluster.keys(), view_key);
}

net::Task<ApiReply> get_key(ApiContext& context, ApiRequest request) {
  co_return reply_one(context, context.cluster.keys(), request.arguments.front(), "key", view_key);
}

net::Task<ApiReply> post_key(ApiContext& context, ApiRequest request) {
  const auto json = read_object(request.body);
  if (!json) co_return reply_error(json.error());
  JsonReader reader(*json, "");
  RouteKey wanted;
  wanted.name = reader.string("name", 128);
  const auto role = wire::role_from_string(reader.string_or("role", "user", 32));
  if (!role) reader.fail_at("role", "is one of user, operator, admin");
  wanted.role = role.value_or(Role::kUser);
  for (const Json& model : reader.array("models", false)) {
    if (!model.is_string() || wanted.models.size() >= 256) {
      reader.fail_at("models", "is a list of at most 256 names");
      break;
    }
    wanted.models.push_back(model.get<std::string>());
  }
  const std::int64_t ttl_s = reader.integer_or("expires_in_s", 0, 0, 10LL * 365 * 86'400);
  wanted.limits = key_limits_asked(reader, "limits", {});
  wanted.team = reader.string_or("team", "", 128);
  const KeyLimits team_limits = key_limits_asked(reader, "team_limits", {});
  if (wanted.team.empty() && team_limits != KeyLimits{}) reader.fail_at("team_limits", "needs a team");
  reader.refuse_unknown();
  if (!reader.ok()) co_return reply_error(reader.error());
  if (auto sound = check_name(wanted.name); !sound) {
    co_return reply_error({ErrorCode::kInvalidArgument, sound.error().reason, "name"});
  }
  Txn team;
  if (!wanted.team.empty()) {
    const bool limits_given = team_limits != KeyLimits{};
    if (auto joined = join_team(context.cluster, wanted.team, team_limits, limits_given, team); !joined) {
      co_return reply_error(joined.error(), {}, "aiv team set NAME --rpm N");
    }
  }
  if (ttl_s > 0) wanted.expires_at_ms = Cluster::now().unix_ms + ttl_s * 1000;
  auto made = co_await create_key(context, std::move(wanted), request.actor, std::move(team));
  if (!made) co_return reply_error(made.error());
  Json body = view_key(context.cluster, made->record);
  body["key"] = made->text;  // this once
  co_return ApiReply{201, std::move(body)};
}

net::Task<ApiReply> patch_key(ApiContext& context, ApiRequest request) {
  Cluster& cluster = context.cluster;
  const std::string id = request.arguments.front();
  const auto json = read_object(request.body);
  if (!json) co_return reply_error(json.error());
  JsonReader reader(*json, "");
  const bool has_disabled = reader.has("disabled");
  const bool disabled = reader.boolean_or("disabled", false);
  const bool has_team = reader.has("team");
  const std::string team = reader.string_or("team", "", 128);
  const auto found = cluster.keys().find(id);
  const KeyLimits limits = key_limits_asked(
      reader, "limits", found == cluster.keys().end() ? KeyLimits{} : found->second.key.limits);
  reader.refuse_unknown();
  if (!reader.ok()) co_return reply_error(reader.error());
  if (found == cluster.keys().end()) co_return reply_not_found("key", id);
  KeyRecord record = found->second;
  Txn together;  // what else has to hold, or changes with it
  if (has_team && team != record.key.team) {
    if (!team.empty()) {
      if (auto joined = join_team(cluster, team, {}, false, together); !joined)
        co_return reply_error(joined.error());
    }
    record.key.team = team;
    record.key.team_limits = {};
  }
  if (has_disabled && disabled && !leave_an_admin(cluster, id, together)) co_return last_admin();
  if (has_disabled) record.key.disabled = disabled;
  record.key.limits = limits;
  Cluster::Change change = key_change(record, request.actor, disabled ? "key.disabled" : "key.changed");
  change.txn.compares.push_back(cluster.still_as_known(kKeyPrefix + id));
  change.txn.add(std::move(together));
  auto stored = co_await cluster.change(std::move(change));
  if (!stored) co_return reply_error(stored.error());
  co_return ApiReply{200, view_key(cluster, record)};
}

net::Task<ApiReply> delete_key(ApiContext& context, ApiRequest request) {
  Cluster& cluster = context.cluster;
  const std::string id = request.arguments.front();
  if (!cluster.keys().contains(id)) co_return reply_not_found("key", id);
  Cluster::Change change = Cluster::Change::of(request.actor, "key.deleted", "key/" + id);
  if (!leave_an_admin(cluster, id, change.txn)) co_return last_admin();
  change.txn.ops.push_back(Op::erase(kKeyPrefix + id));
  auto stored = co_await cluster.change(std::move(change));
  co_return reply_changed("id", id, stored);
}

}  // namespace handlers
}  // namespace aiv::controller
