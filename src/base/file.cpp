#include "base/file.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace aiv {
namespace {

std::unexpected<Error> io_error(const std::string& path, int error = errno) {
  const ErrorCode code = error == ENOENT ? ErrorCode::kNotFound : ErrorCode::kIo;
  return fail(code, std::strerror(error), path);
}

// Closes on every way out.
class Fd {
 public:
  explicit Fd(int fd) : fd_(fd) {}
  Fd(const Fd&) = delete;
  Fd& operator=(const Fd&) = delete;
  ~Fd() {
    if (fd_ >= 0) ::close(fd_);
  }
  [[nodiscard]] int get() const { return fd_; }

 private:
  int fd_;
};

}  // namespace

Result<std::string> read_file(const std::string& path, std::size_t max_bytes) {
  const Fd fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd.get() < 0) return io_error(path);
  std::string content;
  std::array<char, 65536> buffer{};
  for (;;) {
    const ssize_t got = ::read(fd.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error(path);
    if (got == 0) return content;
    content.append(buffer.data(), static_cast<std::size_t>(got));
    if (content.size() > max_bytes) {
      return fail(ErrorCode::kTooLarge, "is larger than " + std::to_string(max_bytes) + " bytes", path);
    }
  }
}

Result<> write_file_durably(const std::string& path, std::string_view content, unsigned mode) {
  const std::string temporary = path + ".tmp" + std::to_string(::getpid());
  {
    const Fd fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
    if (fd.get() < 0) return io_error(temporary);
    std::size_t done = 0;
    while (done < content.size()) {
      const ssize_t put = ::write(fd.get(), content.data() + done, content.size() - done);
      if (put < 0 && errno == EINTR) continue;
      if (put < 0) {
        const int error = errno;
        ::unlink(temporary.c_str());
        return io_error(path, error);
      }
      done += static_cast<std::size_t>(put);
    }
    if (::fsync(fd.get()) != 0) return io_error(temporary);
  }
  if (::rename(temporary.c_str(), path.c_str()) != 0) return io_error(path);
  const std::string directory = std::filesystem::path(path).parent_path().string();
  // Without this the rename itself may be lost with the power.
  const Fd dir(::open(directory.empty() ? "." : directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (dir.get() < 0 || ::fsync(dir.get()) != 0) return io_error(directory);
  return {};
}

Result<> make_directories(const std::string& path, unsigned mode) {
  std::filesystem::path built;
  for (const auto& part : std::filesystem::path(path)) {
    built /= part;
    if (::mkdir(built.c_str(), mode) == 0 || errno == EEXIST) continue;
    // A parent that we may not write to may still exist (EROFS, EACCES on "/").
    std::error_code ignored;
    if (!std::filesystem::is_directory(built, ignored)) return io_error(built.string());
  }
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return fail(ErrorCode::kIo, "is not a directory", path);
  return {};
}

std::string executable_dir() {
  std::error_code error;
  const auto path = std::filesystem::read_symlink("/proc/self/exe", error);
  return error ? std::string(".") : path.parent_path().string();
}

}  // namespace aiv
