// A forward reader over a ByteSource with a small window: every step is checked against what is left first.
// The first failure sticks, so that hot loops test one bool.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "base/result.hpp"
#include "core/byte_source.hpp"

namespace aiv {

struct GgufHeader;
// One file of a model; only the first has to name the architecture.
Result<GgufHeader> read_gguf_part(ByteSource& source, bool first_part);

class GgufCursor {
 public:
  // `limit`: bytes that may be read at all (the bound on a header).
  GgufCursor(ByteSource& source, std::uint64_t limit)
      : source_(source), size_(source.size()), end_(std::min(size_, limit)) {}

  [[nodiscard]] std::uint64_t position() const { return position_; }
  [[nodiscard]] std::uint64_t left() const { return end_ - position_; }
  [[nodiscard]] bool ok() const { return !failed_; }
  [[nodiscard]] const Error& error() const { return error_; }

  // Little-endian number of T's width; the machines we run on are little-endian (static_assert in gguf.cpp).
  template <class T>
  bool number(T& out) {
    static_assert(std::is_arithmetic_v<T>);
    if (window_end_ - position_ < sizeof(T) && !fill(sizeof(T))) return false;
    std::memcpy(&out, window_.data() + (position_ - window_start_), sizeof(T));
    position_ += sizeof(T);
    return true;
  }

  // Text of `bytes` bytes; the caller has bounded `bytes`.
  bool text(std::uint64_t bytes, std::string& out) {
    if (bytes > left()) return fail_short();
    out.resize(static_cast<std::size_t>(bytes));
    if (position_ + bytes <= window_end_) {
      std::memcpy(out.data(), window_.data() + (position_ - window_start_), out.size());
    } else if (Result<> r = source_.read(position_, std::as_writable_bytes(std::span(out))); !r) {
      return fail_with(r.error());
    }
    return skip(bytes);
  }

  // The one place that moves past what was not read through the window: the window never ends before the
  // position.
  bool skip(std::uint64_t bytes) {
    if (bytes > left()) return fail_short();
    position_ += bytes;
    if (position_ > window_end_) window_start_ = window_end_ = position_;
    return true;
  }

  // What is being read, for the error's `where`. The view must outlive the read.
  void field(std::string_view name) { field_ = name; }

  bool fail_here(ErrorCode code, std::string reason) {
    if (!failed_) {
      failed_ = true;
      error_ = Error{code, std::move(reason), where()};
    }
    return false;
  }

 private:
  static constexpr std::size_t kWindowMax = 128 * 1024;

  [[nodiscard]] std::string where() const {
    std::string text(field_.substr(0, 200));
    if (!text.empty()) text += ", ";
    return text + "offset " + std::to_string(position_);
  }

  bool fail_with(Error error) {
    if (!failed_) {
      failed_ = true;
      error_ = std::move(error);
      error_.where = where();
    }
    return false;
  }

  bool fail_short() {
    if (end_ < size_)
      return fail_here(ErrorCode::kTooLarge,
                       "the header is over the bound of " + std::to_string(end_) + " bytes");
    return fail_here(ErrorCode::kCorrupt, "the file ends here, at " + std::to_string(size_) +
                                              " bytes: it is truncated or damaged");
  }

  bool fill(std::size_t need) {
    if (failed_) return false;
    if (left() < need) return fail_short();
    const auto want =
        static_cast<std::size_t>(std::min<std::uint64_t>(std::max(window_bytes_, need), left()));
    // Small at first: most headers of split parts and projectors are a few kilobytes.
    window_bytes_ = std::min(window_bytes_ * 2, kWindowMax);
    if (window_.size() < want) window_.resize(want);
    if (Result<> r = source_.read(position_, std::span(window_.data(), want)); !r)
      return fail_with(r.error());
    window_start_ = position_;
    window_end_ = position_ + want;
    return true;
  }

  ByteSource& source_;
  std::uint64_t size_;
  std::uint64_t end_;
  std::uint64_t position_ = 0;
  std::uint64_t window_start_ = 0;
  std::uint64_t window_end_ = 0;
  std::size_t window_bytes_ = 8 * 1024;
  std::vector<std::byte> window_;
  std::string_view field_;
  bool failed_ = false;
  Error error_;
};

}  // namespace aiv
