#include "gateway/openai_parse.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <array>
#include <cmath>
#include <iterator>

#include "base/json.hpp"
#include "base/units.hpp"

namespace aiv::gateway {
namespace {

using simdjson::dom::array;
using simdjson::dom::element;
using simdjson::dom::element_type;
using simdjson::dom::object;

// A path is only put together when something is wrong with it.
struct Path {
  const Path* parent = nullptr;
  std::string_view name;
  std::size_t index = 0;
  bool is_index = false;

  [[nodiscard]] std::string text() const {
    std::string out = parent != nullptr ? parent->text() : std::string();
    if (is_index) return out + "[" + std::to_string(index) + "]";
    return out.empty() ? std::string(name) : out + "." + std::string(name);
  }
};

unsigned type_of(const element& value) {
  switch (value.type()) {
    case element_type::ARRAY: return kJsonArray;
    case element_type::OBJECT: return kJsonObject;
    case element_type::INT64:
    case element_type::UINT64: return kJsonInteger;
    case element_type::DOUBLE: return kJsonNumber;
    case element_type::STRING: return kJsonString;
    case element_type::BOOL: return kJsonBool;
    case element_type::NULL_VALUE: return kJsonNull;
  }
  return 0;
}

double number_of(const element& value) {
  double number = 0;
  if (value.get(number) != simdjson::SUCCESS) return std::nan("");
  return number;
}

// An integer written as 2.0 or 1e3 counts as one: some clients print every number as a float.
bool is_whole(const element& value) {
  const double number = number_of(value);
  return number == std::floor(number) && std::abs(number) < 9e15;
}

bool asks_nothing(const element& value) {
  switch (value.type()) {
    case element_type::NULL_VALUE: return true;
    case element_type::BOOL: return !bool(value);
    case element_type::STRING: return std::string_view(value).empty();
    case element_type::ARRAY: return array(value).size() == 0;
    case element_type::OBJECT: return object(value).size() == 0;
    case element_type::INT64:
    case element_type::UINT64:
    case element_type::DOUBLE: return false;
  }
  return false;
}

class Writer {
 public:
  explicit Writer(std::string& out) : out_(out) {}

  // Checks `value` and appends what the engine gets.
  bool write(const element& value, const ValueRule& rule, const Path& path) {
    if (!count_node(path)) return false;
    if (!rule.unsupported.empty()) {
      out_ += "null";
      return asks_nothing(value) || fail_at(path, std::string(rule.unsupported));
    }
    const unsigned type = type_of(value);
    const bool whole = type == kJsonNumber && (rule.types & (kJsonInteger | kJsonNumber)) == kJsonInteger && is_whole(value);
    if (!whole && !passed(check_type(rule, type), path)) return false;
    if (rule.free) return write_bounded_free(value, rule, path);
    switch (value.type()) {
      case element_type::NULL_VALUE: out_ += "null"; return true;
      case element_type::BOOL: out_ += bool(value) ? "true" : "false"; return true;
      case element_type::INT64:
      case element_type::UINT64:
      case element_type::DOUBLE:
        if (!passed(check_number(rule, number_of(value)), path)) return false;
        write_number(value, whole);
        return true;
      case element_type::STRING: {
        const std::string_view text = value;
        if (!passed(check_string(rule, text), path)) return false;
        append_json_string(out_, text);
        return true;
      }
      case element_type::ARRAY: return write_array(value, rule, path);
      case element_type::OBJECT: return write_object(value, rule.fields, path);
    }
    return false;
  }

  [[nodiscard]] const ApiError& error() const { return error_; }
  bool fail_at(const Path& path, std::string reason) {
    const std::string where = path.text();
    error_ = bad_request("'" + where + "' " + reason + ".", where);
    return false;
  }
  bool passed(const Result<>& result, const Path& path) {
    return result ? true : fail_at(path, result.error().reason);
  }
  bool count_node(const Path& path) {
    return ++nodes_ <= kJsonNodesMax ? true : fail_at(path, "makes the body have more than 100000 JSON values");
  }

 private:
  bool write_array(const array& values, const ValueRule& rule, const Path& path) {
    if (!passed(check_items(rule, values.size()), path)) return false;
    out_ += '[';
    std::size_t index = 0;
    for (const element value : values) {
      if (index > 0) out_ += ',';
      if (!write(value, *rule.item, Path{&path, {}, index, true})) return false;
      ++index;
    }
    out_ += ']';
    return true;
  }

