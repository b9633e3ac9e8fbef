// Hours of a week, as an operator writes them: "Mo-Fr 08-18", "Sa,Su 10:30-14", "08-18" (every day), several
// of them separated by ";". From a minute on until before another; "22-06" goes on into the next day.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace aiv {

inline constexpr int kMinutesPerDay = 24 * 60;
inline constexpr int kMinutesPerWeek = 7 * kMinutesPerDay;

class WeeklyHours {
 public:
  // kInvalidArgument: what is wrong with the text. Empty text: never.
  static Result<WeeklyHours> parse(std::string_view text);

  // `minute` of the week, 0 = Monday 00:00; below 0 (nobody knows the time): false.
  [[nodiscard]] bool contain(int minute) const;
  // As it was written.
  [[nodiscard]] const std::string& text() const { return text_; }
  [[nodiscard]] bool empty() const { return spans_.empty(); }
  friend bool operator==(const WeeklyHours&, const WeeklyHours&) = default;

 private:
  struct Span {
    int from = 0;  // minute of the week
    int to = 0;    // first minute after it; may be in the next week
    friend bool operator==(const Span&, const Span&) = default;
  };
  std::string text_;
  std::vector<Span> spans_;
};

}  // namespace aiv
