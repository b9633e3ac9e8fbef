#include "core/weekly_hours.hpp"

#include <algorithm>
#include <array>
#include <optional>

#include "base/units.hpp"

namespace aiv {
namespace {

constexpr std::array<std::string_view, 7> kWeekDays = {"Mo", "Tu", "We", "Th", "Fr", "Sa", "Su"};
constexpr std::size_t kHoursTextMax = 200;

std::unexpected<Error> no_such_hours(std::string_view part) {
  return fail(ErrorCode::kInvalidArgument,
              "is not like 'Mo-Fr 08-18' (days Mo Tu We Th Fr Sa Su, hours 00 to 24, also 08:30): '" +
                  printable(std::string(part), 40) + "'");
}

std::vector<std::string_view> split_at(std::string_view text, char by) {
  std::vector<std::string_view> out;
  while (true) {
    const std::size_t at = text.find(by);
    out.push_back(trimmed(text.substr(0, at)));
    if (at == std::string_view::npos) return out;
    text.remove_prefix(at + 1);
  }
}

std::optional<int> week_day_of(std::string_view text) {
  const auto found = std::ranges::find(kWeekDays, text);
  if (found == kWeekDays.end()) return std::nullopt;
  return static_cast<int>(found - kWeekDays.begin());
}

std::optional<int> up_to_two_digits(std::string_view text, int most) {
  const bool digits =
      !text.empty() && text.size() <= 2 && text.find_first_not_of("0123456789") == std::string_view::npos;
  if (!digits) return std::nullopt;
  const int value = std::stoi(std::string(text));
  return value <= most ? std::optional(value) : std::nullopt;
}

// "08" or "08:30" as a minute of the day; "24" is its end.
std::optional<int> minute_of_day(std::string_view text) {
  const std::size_t colon = text.find(':');
  const auto hour = up_to_two_digits(text.substr(0, colon), 24);
  const auto minute =
      colon == std::string_view::npos ? std::optional(0) : up_to_two_digits(text.substr(colon + 1), 59);
  if (!hour || !minute || (*hour == 24 && *minute > 0)) return std::nullopt;
  return *hour * 60 + *minute;
}

// "Mo-Fr", "Sa,Su", "We"; "Sa-Mo" goes over the end of the week.
std::optional<std::vector<int>> week_days_of(std::string_view text) {
  std::vector<int> out;
  for (const std::string_view part : split_at(text, ',')) {
    const std::size_t dash = part.find('-');
    const auto first = week_day_of(trimmed(part.substr(0, dash)));
    const auto last = dash == std::string_view::npos ? first : week_day_of(trimmed(part.substr(dash + 1)));
    if (!first || !last) return std::nullopt;
    for (int day = *first;; day = (day + 1) % 7) {
      if (std::ranges::find(out, day) == out.end()) out.push_back(day);
      if (day == *last) break;
    }
  }
  return out;
}

}  // namespace

Result<WeeklyHours> WeeklyHours::parse(std::string_view text) {
  WeeklyHours out;
  if (text.size() > kHoursTextMax) return fail(ErrorCode::kInvalidArgument, "has more than 200 characters");
  if (trimmed(text).empty()) return out;
  out.text_ = std::string(trimmed(text));
  for (const std::string_view part : split_at(text, ';')) {
    const std::size_t space = part.rfind(' ');
    const std::string_view hours = space == std::string_view::npos ? part : part.substr(space + 1);
    const auto days = week_days_of(space == std::string_view::npos ? std::string_view("Mo-Su")
                                                                   : trimmed(part.substr(0, space)));
    const std::size_t dash = hours.find('-');
    if (!days || dash == std::string_view::npos) return no_such_hours(part);
    const auto from = minute_of_day(hours.substr(0, dash));
    const auto to = minute_of_day(hours.substr(dash + 1));
    if (!from || !to || *from == *to || *from == kMinutesPerDay) return no_such_hours(part);
    for (const int day : *days) {
      const int begin = day * kMinutesPerDay + *from;
      out.spans_.push_back({begin, begin + (*to > *from ? *to - *from : *to + kMinutesPerDay - *from)});
    }
  }
  return out;
}

bool WeeklyHours::contain(int minute) const {
  if (minute < 0) return false;
  return std::ranges::any_of(spans_, [&](const Span& span) {
    const bool this_week = span.from <= minute && minute < span.to;
    return this_week || minute + kMinutesPerWeek < span.to;  // it began on Sunday
  });
}

}  // namespace aiv
