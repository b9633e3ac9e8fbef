// What several commands take as an option's value.
#include "base/units.hpp"
#include "cli/commands.hpp"

namespace aiv::cli {

Result<std::int64_t> duration_option(const std::string& option, const std::string& text,
                                     std::int64_t least_ms) {
  const auto ms = parse_duration_ms(text);
  if (!ms) return fail(ErrorCode::kInvalidArgument, ms.error().reason, option);
  if (*ms < least_ms)
    return fail(ErrorCode::kInvalidArgument, "is at least " + format_duration_ms(least_ms), option);
  return *ms;
}

Result<Json> parse_labels(const std::vector<std::string>& pairs) {
  Json labels = Json::object();
  for (const std::string& pair : pairs) {
    const auto equals = pair.find('=');
    if (equals == 0 || equals == std::string::npos || equals + 1 == pair.size()) {
      return fail(ErrorCode::kInvalidArgument, "a label is NAME=VALUE", printable(pair, 80));
    }
    labels[pair.substr(0, equals)] = pair.substr(equals + 1);
  }
  return labels;
}

}  // namespace aiv::cli
