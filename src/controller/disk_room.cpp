#include "controller/disk_room.hpp"

#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>
#include <limits>

#include "base/units.hpp"

namespace aiv::controller {

std::string ballast_file(const std::string& directory) { return directory + "/state.ballast"; }

std::int64_t free_bytes_of(const std::string& path) {
  struct statvfs info {};
  std::filesystem::path there = path;  // or the folder in which it will be made
  while (::statvfs(there.c_str(), &info) != 0) {
    if (!there.has_relative_path()) return std::numeric_limits<std::int64_t>::max();
    there = there.parent_path();
  }
  return static_cast<std::int64_t>(info.f_bavail) * static_cast<std::int64_t>(info.f_frsize);
}

Result<> make_room_to_start(const std::string& directory, const FreeBytes& free_bytes) {
  if (free_bytes(directory) >= kFreeBytesToStart) return {};
  ::unlink(ballast_file(directory).c_str());
  const std::int64_t left = free_bytes(directory);
  if (left >= kFreeBytesToStart) return {};
  return fail(ErrorCode::kUnavailable,
              "the disk is full (" + format_bytes(left) + " are free, a start writes up to " +
                  format_bytes(kFreeBytesToStart) + "); nothing was changed",
              directory);
}

}  // namespace aiv::controller
