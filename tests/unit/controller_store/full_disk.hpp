// While it lives, SQLite's files take no byte more: its writes fail as on a disk with nothing left.
#pragma once
#include <sqlite3.h>
#include <sys/types.h>

#include <cerrno>

namespace aiv::test {

class FullDisk {
 public:
  FullDisk() {
    for (const char* call : {"write", "pwrite", "pwrite64"}) replace(call, reinterpret_cast<sqlite3_syscall_ptr>(&no_space));
  }
  ~FullDisk() {
    for (const char* call : {"write", "pwrite", "pwrite64"}) replace(call, nullptr);  // back to the real one
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

 private:
  // All three are told apart by SQLite alone; none of the arguments is looked at.
  static ssize_t no_space(int, const void*, size_t, off_t) {
    errno = ENOSPC;
    return -1;
  }
  static void replace(const char* name, sqlite3_syscall_ptr call) {
    sqlite3_vfs* vfs = sqlite3_vfs_find("unix");
    vfs->xSetSystemCall(vfs, name, call);
  }
};

}  // namespace aiv::test
