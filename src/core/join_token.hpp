// The text form of a join token: aivj1.<id 6>.<secret 26>.<pin 43>.
//
// `pin` is the hash of the cluster's authority's key (net/pki.hpp): the machine that joins compares it with what the
// server shows before it sends the secret, so a wrong or hostile server learns nothing. Only the id may appear in logs.
#pragma once
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace aiv {

inline constexpr std::size_t kTokenIdCharacters = 6;
inline constexpr std::size_t kTokenSecretCharacters = 26;  // base62: 154 bit
inline constexpr std::size_t kTokenPinCharacters = 43;     // base64url of SHA-256

struct JoinToken {
  std::string id;
  std::string secret;
  std::string pin;
  friend bool operator==(const JoinToken&, const JoinToken&) = default;
};

[[nodiscard]] std::string format_join_token(const JoinToken& token);
// kInvalidArgument with a fixed reason, never a part of the text.
Result<JoinToken> parse_join_token(std::string_view text);

}  // namespace aiv
