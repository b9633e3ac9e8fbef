// Files that must survive a crash, and small bounded reads.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace aiv {

// Whole file, refused above `max_bytes`.
Result<std::string> read_file(const std::string& path, std::size_t max_bytes);
// Temp file beside it, write, fsync, rename, fsync of the directory. `mode` e.g. 0600.
Result<> write_file_durably(const std::string& path, std::string_view content, unsigned mode = 0600);
// mkdir -p with `mode` for what is created.
Result<> make_directories(const std::string& path, unsigned mode = 0700);
// The directory of the running executable.
std::string executable_dir();

}  // namespace aiv
