// JSON off the token path: nlohmann's tree, behind readers that bound their input and name the field at fault.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace aiv {

using Json = nlohmann::ordered_json;

// Strict parse: UTF-8, depth <= max_depth, no NaN, no trailing bytes, no duplicate keys at the top. The error's
// `where` is "offset N".
Result<Json> parse_json(std::string_view text, int max_depth = 64);
// One line, invalid UTF-8 replaced, never throws.
std::string dump_json(const Json& json, int indent = -1);

// Reads the fields of one object; the first failure sticks and names the path ("nodes[2].devices[0].vram_bytes").
// Use: JsonReader r(json, "node"); auto id = r.string("id"); ... if (!r.ok()) return std::unexpected(r.error());
class JsonReader {
 public:
  JsonReader(const Json& json, std::string path);
  std::string string(std::string_view key, std::size_t max_bytes = 4096);
  std::string string_or(std::string_view key, std::string fallback, std::size_t max_bytes = 4096);
  std::int64_t integer(std::string_view key, std::int64_t min, std::int64_t max);
  std::int64_t integer_or(std::string_view key, std::int64_t fallback, std::int64_t min, std::int64_t max);
  double number(std::string_view key, double min, double max);
  double number_or(std::string_view key, double fallback, double min, double max);
  bool boolean(std::string_view key);
  bool boolean_or(std::string_view key, bool fallback);
  // The array at `key` (empty if absent and not required); elements are read with child readers.
  const Json& array(std::string_view key, bool required = true);
  const Json& object(std::string_view key, bool required = true);
  [[nodiscard]] bool has(std::string_view key) const;
  [[nodiscard]] std::string path_of(std::string_view key) const;
  // Fails on any key that was never asked for (requests of our own API refuse unknown fields).
  void refuse_unknown();
  void fail_at(std::string_view key, std::string reason);
  // Takes over a child's failure.
  void absorb(const JsonReader& child);
  [[nodiscard]] bool ok() const { return !failed_; }
  [[nodiscard]] const Error& error() const { return error_; }

 private:
  const Json* find(std::string_view key, bool required);
  const Json& json_;
  std::string path_;
  std::vector<std::string> seen_;
  bool failed_ = false;
  Error error_;
};

}  // namespace aiv
