#include "gateway/api/translated.hpp"

#include "base/units.hpp"

namespace aiv::gateway {

std::expected<Json, ApiError> read_object(std::string_view body) {
  auto json = parse_json(body, kJsonDepthMax);
  if (!json) {
    const Error& error = json.error();
    return std::unexpected(bad_request("The body is not JSON" +
                                       (error.where.empty() ? "" : " at " + error.where) + ": " +
                                       printable(error.reason, 200)));
  }
  if (!json->is_object()) return std::unexpected(bad_request("The body must be a JSON object."));
  return std::move(*json);
}

const Json& field(const Json& object, const char* key) {
  static const Json kAbsent;
  const auto found = object.find(key);
  return found == object.end() ? kAbsent : *found;
}

std::string text_of(const Json& object, const char* key) {
  const Json& value = field(object, key);
  return value.is_string() ? value.get<std::string>() : std::string();
}

bool asks(const Json& value) {
  if (value.is_boolean()) return value.get<bool>();
  if (value.is_number()) return value.get<double>() != 0;
  if (value.is_string()) return !value.get_ref<const std::string&>().empty();
  return !value.is_null() && !value.empty();
}

ApiError wrong_field(const std::string& path, std::string_view reason) {
  return bad_request("'" + printable(path, 200) + "' " + std::string(reason) + ".", path);
}

std::string json_text(std::string_view text) {
  std::string out;
  append_json_string(out, text);
  return out;
}

std::string id_from(std::string_view prefix, std::string_view request_id) {
  const std::size_t dash = request_id.rfind('-');
  return std::string(prefix) +
         std::string(dash == std::string_view::npos ? request_id : request_id.substr(dash + 1));
}

}  // namespace aiv::gateway
