// How far the load of a deployment without a replica is, said once for people and once for arithmetic.
//
// RULES
// - The controller puts the progress into the route table as a number and into the deployment's reason as words, both in
//   steps of kLoadStepPercent: a route table for every per cent would be a durable write for each. Nobody reads the words
//   back; they are what `aiv status` and a client's error show.
// - The rest of a load is what it has left at the pace it had so far, bytes being read at about one speed. Without a second
//   figure a load is taken to be half done: the wait so far is the best guess of the wait to come.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace aiv {

inline constexpr int kLoadStepPercent = 10;

// `progress` (0..1; more counts as 1, NaN as 0) in per cent, down to a whole step: 0.47 is 40.
[[nodiscard]] int load_percent(double progress);
// "loading on lab-pc3", from the first step on "loading on lab-pc3, 40 % done".
[[nodiscard]] std::string load_reason(std::string_view node, int percent);

// One load, watched by times of the caller's clock (ms).
class LoadWatch {
 public:
  // What the newest table says; `percent` nullopt where it says none.
  void loading(std::int64_t now_ms, std::optional<int> percent);
  void stop() { *this = LoadWatch(); }
  // Of a load that is watched: the expected rest in ms. nullopt: nothing loads, or it has just begun.
  [[nodiscard]] std::optional<double> rest_ms(std::int64_t now_ms) const;

 private:
  bool watching_ = false;
  std::int64_t since_ms_ = 0;
  std::int64_t step_ms_ = 0;  // when `percent_` was first said
  int first_percent_ = 0;
  int percent_ = 0;
};

}  // namespace aiv
