#include "base/log.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <string>

#include "base/host.hpp"
#include "base/units.hpp"

namespace aiv {
namespace {

std::string& process_name() {
  static std::string name = "aiv";
  return name;
}

std::atomic<LogLevel>& threshold() {
  static std::atomic<LogLevel> level = LogLevel::kInfo;
  return level;
}

std::string_view word_of(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug: return "debug";
    case LogLevel::kInfo: return "info";
    case LogLevel::kWarn: return "warn";
    case LogLevel::kError: return "error";
  }
  return "error";
}

// logfmt: quote what has spaces, quotes or '='.
void append_value(std::string& line, std::string_view raw) {
  const std::string text = printable(raw, 256);
  if (!text.empty() && text.find_first_of(" \"=") == std::string::npos) {
    line += text;
    return;
  }
  line += '"';
  for (const char c : text) {
    if (c == '"' || c == '\\') line += '\\';
    line += c;
  }
  line += '"';
}

}  // namespace

void log_set_level(LogLevel level) { threshold() = level; }

void log_init(std::string_view process) {
  process_name() = process;
  const char* wanted = std::getenv("AIV_LOG");
  if (wanted == nullptr) return;
  for (const LogLevel level : {LogLevel::kDebug, LogLevel::kInfo, LogLevel::kWarn, LogLevel::kError}) {
    if (word_of(level) == wanted) log_set_level(level);
  }
}

void log_event(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  if (level < threshold()) return;
  std::string line = fmt::format("{} {:<5} {} {}", rfc3339(unix_ms()), word_of(level), process_name(), event);
  for (const auto& [name, value] : fields) {
    line += ' ';
    line += name;
    line += '=';
    append_value(line, value.text);
  }
  line += '\n';
  // One write per line, so that lines of several processes on one file do not mix.
  [[maybe_unused]] const auto written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace aiv
