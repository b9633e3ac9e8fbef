// The text form of API keys: aiv-<id 10>-<secret 43>-<crc 6>, each base62.
//
// 43 characters of base62 are 256 bit, so a fast hash of the secret is enough to store: there is nothing to guess.
// The CRC-32 over everything before it lets a gateway drop typing errors without a look-up and lets scanners find
// keys that leaked. Only the id may appear in logs.
#pragma once
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace aiv {

inline constexpr std::size_t kKeyIdCharacters = 10;
inline constexpr std::size_t kKeySecretCharacters = 43;
inline constexpr std::size_t kKeyCheckCharacters = 6;

struct ApiKey {
  std::string id;
  std::string secret;
  friend bool operator==(const ApiKey&, const ApiKey&) = default;
};

// The whole key. `id` and `secret` must be base62 of the lengths above (asserted).
std::string format_api_key(const ApiKey& key);

// kInvalidArgument with one of few fixed reasons (never a part of the text): length, prefix, character, check.
Result<ApiKey> parse_api_key(std::string_view text);

[[nodiscard]] bool is_base62(std::string_view text);

}  // namespace aiv
