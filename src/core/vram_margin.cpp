#include "core/vram_margin.hpp"

#include <algorithm>

namespace aiv {
namespace {

MarginHistory append(MarginHistory history, Bytes residual) {
  if (history.residuals.size() >= kResidualsMax) {
    const auto excess = history.residuals.size() - kResidualsMax + 1;
    history.residuals.erase(history.residuals.begin(),
                            history.residuals.begin() + static_cast<std::ptrdiff_t>(excess));
  }
  history.residuals.push_back(residual);
  return history;
}

// The smallest residual that at least 999 of 1,000 do not exceed.
Bytes quantile_999(std::vector<Bytes> residuals) {
  const std::size_t rank = (residuals.size() * 999 + 999) / 1000;  // ceil
  const auto nth = residuals.begin() + static_cast<std::ptrdiff_t>(rank - 1);
  std::nth_element(residuals.begin(), nth, residuals.end());
  return *nth;
}

}  // namespace

MarginHistory with_residual(MarginHistory history, Bytes measured_peak, Bytes estimated) {
  return append(std::move(history), measured_peak - estimated);
}

MarginHistory with_out_of_memory(MarginHistory history, Bytes needed, Bytes free, Bytes margin_then) {
  history.out_of_memory = true;
  return append(std::move(history), std::max(needed - free, Bytes{0}) + margin_then);
}

Bytes margin_of(const MarginHistory& history, Bytes vram, bool display_attached) {
  const Bytes display = display_attached ? vram / 1000 * 15 : 0;
  const std::size_t count = history.residuals.size();
  if (count == 0) return kMarginUnknown + display;
  const Bytes learned = std::max(kMarginMin, quantile_999(history.residuals) + vram / 100);
  // Too few to go below the start value, but a bad surprise raises it at once.
  const Bytes margin = count >= kResidualsTrusted ? learned : std::max(kMarginUnknown, learned);
  return std::min(margin, std::max(kMarginUnknown, vram / kMarginCardPart)) + display;
}

}  // namespace aiv
