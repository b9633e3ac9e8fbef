// The life of one replica on its node, without I/O: `resume` takes what happened and says what to do next.
//
//   Pending --room--> Loading --ready, proved, answered--> Ready --drain--> Draining --> Stopped
//      ^                 |                                   |
//      +---- back-off ---+------------- exited --------------+          after three failures in a row: Failed
//
// Rules, each with its rationale:
//  - Ready only after the load was proved and a canary answered. Rationale: /health is 200 while the compute
//  thread
//    hangs, and the engine's own line about offloading lies.
//  - What cannot get better by itself (not proved, does not fit, bad model) fails at once, with its reason
//  kept.
//    Rationale: a crash loop on a shared card hurts others, and the controller can place elsewhere.
//  - A crash restarts at once, then after 1, 2, 4 ... s up to kBackoffMaxMs; three failures in a row are
//  Failed. A
//    replica that was Ready for kStableMs has no failures behind it.
//  - After an engine is gone, the driver must show its memory free before anything else is done with it.
//  Rationale:
//    the next load would be refused, or planned into memory that is still held.
//  - A stop lets running requests end for a while, then asks (SIGTERM), then insists (SIGKILL). Rationale: an
//  engine
//    told to stop in the middle of a stream waits for its client for up to an hour.
#pragma once
#include <cstdint>
#include <string>

#include "core/documents.hpp"

namespace aiv {

enum class LifeEvent {
  kBegin,         // wanted; no engine runs
  kBeginAdopted,  // wanted; an engine of this very spec runs under a shim, left by an earlier agent
  kBeginLoading,  // as kBeginAdopted, but that engine is still loading
  kRoom,          // it is this replica's turn on its devices, and they have room now
  kNotYet,        // another replica is loading there (detail): waits without a limit
  kNoRoom,        // not enough free memory at this moment (detail)
  kUnfit,         // can never run here (detail)
  kStartFailed,   // the process could not be started (detail)
  kEngineReady,   // the engine says that it has loaded
  kProved,
  kNotProved,  // detail: the proof's reason
  kCanaryPassed,
  kCanaryFailed,   // detail
  kExited,         // the engine is gone (detail); may come at any time
  kExitedForGood,  // as kExited, for a reason that a restart does not mend
  kReleased,       // the devices show the memory free, or the wait for it is over
  kTick,           // time passed; nothing else
  kDrain,          // wanted, but no new requests; stop when idle
  kUndrain,        // wanted again
  kStop,           // no longer wanted
  kIdle,           // no request runs
};

enum class LifeDo {
  kWait,     // for the next event, at most until `wake_ms` (0: for ever)
  kAskRoom,  // ask for the turn and the memory; answer kRoom, kNotYet, kNoRoom or kUnfit
  kStart,    // start the engine under a shim; its end comes as kExited
  kProve,    // compare the log with the spec; answer kProved or kNotProved
  kCanary,   // one greedy token; answer kCanaryPassed or kCanaryFailed
  kTerm,     // SIGTERM
  kKill,     // SIGKILL
  kRelease,  // wait until the memory is free; answer kReleased
  kEnd,      // the replica is over; forget it
};

struct LifeAction {
  LifeDo what = LifeDo::kWait;
  std::int64_t wake_ms = 0;
  friend bool operator==(const LifeAction&, const LifeAction&) = default;
};

struct LifeLimits {
  std::int64_t load_ms = 120'000;          // from start to the engine's "ready"
  // The first token may compile shaders or PTX, once per driver and engine: 85 s of CPU time were seen on a cold
  // software GPU, and old cards compile their whole kernel set.
  std::int64_t canary_ms = 300'000;
  std::int64_t room_patience_ms = 10'000;  // others' memory may still be on its way back
  std::int64_t room_retry_ms = 250;
  std::int64_t drain_ms = 5'000;  // what a stop gives running requests
  std::int64_t term_ms = 5'000;   // from SIGTERM to SIGKILL
  std::int64_t backoff_first_ms = 1'000;
  std::int64_t backoff_max_ms = 30'000;
  std::int64_t stable_ms = 10'000;
  int failures_max = 3;
};

class ReplicaLife {
 public:
  explicit ReplicaLife(LifeLimits limits = {}) : limits_(limits) {}

  // `now_ms` of a clock that never goes back. Complexity: constant.
  LifeAction resume(LifeEvent event, std::int64_t now_ms, std::string detail = {});

  [[nodiscard]] ReplicaState state() const;
  // Why it failed, or what it waits for; empty when Ready.
  [[nodiscard]] const std::string& reason() const { return reason_; }
  [[nodiscard]] int restarts() const { return restarts_; }
  [[nodiscard]] bool accepts_requests() const { return step_ == Step::kServing; }

 private:
  enum class Step {
    kNew,
    kAskingRoom,
    kWaitingRoom,
    kBackoff,
    kLoading,
    kProving,
    kCanary,
    kServing,
    kDraining,
    kTerminating,
    kKilling,
    kReleasing,
    kFailed,
    kStopped,
    kEnded,
  };
  enum class After { kRestart, kFail, kStop };

  LifeAction ask_room();
  LifeAction wait(std::int64_t wake_ms = 0);
  LifeAction begin_stop(std::int64_t now_ms);
  LifeAction terminate(std::int64_t now_ms);
  LifeAction kill(std::string reason, After after);
  LifeAction gone(std::int64_t now_ms, std::string reason, bool for_good);
  LifeAction released(std::int64_t now_ms);
  LifeAction at_rest(LifeEvent event, std::int64_t now_ms, std::string detail);
  LifeAction while_starting(LifeEvent event, std::int64_t now_ms, std::string detail);
  LifeAction while_serving(LifeEvent event, std::int64_t now_ms, std::string detail);
  LifeAction while_ending(LifeEvent event, std::int64_t now_ms, std::string detail);
  void count_failure(std::int64_t now_ms);

  LifeLimits limits_;
  Step step_ = Step::kNew;
  After after_ = After::kRestart;
  std::string reason_;
  std::string failure_;  // of the engine that is being brought down
  std::int64_t deadline_ms_ = 0;
  std::int64_t room_since_ms_ = -1;
  std::int64_t ready_since_ms_ = -1;
  int failures_in_row_ = 0;
  int restarts_ = 0;
  bool wanted_ = true;
  bool draining_ = false;
};

}  // namespace aiv
