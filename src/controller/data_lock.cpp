#include "controller/data_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace aiv::controller {

Result<std::unique_ptr<DataLock>> DataLock::take(const std::string& directory) {
  const std::string path = directory + "/lock";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return fail(ErrorCode::kIo, std::strerror(errno), path);
  std::unique_ptr<DataLock> lock(new DataLock(fd));
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return fail(ErrorCode::kIo, std::strerror(errno), path);
    std::array<char, 32> text{};
    const ssize_t n = ::pread(fd, text.data(), text.size() - 1, 0);
    std::string pid(text.data(), n > 0 ? static_cast<std::size_t>(n) : 0);
    while (!pid.empty() && pid.back() == '\n') pid.pop_back();
    return fail(ErrorCode::kConflict,
                "another server (pid " + (pid.empty() ? "unknown" : pid) + ") uses this data directory", directory);
  }
  const std::string text = std::to_string(::getpid()) + "\n";
  // The pid is for people: the lock holds without it, also on a disk that takes no byte more.
  if (::pwrite(fd, text.data(), text.size(), 0) < 0 || ::ftruncate(fd, static_cast<off_t>(text.size())) != 0) {
    if (errno != ENOSPC) return fail(ErrorCode::kIo, std::strerror(errno), path);
  }
  return lock;
}

DataLock::~DataLock() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace aiv::controller
