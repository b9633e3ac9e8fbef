#include "sim/event_log.hpp"

#include <array>
#include <bit>
#include <cstdio>

namespace aiv::sim {

void EventLog::mix(std::uint64_t word) {
  constexpr std::uint64_t kPrime = 0x100000001b3U;
  a_ = (a_ ^ word) * kPrime;
  a_ ^= a_ >> 29U;
  b_ = (b_ ^ std::rotl(word, 31)) * kPrime;
  b_ ^= b_ >> 31U;
}

void EventLog::mix(std::string_view text) {
  std::uint64_t word = 0;
  unsigned filled = 0;
  for (const char c : text) {
    word |= static_cast<std::uint64_t>(static_cast<unsigned char>(c)) << (8U * filled);
    if (++filled < 8U) continue;
    mix(word);
    word = 0;
    filled = 0;
  }
  mix(word ^ (static_cast<std::uint64_t>(text.size()) << 56U));
}

void EventLog::line(std::int64_t now_ms, std::string_view who, std::string_view what) {
  ++lines_;
  mix(static_cast<std::uint64_t>(now_ms));
  mix(who);
  mix(what);
  if (!sink_) return;
  std::array<char, 32> time{};
  std::snprintf(time.data(), time.size(), "%10.3f ", static_cast<double>(now_ms) / 1000.0);
  std::string text(time.data());
  text.append(who).append(" ").append(what);
  sink_(text);
}

void EventLog::mark(std::int64_t now_ms, std::uint64_t what) {
  mix(static_cast<std::uint64_t>(now_ms));
  mix(what);
}

std::string EventLog::hash() const {
  std::array<char, 40> text{};
  std::snprintf(text.data(), text.size(), "%016llx%016llx", static_cast<unsigned long long>(a_),
                static_cast<unsigned long long>(b_));
  return text.data();
}

}  // namespace aiv::sim
