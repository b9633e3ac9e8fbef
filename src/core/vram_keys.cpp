#include "core/vram_keys.hpp"

namespace aiv {

void ArchKeys::fail_at(std::string_view key, std::string reason) {
  if (failed_) return;
  failed_ = true;
  error_ = Error{ErrorCode::kCorrupt, std::move(reason),
                 header_.place_of_key(header_.architecture + "." + std::string(key))};
}

std::int64_t ArchKeys::integer(std::string_view key, std::int64_t fallback, std::int64_t min,
                               std::int64_t max) {
  const GgufValue* value = header_.find_arch(key);
  if (value == nullptr) return fallback;
  std::int64_t number = 0;
  if (const auto* integer = std::get_if<std::int64_t>(value)) {
    number = *integer;
  } else {
    fail_at(key, "must be an integer");
    return fallback;
  }
  if (number < min || number > max) {
    fail_at(key, "is " + std::to_string(number) + ", must be from " + std::to_string(min) + " to " +
                     std::to_string(max));
    return fallback;
  }
  return number;
}

std::int64_t ArchKeys::required(std::string_view key, std::int64_t min, std::int64_t max) {
  if (!has(key)) {
    fail_at(key, "is missing");
    return min;
  }
  return integer(key, min, min, max);
}

bool ArchKeys::is_array(std::string_view key) const {
  const GgufValue* value = header_.find_arch(key);
  const auto* array = value == nullptr ? nullptr : std::get_if<GgufArray>(value);
  return array != nullptr && std::holds_alternative<std::vector<std::int64_t>>(*array);
}

std::vector<std::int64_t> ArchKeys::per_layer(std::string_view key, std::int64_t fallback, std::int64_t max,
                                              std::size_t count) {
  const GgufValue* value = header_.find_arch(key);
  if (value == nullptr) return std::vector<std::int64_t>(count, fallback);
  const auto* array = std::get_if<GgufArray>(value);
  if (array == nullptr) return std::vector<std::int64_t>(count, integer(key, fallback, 0, max));
  const auto* numbers = std::get_if<std::vector<std::int64_t>>(array);
  if (numbers == nullptr || numbers->size() < count) {
    fail_at(key, numbers == nullptr ? "must hold integers"
                                    : "has " + std::to_string(numbers->size()) + " elements for " +
                                          std::to_string(count) + " layers");
    return std::vector<std::int64_t>(count, fallback);
  }
  std::vector<std::int64_t> out(numbers->begin(), numbers->begin() + static_cast<std::ptrdiff_t>(count));
  for (std::size_t i = 0; i < count; ++i) {
    if (out[i] >= 0 && out[i] <= max) continue;
    fail_at(key, "element " + std::to_string(i) + " is " + std::to_string(out[i]) + ", must be from 0 to " +
                     std::to_string(max));
    return std::vector<std::int64_t>(count, fallback);
  }
  return out;
}

}  // namespace aiv
