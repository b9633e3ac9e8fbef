// The state in one SQLite file: the default for one server.
//
// Files in the directory:
//   state.db        the state (WAL, synchronous=FULL: a commit is on the disk before it is acknowledged)
//   revision.mark   16 bytes: the newest acknowledged revision and its check; written, not synced, after each commit.
//                   A cut WAL tail looks like an older, consistent state; only this mark tells.
//   state.ballast   8 MiB that are given back when the disk is full, so that there is room for what a start writes. A
//                   store that finds neither it nor room for it (16 MiB) takes no changes until there is room again
//
// SQLite has no page checksums and its integrity check does not see changed content: so each row carries a SHA-256
// over key, value and both revisions, and `meta` an additive root over all rows, written in the same transaction.
// Both are verified at open. A file that fails is never replaced, renamed or started empty over: an empty state would
// unload everything. The store then answers reads and writes with the reason, and the caller stays up read-only.
#pragma once
#include <array>
#include <memory>
#include <string>

#include "controller/disk_room.hpp"
#include "controller/store.hpp"

namespace aiv::controller {

struct SqliteOptions {
  bool accept_older_state = false;  // go on although revision.mark is ahead of the file
  std::int64_t ballast_bytes = 8 * 1024 * 1024;  // 0: none
  FreeBytes free_bytes = free_bytes_of;          // of the disk; tests put another in its place
};

// Opens or creates `directory`/state.db. kRefused: the schema is of a newer version (the message names both). Every
// other fault of an existing file gives a store whose status() is kReadOnly with the reason.
Result<std::unique_ptr<Store>> open_sqlite_store(const std::string& directory, SqliteOptions options = {});

inline constexpr int kSqliteApplicationId = 0x41495653;  // "AIVS"
inline constexpr int kSqliteSchemaVersion = 1;

}  // namespace aiv::controller
