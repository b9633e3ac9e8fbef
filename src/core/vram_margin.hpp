// The margin above an estimate, learned from what processes really took (vram.md section 6): plain data in,
// plain data out. The caller stores the histories and picks the one of (backend, driver, card, architecture).
//
// margin = max(64 MiB, q99.9(residuals) + 1 % of the card); 256 MiB until 20 residuals are known; 1.5 % of
// the card more where a display is attached. A constant of 1 GiB, as others use, wastes a quarter of a 4 GiB
// card; the quantile is the largest residual as long as there are fewer than 1,000, so one bad surprise is
// remembered.
#pragma once
#include <compare>
#include <cstdint>
#include <string>
#include <vector>

#include "core/documents.hpp"

namespace aiv {

// What a residual may depend on. Ordered, so that it can key a map.
struct MarginKey {
  std::string backend;
  std::string driver;
  std::string card;
  std::string architecture;
  friend auto operator<=>(const MarginKey&, const MarginKey&) = default;
};

inline constexpr std::size_t kResidualsMax = 1024;  // the oldest is dropped
inline constexpr std::size_t kResidualsTrusted = 20;
inline constexpr Bytes kMarginMin = 64LL << 20;
inline constexpr Bytes kMarginUnknown = 256LL << 20;
inline constexpr Bytes kMarginCardPart = 4;  // never more than a quarter of the card, whatever was seen

// Residual = measured peak of the process minus estimate, in order of arrival. Negative ones count: they say
// that the estimate is high.
struct MarginHistory {
  std::vector<Bytes> residuals;
  bool out_of_memory = false;  // one of them was an out-of-memory at load: trusted at once
  friend bool operator==(const MarginHistory&, const MarginHistory&) = default;
};

// The history with one more residual.
[[nodiscard]] MarginHistory with_residual(MarginHistory history, Bytes measured_peak, Bytes estimated);
// An out-of-memory at load is a residual of at least what was missing: `needed` - `free` (both as measured
// then), never less than the margin that was not enough.
[[nodiscard]] MarginHistory with_out_of_memory(MarginHistory history, Bytes needed, Bytes free,
                                               Bytes margin_then);
// Bytes to keep free above an estimate on a card of `vram` bytes.
[[nodiscard]] Bytes margin_of(const MarginHistory& history, Bytes vram, bool display_attached);

}  // namespace aiv
