#include "core/keys.hpp"

#include <algorithm>
#include <array>
#include <cstdint>

namespace aiv {

namespace {

constexpr std::string_view kKeyPrefix = "aiv-";
constexpr std::string_view kDigits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
constexpr std::size_t kBodyCharacters = kKeyPrefix.size() + kKeyIdCharacters + 1 + kKeySecretCharacters;
constexpr std::size_t kKeyCharacters = kBodyCharacters + 1 + kKeyCheckCharacters;

constexpr std::array<bool, 256> kIsDigit = [] {
  std::array<bool, 256> out{};
  for (const char c : kDigits) out[static_cast<unsigned char>(c)] = true;
  return out;
}();

// CRC-32 as in IEEE 802.3 (reflected polynomial 0xEDB88320), a nibble at a time: each request's key is checked, and 16
// entries stay in the cache. This file may not include base/hash.
constexpr std::array<std::uint32_t, 16> kCrcOfNibble = [] {
  std::array<std::uint32_t, 16> out{};
  for (std::uint32_t i = 0; i < 16; ++i) {
    std::uint32_t crc = i;
    for (int bit = 0; bit < 4; ++bit) crc = (crc >> 1) ^ (0xedb88320u & (0u - (crc & 1u)));
    out[i] = crc;
  }
  return out;
}();

std::uint32_t crc_of(std::string_view text) {
  std::uint32_t crc = 0xffffffffu;
  for (const char c : text) {
    crc ^= static_cast<unsigned char>(c);
    crc = (crc >> 4) ^ kCrcOfNibble[crc & 15u];
    crc = (crc >> 4) ^ kCrcOfNibble[crc & 15u];
  }
  return ~crc;
}

// Six digits hold 62^6 > 2^32.
std::string check_of(std::string_view body) {
  std::uint32_t crc = crc_of(body);
  std::string out(kKeyCheckCharacters, '0');
  for (std::size_t i = kKeyCheckCharacters; i > 0; --i) {
    out[i - 1] = kDigits[crc % 62];
    crc /= 62;
  }
  return out;
}

}  // namespace

bool is_base62(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return kIsDigit[static_cast<unsigned char>(c)]; });
}

std::string format_api_key(const ApiKey& key) {
  AIV_ASSERT(key.id.size() == kKeyIdCharacters && is_base62(key.id));
  AIV_ASSERT(key.secret.size() == kKeySecretCharacters && is_base62(key.secret));
  const std::string body = std::string(kKeyPrefix) + key.id + "-" + key.secret;
  return body + "-" + check_of(body);
}

Result<ApiKey> parse_api_key(std::string_view text) {
  if (!text.starts_with(kKeyPrefix)) return fail(ErrorCode::kInvalidArgument, "an API key begins with aiv-");
  if (text.size() != kKeyCharacters) {
    return fail(ErrorCode::kInvalidArgument, "an API key has " + std::to_string(kKeyCharacters) + " characters");
  }
  const std::string_view id = text.substr(kKeyPrefix.size(), kKeyIdCharacters);
  const std::size_t secret_at = kKeyPrefix.size() + kKeyIdCharacters + 1;
  const std::string_view secret = text.substr(secret_at, kKeySecretCharacters);
  const std::string_view check = text.substr(kBodyCharacters + 1);
  if (text[secret_at - 1] != '-' || text[kBodyCharacters] != '-' || !is_base62(id) || !is_base62(secret)) {
    return fail(ErrorCode::kInvalidArgument, "an API key is aiv-ID-SECRET-CHECK in letters and digits");
  }
  if (check != check_of(text.substr(0, kBodyCharacters))) {
    return fail(ErrorCode::kInvalidArgument, "the API key is mistyped: its check characters do not match");
  }
  return ApiKey{std::string(id), std::string(secret)};
}

}  // namespace aiv
