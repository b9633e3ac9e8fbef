// Who is calling: from the key in the head of a request to a role.
//
// RULES
// - Keys come from `Authorization: Bearer` or `x-api-key`, never from the URL. Two different ones: 400.
// - The table holds SHA-256 of the secret; it is compared in constant time, and for an unknown id something is
//   compared too, so that time does not tell which ids exist.
// - One answer (401) for missing, malformed, unknown, wrong, expired and disabled.
#pragma once
#include <cstdint>
#include <expected>
#include <string>

#include "gateway/api_error.hpp"
#include "gateway/routes.hpp"

namespace aiv::gateway {

struct Caller {
  std::string key_id{};      // empty: nobody was asked for a key
  std::string name{};
  Role role = Role::kUser;
  bool known = false;        // a valid key, or authentication is off
  std::uint64_t tenant = 0;  // whose cached prompts it may share (core/routing.hpp)
};

// `auth` off: everybody is an admin called "anonymous". `known` is false when no key was sent at all; the caller
// decides whether the route needs one.
std::expected<Caller, ApiError> authenticate(const net::Headers& headers, const Routes& routes, bool auth,
                                             std::int64_t now_unix_ms);

}  // namespace aiv::gateway
