// Bytes that can be read at any offset: what the parsers of core see of a file. The implementation over a
// real file is base's (base/file_source.hpp); tests and fuzzers use the one over memory below.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "base/result.hpp"

namespace aiv {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Length in bytes; constant while the source lives.
  [[nodiscard]] virtual std::uint64_t size() const = 0;
  // Fills all of `out` from `offset`. Precondition: offset + out.size() <= size(). Fails only with kIo (the
  // medium) or kCorrupt (the file became shorter meanwhile).
  virtual Result<> read(std::uint64_t offset, std::span<std::byte> out) = 0;
};

// Does not own the bytes.
class MemorySource final : public ByteSource {
 public:
  explicit MemorySource(std::span<const std::byte> bytes) : bytes_(bytes) {}
  explicit MemorySource(std::string_view bytes)
      : bytes_(std::as_bytes(std::span(bytes.data(), bytes.size()))) {}
  [[nodiscard]] std::uint64_t size() const override { return bytes_.size(); }
  Result<> read(std::uint64_t offset, std::span<std::byte> out) override {
    if (offset > bytes_.size() || out.size() > bytes_.size() - offset) {
      return fail(ErrorCode::kCorrupt, "read past the end");
    }
    if (!out.empty()) std::memcpy(out.data(), bytes_.data() + offset, out.size());
    return {};
  }

 private:
  std::span<const std::byte> bytes_;
};

}  // namespace aiv
