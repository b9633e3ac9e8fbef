#include "core/load_progress.hpp"

#include <algorithm>
#include <charconv>

namespace aiv {
namespace {

constexpr std::string_view kDone = " % done";
constexpr std::int64_t kJustBegunMs = 1'000;

}  // namespace

std::string load_reason(std::string_view node, double progress) {
  std::string reason = "loading on " + std::string(node);
  if (!(progress > 0)) return reason;  // also for NaN
  const int percent = static_cast<int>(std::min(progress, 1.0) * 100.0) / kLoadStepPercent * kLoadStepPercent;
  if (percent > 0) reason += ", " + std::to_string(percent) + std::string(kDone);
  return reason;
}

std::optional<int> load_percent(std::string_view reason) {
  if (!reason.starts_with("loading on ") || !reason.ends_with(kDone)) return std::nullopt;
  reason.remove_suffix(kDone.size());
  const std::size_t comma = reason.rfind(", ");
  if (comma == std::string_view::npos) return std::nullopt;
  reason.remove_prefix(comma + 2);
  int percent = 0;
  const auto [end, error] = std::from_chars(reason.data(), reason.data() + reason.size(), percent);
  if (error != std::errc() || end != reason.data() + reason.size() || percent < 0 || percent > 100)
    return std::nullopt;
  return percent;
}

void LoadWatch::loading(std::int64_t now_ms, std::optional<int> percent) {
  const int said = percent.value_or(0);
  // A load that starts anew, on this node or another, has a pace of its own.
  if (!watching_ || said < percent_) {
    *this = LoadWatch();
    watching_ = true;
    since_ms_ = step_ms_ = now_ms;
    first_percent_ = percent_ = said;
    return;
  }
  if (said == percent_) return;
  percent_ = said;
  step_ms_ = now_ms;
}

std::optional<double> LoadWatch::rest_ms(std::int64_t now_ms) const {
  if (!watching_) return std::nullopt;
  const auto since_step = static_cast<double>(std::max<std::int64_t>(now_ms - step_ms_, 0));
  if (percent_ > first_percent_ && step_ms_ > since_ms_) {
    const double per_percent =
        static_cast<double>(step_ms_ - since_ms_) / static_cast<double>(percent_ - first_percent_);
    return std::max(per_percent * static_cast<double>(100 - percent_) - since_step, 0.0);
  }
  const auto waited = static_cast<double>(now_ms - since_ms_);
  if (waited < kJustBegunMs) return std::nullopt;
  return waited;
}

}  // namespace aiv
