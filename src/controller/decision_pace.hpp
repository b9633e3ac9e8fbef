// When the next decision is made: at once, or with all that comes in a burst.
//
// A decision may take at most a fifth of the time of the loop, which also relays, hears nodes and answers the
// API: after one that took t, the next waits 4 t, at most kPauseMax. Short ones (a small cluster's) never
// wait. Whatever is asked for meanwhile is answered by one decision.
#pragma once
#include <algorithm>
#include <string>
#include <utility>

#include "net/async.hpp"

namespace aiv::controller {

class DecisionPace {
 public:
  static constexpr auto kShort = net::milliseconds(2);
  static constexpr auto kPauseMax = net::milliseconds(250);
  static constexpr int kPauseFactor = 4;

  // A decision is wanted; `cause` says what for, and may be empty.
  void ask(std::string cause) {
    wanted_ = true;
    if (cause.empty()) return;
    if (first_cause_.empty()) {
      first_cause_ = std::move(cause);
    } else {
      ++further_causes_;
    }
  }
  [[nodiscard]] bool wanted() const { return wanted_; }
  [[nodiscard]] bool due(net::Clock::time_point now) const { return wanted_ && now >= not_before_; }
  // When one is due; the end of time while none is wanted.
  [[nodiscard]] net::Clock::time_point next() const {
    return wanted_ ? not_before_ : net::Clock::time_point::max();
  }

  // What the decision that is now made answers: "deployment.put deployment/a, and 3 more changes".
  [[nodiscard]] std::string take_cause() {
    wanted_ = false;
    std::string out = std::exchange(first_cause_, {});
    const int more = std::exchange(further_causes_, 0);
    if (more > 0) out += ", and " + std::to_string(more) + (more == 1 ? " more change" : " more changes");
    return out;
  }
  void decided(net::Clock::time_point began, net::Clock::time_point ended) {
    const auto took = ended - began;
    not_before_ =
        took < kShort ? ended : ended + std::min<net::Clock::duration>(kPauseFactor * took, kPauseMax);
  }

 private:
  bool wanted_ = false;
  std::string first_cause_;
  int further_causes_ = 0;
  net::Clock::time_point not_before_{};
};

}  // namespace aiv::controller
