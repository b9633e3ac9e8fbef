// Room on the disk of the state: what a start needs, and what is thrown off to get it.
#pragma once
#include <cstdint>
#include <functional>
#include <string>

#include "base/result.hpp"

namespace aiv::controller {

// Below it a store without ballast takes no changes; with it again, it does.
inline constexpr std::int64_t kFreeBytesToWrite = 16 * 1024 * 1024;
// A start writes some kilobytes: the ports of the gateway, SQLite's shared memory (32 KiB and more), route tables.
inline constexpr std::int64_t kFreeBytesToStart = 512 * 1024;

// What is thrown off.
[[nodiscard]] std::string ballast_file(const std::string& directory);

// Bytes that a process without privileges may still write to the disk of `path`; the largest number where nobody says.
[[nodiscard]] std::int64_t free_bytes_of(const std::string& path);

using FreeBytes = std::function<std::int64_t(const std::string& path)>;

// Before a server starts in `directory`: on a full disk its ballast is given back. kUnavailable: there is still no room
// for a start, with where and how much is missing.
[[nodiscard]] Result<> make_room_to_start(const std::string& directory, const FreeBytes& free_bytes = free_bytes_of);

}  // namespace aiv::controller
