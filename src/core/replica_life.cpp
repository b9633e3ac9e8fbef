#include "core/replica_life.hpp"

#include <algorithm>
#include <utility>

#include "base/result.hpp"
#include "base/units.hpp"

namespace aiv {

ReplicaState ReplicaLife::state() const {
  switch (step_) {
    case Step::kNew:
    case Step::kAskingRoom:
    case Step::kWaitingRoom:
    case Step::kBackoff:
      return ReplicaState::kPending;
    case Step::kLoading:
    case Step::kProving:
    case Step::kCanary:
      return ReplicaState::kLoading;
    case Step::kServing:
      return ReplicaState::kReady;
    case Step::kDraining:
      return ReplicaState::kDraining;
    case Step::kTerminating:
    case Step::kKilling:
    case Step::kReleasing:
      // Until the memory is back the replica still holds its devices: neither stopped nor failed yet.
      return after_ == After::kStop ? ReplicaState::kDraining : ReplicaState::kPending;
    case Step::kFailed:
      return ReplicaState::kFailed;
    case Step::kStopped:
    case Step::kEnded:
      return ReplicaState::kStopped;
  }
  return ReplicaState::kPending;
}

LifeAction ReplicaLife::resume(LifeEvent event, std::int64_t now_ms, std::string detail) {
  AIV_ASSERT(step_ != Step::kEnded);
  if (event == LifeEvent::kStop) wanted_ = false;
  if (event == LifeEvent::kDrain) draining_ = true;
  if (event == LifeEvent::kUndrain) draining_ = false;
  switch (step_) {
    case Step::kNew:
    case Step::kAskingRoom:
    case Step::kWaitingRoom:
    case Step::kBackoff:
    case Step::kFailed:
    case Step::kStopped:
      return at_rest(event, now_ms, std::move(detail));
    case Step::kLoading:
    case Step::kProving:
    case Step::kCanary:
      return while_starting(event, now_ms, std::move(detail));
    case Step::kServing:
    case Step::kDraining:
      return while_serving(event, now_ms, std::move(detail));
    case Step::kTerminating:
    case Step::kKilling:
    case Step::kReleasing:
      return while_ending(event, now_ms, std::move(detail));
    case Step::kEnded:
      break;
  }
  return {LifeDo::kEnd, 0};
}

// No engine runs.
LifeAction ReplicaLife::at_rest(LifeEvent event, std::int64_t now_ms, std::string detail) {
  if (!wanted_) {
    step_ = Step::kEnded;
    return {LifeDo::kEnd, 0};
  }
  if (draining_ && step_ != Step::kFailed && event != LifeEvent::kBeginAdopted &&
      event != LifeEvent::kBeginLoading) {
    step_ = Step::kStopped;
    reason_ = "drained";
    return wait();
  }
  if (event == LifeEvent::kBeginAdopted) {
    step_ = Step::kProving;
    reason_ = "adopting a running engine";
    return {LifeDo::kProve, 0};
  }
  if (event == LifeEvent::kBeginLoading) {
    step_ = Step::kLoading;
    reason_ = "loading";
    deadline_ms_ = now_ms + limits_.load_ms;
    return wait(deadline_ms_);
  }
  switch (step_) {
    case Step::kNew:
      if (event == LifeEvent::kBegin) return ask_room();
      return wait();
    case Step::kStopped:
      if (event == LifeEvent::kUndrain) return ask_room();
      return wait();
    case Step::kAskingRoom:
      if (event == LifeEvent::kRoom) {
        room_since_ms_ = -1;
        step_ = Step::kLoading;
        reason_ = "loading";
        deadline_ms_ = now_ms + limits_.load_ms;
        return {LifeDo::kStart, 0};
      }
      if (event == LifeEvent::kUnfit) {
        step_ = Step::kFailed;
        reason_ = std::move(detail);
        return wait();
      }
      if (event == LifeEvent::kNotYet) {
        // Loads of others may take minutes; only a lack of memory is counted.
        room_since_ms_ = -1;
        reason_ = std::move(detail);
        step_ = Step::kWaitingRoom;
        deadline_ms_ = now_ms + limits_.room_retry_ms;
        return wait(deadline_ms_);
      }
      if (event == LifeEvent::kNoRoom) {
        if (room_since_ms_ < 0) room_since_ms_ = now_ms;
        reason_ = std::move(detail);
        if (now_ms - room_since_ms_ >= limits_.room_patience_ms) {
          room_since_ms_ = -1;
          step_ = Step::kFailed;
          return wait();
        }
        step_ = Step::kWaitingRoom;
        deadline_ms_ = now_ms + limits_.room_retry_ms;
        return wait(deadline_ms_);
      }
      return wait();
    case Step::kWaitingRoom:
    case Step::kBackoff:
      if (now_ms >= deadline_ms_) return ask_room();
      return wait(deadline_ms_);
    default:
      return wait();  // kFailed: until it is no longer wanted
  }
}

LifeAction ReplicaLife::while_starting(LifeEvent event, std::int64_t now_ms, std::string detail) {
  if (event == LifeEvent::kExited || event == LifeEvent::kStartFailed)
    return gone(now_ms, std::move(detail), false);
  if (event == LifeEvent::kExitedForGood) return gone(now_ms, std::move(detail), true);
  // While it loads an engine dies at once of SIGTERM, so there is nothing to wait for.
  if (!wanted_ || (draining_ && (event == LifeEvent::kDrain))) {
    after_ = After::kStop;
    return terminate(now_ms);
  }
  switch (step_) {
    case Step::kLoading:
      if (event == LifeEvent::kEngineReady) {
        step_ = Step::kProving;
        reason_ = "proving that everything is on the GPU";
        return {LifeDo::kProve, 0};
      }
      if (now_ms >= deadline_ms_)
        return kill("the engine was not ready after " + format_duration_ms(limits_.load_ms), After::kRestart);
      return wait(deadline_ms_);
    case Step::kProving:
      if (event == LifeEvent::kProved) {
        step_ = Step::kCanary;
        reason_ = "first token";
        deadline_ms_ = now_ms + limits_.canary_ms;
        return {LifeDo::kCanary, 0};
      }
      if (event == LifeEvent::kNotProved) return kill(std::move(detail), After::kFail);
      return wait();
    default:  // kCanary
      if (event == LifeEvent::kCanaryPassed) {
        step_ = draining_ ? Step::kDraining : Step::kServing;
        ready_since_ms_ = now_ms;
        reason_.clear();
        return wait();
      }
      if (event == LifeEvent::kCanaryFailed)
        return kill("no answer to a test prompt: " + detail, After::kRestart);
      if (now_ms >= deadline_ms_)
        return kill("no answer to a test prompt after " + format_duration_ms(limits_.canary_ms),
                    After::kRestart);
      return wait(deadline_ms_);
  }
}

LifeAction ReplicaLife::while_serving(LifeEvent event, std::int64_t now_ms, std::string detail) {
  if (event == LifeEvent::kExited) return gone(now_ms, std::move(detail), false);
  if (event == LifeEvent::kExitedForGood) return gone(now_ms, std::move(detail), true);
  if (event == LifeEvent::kCanaryFailed)
    return kill("no answer to a test prompt: " + detail, After::kRestart);
  if (event == LifeEvent::kNotProved) return kill(std::move(detail), After::kFail);
  if (event == LifeEvent::kStop) return begin_stop(now_ms);
  if (step_ == Step::kServing) {
    if (!draining_) return wait();
    step_ = Step::kDraining;
    reason_ = "draining";
    deadline_ms_ = 0;
    return wait();
  }
  if (wanted_ && !draining_) {
    step_ = Step::kServing;
    reason_.clear();
    return wait();
  }
  after_ = After::kStop;
  if (event == LifeEvent::kIdle) return terminate(now_ms);
  if (deadline_ms_ > 0 && now_ms >= deadline_ms_) return terminate(now_ms);
  return wait(deadline_ms_);
}

LifeAction ReplicaLife::while_ending(LifeEvent event, std::int64_t now_ms, std::string detail) {
  if (step_ == Step::kReleasing) {
    if (event == LifeEvent::kReleased) return released(now_ms);
    return wait();
  }
  if (!wanted_) after_ = After::kStop;
  if (event == LifeEvent::kExited || event == LifeEvent::kExitedForGood) {
    step_ = Step::kReleasing;
    return {LifeDo::kRelease, 0};
  }
  if (step_ == Step::kTerminating && now_ms >= deadline_ms_) {
    step_ = Step::kKilling;
    return {LifeDo::kKill, 0};
  }
  (void)detail;
  return wait(step_ == Step::kTerminating ? deadline_ms_ : 0);
}

LifeAction ReplicaLife::ask_room() {
  step_ = Step::kAskingRoom;
  return {LifeDo::kAskRoom, 0};
}

LifeAction ReplicaLife::wait(std::int64_t wake_ms) {
  return {LifeDo::kWait, wake_ms};
}

LifeAction ReplicaLife::begin_stop(std::int64_t now_ms) {
  step_ = Step::kDraining;
  reason_ = "stopping";
  after_ = After::kStop;
  deadline_ms_ = now_ms + limits_.drain_ms;
  return wait(deadline_ms_);
}

LifeAction ReplicaLife::terminate(std::int64_t now_ms) {
  step_ = Step::kTerminating;
  reason_ = "stopping";
  deadline_ms_ = now_ms + limits_.term_ms;
  return {LifeDo::kTerm, deadline_ms_};
}

LifeAction ReplicaLife::kill(std::string reason, After after) {
  failure_ = std::move(reason);
  reason_ = failure_;
  after_ = after;
  step_ = Step::kKilling;
  return {LifeDo::kKill, 0};
}

LifeAction ReplicaLife::gone(std::int64_t now_ms, std::string reason, bool for_good) {
  (void)now_ms;
  failure_ = std::move(reason);
  reason_ = failure_;
  after_ = !wanted_ || draining_ ? After::kStop : for_good ? After::kFail : After::kRestart;
  step_ = Step::kReleasing;
  return {LifeDo::kRelease, 0};
}

void ReplicaLife::count_failure(std::int64_t now_ms) {
  if (ready_since_ms_ >= 0 && now_ms - ready_since_ms_ >= limits_.stable_ms) failures_in_row_ = 0;
  ready_since_ms_ = -1;
  ++failures_in_row_;
}

LifeAction ReplicaLife::released(std::int64_t now_ms) {
  if (!wanted_) {
    step_ = Step::kEnded;
    return {LifeDo::kEnd, 0};
  }
  if (after_ == After::kStop && draining_) {
    step_ = Step::kStopped;
    reason_ = "drained";
    return wait();
  }
  count_failure(now_ms);
  if (after_ == After::kFail || failures_in_row_ >= limits_.failures_max) {
    step_ = Step::kFailed;
    reason_ = failure_;
    if (after_ != After::kFail) reason_ += " (" + std::to_string(failures_in_row_) + " times in a row)";
    return wait();
  }
  ++restarts_;
  // The first restart at once; then 1, 2, 4 ... times backoff_first_ms.
  if (failures_in_row_ == 1) return ask_room();
  const int doublings = std::min(failures_in_row_ - 2, 20);
  const std::int64_t delay = std::min(limits_.backoff_first_ms << doublings, limits_.backoff_max_ms);
  step_ = Step::kBackoff;
  deadline_ms_ = now_ms + delay;
  reason_ = failure_ + "; restarting in " + format_duration_ms(delay);
  return wait(deadline_ms_);
}

}  // namespace aiv
