// Reads the integers of an architecture's name space from a header; the first bad one sticks.
#pragma once
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "core/gguf.hpp"

namespace aiv {

class ArchKeys {
 public:
  explicit ArchKeys(const GgufHeader& header) : header_(header) {}

  [[nodiscard]] bool has(std::string_view key) const { return header_.find_arch(key) != nullptr; }
  // An integer from `min` to `max`; `fallback` when the key is absent.
  std::int64_t integer(std::string_view key, std::int64_t fallback, std::int64_t min, std::int64_t max);
  // The same, but absence is an error.
  std::int64_t required(std::string_view key, std::int64_t min, std::int64_t max);
  // One value per layer: an array of at least `count` elements, or one number for all.
  std::vector<std::int64_t> per_layer(std::string_view key, std::int64_t fallback, std::int64_t max,
                                      std::size_t count);
  // True if the key is there as an array of numbers.
  [[nodiscard]] bool is_array(std::string_view key) const;
  void fail_at(std::string_view key, std::string reason);
  [[nodiscard]] bool ok() const { return !failed_; }
  [[nodiscard]] const Error& error() const { return error_; }

 private:
  const GgufHeader& header_;
  bool failed_ = false;
  Error error_;
};

}  // namespace aiv
