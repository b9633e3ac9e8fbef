#include "base/units.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <ctime>

namespace aiv {
namespace {

struct Unit {
  std::string_view name;
  double factor;
};

constexpr std::array<Unit, 14> kByteUnits{{{"", 1},
                                           {"B", 1},
                                           {"KiB", 1024.0},
                                           {"MiB", 1048576.0},
                                           {"GiB", 1073741824.0},
                                           {"TiB", 1099511627776.0},
                                           {"K", 1024.0},
                                           {"M", 1048576.0},
                                           {"G", 1073741824.0},
                                           {"T", 1099511627776.0},
                                           {"KB", 1e3},
                                           {"MB", 1e6},
                                           {"GB", 1e9},
                                           {"TB", 1e12}}};
constexpr std::array<Unit, 5> kTimeUnits{{{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}}};

template <std::size_t N>
Result<std::int64_t> parse_quantity(std::string_view text, const std::array<Unit, N>& units,
                                    std::string_view example) {
  const auto wants = [&](std::string_view what) {
    return fail(ErrorCode::kInvalidArgument,
                fmt::format("\"{}\" {}; write a number with a unit, such as {}", printable(text, 40), what, example));
  };
  double value = 0;
  const auto [end, error] =
      std::from_chars(text.data(), text.data() + text.size(), value, std::chars_format::fixed);
  if (error != std::errc{}) return wants("is not a quantity");
  std::string_view unit(end, static_cast<std::size_t>(text.data() + text.size() - end));
  while (!unit.empty() && unit.front() == ' ') unit.remove_prefix(1);
  if (!(value >= 0)) return wants("is negative");
  for (const Unit& known : units) {
    if (known.name != unit) continue;
    const double total = value * known.factor;
    if (total > 4.6e18) return wants("is too large");
    return static_cast<std::int64_t>(total + 0.5);
  }
  return wants("has an unknown unit");
}

}  // namespace

Result<std::int64_t> parse_bytes(std::string_view text) { return parse_quantity(text, kByteUnits, "8GiB"); }
Result<std::int64_t> parse_duration_ms(std::string_view text) { return parse_quantity(text, kTimeUnits, "30s"); }

std::string format_bytes(std::int64_t bytes) {
  const double value = static_cast<double>(bytes);
  const double size = value < 0 ? -value : value;
  if (size >= static_cast<double>(kGiB)) return fmt::format("{:.1f} GiB", value / static_cast<double>(kGiB));
  if (size >= static_cast<double>(kMiB)) return fmt::format("{:.1f} MiB", value / static_cast<double>(kMiB));
  if (size >= static_cast<double>(kKiB)) return fmt::format("{:.1f} KiB", value / static_cast<double>(kKiB));
  return fmt::format("{} B", bytes);
}

std::string format_duration_ms(std::int64_t ms) {
  if (ms < 1000) return fmt::format("{} ms", ms);
  if (ms < 120'000) return fmt::format("{:.1f} s", static_cast<double>(ms) / 1000.0);
  if (ms < 7'200'000) return fmt::format("{} min", ms / 60'000);
  if (ms < 172'800'000) return fmt::format("{} h", ms / 3'600'000);
  return fmt::format("{} d", ms / 86'400'000);
}

std::string printable(std::string_view text, std::size_t max) {
  std::string out;
  out.reserve(std::min(text.size(), max));
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    // Cut only where a character begins, so that what is shown stays valid UTF-8.
    if (out.size() >= max && (byte & 0xC0U) != 0x80U) {
      out += "...";
      break;
    }
    if (byte < 0x20 || byte == 0x7F) {
      out += fmt::format("\\x{:02x}", byte);
    } else {
      out += static_cast<char>(byte);
    }
  }
  return out;
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

std::string rfc3339(std::int64_t unix_ms) {
  const std::time_t seconds = unix_ms / 1000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", parts.tm_year + 1900, parts.tm_mon + 1,
                     parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, unix_ms % 1000);
}

}  // namespace aiv
