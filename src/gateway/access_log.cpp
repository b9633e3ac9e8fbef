#include "gateway/access_log.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>

#include "base/units.hpp"
#include "gateway/api_error.hpp"

namespace aiv::gateway {
namespace {

constexpr std::size_t kPendingMax = std::size_t{64} * 1024;
constexpr net::milliseconds kFlushPeriod{200};

void append_number(std::string& out, std::string_view before, std::int64_t value) {
  std::array<char, 20> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value).ptr;
  out += before;
  out.append(digits.data(), end);
}

// With one digit after the point.
void append_tenths(std::string& out, std::string_view before, double value) {
  const auto tenths = static_cast<std::int64_t>(std::llround(std::clamp(value, 0.0, 1e15) * 10));
  append_number(out, before, tenths / 10);
  out += '.';
  out += static_cast<char>('0' + tenths % 10);
}

void append_text(std::string& out, std::string_view name, std::string_view value) {
  if (value.empty()) return;
  out += ",\"";
  out += name;
  out += "\":";
  append_json_string(out, value.substr(0, 256));
}

}  // namespace

void append_access_line(std::string& out, const AccessRecord& r) {
  // The text of a second serves all requests of that second.
  thread_local std::int64_t last_second = -1;
  thread_local std::string last_text;
  if (r.unix_ms / 1000 != last_second) {
    last_second = r.unix_ms / 1000;
    last_text = rfc3339(last_second * 1000);
    last_text.resize(last_text.size() - 4);  // "000Z"
  }
  out += "{\"time\":\"";
  out += last_text;
  for (const std::int64_t unit : {100, 10, 1}) out += static_cast<char>('0' + r.unix_ms / unit % 10);
  out += 'Z';
  out += '"';
  append_text(out, "id", r.id);
  append_text(out, "method", r.method);
  append_text(out, "path", r.path);
  append_number(out, ",\"status\":", r.status);
  append_text(out, "key", r.key_id);
  append_text(out, "model", r.model);
  append_text(out, "replica", r.replica);
  if (!r.model.empty()) {
    append_number(out, ",\"attempts\":", r.attempts);
    append_tenths(out, ",\"queue_ms\":", r.queue_ms);
    append_tenths(out, ",\"first_token_ms\":", r.first_token_ms);
    append_number(out, ",\"prompt_tokens\":", r.prompt_tokens);
    append_number(out, ",\"generated_tokens\":", r.generated_tokens);
  }
  if (r.resumes > 0) append_number(out, ",\"resumes\":", r.resumes);
  append_text(out, "end", r.end);
  append_tenths(out, ",\"ms\":", r.total_ms);
  out += "}\n";
}

AccessLog::AccessLog(net::Executor executor, std::string path) : path_(std::move(path)), something_(executor) {}

AccessLog::~AccessLog() {
  flush();
  if (file_ >= 0) ::close(file_);
}

Result<> AccessLog::open() {
  if (path_.empty()) return {};
  file_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  if (file_ < 0) return fail(ErrorCode::kIo, std::string("cannot be opened: ") + std::strerror(errno), path_);
  return {};
}

void AccessLog::record(const AccessRecord& record) {
  if (file_ < 0) return;
  if (pending_.empty()) something_.notify();
  append_access_line(pending_, record);
  if (pending_.size() >= kPendingMax) flush();
}

void AccessLog::flush() {
  if (file_ < 0 || pending_.empty()) return;
  // A full disk must not stop the service: lines that cannot be written are dropped.
  const ssize_t written = ::write(file_, pending_.data(), pending_.size());
  static_cast<void>(written);
  pending_.clear();
}

net::Task<> AccessLog::run() {
  while (true) {
    if (pending_.empty()) {
      co_await something_.wait();
      continue;
    }
    co_await net::sleep_for(kFlushPeriod);
    flush();
  }
}

}  // namespace aiv::gateway
