#include "base/json.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "base/units.hpp"

namespace aiv {
namespace {

// Checks what nlohmann's parser does not: depth and duplicate keys at the top. Runs as a SAX pass that builds nothing.
class ShapeCheck final : public nlohmann::json_sax<Json> {
 public:
  explicit ShapeCheck(int max_depth) : max_depth_(max_depth) {}
  std::string fault;

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t value, const string_t&) override {
    if (std::isfinite(value)) return true;
    fault = "a number is out of range";
    return false;
  }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return enter(); }
  bool key(string_t& name) override {
    if (depth_ != 1 || top_keys_.insert(name).second) return true;
    fault = fmt::format("the key \"{}\" appears twice", printable(name, 60));
    return false;
  }
  bool end_object() override { return leave(); }
  bool start_array(std::size_t) override { return enter(); }
  bool end_array() override { return leave(); }
  bool parse_error(std::size_t position, const std::string&, const nlohmann::detail::exception& error) override {
    position_ = position;
    // nlohmann words it "[json.exception.parse_error.101] parse error at line 1, column 2: what"; keep the what.
    std::string text = error.what();
    if (const auto at = text.rfind(": "); at != std::string::npos && at + 2 < text.size()) text = text.substr(at + 2);
    fault = printable(text, 120);
    return false;
  }
  [[nodiscard]] std::size_t position() const { return position_; }

 private:
  bool enter() {
    if (++depth_ <= max_depth_) return true;
    fault = fmt::format("nested deeper than {} levels", max_depth_);
    return false;
  }
  bool leave() {
    --depth_;
    return true;
  }
  int max_depth_;
  int depth_ = 0;
  std::size_t position_ = 0;
  std::set<std::string> top_keys_;
};

const Json kNull = nullptr;
const Json kEmptyArray = Json::array();
const Json kEmptyObject = Json::object();

}  // namespace

Result<Json> parse_json(std::string_view text, int max_depth) {
  ShapeCheck check(max_depth);
  if (!Json::sax_parse(text, &check)) {
    return fail(ErrorCode::kInvalidArgument, "not valid JSON: " + check.fault,
                check.position() > 0 ? fmt::format("offset {}", check.position()) : "");
  }
  Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded()) return fail(ErrorCode::kInvalidArgument, "not valid JSON");
  return json;
}

std::string dump_json(const Json& json, int indent) {
  return json.dump(indent, ' ', false, Json::error_handler_t::replace);
}

JsonReader::JsonReader(const Json& json, std::string path) : json_(json), path_(std::move(path)) {
  if (!json_.is_object()) {
    failed_ = true;
    error_ = {ErrorCode::kInvalidArgument, "must be an object", path_};
  }
}

std::string JsonReader::path_of(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

void JsonReader::fail_at(std::string_view key, std::string reason) {
  if (failed_) return;
  failed_ = true;
  error_ = {ErrorCode::kInvalidArgument, std::move(reason), path_of(key)};
}

const Json* JsonReader::find(std::string_view key, bool required) {
  seen_.emplace_back(key);
  if (failed_) return nullptr;
  const auto it = json_.find(std::string(key));
  if (it == json_.end() || it->is_null()) {
    if (required) fail_at(key, "is missing");
    return nullptr;
  }
  return &*it;
}

bool JsonReader::has(std::string_view key) const {
  if (!json_.is_object()) return false;
  const auto it = json_.find(std::string(key));
  return it != json_.end() && !it->is_null();
}

std::string JsonReader::string(std::string_view key, std::size_t max_bytes) {
  const Json* value = find(key, true);
  if (value == nullptr) return {};
  if (!value->is_string()) return fail_at(key, "must be a string"), std::string{};
  const auto& text = value->get_ref<const std::string&>();
  if (text.size() > max_bytes) return fail_at(key, fmt::format("is longer than {} bytes", max_bytes)), std::string{};
  if (text.find('\0') != std::string::npos) return fail_at(key, "contains a NUL byte"), std::string{};
  return text;
}

std::string JsonReader::string_or(std::string_view key, std::string fallback, std::size_t max_bytes) {
  if (!has(key)) return seen_.emplace_back(key), fallback;
  return string(key, max_bytes);
}

std::int64_t JsonReader::integer(std::string_view key, std::int64_t min, std::int64_t max) {
  const Json* value = find(key, true);
  if (value == nullptr) return min;
  const bool too_big = value->is_number_unsigned() && value->get<std::uint64_t>() > static_cast<std::uint64_t>(max);
  if (!value->is_number_integer()) return fail_at(key, "must be a whole number"), min;
  const auto number = too_big ? max : value->get<std::int64_t>();
  if (too_big || number < min || number > max) {
    return fail_at(key, fmt::format("{} is not within {} to {}", value->dump(), min, max)), min;
  }
  return number;
}

std::int64_t JsonReader::integer_or(std::string_view key, std::int64_t fallback, std::int64_t min, std::int64_t max) {
  if (!has(key)) return seen_.emplace_back(key), fallback;
  return integer(key, min, max);
}

double JsonReader::number(std::string_view key, double min, double max) {
  const Json* value = find(key, true);
  if (value == nullptr) return min;
  if (!value->is_number()) return fail_at(key, "must be a number"), min;
  const double number = value->get<double>();
  if (!(number >= min && number <= max)) {
    return fail_at(key, fmt::format("{} is not within {} to {}", value->dump(), min, max)), min;
  }
  return number;
}

double JsonReader::number_or(std::string_view key, double fallback, double min, double max) {
  if (!has(key)) return seen_.emplace_back(key), fallback;
  return number(key, min, max);
}

bool JsonReader::boolean(std::string_view key) {
  const Json* value = find(key, true);
  if (value == nullptr) return false;
  if (!value->is_boolean()) return fail_at(key, "must be true or false"), false;
  return value->get<bool>();
}

bool JsonReader::boolean_or(std::string_view key, bool fallback) {
  if (!has(key)) return seen_.emplace_back(key), fallback;
  return boolean(key);
}

const Json& JsonReader::array(std::string_view key, bool required) {
  const Json* value = find(key, required);
  if (value == nullptr) return kEmptyArray;
  if (!value->is_array()) return fail_at(key, "must be a list"), kEmptyArray;
  return *value;
}

const Json& JsonReader::object(std::string_view key, bool required) {
  const Json* value = find(key, required);
  if (value == nullptr) return kEmptyObject;
  if (!value->is_object()) return fail_at(key, "must be an object"), kEmptyObject;
  return *value;
}

void JsonReader::refuse_unknown() {
  if (failed_) return;
  for (const auto& [name, value] : json_.items()) {
    if (std::find(seen_.begin(), seen_.end(), name) != seen_.end()) continue;
    return fail_at(printable(name, 60), "is not a known field");
  }
}

void JsonReader::absorb(const JsonReader& child) {
  if (failed_ || child.ok()) return;
  failed_ = true;
  error_ = child.error();
}

}  // namespace aiv