  bool write_object(const object& fields, std::span<const FieldRule> rules, const Path& path) {
    std::uint64_t seen = 0;
    bool first = true;
    out_ += '{';
    for (const auto field : fields) {
      const std::size_t rule = find_rule(rules, field.key);
      if (rule == rules.size()) {
        if (!count_node(path)) return false;
        continue;
      }
      const Path here{&path, rules[rule].name};
      if ((seen >> rule & 1) != 0) return fail_at(here, "is given twice");
      seen |= std::uint64_t{1} << rule;
      if (field.value.is_null() && !rules[rule].keep_null && (rules[rule].value.types & kJsonNull) != 0) continue;
      if (!write_field(field.value, rules[rule], here, first)) return false;
    }
    out_ += '}';
    return all_required(rules, seen, path);
  }

  bool write_field(const element& value, const FieldRule& rule, const Path& path, bool& first) {
    const std::size_t before = out_.size();
    if (!first) out_ += ',';
    out_ += '"';
    out_ += rule.name;
    out_ += "\":";
    if (!write(value, rule.value, path)) return false;
    if (rule.use == FieldUse::kPass) {
      first = false;
    } else {
      out_.resize(before);
    }
    return true;
  }

  bool all_required(std::span<const FieldRule> rules, std::uint64_t seen, const Path& path) {
    for (std::size_t i = 0; i < rules.size(); ++i) {
      if (rules[i].required && (seen >> i & 1) == 0) return fail_at(Path{&path, rules[i].name}, "is missing");
    }
    return true;
  }

  bool write_bounded_free(const element& value, const ValueRule& rule, const Path& path) {
    const std::size_t before = out_.size();
    if (value.is_object() && !passed(check_items(rule, object(value).size()), path)) return false;
    if (!write_free(value, path)) return false;
    if (out_.size() - before <= rule.bytes_max) return true;
    return fail_at(path, "is longer than " + std::to_string(rule.bytes_max) + " bytes");
  }

  bool write_free(const element& value, const Path& path) {
    if (!count_node(path)) return false;
    switch (value.type()) {
      case element_type::NULL_VALUE: out_ += "null"; return true;
      case element_type::BOOL: out_ += bool(value) ? "true" : "false"; return true;
      case element_type::INT64:
      case element_type::UINT64:
      case element_type::DOUBLE: write_number(value, false); return true;
      case element_type::STRING: append_json_string(out_, std::string_view(value)); return true;
      case element_type::ARRAY: {
        out_ += '[';
        bool first = true;
        for (const element child : array(value)) {
          if (!first) out_ += ',';
          first = false;
          if (!write_free(child, path)) return false;
        }
        out_ += ']';
        return true;
      }
      case element_type::OBJECT: {
        out_ += '{';
        bool first = true;
        for (const auto field : object(value)) {
          if (!first) out_ += ',';
          first = false;
          append_json_string(out_, field.key);
          out_ += ':';
          if (!write_free(field.value, path)) return false;
        }
        out_ += '}';
        return true;
      }
    }
    return false;
  }

  void write_number(const element& value, bool as_integer) {
    if (value.is_int64()) {
      fmt::format_to(std::back_inserter(out_), "{}", std::int64_t(value));
    } else if (value.is_uint64()) {
      fmt::format_to(std::back_inserter(out_), "{}", std::uint64_t(value));
    } else if (as_integer) {
      fmt::format_to(std::back_inserter(out_), "{}", static_cast<std::int64_t>(number_of(value)));
    } else {
      fmt::format_to(std::back_inserter(out_), "{}", number_of(value));
    }
  }

 public:
  static std::size_t find_rule(std::span<const FieldRule> rules, std::string_view key) {
    for (std::size_t i = 0; i < rules.size(); ++i) {
      if (rules[i].name == key) return i;
    }
    return rules.size();
  }

