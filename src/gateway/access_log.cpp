#include "gateway/access_log.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>

#include "base/units.hpp"
#include "gateway/api_error.hpp"

namespace aiv::gateway {
namespace {

constexpr std::size_t kPendingMax = std::size_t{64} * 1024;
constexpr net::milliseconds kFlushPeriod{200};

void append_text(std::string& out, std::string_view name, std::string_view value) {
  if (value.empty()) return;
  out += ",\"";
  out += name;
  out += "\":";
  append_json_string(out, value.substr(0, 256));
}

}  // namespace

void append_access_line(std::string& out, const AccessRecord& r) {
  out += "{\"time\":\"";
  out += rfc3339(r.unix_ms);
  out += '"';
  append_text(out, "id", r.id);
  append_text(out, "method", r.method);
  append_text(out, "path", r.path);
  fmt::format_to(std::back_inserter(out), ",\"status\":{}", r.status);
  append_text(out, "key", r.key_id);
  append_text(out, "model", r.model);
  append_text(out, "replica", r.replica);
  if (!r.model.empty()) {
    fmt::format_to(std::back_inserter(out),
                   ",\"attempts\":{},\"queue_ms\":{:.1f},\"first_token_ms\":{:.1f},\"prompt_tokens\":{},\"generated_tokens\":{}",
                   r.attempts, r.queue_ms, r.first_token_ms, r.prompt_tokens, r.generated_tokens);
  }
  append_text(out, "end", r.end);
  fmt::format_to(std::back_inserter(out), ",\"ms\":{:.1f}}}\n", r.total_ms);
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
