// Our own API, /aiv/v1: one table says which routes there are and who may call them; nothing else registers a handler.
//
// The gateway has authenticated the caller; it passes on who it is (x-aiv-actor) and as what (x-aiv-role). Authorisation
// comes before look-up, validation and the reading of the body. Lists are {"items":[..],"revision":N}; an unknown field
// in a request is refused by name; errors are {"error":{"code","message","try"}}.
#pragma once
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "controller/cluster.hpp"
#include "net/http.hpp"

namespace aiv::controller {

enum class Access { kPublic, kUser, kOperator, kAdmin };
[[nodiscard]] std::string_view to_string(Access access);

struct ApiRequest {
  std::string method;
  std::string path;
  std::string query;
  std::string actor;
  std::string body;
  std::vector<std::string> arguments;  // of the pattern's {..}
};

struct ApiReply {
  int status = 200;
  Json body;
};

struct ApiContext;

enum class Stream {
  kNone,
  kEvents,  // what happens, from ?since= on
  kItems,   // the list and then its changes (api_watch.cpp)
};

// One entry: `pattern` has {name} for a segment and {name*} for all that is left.
struct ApiRoute {
  std::string_view method;
  std::string_view pattern;
  Access access;
  net::Task<ApiReply> (*handler)(ApiContext& context, ApiRequest request);
  Stream stream = Stream::kNone;  // what it answers with when the caller asks for a stream
};
[[nodiscard]] std::span<const ApiRoute> api_routes();

// What handlers work on; outlives every request.
struct ApiContext {
  Cluster& cluster;
  net::Executor executor;
  // Relays a GET to a node ("/node/v1/..."), text at most `max_bytes`; kUnavailable when it cannot be reached.
  std::function<net::Task<Result<std::string>>(std::string node, std::string path, std::size_t max_bytes)> ask_node;
  bool stopping = false;
  std::string authority_dir;  // of the cluster's certificates; empty in tests without one
  // HOST:PORT that a node dials, as far as this server knows; empty before the gateway has said its port.
  std::function<std::string()> link_address = [] { return std::string(); };
};

class Api {
 public:
  explicit Api(ApiContext& context) : context_(context) {}
  // Answers one exchange. Usable as net::Handler.
  net::Task<> handle(net::ExchangePtr exchange);

