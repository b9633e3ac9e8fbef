// Sizes and times as people write them.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace aiv {

inline constexpr std::int64_t kKiB = 1024;
inline constexpr std::int64_t kMiB = 1024 * kKiB;
inline constexpr std::int64_t kGiB = 1024 * kMiB;

// "8GiB", "512 MiB", "4GB" (10^9), "123" (bytes), "1.5GiB". Refuses negative, empty, unknown unit, > 2^62.
Result<std::int64_t> parse_bytes(std::string_view text);
// "6.1 GiB", "512.0 MiB", "17 B".
std::string format_bytes(std::int64_t bytes);
// Milliseconds from "250ms", "30s", "5m", "2h", "1d". A bare number is refused: units are never guessed.
Result<std::int64_t> parse_duration_ms(std::string_view text);
// "850 ms", "12.3 s", "4 min", "3 h", "2 d".
std::string format_duration_ms(std::int64_t ms);
// Control characters as \xNN, cut to `max` bytes on a UTF-8 boundary: for foreign text in terminals and logs.
std::string printable(std::string_view text, std::size_t max = 200);
// Without the blanks and tabs at both ends.
std::string_view trimmed(std::string_view text);
// RFC 3339 UTC with milliseconds, from Unix milliseconds.
std::string rfc3339(std::int64_t unix_ms);

}  // namespace aiv
