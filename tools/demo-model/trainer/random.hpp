// Seeded chance that is the same with every compiler and library.
#pragma once
#include <cmath>
#include <cstdint>

namespace aiv::demo {

// splitmix64 (Steele, Lea, Flood, OOPSLA 2014).
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = state_ += 0x9e3779b97f4a7c15ULL;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
  }
  // In (0, 1].
  float uniform() { return static_cast<float>((next() >> 40) + 1) * (1.0F / 16777216.0F); }
  // Standard normal (Box and Muller 1958).
  float normal() {
    const float radius = std::sqrt(-2.0F * std::log(uniform()));
    return radius * std::cos(6.2831853F * uniform());
  }
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }

 private:
  std::uint64_t state_;
};

}  // namespace aiv::demo
