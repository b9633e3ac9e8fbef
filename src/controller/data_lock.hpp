// One controller per data directory.
#pragma once
#include <memory>
#include <string>

#include "base/result.hpp"

namespace aiv::controller {

// Holds flock on DIR/lock, which carries our pid. Freed by the kernel however the process ends.
class DataLock {
 public:
  // kConflict with the pid of the holder when another process has it; kIo with the reason otherwise.
  static Result<std::unique_ptr<DataLock>> take(const std::string& directory);
  ~DataLock();
  DataLock(const DataLock&) = delete;
  DataLock& operator=(const DataLock&) = delete;

 private:
  explicit DataLock(int fd) : fd_(fd) {}
  int fd_;
};

}  // namespace aiv::controller
