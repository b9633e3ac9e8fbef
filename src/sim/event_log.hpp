// What happened, in order: hashed always, kept or written only where somebody wants to read it.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace aiv::sim {

class EventLog {
 public:
  using Sink = std::function<void(const std::string& line)>;
  explicit EventLog(Sink sink = {}) : sink_(std::move(sink)) {}

  // "12.345 n3 agent: killed". Complexity: one pass over the text.
  void line(std::int64_t now_ms, std::string_view who, std::string_view what);
  // An event too frequent for words (a heartbeat): it counts for the hash alone.
  void mark(std::int64_t now_ms, std::uint64_t what);

  // 32 hexadecimal digits over every event so far.
  [[nodiscard]] std::string hash() const;
  [[nodiscard]] std::int64_t lines() const { return lines_; }

 private:
  void mix(std::uint64_t word);
  void mix(std::string_view text);
  Sink sink_;
  // Two lanes of FNV-1a (Fowler, Noll, Vo; public domain) with different starts, eight bytes a step.
  std::uint64_t a_ = 0xcbf29ce484222325U;
  std::uint64_t b_ = 0x6c62272e07bb0142U;
  std::int64_t lines_ = 0;
};

}  // namespace aiv::sim
