// Which replica should take a request: the one where it costs least time, its own and that of the requests which run
// there already.
//
// SPECIFICATION
//
// - finish = wait + (P - C) / prefill + O / decode(b + 1), and cost = finish + others, in milliseconds, for each replica;
//   the smallest cost wins. others = b * O * (1 / decode(b + 1) - 1 / decode(b)): how much later the b streams beside
//   it finish, taken to be as long as it is.
//   P prompt tokens, C those of it that the replica has cached, O the expected output, b the requests running there.
//   Rationale: on cards of unequal speed counting connections or tokens alone gains nothing; weighting by measured
//   speed and waiting for a fast card does (mean latency 13 s against 34 s for least connections at load 0.95 over
//   eight cards of 25-110 tokens/s, replay of the Azure 2023 conversation trace). Without `others` all crowd the fast
//   cards, where one stream more slows three (load 0.85: mean 8.2 s as with least connections, against 7.6 s).
//
// - decode(b) = d * b^(g-1) per stream, g = 0.65: the throughput of a batch of b grows like b^0.65, so each stream of
//   it gets b^0.65 / b of the speed of a lone one. `d` is the lone speed; samples are normalised to it.
//
// - A replica never gets more requests than it has slots. With all slots taken its wait is the time to the earliest
//   predicted end in our own ledger (exact, not polled).
//   Rationale: llama-server queues what it cannot run without limit, where nobody can cancel, move or order it.
//
// - "Wait for the fast one" is a legal answer, when it costs at least 20 % less than the best replica with a free slot
//   and nobody else waits. The caller asks again at each event (slot freed, replica up or down, tick).
//   Rationale: with others behind, a slot left free is time taken from them; else under load each head of the queue
//   waits for the fastest card while slower ones stand idle, and the cluster serves at the speed of one card (replay
//   of the Azure trace at load 0.7: mean 1,070 s).
//
// - Within 2 % of the best the choice is random (the number is passed in), so that several gateways do not herd.
//   Cached tokens count as the time they save and as nothing more: affinity without a bound makes hot spots.
//
// - Ejected replicas (after a failure, for 1, 2, 4 ... 60 s) and suspect ones are not taken while any other can be;
//   but never "all out": with only ejected ones left, the one whose time ends first is tried.
//
// - route() is a pure function of its arguments: no clock, no allocation, <= 2 us at 64 replicas. Each candidate's
//   terms and verdict are written out as data, for the debug header, the CLI and the page.
#pragma once
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace aiv {

inline constexpr double kBatchExponent = 0.65;      // until fitted per card
inline constexpr double kTieFraction = 0.02;
inline constexpr double kWaitGain = 0.20;           // how much less a busy replica must cost to be waited for
inline constexpr double kRateSmoothing = 0.2;       // weight of the newest sample
inline constexpr double kRateClip = 4.0;            // a sample counts at most this factor away from the estimate
inline constexpr std::int64_t kMinSampleTokens = 32;
// Of a stream under way: what a window of this length says, and how fast older windows are forgotten. After 10 s of a
// new speed the estimate has gone four fifths of the way, however slow the card is.
inline constexpr double kPaceWindowMs = 2'000;
inline constexpr double kPaceMemoryMs = 5'000;
inline constexpr std::int64_t kPaceMinTokens = 2;
inline constexpr std::int64_t kEjectFirstMs = 1'000;
inline constexpr std::int64_t kEjectMaxMs = 60'000;

// Speed of one stream among `batch` running together, relative to a lone one; `batch` < 1 counts as 1.
double batch_factor(int batch);

// What a replica does per second, learned from what was relayed from it. Tokens per second.
class SpeedEstimate {
 public:
  SpeedEstimate() = default;
  SpeedEstimate(double prefill_per_s, double decode_per_s) : prefill_(prefill_per_s), decode_(decode_per_s) {}
  // `tokens` prompt tokens computed (cached ones left out) in `ms`. Samples under kMinSampleTokens are ignored:
  // they measure fixed costs.
  void observe_prefill(std::int64_t tokens, double ms);
  // `tokens` generated for one stream in `ms` while `batch` ran together.
  void observe_decode(std::int64_t tokens, double ms, int batch);
  // The same of a stream that goes on: `tokens` between two of its events, `ms` apart. A window has no fixed costs, so
  // few tokens in it are a slow card and not a short answer; it weighs by its length. Windows shorter than
  // kPaceWindowMs, and those with less than kPaceMinTokens, are ignored: they are to be made longer.
  void observe_pace(std::int64_t tokens, double ms, int batch);
  [[nodiscard]] double prefill_per_s() const { return prefill_; }
  [[nodiscard]] double decode_per_s() const { return decode_; }  // of a lone stream

 private:
  double prefill_ = 600.0;  // a mid-range card; replaced by the seed from bandwidth and bytes
  double decode_ = 30.0;
};

// Mean that follows its samples: the model's output length, its tokens per byte.
class RunningMean {
 public:
  explicit RunningMean(double seed, double smoothing = 0.05) : mean_(seed), smoothing_(smoothing) {}
  void observe(double sample) { mean_ += smoothing_ * (sample - mean_); }
  [[nodiscard]] double value() const { return mean_; }

 private:
  double mean_;
  double smoothing_;
};

// Out of service after failures: 1, 2, 4 ... 60 s; one good answer clears it. What fails while it is out belongs to the
// failure that put it there: eight streams of one dead engine are one second, not two minutes.
class Ejection {
 public:
  void failed(std::int64_t now_ms);
  void succeeded() { failures_ = 0; until_ms_ = 0; }
  [[nodiscard]] std::int64_t until_ms() const { return until_ms_; }
  [[nodiscard]] int failures() const { return failures_; }

 private:
  int failures_ = 0;
  std::int64_t until_ms_ = 0;
};

// A place on a replica, taken until released.
struct SlotLease {
  std::uint64_t ticket = 0;
  int slot = 0;              // the engine's slot number, 0-based
  bool same_tenant = false;  // its last user was the same tenant: what it has cached may be reused
};

// The requests we have under way on one replica: its slots as a hard cap, when each is predicted to end, and whose
// prompt each slot saw last.
//
// Slots are numbered because the engine reuses the longest cached prefix of any free slot, whoever filled it: a time
// difference that tells one tenant what another has sent. So we choose the slot, and allow the reuse only where the
// last tenant was the same one. A free slot of the same tenant is preferred, then one never used, then the one
// used longest ago.
class SlotLedger {
 public:
  explicit SlotLedger(int slots = 1);
  void set_slots(int slots);  // fewer than taken: no new ones until enough have ended
  // Precondition: has_free(). `tenant` is any hash of the share group; 0 shares with nobody.
  SlotLease take(std::int64_t now_ms, std::int64_t predicted_end_ms, std::uint64_t tenant);
  void release(std::uint64_t ticket);
  // The engine was started anew: nothing is cached any more.
  void forget_tenants();
  [[nodiscard]] bool has_free() const { return busy_ < slots_; }
  [[nodiscard]] int slots() const { return slots_; }
  [[nodiscard]] int busy() const { return busy_; }
  // Milliseconds until a slot is predicted to be free: 0 with a free one. A request past its predicted end is
  // taken to need another tenth of what it took so far, so that a prediction that failed is not believed for ever.
  [[nodiscard]] double wait_ms(std::int64_t now_ms) const;

 private:
  struct Place {
    std::uint64_t ticket = 0;  // 0: free
    std::int64_t start_ms = 0;
    std::int64_t end_ms = 0;
    std::uint64_t tenant = 0;
    std::uint64_t used = 0;  // the ticket of the last use; 0 = never
  };
  int slots_ = 0;
  int busy_ = 0;
  std::uint64_t next_ticket_ = 1;
  std::vector<Place> places_;  // at least `slots_`; more while a shrunk replica still runs what it had
};

enum class Verdict : std::uint8_t {
  kChosen,
  kSlower,       // would cost more
  kTied,         // within 2 %, not drawn
  kBusy,         // no free slot
  kWaitFor,      // no free slot, but worth waiting for
  kSuspect,      // heartbeat missing; another one is healthy
  kEjected,      // failed lately
  kExcluded,     // already tried for this request
  kUnreachable,  // no link to its node
};
std::string_view to_string(Verdict verdict);

// One replica as route() sees it.
struct RouteOption {
  int slots = 1;
  int busy = 0;
  double wait_ms = 0;  // SlotLedger::wait_ms
  double prefill_per_s = 0;
  double decode_per_s = 0;
  double cached_tokens = 0;
  std::int64_t ejected_until_ms = 0;
  bool suspect = false;
  bool reachable = true;
  bool excluded = false;
};

struct RouteAsk {
  double prompt_tokens = 0;
  double output_tokens = 0;
  std::int64_t now_ms = 0;
  std::uint64_t random = 0;
  int waiting = 0;  // others that wait for a slot of the same model
};

struct RouteTerms {
  double wait_ms = 0;
  double prefill_ms = 0;
  double decode_ms = 0;
  double others_ms = 0;  // what those who run there lose, all together
  double finish_ms = 0;  // of this request; the choice is by finish_ms + others_ms
  Verdict verdict = Verdict::kSlower;
};

enum class RouteOutcome : std::uint8_t { kChosen, kWait, kNone };

struct RouteDecision {
  RouteOutcome outcome = RouteOutcome::kNone;
  int index = -1;        // chosen, or the one to wait for
  double finish_ms = 0;  // of that one
};

// `terms` has as many places as `options` and is filled. kNone: no replica can ever take it as things stand
// (all excluded or unreachable).
RouteDecision route(const RouteAsk& ask, std::span<const RouteOption> options, std::span<RouteTerms> terms);

// Whether one more try of a failed request is allowed: tries are at most 20 % of the live requests (but always 3),
// so that a failing cluster is not loaded further by its own retries.
[[nodiscard]] constexpr bool retry_within_budget(int retries_running, int requests_running) {
  const int allowed = requests_running / 5 > 3 ? requests_running / 5 : 3;
  return retries_running < allowed;
}

}  // namespace aiv
