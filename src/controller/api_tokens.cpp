// Join tokens: with one of them a machine becomes a node (controller/enrolment.hpp).
#include "base/file.hpp"
#include "base/hash.hpp"
#include "base/units.hpp"
#include "controller/api_records.hpp"
#include "core/join_token.hpp"
#include "net/pki.hpp"

namespace aiv::controller {

namespace {

constexpr std::int64_t kDefaultTtlS = 24 * 3600;
constexpr int kDefaultUses = 16;
constexpr std::size_t kTokensMax = 1000;

}  // namespace

Json view_token(const Cluster& cluster, const TokenRecord& token) {
  Json json;
  json["id"] = token.id;
  json["uses"] = token.uses;
  json["uses_left"] = token.uses_left;
  json["node"] = token.node;
  json["labels"] = token.labels;
  json["expires_at"] = rfc3339(token.expires_at_ms);
  json["created_at"] = rfc3339(token.created_ms);
  const bool expired = token.expires_at_ms <= Cluster::now().unix_ms;
  json["state"] = expired ? "expired" : token.uses_left == 0 ? "used_up" : "valid";
  json["revision"] = cluster.revision_of(kTokenPrefix + token.id);
  return json;
}

namespace handlers {

net::Task<ApiReply> list_tokens(ApiContext& context, ApiRequest) {
  co_return reply_all(context, context.cluster.tokens(), view_token);
}

net::Task<ApiReply> get_token(ApiContext& context, ApiRequest request) {
  co_return reply_one(context, context.cluster.tokens(), request.arguments.front(), "join token", view_token);
}

net::Task<ApiReply> post_token(ApiContext& context, ApiRequest request) {
  Cluster& cluster = context.cluster;
  const auto json = read_object(request.body);
  if (!json) co_return reply_error(json.error());
  JsonReader reader(*json, "");
  TokenRecord token;
  const std::int64_t ttl_s = reader.integer_or("expires_in_s", kDefaultTtlS, 1, 366LL * 86'400);
  token.node = reader.string_or("node", "", 128);
  token.uses = static_cast<int>(reader.integer_or("uses", token.node.empty() ? kDefaultUses : 1, 1, 10'000));
  token.labels = read_labels(reader, "labels");
  reader.refuse_unknown();
  if (!reader.ok()) co_return reply_error(reader.error());
  if (!token.node.empty()) {
    if (auto sound = check_node_name(token.node); !sound) {
      co_return reply_error({ErrorCode::kInvalidArgument, sound.error().reason, "node"});
    }
  }
  if (cluster.tokens().size() >= kTokensMax) {
    co_return reply_error({ErrorCode::kConflict, "there are 1000 join tokens; remove old ones first", ""}, "too_many",
                          "aiv token ls");
  }
  const auto authority = read_file(context.authority_dir + "/ca.pem", 64 * 1024);
  const auto pin = authority ? net::authority_pin(*authority) : Result<std::string>(std::unexpected(authority.error()));
  if (!pin) co_return reply_error({ErrorCode::kUnavailable, "the cluster's authority cannot be read", ""});
  const JoinToken text{random_base62(kTokenIdCharacters), random_base62(kTokenSecretCharacters), *pin};
  token.id = text.id;
  token.secret_sha256 = sha256_hex(text.secret);
  token.uses_left = token.uses;
  token.created_ms = Cluster::now().unix_ms;
  token.expires_at_ms = token.created_ms + ttl_s * 1000;
  Cluster::Change change = Cluster::Change::of(request.actor, "token.created", "token/" + token.id);
  change.txn.compares.push_back(Compare::absent(kTokenPrefix + token.id));
  change.txn.ops.push_back(Op::put(kTokenPrefix + token.id, token_to_text(token)));
  auto stored = co_await cluster.change(std::move(change));
  if (!stored) co_return reply_error(stored.error());
  Json body = view_token(cluster, token);
  body["token"] = format_join_token(text);  // this once
  body["server"] = context.link_address();
  co_return ApiReply{201, std::move(body)};
}

net::Task<ApiReply> delete_token(ApiContext& context, ApiRequest request) {
  const std::string id = request.arguments.front();
  if (!context.cluster.tokens().contains(id)) co_return reply_not_found("join token", id);
  Cluster::Change change = Cluster::Change::of(request.actor, "token.deleted", "token/" + id);
  change.txn.ops.push_back(Op::erase(kTokenPrefix + id));
  auto stored = co_await context.cluster.change(std::move(change));
  co_return reply_changed("id", id, stored);
}

}  // namespace handlers
}  // namespace aiv::controller
