// Every route of the public port and who may use it: the only way to register a handler. What is not in it does not
// exist, so an engine's own routes (/slots, /completion, /lora-adapters ...) never pass.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string_view>

#include "core/documents.hpp"

namespace aiv::gateway {

enum class Access : std::uint8_t { kPublic, kMetrics, kUser, kOperator, kAdmin };

enum class ApiRoute : std::uint8_t {
  kChat,
  kCompletions,
  kEmbeddings,
  kRerank,
  kResponses,
  kMessages,
  kCountTokens,
  kOllamaChat,
  kOllamaGenerate,
  kOllamaEmbed,
  kOllamaEmbedOld,  // /api/embeddings
  kOllamaTags,
  kOllamaShow,
  kOllamaPs,
  kOllamaVersion,
  kOllamaPull,
  kModels,
  kModel,
  kHealth,
  kMetrics,
  kUsage,
  kController,  // /aiv/v1: relayed
};

struct ApiRule {
  std::string_view methods;  // separated by ','
  std::string_view path;     // a trailing "/*" stands for one or more segments
  Access access;
  ApiRoute route;
};

// In order: the first that matches path and method decides.
inline constexpr std::array kApiTable{
    ApiRule{"POST", "/v1/chat/completions", Access::kUser, ApiRoute::kChat},
    ApiRule{"POST", "/v1/completions", Access::kUser, ApiRoute::kCompletions},
    ApiRule{"POST", "/v1/embeddings", Access::kUser, ApiRoute::kEmbeddings},
    ApiRule{"POST", "/v1/rerank", Access::kUser, ApiRoute::kRerank},
    ApiRule{"POST", "/v1/responses", Access::kUser, ApiRoute::kResponses},
    ApiRule{"POST", "/v1/messages", Access::kUser, ApiRoute::kMessages},
    ApiRule{"POST", "/v1/messages/count_tokens", Access::kUser, ApiRoute::kCountTokens},
    ApiRule{"POST", "/api/chat", Access::kUser, ApiRoute::kOllamaChat},
    ApiRule{"POST", "/api/generate", Access::kUser, ApiRoute::kOllamaGenerate},
    ApiRule{"POST", "/api/embed", Access::kUser, ApiRoute::kOllamaEmbed},
    ApiRule{"POST", "/api/embeddings", Access::kUser, ApiRoute::kOllamaEmbedOld},
    ApiRule{"GET,HEAD", "/api/tags", Access::kUser, ApiRoute::kOllamaTags},
    ApiRule{"POST", "/api/show", Access::kUser, ApiRoute::kOllamaShow},
    ApiRule{"GET,HEAD", "/api/ps", Access::kUser, ApiRoute::kOllamaPs},
    ApiRule{"GET,HEAD", "/api/version", Access::kUser, ApiRoute::kOllamaVersion},
    ApiRule{"POST", "/api/pull", Access::kUser, ApiRoute::kOllamaPull},
    ApiRule{"GET,HEAD", "/v1/models", Access::kUser, ApiRoute::kModels},
    ApiRule{"GET,HEAD", "/v1/models/*", Access::kUser, ApiRoute::kModel},
    ApiRule{"GET,HEAD", "/health", Access::kPublic, ApiRoute::kHealth},
    ApiRule{"GET,HEAD", "/metrics", Access::kMetrics, ApiRoute::kMetrics},
    ApiRule{"GET", "/aiv/v1/version", Access::kPublic, ApiRoute::kController},
    ApiRule{"GET", "/aiv/v1/openapi.json", Access::kPublic, ApiRoute::kController},
    ApiRule{"GET", "/aiv/v1/whoami", Access::kUser, ApiRoute::kController},
    ApiRule{"GET", "/aiv/v1/usage", Access::kUser, ApiRoute::kUsage},
    ApiRule{"GET", "/aiv/v1/requests", Access::kUser, ApiRoute::kController},
    ApiRule{"GET,DELETE", "/aiv/v1/requests/*", Access::kUser, ApiRoute::kController},
    ApiRule{"GET,POST,PATCH,PUT,DELETE", "/aiv/v1/nodes", Access::kOperator, ApiRoute::kController},
    ApiRule{"GET,POST,PATCH,PUT,DELETE", "/aiv/v1/nodes/*", Access::kOperator, ApiRoute::kController},
    ApiRule{"GET,POST,PATCH,PUT,DELETE", "/aiv/v1/devices", Access::kOperator, ApiRoute::kController},
    ApiRule{"GET,POST,PATCH,PUT,DELETE", "/aiv/v1/devices/*", Access::kOperator, ApiRoute::kController},
    ApiRule{"GET,POST,PATCH,PUT,DELETE", "/aiv/v1/models", Access::kOperator, ApiRoute::kController},
    ApiRule{"GET,POST,PATCH,PUT,DELETE", "/aiv/v1/models/*", Access::kOperator, ApiRoute::kController},
    ApiRule{"GET,POST,PATCH,PUT,DELETE", "/aiv/v1/deployments", Access::kOperator, ApiRoute::kController},
    ApiRule{"GET,POST,PATCH,PUT,DELETE", "/aiv/v1/deployments/*", Access::kOperator, ApiRoute::kController},
    ApiRule{"GET,POST,PATCH,PUT,DELETE", "/aiv/v1/replicas", Access::kOperator, ApiRoute::kController},
    ApiRule{"GET,POST,PATCH,PUT,DELETE", "/aiv/v1/replicas/*", Access::kOperator, ApiRoute::kController},
    ApiRule{"GET,POST,PATCH,PUT,DELETE", "/aiv/v1/plans", Access::kOperator, ApiRoute::kController},
    ApiRule{"GET,POST,PATCH,PUT,DELETE", "/aiv/v1/plans/*", Access::kOperator, ApiRoute::kController},
    ApiRule{"GET", "/aiv/v1/events", Access::kOperator, ApiRoute::kController},
    ApiRule{"GET", "/aiv/v1/events/*", Access::kOperator, ApiRoute::kController},
    // Keys, tokens, users, settings, audit, and whatever is not named above: administrators only.
    ApiRule{"GET,POST,PATCH,PUT,DELETE", "/aiv/v1/*", Access::kAdmin, ApiRoute::kController},
};

struct ApiMatch {
  const ApiRule* rule = nullptr;  // nullptr: see path_known
  bool path_known = false;        // the path exists with other methods
  std::string_view allowed{};     // those methods
};

constexpr bool path_matches(std::string_view pattern, std::string_view path) {
  if (!pattern.ends_with("/*")) return pattern == path;
  pattern.remove_suffix(1);
  return path.size() > pattern.size() && path.starts_with(pattern);
}

constexpr bool method_in(std::string_view methods, std::string_view method) {
  while (!methods.empty()) {
    const std::size_t comma = methods.find(',');
    if (methods.substr(0, comma) == method) return true;
    if (comma == std::string_view::npos) return false;
    methods.remove_prefix(comma + 1);
  }
  return false;
}

constexpr ApiMatch match_api(std::string_view method, std::string_view path) {
  for (const ApiRule& rule : kApiTable) {
    if (!path_matches(rule.path, path)) continue;
    // The first row of a path speaks for it: "/aiv/v1/*" must not open a method on a path with a row of its own.
    if (!method_in(rule.methods, method)) return {nullptr, true, rule.methods};
    return {&rule, true, rule.methods};
  }
  return {};
}

constexpr bool allowed(Access access, bool known, Role role) {
  switch (access) {
    case Access::kPublic: return true;
    case Access::kMetrics:
    case Access::kUser: return known;
    case Access::kOperator: return known && (role == Role::kOperator || role == Role::kAdmin);
    case Access::kAdmin: return known && role == Role::kAdmin;
  }
  return false;
}

}  // namespace aiv::gateway
