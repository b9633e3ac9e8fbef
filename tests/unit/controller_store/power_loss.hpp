// A SQLite VFS that writes down what is written, and images of the disk as a power cut may leave it.
//
// What a disk promises after a cut: everything that was written before the last sync of a file is there; of
// what came after, any part may be there, torn at sectors of 512 bytes. Blind to: lost renames, and order
// between files beyond syncs.
#pragma once
#include <sqlite3.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "core/prng.hpp"

namespace aiv::test {

struct DiskOp {
  enum class Kind { kWrite, kTruncate, kSync, kDelete } kind = Kind::kWrite;
  std::string file;  // without its folder
  std::int64_t offset = 0;
  std::string bytes;
  bool durable = false;  // of a delete: the folder was synced with it
};

// While it lives, the default VFS records; one at a time.
class RecordingDisk {
 public:
  RecordingDisk();
  ~RecordingDisk();
  RecordingDisk(const RecordingDisk&) = delete;
  RecordingDisk& operator=(const RecordingDisk&) = delete;
  [[nodiscard]] std::size_t length() const;
  [[nodiscard]] const std::vector<DiskOp>& log() const;
};

// The files after a cut behind the first `length` operations. `lying`: syncs are ignored, as by a disk that
// says "done" too early.
std::map<std::string, std::string> image_after_cut(const std::vector<DiskOp>& log, std::size_t length,
                                                   Prng& prng, bool lying = false);

}  // namespace aiv::test