 private:
  std::string& out_;
  std::size_t nodes_ = 0;
  ApiError error_;
};

// Takes over a field that is ours; it has been checked already.
void keep_field(CheckedRequest& request, std::string_view name, const element& value) {
  if (name == "model") {
    request.model = std::string_view(value);
  } else if (name == "user") {
    request.user = std::string_view(value);
  } else if (name == "stream") {
    request.stream = bool(value);
  } else if (name == "stream_options") {
    bool wanted = false;
    if (value["include_usage"].get(wanted) == simdjson::SUCCESS) request.include_usage = wanted;
  } else if (name == "encoding_format") {
    request.base64 = std::string_view(value) == "base64";
  } else if (name == "dimensions") {
    request.dimensions = static_cast<std::int64_t>(number_of(value));
  } else if (name == "max_completion_tokens" || (name == "max_tokens" && request.max_tokens == 0)) {
    request.max_tokens = static_cast<std::int64_t>(number_of(value));
  }
}

// A list of one prompt is that prompt. Of several it is said that they are too many, not that they are no token ids.
bool unwrap_prompt(element& value, Writer& writer, const Path& path) {
  array list;
  if (value.get(list) != simdjson::SUCCESS || list.size() == 0 || !list.at(0).is_string()) return true;
  if (list.size() > 1) return writer.fail_at(path, "holds several prompts, of which one request takes one: send a request for each");
  value = list.at(0).value_unsafe();
  return true;
}

bool is_prompt(std::string_view name) { return name == "messages" || name == "prompt" || name == "input" || name == "documents"; }

// The same bytes through the parser that knows offsets; only for bodies that are wrong.
ApiError not_json(std::string_view body, simdjson::error_code code) {
  if (code == simdjson::DEPTH_ERROR) {
    return bad_request("The body is nested deeper than " + std::to_string(kJsonDepthMax) + " levels.");
  }
  const auto json = parse_json(body, kJsonDepthMax);
  if (json) return bad_request(std::string("The body is not JSON: ") + simdjson::error_message(code) + ".");
  const Error& error = json.error();
  return bad_request("The body is not JSON" + (error.where.empty() ? "" : " at " + error.where) + ": " +
                     printable(error.reason, 200));
}

std::expected<CheckedRequest, ApiError> check(Endpoint endpoint, const object& fields,
                                              std::size_t body_bytes) {
  CheckedRequest request{.endpoint = endpoint};
  request.body.reserve(body_bytes + 64);
  request.body = "{";
  Writer writer(request.body);
  const auto rules = request_fields(endpoint);
  std::uint64_t seen = 0;
  bool first = true;
  for (const auto given : fields) {
    const std::size_t index = Writer::find_rule(rules, given.key);
    if (index == rules.size()) continue;
    element value = given.value;
    const FieldRule& rule = rules[index];
    const Path path{nullptr, rule.name};
    if ((seen >> index & 1) != 0) {
      writer.fail_at(path, "is given twice");
      return std::unexpected(writer.error());
    }
    seen |= std::uint64_t{1} << index;
    if (rule.name == "prompt" && !unwrap_prompt(value, writer, path)) return std::unexpected(writer.error());
    if (value.is_null() && (rule.value.types & kJsonNull) != 0) continue;
    const std::size_t before = request.body.size();
    if (!first) request.body += ',';
    request.body += '"';
    request.body += rule.name;
    request.body += "\":";
    const std::size_t value_start = request.body.size();
    if (!writer.write(value, rule.value, path)) return std::unexpected(writer.error());
    if (is_prompt(rule.name)) request.prompt_bytes = request.body.size() - value_start;
    if (rule.use == FieldUse::kPass) {
      first = false;
    } else {
      request.body.resize(before);
      if (rule.use == FieldUse::kKeep) keep_field(request, rule.name, value);
    }
  }
  for (std::size_t i = 0; i < rules.size(); ++i) {
    if (!rules[i].required || (seen >> i & 1) != 0) continue;
    writer.fail_at(Path{nullptr, rules[i].name}, "is missing");
    return std::unexpected(writer.error());
  }
  return request;
}

}  // namespace

std::expected<CheckedRequest, ApiError> parse_openai_request(Endpoint endpoint, std::string& body) {
  thread_local simdjson::dom::parser parser;
  if (body.capacity() < body.size() + simdjson::SIMDJSON_PADDING) {
    body.reserve(body.size() + simdjson::SIMDJSON_PADDING);
  }
  if (parser.capacity() == 0 || parser.capacity() < body.size()) {
    const auto error = parser.allocate(std::max<std::size_t>(body.size(), 64 * 1024), kJsonDepthMax);
    if (error != simdjson::SUCCESS) return std::unexpected(bad_request("The body is too large to be parsed."));
  }
  element root;
  const auto error = parser.parse(body.data(), body.size(), false).get(root);
  if (error != simdjson::SUCCESS) return std::unexpected(not_json(body, error));
  object fields;
  if (root.get(fields) != simdjson::SUCCESS) return std::unexpected(bad_request("The body must be a JSON object."));
  auto request = check(endpoint, fields, body.size());
  if (parser.capacity() > kParserKeepBytes) parser = simdjson::dom::parser();
  if (!request) return request;
  if (!valid_name(request->model)) {
    return std::unexpected(bad_request("'model' is not a name: letters, digits and . _ : / - only.", "model"));
  }
  return request;
}

}  // namespace aiv::gateway
