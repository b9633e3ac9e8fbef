// The caller's clock, asked now and then: whether the share of its time limit that a part of the work may use
// is gone.
//
// The core has no clock of its own. Without the caller's none of this ends anything, and the answer is a
// function of the input, the seed and the steps alone.
#pragma once
#include <functional>

namespace aiv::placement {

class Deadline {
 public:
  Deadline() = default;
  // `spent` gives the share of the time limit that is gone, and outlives this; empty: never over.
  Deadline(const std::function<double()>& spent, double share) : spent_(&spent), share_(share) {}

  // `work`: what was done since the last question, in thousandths of what may pass between two looks at the
  // clock.
  bool over(int work = 1000) {
    if (spent_ == nullptr || !*spent_ || over_) return over_;
    since_ -= work;
    if (since_ > 0) return false;
    since_ = 1000;
    over_ = (*spent_)() >= share_;
    return over_;
  }

 private:
  const std::function<double()>* spent_ = nullptr;
  double share_ = 1;
  int since_ = 0;
  bool over_ = false;
};

}  // namespace aiv::placement
