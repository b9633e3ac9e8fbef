#include "controller/event_file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file.hpp"
#include "base/json.hpp"

namespace aiv::controller {

namespace {

void read_lines(const std::string& path, std::vector<EventEntry>& out) {
  const auto text = read_file(path, 2 * static_cast<std::size_t>(kEventFileBytesMax));
  if (!text) return;
  for (std::size_t from = 0; from < text->size();) {
    const std::size_t end = text->find('\n', from);
    if (end == std::string::npos) return;  // cut while it was written
    const auto json = parse_json(std::string_view(*text).substr(from, end - from));
    from = end + 1;
    if (!json || !json->is_object()) continue;
    JsonReader reader(*json, "event");
    EventEntry entry;
    entry.seq = reader.integer("seq", 1, std::int64_t{1} << 62);
    entry.unix_ms = reader.integer("unix_ms", 0, std::int64_t{1} << 62);
    entry.kind = reader.string("kind");
    entry.subject = reader.string("subject");
    entry.reason = reader.string_or("reason", "", 65'536);
    entry.cause = reader.string_or("cause", "");
    if (reader.ok() && (out.empty() || out.back().seq < entry.seq)) out.push_back(std::move(entry));
  }
}

}  // namespace

std::vector<EventEntry> read_event_file(const std::string& path, std::size_t limit) {
  std::vector<EventEntry> out;
  read_lines(path + ".1", out);
  read_lines(path, out);
  if (out.size() > limit) out.erase(out.begin(), out.end() - static_cast<std::ptrdiff_t>(limit));
  return out;
}

Result<> append_event_file(const std::string& path, const std::vector<EventEntry>& events) {
  struct stat info {};
  if (::stat(path.c_str(), &info) == 0 && info.st_size > kEventFileBytesMax) ::rename(path.c_str(), (path + ".1").c_str());
  std::string text;
  for (const EventEntry& event : events) {
    Json json;
    json["seq"] = event.seq;
    json["unix_ms"] = event.unix_ms;
    json["kind"] = event.kind;
    json["subject"] = event.subject;
    json["reason"] = event.reason;
    json["cause"] = event.cause;
    text += dump_json(json) + "\n";
  }
  const int fd = ::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return fail(ErrorCode::kIo, std::strerror(errno), path);
  const ssize_t written = ::write(fd, text.data(), text.size());
  const int error = errno;
  ::close(fd);
  if (written != static_cast<ssize_t>(text.size())) {
    return fail(ErrorCode::kIo, written < 0 ? std::strerror(error) : "the disk is full", path);
  }
  return {};
}

}  // namespace aiv::controller
