// The description of /aiv/v1, OpenAPI 3.1, written by hand: what is promised to callers. A test walks it against the
// route table both ways. `x-aiv-role` is filled in from that table.
#include "controller/api.hpp"

namespace aiv::controller {

namespace {

constexpr const char* kHead = R"json({
"openapi": "3.1.0",
"info": {"title": "AIvailable", "version": "1", "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
  "description": "Controls a cluster that serves language models on heterogeneous GPUs. Lists are {items, revision}. Sizes are bytes, times RFC 3339. Unknown fields in a request are refused."},
"security": [{"key": []}],
"components": {
  "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
  "schemas": {
    "Error": {"type": "object", "required": ["error"], "properties": {"error": {"type": "object", "required": ["code", "message"],
      "properties": {"code": {"type": "string"}, "message": {"type": "string"}, "try": {"type": "string", "description": "the next step"},
        "outcome": {"enum": ["none", "unknown"], "description": "with 503: whether the change was made"}}},
      "current": {"description": "with 409: the resource as it is now"}, "plan": {"$ref": "#/components/schemas/Plan"}}},
    "Plan": {"type": "object", "properties": {"placed": {"type": "boolean"}, "reason": {"type": "string"}, "bytes_per_replica": {"type": "integer"},
      "placements": {"type": "array", "items": {"type": "object", "properties": {"node": {"type": "string"}, "variant": {"type": "string"},
        "devices": {"type": "array", "items": {"type": "object"}}, "keep": {"type": "boolean"}}}}}},
    "Device": {"type": "object", "properties": {"id": {"type": "string", "examples": ["n1/0"]}, "node": {"type": "string"}, "name": {"type": "string"},
      "backend": {"type": "string"}, "kind": {"enum": ["gpu", "software"]}, "vram_bytes": {"type": "integer"}, "free_bytes": {"type": "integer", "description": "as the driver says"},
      "foreign_bytes": {"type": "integer", "description": "held by programs that are not ours"}, "reserved_bytes": {"type": "integer", "description": "held by, or promised to, our replicas"},
      "budget_bytes": {"type": "integer", "description": "what all our replicas together may take"}, "off": {"type": "boolean", "description": "switched off by an operator"},
      "off_now": {"type": "boolean", "description": "switched off, or in its off hours"}, "exclusive": {"type": "boolean", "description": "at most one replica at a time"},
      "off_hours": {"type": "string", "description": "such as 'Mo-Fr 08-18', by the server's local time"}, "reserve_bytes": {"type": "integer", "description": "kept free for others, as an operator said"}, "margin_bytes": {"type": "integer"}, "overhead_bytes": {"type": "integer", "description": "driver context of one process"},
      "bandwidth_bytes_per_s": {"type": ["integer", "null"]}, "driver": {"type": "string"}, "state": {"type": "string"}, "refused": {"type": "string"},
      "replicas": {"type": "array", "items": {"type": "string"}}}},
    "Node": {"type": "object", "properties": {"id": {"type": "string"}, "state": {"enum": ["ready", "suspect", "lost", "quarantined", "draining"]},
      "failure_domain": {"type": "string"}, "labels": {"type": "object"}, "taints": {"type": "array", "items": {"type": "string"}}, "draining": {"type": "boolean"}, "silent_ms": {"type": "integer"}, "devices": {"type": "array", "items": {"$ref": "#/components/schemas/Device"}},
      "agent_version": {"type": "string"}, "engine": {"type": "string"}, "revision": {"type": "integer"}}},
    "NodeChange": {"type": "object", "additionalProperties": false, "properties": {"draining": {"type": "boolean"}, "failure_domain": {"type": "string"},
      "labels": {"type": "object", "additionalProperties": {"type": "string"}}, "taints": {"type": "array", "maxItems": 16, "items": {"type": "string"}}}},
    "DeviceChange": {"type": "object", "additionalProperties": false, "properties": {"off": {"type": "boolean", "description": "nothing of ours may be there"},
      "exclusive": {"type": "boolean", "description": "at most one replica at a time"},
      "off_hours": {"type": "string", "description": "off in these hours, by the server's local time: 'Mo-Fr 08-18', 'Sa,Su 10:30-14; 22-06'; empty: none"},
      "reserve_bytes": {"type": "integer", "minimum": 0, "description": "kept free for other people's programs"}}},
    "Token": {"type": "object", "properties": {"id": {"type": "string"}, "uses": {"type": "integer"}, "uses_left": {"type": "integer"}, "node": {"type": "string", "description": "the one name it is for"},
      "labels": {"type": "object", "additionalProperties": {"type": "string"}}, "expires_at": {"type": "string"}, "created_at": {"type": "string"}, "state": {"enum": ["valid", "expired", "used_up"]},
      "token": {"type": "string", "description": "once, in the answer to POST"}, "server": {"type": "string", "description": "HOST:PORT for nodes, in the answer to POST"}, "revision": {"type": "integer"}}},
    "TokenChange": {"type": "object", "additionalProperties": false, "properties": {"expires_in_s": {"type": "integer", "minimum": 1, "default": 86400}, "uses": {"type": "integer", "minimum": 1, "default": 16},
      "node": {"type": "string"}, "labels": {"type": "object", "additionalProperties": {"type": "string"}}}},
    "Drop": {"type": "object", "properties": {"drop": {"type": "string", "description": "the node that dies"}, "survives": {"type": "boolean", "description": "all that is served now is served at once by what is left"},
      "restored": {"type": "boolean", "description": "every deployment gets its replicas back elsewhere"},
      "deployments": {"type": "array", "items": {"type": "object", "properties": {"deployment": {"type": "string"}, "ready_before": {"type": "integer"}, "ready_left": {"type": "integer"}, "wanted": {"type": "integer"}, "after": {"type": "integer"}, "reason": {"type": "string"}}}},
      "loads": {"type": "array", "items": {"type": "object", "properties": {"deployment": {"type": "string"}, "node": {"type": "string"}, "devices": {"type": "array", "items": {"type": "object"}}, "why": {"type": "string"}}}}}},
    "PlanQuestion": {"type": "object", "additionalProperties": false, "required": ["drop"], "properties": {"drop": {"type": "string"}}},
    "AuditRecord": {"type": "object", "properties": {"n": {"type": "integer"}, "time": {"type": "string"}, "actor": {"type": "string"}, "action": {"type": "string"}, "object": {"type": "string"}, "record": {"type": "string", "description": "as stored; its SHA-256 is in the next one"}}},
    "Model": {"type": "object", "properties": {"id": {"type": "string"}, "digest": {"type": "string", "description": "empty while it is computed"}, "size_bytes": {"type": "integer"},
      "architecture": {"type": "string"}, "path": {"type": "string"}, "kind": {"enum": ["chat", "embedding", "rerank"]}, "engine": {"enum": ["llama", "fake"]},
      "train_ctx": {"type": "integer"}, "state": {"enum": ["ready", "hashing", "failed"]}, "reason": {"type": "string"}, "revision": {"type": "integer"}}},
    "Deployment": {"type": "object", "properties": {"name": {"type": "string"}, "model": {"type": "string"},
      "replicas": {"type": "object", "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}, "ready": {"type": "integer"}, "placed": {"type": "integer"}}},
      "ctx": {"type": "integer", "description": "tokens a request may use"}, "slots": {"type": "integer", "description": "requests at once on one replica"},
      "cache_type_k": {"type": "string"}, "cache_type_v": {"type": "string"}, "flash_attn": {"type": "boolean"}, "ubatch": {"type": "integer"},
      "kind": {"enum": ["chat", "embedding", "rerank"]}, "pooling": {"type": "string", "description": "empty: the model's own"}, "aliases": {"type": "array", "items": {"type": "string"}},
      "priority": {"type": "integer"}, "pinned": {"type": "boolean"}, "on": {"type": "object"}, "tolerates": {"type": "array", "items": {"type": "string"}},
      "why": {"type": "array", "description": "each replica: where it is, and why there", "items": {"type": "object", "properties": {"replica": {"type": "string"}, "node": {"type": "string"}, "state": {"type": "string"}, "why": {"type": "string"}}}},
      "state": {"enum": ["ready", "loading", "pending", "failed", "idle"]}, "reason": {"type": "string"}, "survives_node_loss": {"type": "boolean"},
      "generation": {"type": "integer"}, "created_at": {"type": "string"}, "revision": {"type": "integer"}}},
    "DeploymentChange": {"type": "object", "additionalProperties": false, "properties": {"name": {"type": "string", "description": "only in POST"},
      "model": {"type": "string", "description": "a model's id, the absolute path of a .gguf file, or fake-small"},
      "replicas": {"oneOf": [{"type": "integer", "minimum": 0, "maximum": 1000}, {"type": "object", "additionalProperties": false, "required": ["min"], "properties": {"min": {"type": "integer"}, "max": {"type": "integer"}}}]},
      "ctx": {"type": "integer", "minimum": 64}, "slots": {"type": "integer", "minimum": 1, "maximum": 64}, "ubatch": {"type": "integer", "minimum": 16, "maximum": 8192}, "flash_attn": {"type": "boolean"},
      "cache_type_k": {"type": "string"}, "cache_type_v": {"type": "string"},
      "kind": {"enum": ["chat", "embedding", "rerank"], "description": "default: the model's; a chat model may serve embeddings"}, "pooling": {"enum": ["", "mean", "cls", "last"]},
      "pinned": {"type": "boolean", "description": "never unloaded to make room for others"},
      "priority": {"type": "integer", "minimum": 1, "maximum": 100, "default": 10, "description": "whose replicas the room goes to first"},
      "on": {"type": "object", "additionalProperties": {"type": "string"}, "description": "only nodes with all these labels"},
      "tolerates": {"type": "array", "maxItems": 16, "items": {"type": "string"}, "description": "taints of nodes it may be placed on"},
      "aliases": {"type": "array", "maxItems": 16, "items": {"type": "string"}, "description": "further names that clients may say"},
      "revision": {"type": "integer", "description": "refused with 409 unless it is the present one; 0: must not exist"},
      "dry_run": {"type": "boolean"}, "pending": {"type": "boolean", "description": "keep it although it fits nowhere now"}, "wait": {"type": "boolean", "description": "answer when it is ready or has failed, at most 600 s"}}},
    "Replica": {"type": "object", "properties": {"id": {"type": "string"}, "deployment": {"type": "string"}, "model": {"type": "string"}, "node": {"type": "string"},
      "devices": {"type": "array", "items": {"type": "object", "properties": {"id": {"type": "string"}, "bytes": {"type": "integer"}, "weights_bytes": {"type": "integer"}, "kv_bytes": {"type": "integer"},
        "compute_bytes": {"type": "integer"}, "overhead_bytes": {"type": "integer"}, "origin": {"enum": ["measured", "estimated"]}, "planned_bytes": {"type": "integer"}}}},
      "state": {"enum": ["pending", "loading", "ready", "draining", "stopped", "failed"]}, "reason": {"type": "string"}, "progress": {"type": "number"}, "pid": {"type": "integer"},
      "started_at": {"type": "string"}, "ctx": {"type": "integer"}, "slots": {"type": "integer"}, "slots_busy": {"type": "integer"}, "endpoint": {"type": "string"}, "restarts": {"type": "integer"}, "why": {"type": "string"}}},
    "Key": {"type": "object", "properties": {"id": {"type": "string"}, "name": {"type": "string"}, "role": {"enum": ["user", "operator", "admin"]}, "models": {"type": "array", "items": {"type": "string"}},
      "expires_at": {"type": ["string", "null"]}, "disabled": {"type": "boolean"}, "limits": {"$ref": "#/components/schemas/KeyLimits"}, "team": {"type": "string"}, "team_limits": {"$ref": "#/components/schemas/KeyLimits"}, "created_at": {"type": "string"}, "key": {"type": "string", "description": "once, in the answer to POST"}}},
    "KeyLimits": {"type": "object", "description": "0 is without limit", "properties": {"requests_per_min": {"type": "integer"}, "tokens_per_min": {"type": "integer"}, "concurrency": {"type": "integer"}, "tokens_per_day": {"type": "integer"}}},
    "Team": {"type": "object", "properties": {"name": {"type": "string"}, "limits": {"$ref": "#/components/schemas/KeyLimits"}, "keys": {"type": "integer", "description": "how many belong to it"}, "created_at": {"type": "string"}}},
    "TeamChange": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "limits": {"$ref": "#/components/schemas/KeyLimits"}}},
    "TeamLimitsChange": {"type": "object", "required": ["limits"], "properties": {"limits": {"$ref": "#/components/schemas/KeyLimits"}}},
    "Usage": {"type": "object", "properties": {"day": {"type": "string"}, "key": {"type": "string"}, "name": {"type": "string"}, "team": {"type": "string"}, "user": {"type": "string"}, "model": {"type": "string"},
      "requests": {"type": "integer"}, "prompt_tokens": {"type": "integer"}, "generated_tokens": {"type": "integer"}}},
    "Event": {"type": "object", "properties": {"seq": {"type": "integer"}, "time": {"type": "string"}, "kind": {"type": "string"}, "subject": {"type": "string"}, "reason": {"type": "string"}, "cause": {"type": "string"}}}
  }},
"paths": {)json";

// method, path, summary, schema of the answer ("" none), "list" when it is a list, body schema
struct Operation {
  const char* method;
  const char* path;
  const char* summary;
  const char* answer;
  bool list;
  const char* body;
};

// The one path that the gateway answers by itself: it is what counts, and goes on counting without the controller.
constexpr std::string_view kUsagePath = "/aiv/v1/usage";

constexpr Operation kOperations[] = {
    {"get", "/aiv/v1/version", "Version of the server", "", false, ""},
    {"get", "/aiv/v1/openapi.json", "This document", "", false, ""},
    {"get", "/aiv/v1/status", "Epoch, revision and health of the controller", "", false, ""},
    {"get", "/aiv/v1/nodes", "Nodes with their devices", "Node", true, ""},
    {"get", "/aiv/v1/nodes/{id}", "One node", "Node", false, ""},
    {"patch", "/aiv/v1/nodes/{id}", "Drain or undrain a node, set its failure domain, labels and taints", "Node", false, "NodeChange"},
    {"delete", "/aiv/v1/nodes/{id}", "Remove a node: its certificate is refused from now on; ?force=1 although it runs replicas", "", false, ""},
    {"get", "/aiv/v1/devices", "GPUs of all nodes", "Device", true, ""},
    {"get", "/aiv/v1/devices/{id}", "One GPU; its id has a slash", "Device", false, ""},
    {"patch", "/aiv/v1/devices/{id}", "Keep memory of a GPU free for others, or all of it", "Device", false, "DeviceChange"},
    {"get", "/aiv/v1/replicas", "Replicas; ?deployment= and ?node= narrow it", "Replica", true, ""},
    {"get", "/aiv/v1/replicas/{id}", "One replica", "Replica", false, ""},
    {"get", "/aiv/v1/replicas/{id}/log", "The end of its engine's log", "", false, ""},
    {"get", "/aiv/v1/models", "Registered models", "Model", true, ""},
    {"post", "/aiv/v1/models", "Register a GGUF file of the server's disk ({path, name})", "Model", false, "object"},
    {"get", "/aiv/v1/models/{id}", "One model", "Model", false, ""},
    {"delete", "/aiv/v1/models/{id}", "Unregister a model that no deployment uses", "", false, ""},
    {"get", "/aiv/v1/deployments", "Deployments", "Deployment", true, ""},
    {"post", "/aiv/v1/deployments", "Deploy a model, or change the deployment of that name; 422 does_not_fit with the nearest change", "Deployment", false, "DeploymentChange"},
    {"get", "/aiv/v1/deployments/{name}", "One deployment", "Deployment", false, ""},
    {"patch", "/aiv/v1/deployments/{name}", "Change a deployment", "Deployment", false, "DeploymentChange"},
    {"delete", "/aiv/v1/deployments/{name}", "Stop a deployment", "", false, ""},
    {"get", "/aiv/v1/usage", "What was used per day (UTC), key, team, user and model; ?days=N with today; ?by=key, team, user or model adds the rows up; a user's key sees its own", "Usage", true, ""},
    {"get", "/aiv/v1/keys", "API keys, without their secrets", "Key", true, ""},
    {"post", "/aiv/v1/keys", "Create a key ({name, role, models, expires_in_s, limits, team}; team_limits too where the team is new); its text is in this answer alone", "Key", false, "object"},
    {"get", "/aiv/v1/keys/{id}", "One key", "Key", false, ""},
    {"patch", "/aiv/v1/keys/{id}", "Disable or enable a key, change its limits or its team ({disabled, limits, team})", "Key", false, "object"},
    {"delete", "/aiv/v1/keys/{id}", "Delete a key", "", false, ""},
    {"get", "/aiv/v1/teams", "Teams of keys, with their limits", "Team", true, ""},
    {"post", "/aiv/v1/teams", "Make a team", "Team", false, "TeamChange"},
    {"get", "/aiv/v1/teams/{name}", "One team", "Team", false, ""},
    {"patch", "/aiv/v1/teams/{name}", "Change a team's limits; those that are left out stay", "Team", false, "TeamLimitsChange"},
    {"delete", "/aiv/v1/teams/{name}", "Delete a team that no key belongs to", "", false, ""},
    {"get", "/aiv/v1/tokens", "Join tokens, without their secrets", "Token", true, ""},
    {"post", "/aiv/v1/tokens", "Make a join token; its text is in this answer alone", "Token", false, "TokenChange"},
    {"get", "/aiv/v1/tokens/{id}", "One join token", "Token", false, ""},
    {"delete", "/aiv/v1/tokens/{id}", "Delete a join token; nodes that joined with it stay", "", false, ""},
    {"get", "/aiv/v1/plans", "What if a node dies: the standing answer for each that runs something", "Drop", true, ""},
    {"post", "/aiv/v1/plans", "What if: answered by the controller's planner, nothing is changed", "Drop", false, "PlanQuestion"},
    {"get", "/aiv/v1/audit", "Who changed what, oldest first, with the head of the chain", "AuditRecord", true, ""},
    {"get", "/aiv/v1/events", "Events after ?since=SEQ; with Accept: text/event-stream they follow as they happen", "Event", true, ""},
};

std::string upper(std::string_view text) {
  std::string out(text);
  for (char& c : out) c = static_cast<char>(c - 'a' + 'A');
  return out;
}

Json reference(const char* schema) {
  Json json;
  json["$ref"] = std::string("#/components/schemas/") + schema;
  return json;
}

Json describe(const Operation& operation) {
  Json json;
  json["summary"] = operation.summary;
  std::string_view path = operation.path;
  for (std::size_t at = path.find('{'); at != std::string_view::npos; at = path.find('{', at + 1)) {
    Json parameter;
    parameter["name"] = std::string(path.substr(at + 1, path.find('}', at) - at - 1));
    parameter["in"] = "path";
    parameter["required"] = true;
    parameter["schema"]["type"] = "string";
    json["parameters"].push_back(std::move(parameter));
  }
  if (*operation.body != '\0') {
    Json schema = std::string_view(operation.body) == "object" ? Json{{"type", "object"}} : reference(operation.body);
    json["requestBody"]["required"] = true;
    json["requestBody"]["content"]["application/json"]["schema"] = std::move(schema);
  }
  Json schema;
  schema["type"] = "object";
  if (*operation.answer != '\0') schema = reference(operation.answer);
  if (operation.list) {
    Json list;
    list["type"] = "object";
    list["required"] = Json::array({"items", "revision"});
    list["properties"]["items"]["type"] = "array";
    list["properties"]["items"]["items"] = std::move(schema);
    list["properties"]["revision"]["type"] = "integer";
    schema = std::move(list);
  }
  json["responses"]["200"]["description"] = "done";
  json["responses"]["200"]["content"]["application/json"]["schema"] = std::move(schema);
  json["responses"]["default"]["description"] = "refused";
  json["responses"]["default"]["content"]["application/json"]["schema"] = reference("Error");
  for (const ApiRoute& route : api_routes()) {
    std::string pattern(route.pattern);
    std::erase(pattern, '*');
    if (route.method != upper(operation.method) || pattern != operation.path) continue;
    json["x-aiv-role"] = to_string(route.access);
    if (route.stream == Stream::kNone) continue;
    Json stream;
    stream["type"] = "string";
    stream["description"] =
        route.stream == Stream::kEvents
            ? "each event as it happens"
            : "watch: `put` with each item, `synced`, then `put` and `delete` with each change";
    json["responses"]["200"]["content"]["text/event-stream"]["schema"] = std::move(stream);
  }
  if (std::string_view(operation.path) == kUsagePath) {
    json["x-aiv-role"] = to_string(Access::kUser);
    json["x-aiv-served-by"] = "gateway";
  }
  return json;
}

}  // namespace

Json openapi_document() {
  auto document = parse_json(std::string(kHead) + "}}");
  AIV_ASSERT(document.has_value());
  for (const Operation& operation : kOperations) {
    (*document)["paths"][operation.path][operation.method] = describe(operation);
  }
  return *document;
}

}  // namespace aiv::controller
