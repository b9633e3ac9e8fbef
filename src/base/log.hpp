// One line per event on stderr, logfmt: time level noun.verb_past key=value ...
// `error` means that a person must act. Never prompts, answers or keys; foreign text goes through printable().
#pragma once
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>

namespace aiv {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

// A value of a log line; numbers and text alike.
struct LogValue {
  std::string text;
  LogValue(std::string_view value) : text(value) {}
  LogValue(const std::string& value) : text(value) {}
  LogValue(const char* value) : text(value) {}
  LogValue(bool value) : text(value ? "true" : "false") {}
  template <class T>
    requires std::is_arithmetic_v<T>
  LogValue(T value) : text(std::to_string(value)) {}
};
using LogField = std::pair<std::string_view, LogValue>;

// `process` stands on every line ("gateway", "controller", "node n1"). AIV_LOG=debug|info|warn|error sets the level.
void log_init(std::string_view process);
void log_set_level(LogLevel level);
void log_event(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});

inline void log_debug(std::string_view event, std::initializer_list<LogField> fields = {}) {
  log_event(LogLevel::kDebug, event, fields);
}
inline void log_info(std::string_view event, std::initializer_list<LogField> fields = {}) {
  log_event(LogLevel::kInfo, event, fields);
}
inline void log_warn(std::string_view event, std::initializer_list<LogField> fields = {}) {
  log_event(LogLevel::kWarn, event, fields);
}
inline void log_error(std::string_view event, std::initializer_list<LogField> fields = {}) {
  log_event(LogLevel::kError, event, fields);
}

}  // namespace aiv
