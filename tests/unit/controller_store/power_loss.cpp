#include "power_loss.hpp"

#include <cstring>

#include "base/result.hpp"

namespace aiv::test {

namespace {

constexpr std::size_t kSector = 512;

std::vector<DiskOp> g_log;
sqlite3_vfs* g_real = nullptr;
sqlite3_vfs g_shim;
sqlite3_io_methods g_methods;

// Our part stands before the real file in the memory that SQLite gives us.
struct File {
  sqlite3_file base;
  std::string* name;
  sqlite3_file* real;
};
File* ours(sqlite3_file* file) {
  return reinterpret_cast<File*>(file);
}
sqlite3_file* real(sqlite3_file* file) {
  return ours(file)->real;
}

int close_file(sqlite3_file* file) {
  const int code = real(file)->pMethods == nullptr ? SQLITE_OK : real(file)->pMethods->xClose(real(file));
  delete ours(file)->name;
  ours(file)->name = nullptr;
  return code;
}
int read_file(sqlite3_file* f, void* data, int size, sqlite3_int64 at) {
  return real(f)->pMethods->xRead(real(f), data, size, at);
}
int write_file(sqlite3_file* f, const void* data, int size, sqlite3_int64 at) {
  std::string bytes(static_cast<const char*>(data), static_cast<std::size_t>(size));
  g_log.push_back({DiskOp::Kind::kWrite, *ours(f)->name, at, std::move(bytes), false});
  return real(f)->pMethods->xWrite(real(f), data, size, at);
}
int truncate_file(sqlite3_file* f, sqlite3_int64 size) {
  g_log.push_back({DiskOp::Kind::kTruncate, *ours(f)->name, size, {}, false});
  return real(f)->pMethods->xTruncate(real(f), size);
}
int sync_file(sqlite3_file* f, int flags) {
  g_log.push_back({DiskOp::Kind::kSync, *ours(f)->name, 0, {}, false});
  return real(f)->pMethods->xSync(real(f), flags);
}
int file_size(sqlite3_file* f, sqlite3_int64* size) {
  return real(f)->pMethods->xFileSize(real(f), size);
}
int lock_file(sqlite3_file* f, int level) {
  return real(f)->pMethods->xLock(real(f), level);
}
int unlock_file(sqlite3_file* f, int level) {
  return real(f)->pMethods->xUnlock(real(f), level);
}
int check_lock(sqlite3_file* f, int* out) {
  return real(f)->pMethods->xCheckReservedLock(real(f), out);
}
int control(sqlite3_file* f, int op, void* argument) {
  return real(f)->pMethods->xFileControl(real(f), op, argument);
}
int sector_size(sqlite3_file*) {
  return static_cast<int>(kSector);
}
// Claims nothing: no atomic writes, no safe overwrite.
int characteristics(sqlite3_file*) {
  return 0;
}
int shm_map(sqlite3_file* f, int page, int size, int extend, void volatile** out) {
  return real(f)->pMethods->xShmMap(real(f), page, size, extend, out);
}
int shm_lock(sqlite3_file* f, int offset, int n, int flags) {
  return real(f)->pMethods->xShmLock(real(f), offset, n, flags);
}
void shm_barrier(sqlite3_file* f) {
  real(f)->pMethods->xShmBarrier(real(f));
}
int shm_unmap(sqlite3_file* f, int gone) {
  return real(f)->pMethods->xShmUnmap(real(f), gone);
}

std::string base_name(const char* path) {
  const std::string text = path == nullptr ? "temp" : path;
  return text.substr(text.rfind('/') + 1);
}

// A deleted journal that an image still had would be rolled back into the database, which undoes everything
// after it.
int delete_file(sqlite3_vfs*, const char* path, int sync_folder) {
  g_log.push_back({DiskOp::Kind::kDelete, base_name(path), 0, {}, sync_folder != 0});
  return g_real->xDelete(g_real, path, sync_folder);
}

int open_file(sqlite3_vfs*, const char* path, sqlite3_file* file, int flags, int* out_flags) {
  File* mine = ours(file);
  mine->base.pMethods = nullptr;
  mine->real = reinterpret_cast<sqlite3_file*>(mine + 1);
  const int code = g_real->xOpen(g_real, path, mine->real, flags, out_flags);
  if (code != SQLITE_OK) return code;
  mine->name = new std::string(base_name(path));
  mine->base.pMethods = &g_methods;
  return code;
}

}  // namespace

RecordingDisk::RecordingDisk() {
  g_log.clear();
  g_real = sqlite3_vfs_find(nullptr);
  g_methods = {2,         close_file,  read_file,  write_file, truncate_file, sync_file,       file_size,
               lock_file, unlock_file, check_lock, control,    sector_size,   characteristics, shm_map,
               shm_lock,  shm_barrier, shm_unmap,  nullptr,    nullptr};
  g_shim = *g_real;
  g_shim.zName = "recording";
  g_shim.szOsFile = static_cast<int>(sizeof(File)) + g_real->szOsFile;
  g_shim.pNext = nullptr;
  g_shim.xOpen = open_file;
  g_shim.xDelete = delete_file;
  AIV_ASSERT(sqlite3_vfs_register(&g_shim, 1) == SQLITE_OK);
}

RecordingDisk::~RecordingDisk() {
  sqlite3_vfs_unregister(&g_shim);
  sqlite3_vfs_register(g_real, 1);
}

std::size_t RecordingDisk::length() const {
  return g_log.size();
}
const std::vector<DiskOp>& RecordingDisk::log() const {
  return g_log;
}

std::map<std::string, std::string> image_after_cut(const std::vector<DiskOp>& log, std::size_t length,
                                                   Prng& prng, bool lying) {
  // A file that is deleted and made again is another one: what was synced of the first says nothing of the
  // second.
  std::map<std::string, std::size_t> synced;  // file -> operations before this one are on the disk
  for (std::size_t i = 0; i < length && !lying; ++i) {
    if (log[i].kind == DiskOp::Kind::kSync) synced[log[i].file] = i;
    if (log[i].kind == DiskOp::Kind::kDelete && log[i].durable) synced.erase(log[i].file);
  }
  std::map<std::string, std::string> files;
  for (std::size_t i = 0; i < length; ++i) {
    const DiskOp& op = log[i];
    const auto last = synced.find(op.file);
    const bool safe = last != synced.end() && i < last->second;
    if (op.kind == DiskOp::Kind::kDelete) {
      if ((op.durable && !lying) || prng.chance(1, 2)) files.erase(op.file);
      continue;
    }
    std::string& file = files[op.file];
    if (op.kind == DiskOp::Kind::kTruncate && (safe || prng.chance(1, 2)))
      file.resize(static_cast<std::size_t>(op.offset));
    if (op.kind != DiskOp::Kind::kWrite) continue;
    // By sectors of the file, not of the write.
    for (std::size_t from = 0; from < op.bytes.size();) {
      const auto at = static_cast<std::size_t>(op.offset) + from;
      const std::size_t part = std::min(kSector - at % kSector, op.bytes.size() - from);
      if (safe || prng.chance(1, 2)) {
        if (file.size() < at + part) file.resize(at + part);
        file.replace(at, part, op.bytes, from, part);
      }
      from += part;
    }
  }
  return files;
}

}  // namespace aiv::test