 private:
  net::Task<> stream_events(net::ExchangePtr exchange);
  net::Task<> watch_list(net::ExchangePtr exchange, const ApiRoute* route, ApiRequest request);
  ApiContext& context_;
};

inline constexpr std::size_t kApiBodyBytesMax = 1024 * 1024;

// ---- for handlers ----------------------------------------------------------------------------------------

[[nodiscard]] ApiReply reply_error(const Error& error, std::string_view code = {}, std::string_view try_this = {});
// Server-sent events: the head (false: the caller is gone), and the end of what was begun.
net::Task<bool> begin_stream(net::ExchangePtr exchange);
net::Task<> end_stream(net::ExchangePtr exchange);
// The body of a request, which must be a JSON object.
[[nodiscard]] Result<Json> read_object(const std::string& body);
// What a request wants limits to be: those that it leaves out stay as in `present`, an unknown one is refused by name.
[[nodiscard]] KeyLimits key_limits_asked(JsonReader& reader, const std::string& key, const KeyLimits& present);
// Adds to `txn` that a key joins this team, which is made with `limits` if it is new; kConflict if it has others. A team
// that is deleted at the same moment makes the transaction fail.
[[nodiscard]] Result<> join_team(const Cluster& cluster, const std::string& team, const KeyLimits& limits, bool limits_given, Txn& txn);
// What a change that shows no object answers: {KEY: value, "revision"}, or why it was not stored.
[[nodiscard]] ApiReply reply_changed(const char* key, const std::string& value, const Result<std::int64_t>& revision);
[[nodiscard]] ApiReply reply_list(const ApiContext& context, Json items);
[[nodiscard]] Json openapi_document();

// Views: the JSON of each resource.
Json view_node(const Cluster& cluster, const NodeRecord& node);
Json view_device(const Cluster& cluster, const NodeRecord& node, const Device& device);
Json view_model(const Cluster& cluster, const ModelRecord& model);
Json view_deployment(const Cluster& cluster, const Deployment& deployment);
Json view_replica(const Cluster& cluster, const Placement& placement);
Json view_key(const Cluster& cluster, const KeyRecord& key);
// Of a team with a record, or one that only keys name.
Json view_team(const Cluster& cluster, const std::string& name);
Json view_token(const Cluster& cluster, const TokenRecord& token);
Json view_event(const EventEntry& event);

// Handlers, by file.
namespace handlers {
net::Task<ApiReply> list_nodes(ApiContext&, ApiRequest);
net::Task<ApiReply> get_node(ApiContext&, ApiRequest);
net::Task<ApiReply> patch_node(ApiContext&, ApiRequest);
net::Task<ApiReply> delete_node(ApiContext&, ApiRequest);
net::Task<ApiReply> list_devices(ApiContext&, ApiRequest);
net::Task<ApiReply> get_device(ApiContext&, ApiRequest);
net::Task<ApiReply> patch_device(ApiContext&, ApiRequest);
net::Task<ApiReply> list_replicas(ApiContext&, ApiRequest);
net::Task<ApiReply> get_replica(ApiContext&, ApiRequest);
net::Task<ApiReply> get_replica_log(ApiContext&, ApiRequest);
net::Task<ApiReply> list_models(ApiContext&, ApiRequest);
net::Task<ApiReply> get_model(ApiContext&, ApiRequest);
net::Task<ApiReply> post_model(ApiContext&, ApiRequest);
net::Task<ApiReply> delete_model(ApiContext&, ApiRequest);
net::Task<ApiReply> list_deployments(ApiContext&, ApiRequest);
net::Task<ApiReply> get_deployment(ApiContext&, ApiRequest);
net::Task<ApiReply> post_deployment(ApiContext&, ApiRequest);
net::Task<ApiReply> patch_deployment(ApiContext&, ApiRequest);
net::Task<ApiReply> delete_deployment(ApiContext&, ApiRequest);
net::Task<ApiReply> list_keys(ApiContext&, ApiRequest);
net::Task<ApiReply> get_key(ApiContext&, ApiRequest);
net::Task<ApiReply> post_key(ApiContext&, ApiRequest);
net::Task<ApiReply> patch_key(ApiContext&, ApiRequest);
net::Task<ApiReply> delete_key(ApiContext&, ApiRequest);
net::Task<ApiReply> list_teams(ApiContext&, ApiRequest);
net::Task<ApiReply> get_team(ApiContext&, ApiRequest);
net::Task<ApiReply> post_team(ApiContext&, ApiRequest);
net::Task<ApiReply> patch_team(ApiContext&, ApiRequest);
net::Task<ApiReply> delete_team(ApiContext&, ApiRequest);
net::Task<ApiReply> list_tokens(ApiContext&, ApiRequest);
net::Task<ApiReply> get_token(ApiContext&, ApiRequest);
net::Task<ApiReply> post_token(ApiContext&, ApiRequest);
net::Task<ApiReply> delete_token(ApiContext&, ApiRequest);
net::Task<ApiReply> list_plans(ApiContext&, ApiRequest);
net::Task<ApiReply> post_plan(ApiContext&, ApiRequest);
net::Task<ApiReply> list_audit(ApiContext&, ApiRequest);
net::Task<ApiReply> list_events(ApiContext&, ApiRequest);
net::Task<ApiReply> get_status(ApiContext&, ApiRequest);
net::Task<ApiReply> get_version(ApiContext&, ApiRequest);
net::Task<ApiReply> get_openapi(ApiContext&, ApiRequest);
}  // namespace handlers

// A registered model for what a request calls it: an id, an absolute path of a GGUF file, or the name of a fake model.
// What is not registered yet is, under `name` if that is not empty. Errors: kNotFound, kConflict (the name is taken by
// another file), and those of reading the header.
net::Task<Result<ModelRecord>> ensure_model(ApiContext& context, std::string wanted, std::string name,
                                            std::string actor, bool dry_run);

// A new key with its record in the store, and what join_team() made of its team; the text is given out once.
struct NewKey {
  KeyRecord record;
  std::string text;
};
net::Task<Result<NewKey>> create_key(ApiContext& context, RouteKey wanted, std::string actor, Txn team);

}  // namespace aiv::controller
