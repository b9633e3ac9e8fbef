// A file as a ByteSource, and a model file with all its parts.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace aiv {

// Positioned reads on one read-only descriptor. Regular files only: a pipe or a device is refused, so that a
// read never waits.
class FileHandle {
 public:
  static Result<FileHandle> open(const std::string& path);
  FileHandle(FileHandle&& other) noexcept;
  FileHandle& operator=(FileHandle&& other) noexcept;
  FileHandle(const FileHandle&) = delete;
  FileHandle& operator=(const FileHandle&) = delete;
  ~FileHandle();

  [[nodiscard]] std::uint64_t size() const { return size_; }
  // Fills all of `out`; kCorrupt if the file became shorter than `offset + out.size()`, kIo otherwise.
  Result<> read(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  FileHandle(int fd, std::uint64_t size) : fd_(fd), size_(size) {}
  int fd_ = -1;
  std::uint64_t size_ = 0;
};

}  // namespace aiv
