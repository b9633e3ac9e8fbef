#include "core/load_progress.hpp"

#include <algorithm>

namespace aiv {
namespace {

constexpr std::int64_t kJustBegunMs = 1'000;

}  // namespace

int load_percent(double progress) {
  if (!(progress > 0)) return 0;  // also for NaN
  return static_cast<int>(std::min(progress, 1.0) * 100.0) / kLoadStepPercent * kLoadStepPercent;
}

std::string load_reason(std::string_view node, int percent) {
  std::string reason = "loading on " + std::string(node);
  if (percent > 0) reason += ", " + std::to_string(percent) + " % done";
  return reason;
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
