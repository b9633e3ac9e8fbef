// The events on disk, so that "what happened last night" has an answer after a restart: DIR/events.jsonl, one JSON
// object a line, and its predecessor events.jsonl.1. Bounded; not synced: they explain, the audit records prove.
#pragma once
#include <string>
#include <vector>

#include "controller/event_log.hpp"

namespace aiv::controller {

inline constexpr std::int64_t kEventFileBytesMax = 8 * 1024 * 1024;

// The newest `limit` events of both files, oldest first; lines that are cut or not ours are left out. Blocking.
std::vector<EventEntry> read_event_file(const std::string& path, std::size_t limit);
// Appends; a file above the limit becomes PATH.1 first. Errors are kIo: the events stay in memory. Blocking.
Result<> append_event_file(const std::string& path, const std::vector<EventEntry>& events);

}  // namespace aiv::controller
