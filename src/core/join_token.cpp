#include "core/join_token.hpp"

#include <algorithm>

#include "core/keys.hpp"

namespace aiv {

namespace {

constexpr std::string_view kTokenPrefix = "aivj1.";

bool is_base64url(std::string_view text) {
  return std::ranges::all_of(text, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
  });
}

}  // namespace

std::string format_join_token(const JoinToken& token) {
  return std::string(kTokenPrefix) + token.id + "." + token.secret + "." + token.pin;
}

Result<JoinToken> parse_join_token(std::string_view text) {
  if (!text.starts_with(kTokenPrefix)) {
    return fail(ErrorCode::kInvalidArgument, "a join token begins with aivj1.; copy the whole line of: aiv token create");
  }
  text.remove_prefix(kTokenPrefix.size());
  constexpr std::size_t kSize = kTokenIdCharacters + 1 + kTokenSecretCharacters + 1 + kTokenPinCharacters;
  const bool shaped = text.size() == kSize && text[kTokenIdCharacters] == '.' &&
                      text[kTokenIdCharacters + 1 + kTokenSecretCharacters] == '.';
  if (!shaped) return fail(ErrorCode::kInvalidArgument, "the join token is cut or has extra characters: copy it whole");
  JoinToken token;
  token.id = text.substr(0, kTokenIdCharacters);
  token.secret = text.substr(kTokenIdCharacters + 1, kTokenSecretCharacters);
  token.pin = text.substr(kTokenIdCharacters + kTokenSecretCharacters + 2);
  if (!is_base62(token.id) || !is_base62(token.secret) || !is_base64url(token.pin)) {
    return fail(ErrorCode::kInvalidArgument, "the join token holds a character that none has: copy it whole");
  }
  return token;
}

}  // namespace aiv
