// One JSON line per request in DIR/logs/access.log: sizes, times, ids; never a prompt, an answer or a key. Lines are
// gathered and written together, because a write for each request would cost more than relaying a small one.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

#include "net/async.hpp"

namespace aiv::gateway {

struct AccessRecord {
  std::int64_t unix_ms = 0;
  std::string_view id{};
  std::string_view method{};
  std::string_view path{};
  int status = 0;
  std::string_view key_id{};
  std::string_view model{};
  std::string_view replica{};
  int attempts = 0;
  int resumes = 0;  // continuations on another replica
  double queue_ms = 0;
  double first_token_ms = 0;
  double total_ms = 0;
  std::int64_t prompt_tokens = 0;
  std::int64_t generated_tokens = 0;
  std::string_view end{};  // "stop", "length", "cancelled", an error's code, or empty
};

// The line, with its newline.
void append_access_line(std::string& out, const AccessRecord& record);

class AccessLog {
 public:
  // An empty path writes nothing.
  AccessLog(net::Executor executor, std::string path);
  ~AccessLog();
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;
  Result<> open();
  void record(const AccessRecord& record);
  void flush();
  // Flushes each 200 ms while there is something, for ever.
  net::Task<> run();

 private:
  std::string path_;
  int file_ = -1;
  std::string pending_;
  net::Signal something_;
};

}  // namespace aiv::gateway
