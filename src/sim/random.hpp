// Draws of the simulator. Everything is built from core/prng.hpp with basic arithmetic alone, so that a seed
// means the same run on every compiler and C library.
#pragma once
#include <cmath>
#include <cstdint>
#include <string>

#include "core/prng.hpp"

namespace aiv::sim {

// Natural logarithm of x > 0: x = m * 2^e, ln m by the series of artanh. Error below 1e-12; same bits
// everywhere.
inline double natural_log(double x) {
  int exponent = 0;
  double m = std::frexp(x, &exponent);  // exact: no rounding
  if (m < 0.70710678118654752) {
    m *= 2;
    --exponent;
  }
  const double z = (m - 1) / (m + 1);
  const double square = z * z;
  double power = z;
  double sum = 0;
  for (int k = 1; k < 30; k += 2) {
    sum += power / k;
    power *= square;
  }
  return 2 * sum + exponent * 0.69314718055994530942;
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : prng_(seed) {}
  std::uint64_t bits() { return prng_.next(); }
  // Uniform in [low, high].
  std::int64_t between(std::int64_t low, std::int64_t high) {
    if (high <= low) return low;
    return low + static_cast<std::int64_t>(prng_.below(static_cast<std::uint32_t>(high - low + 1)));
  }
  std::size_t index(std::size_t count) { return prng_.below(static_cast<std::uint32_t>(count)); }
  bool chance(double probability) { return unit() < probability; }
  // Uniform in (0, 1].
  double unit() { return (static_cast<double>(prng_.next() >> 11U) + 1.0) / 9007199254740992.0; }
  double exponential(double mean) { return -natural_log(unit()) * mean; }

 private:
  Prng prng_;
};

}  // namespace aiv::sim
