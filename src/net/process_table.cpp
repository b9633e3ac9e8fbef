#include "net/process_table.hpp"

#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>

#include "base/file.hpp"
#include "net/process.hpp"

namespace aiv::net {
namespace {

std::vector<std::string> split_nul(const std::string& text) {
  std::vector<std::string> out;
  std::size_t at = 0;
  while (at < text.size()) {
    const auto end = std::min(text.find('\0', at), text.size());
    out.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return out;
}

pid_t parent_of(pid_t pid) {
  const auto stat = read_file("/proc/" + std::to_string(pid) + "/stat", 4096);
  if (!stat) return 0;
  const auto close = stat->rfind(')');
  if (close == std::string::npos || close + 4 >= stat->size()) return 0;
  return static_cast<pid_t>(std::atoi(stat->c_str() + close + 4));
}

}  // namespace

std::vector<ProcessEntry> processes_with_argument(const std::string& text) {
  std::vector<ProcessEntry> out;
  std::error_code ignored;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", ignored)) {
    const std::string name = entry.path().filename().string();
    pid_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc{} || end != name.data() + name.size() || pid == ::getpid()) continue;
    struct stat info{};
    if (::stat(entry.path().c_str(), &info) != 0 || info.st_uid != ::getuid()) continue;
    const auto line = read_file(entry.path().string() + "/cmdline", 1 << 20);
    if (!line || line->find(text) == std::string::npos) continue;
    const auto start = process_start_time(pid);
    if (start) out.push_back({pid, parent_of(pid), *start, split_nul(*line)});
  }
  return out;
}

std::vector<std::string> own_environment() {
  std::vector<std::string> out;
  for (char** variable = environ; *variable != nullptr; ++variable) out.emplace_back(*variable);
  return out;
}

}  // namespace aiv::net
