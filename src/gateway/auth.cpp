#include "gateway/auth.hpp"

#include <optional>

#include "base/hash.hpp"
#include "base/units.hpp"
#include "core/keys.hpp"

namespace aiv::gateway {
namespace {

// SHA-256 of nothing anybody can send (secrets have 43 characters): the partner of the comparison for unknown ids.
constexpr std::string_view kDummyDigest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

bool starts_with_bearer(std::string_view value) {
  if (value.size() < 7) return false;
  constexpr std::string_view kBearer = "bearer ";
  for (std::size_t i = 0; i < kBearer.size(); ++i) {
    const char c = value[i] >= 'A' && value[i] <= 'Z' ? static_cast<char>(value[i] - 'A' + 'a') : value[i];
    if (c != kBearer[i]) return false;
  }
  return true;
}

}  // namespace

std::expected<Caller, ApiError> authenticate(const net::Headers& headers, const Routes& routes, bool auth,
                                             std::int64_t now_unix_ms) {
  if (!auth) return Caller{.key_id = {}, .name = "anonymous", .role = Role::kAdmin, .known = true, .tenant = 1};
  std::optional<std::string_view> given;
  for (const net::Header& header : headers) {
    std::string_view value;
    if (header.name == "authorization") {
      if (!starts_with_bearer(header.value)) return std::unexpected(unauthorized());
      value = trimmed(std::string_view(header.value).substr(7));
    } else if (header.name == "x-api-key") {
      value = trimmed(header.value);
    } else {
      continue;
    }
    if (given && *given != value) return std::unexpected(bad_request("Two different API keys were sent; send one."));
    given = value;
  }
  if (!given) return Caller{};
  const auto key = parse_api_key(*given);
  if (!key) return std::unexpected(unauthorized());
  const RouteKey* known = routes.find_key(key->id);
  const bool equal = equal_constant_time(sha256_hex(key->secret), known != nullptr ? known->secret_sha256 : kDummyDigest);
  const bool usable = known != nullptr && !known->disabled &&
                      (known->expires_at_ms == 0 || known->expires_at_ms > now_unix_ms);
  if (!equal || !usable) return std::unexpected(unauthorized());
  return Caller{.key_id = known->id,
                .name = known->name,
                .role = known->role,
                .known = true,
                .tenant = fnv1a(known->id) | 1};
}

}  // namespace aiv::gateway
