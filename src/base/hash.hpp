// Digests and random bytes (OpenSSL), and constant-time comparison.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace aiv {

std::string sha256_hex(std::string_view data);
// Digest of a file read in 1 MiB steps; blocking, call it off the loop.
Result<std::string> sha256_file_hex(const std::string& path);
// Cryptographically random; aborts if the system has none.
std::string random_base62(std::size_t characters);
std::uint64_t random_u64();
bool equal_constant_time(std::string_view a, std::string_view b);
std::uint32_t crc32(std::string_view data);
// FNV-1a, for stable non-secret ids and colours only.
std::uint64_t fnv1a(std::string_view data);

}  // namespace aiv
