#include "base/file_source.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace aiv {
namespace {

std::unexpected<Error> system_error(int code, const std::string& path) {
  return fail(code == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo, std::strerror(code), path);
}

}  // namespace

Result<FileHandle> FileHandle::open(const std::string& path) {
  // O_NONBLOCK: opening a pipe must not wait for its writer; it has no effect on regular files.
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return system_error(errno, path);
  FileHandle file(fd, 0);
  struct stat info{};
  if (::fstat(fd, &info) != 0) return system_error(errno, path);
  if (!S_ISREG(info.st_mode)) return fail(ErrorCode::kInvalidArgument, "is not a regular file", path);
  file.size_ = static_cast<std::uint64_t>(info.st_size);
  return file;
}

FileHandle::FileHandle(FileHandle&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), size_(std::exchange(other.size_, 0)) {}

FileHandle& FileHandle::operator=(FileHandle&& other) noexcept {
  if (this != &other) {
    if (fd_ >= 0) ::close(fd_);
    fd_ = std::exchange(other.fd_, -1);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

FileHandle::~FileHandle() {
  if (fd_ >= 0) ::close(fd_);
}

Result<> FileHandle::read(std::uint64_t offset, std::span<std::byte> out) const {
  while (!out.empty()) {
    const ssize_t n = ::pread(fd_, out.data(), out.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return fail(ErrorCode::kIo, std::strerror(errno));
    if (n == 0) return fail(ErrorCode::kCorrupt, "the file became shorter while it was read");
    out = out.subspan(static_cast<std::size_t>(n));
    offset += static_cast<std::uint64_t>(n);
  }
  return {};
}

}  // namespace aiv
