#include "core/routing.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/result.hpp"

namespace aiv {
namespace {

constexpr double kMinRate = 0.01;  // tokens/s; keeps a division finite for a replica that all but stopped

// Exponents of the batches that occur; pow() for each candidate would be most of route()'s time.
std::array<double, 65> make_batch_factors() {
  std::array<double, 65> factors{};
  for (std::size_t b = 0; b < factors.size(); ++b) {
    factors[b] = std::pow(static_cast<double>(std::max<std::size_t>(b, 1)), kBatchExponent - 1.0);
  }
  return factors;
}

void smooth(double& estimate, double sample, double weight = kRateSmoothing) {
  const double clipped = std::clamp(sample, estimate / kRateClip, estimate * kRateClip);
  estimate = std::max(kMinRate, estimate + weight * (clipped - estimate));
}

enum class Tier { kGood, kSuspect, kEjected, kOut };

Tier tier_of(const RouteOption& option, std::int64_t now_ms) {
  if (!option.reachable || option.excluded) return Tier::kOut;
  if (option.ejected_until_ms > now_ms) return Tier::kEjected;
  return option.suspect ? Tier::kSuspect : Tier::kGood;
}

Verdict verdict_of_unused(const RouteOption& option, Tier tier) {
  if (!option.reachable) return Verdict::kUnreachable;
  if (option.excluded) return Verdict::kExcluded;
  if (tier == Tier::kEjected) return Verdict::kEjected;
  return Verdict::kSuspect;
}

void fill_terms(const RouteAsk& ask, const RouteOption& option, RouteTerms& out) {
  const double todo = std::max(0.0, ask.prompt_tokens - option.cached_tokens);
  const double per_ms = std::max(kMinRate, option.prefill_per_s) / 1000.0;
  const int batch = std::min(option.busy + 1, option.slots);
  const double lone_ms = ask.output_tokens * 1000.0 / std::max(kMinRate, option.decode_per_s);
  out.wait_ms = option.busy < option.slots ? 0.0 : option.wait_ms;
  out.prefill_ms = todo / per_ms;
  out.decode_ms = lone_ms / batch_factor(batch);
  const int others = std::max(0, batch - 1);
  out.others_ms = others * lone_ms * (1.0 / batch_factor(batch) - 1.0 / batch_factor(others));
  out.finish_ms = out.wait_ms + out.prefill_ms + out.decode_ms;
}

double cost_of(const RouteTerms& terms) { return terms.finish_ms + terms.others_ms; }

// The candidates of one tier; `best` and `best_free` are indices or -1.
struct Leaders {
  int best = -1;
  int best_free = -1;
};

Leaders find_leaders(std::span<const RouteOption> options, std::span<const RouteTerms> terms, Tier tier,
                     std::int64_t now_ms) {
  Leaders leaders;
  for (std::size_t i = 0; i < options.size(); ++i) {
    if (tier_of(options[i], now_ms) != tier) continue;
    const auto index = static_cast<int>(i);
    const auto better = [&](int than) {
      return than < 0 || cost_of(terms[i]) < cost_of(terms[static_cast<std::size_t>(than)]);
    };
    if (better(leaders.best)) leaders.best = index;
    if (options[i].busy < options[i].slots && better(leaders.best_free)) leaders.best_free = index;
  }
  return leaders;
}

}  // namespace

double batch_factor(int batch) {
  static const std::array<double, 65> factors = make_batch_factors();
  if (batch < 1) return 1.0;
  if (static_cast<std::size_t>(batch) < factors.size()) return factors[static_cast<std::size_t>(batch)];
  return std::pow(static_cast<double>(batch), kBatchExponent - 1.0);
}

void SpeedEstimate::observe_prefill(std::int64_t tokens, double ms) {
  if (tokens < kMinSampleTokens || !(ms > 0)) return;
  smooth(prefill_, static_cast<double>(tokens) * 1000.0 / ms);
}

void SpeedEstimate::observe_decode(std::int64_t tokens, double ms, int batch) {
  if (tokens < kMinSampleTokens || !(ms > 0)) return;
  smooth(decode_, static_cast<double>(tokens) * 1000.0 / ms / batch_factor(batch));
}

void SpeedEstimate::observe_pace(std::int64_t tokens, double ms, int batch) {
  if (tokens < kPaceMinTokens || !(ms >= kPaceWindowMs)) return;
  smooth(decode_, static_cast<double>(tokens) * 1000.0 / ms / batch_factor(batch), 1.0 - std::exp(-ms / kPaceMemoryMs));
}

void Ejection::failed(std::int64_t now_ms) {
  // Requests that were on it when it failed: the same failure, told again.
  if (now_ms < until_ms_) return;
  const int doublings = std::min(failures_, 6);
  failures_ += 1;
  until_ms_ = now_ms + std::min(kEjectMaxMs, kEjectFirstMs << doublings);
}

SlotLedger::SlotLedger(int slots) { set_slots(slots); }

void SlotLedger::set_slots(int slots) {
  slots_ = std::max(slots, 0);
  if (places_.size() < static_cast<std::size_t>(slots_)) places_.resize(static_cast<std::size_t>(slots_));
}

SlotLease SlotLedger::take(std::int64_t now_ms, std::int64_t predicted_end_ms, std::uint64_t tenant) {
  AIV_ASSERT(has_free());
  int chosen = -1;
  bool chosen_same = false;
  for (int i = 0; i < slots_; ++i) {
    const Place& place = places_[static_cast<std::size_t>(i)];
    if (place.ticket != 0) continue;
    const bool same = tenant != 0 && place.used != 0 && place.tenant == tenant;
    if (chosen >= 0) {
      const Place& best = places_[static_cast<std::size_t>(chosen)];
      if (chosen_same && (!same || place.used < best.used)) continue;
      if (!chosen_same && !same && place.used >= best.used) continue;
    }
    chosen = i;
    chosen_same = same;
  }
  AIV_ASSERT(chosen >= 0);
  const std::uint64_t ticket = next_ticket_++;
  places_[static_cast<std::size_t>(chosen)] = {ticket, now_ms, std::max(now_ms, predicted_end_ms), tenant, ticket};
  busy_ += 1;
  return {ticket, chosen, chosen_same};
}

void SlotLedger::release(std::uint64_t ticket) {
  AIV_ASSERT(ticket != 0);
  const auto found = std::find_if(places_.begin(), places_.end(),
                                  [ticket](const Place& place) { return place.ticket == ticket; });
  AIV_ASSERT(found != places_.end());
  found->ticket = 0;
  busy_ -= 1;
}

void SlotLedger::forget_tenants() {
  for (Place& place : places_) place.tenant = 0;
}

double SlotLedger::wait_ms(std::int64_t now_ms) const {
  if (has_free()) return 0;
  double soonest = static_cast<double>(kEjectMaxMs);  // without a slot at all: as long as we ever wait
  for (const Place& place : places_) {
    if (place.ticket == 0) continue;
    const double left = place.end_ms > now_ms ? static_cast<double>(place.end_ms - now_ms)
                                              : 0.1 * static_cast<double>(now_ms - place.start_ms);
    soonest = std::min(soonest, left);
  }
  return soonest;
}

std::string_view to_string(Verdict verdict) {
  switch (verdict) {
    case Verdict::kChosen: return "chosen";
    case Verdict::kSlower: return "slower";
    case Verdict::kTied: return "tied";
    case Verdict::kBusy: return "busy";
    case Verdict::kWaitFor: return "wait_for";
    case Verdict::kSuspect: return "suspect";
    case Verdict::kEjected: return "ejected";
    case Verdict::kExcluded: return "excluded";
    case Verdict::kUnreachable: return "unreachable";
  }
  return "unknown";
}

RouteDecision route(const RouteAsk& ask, std::span<const RouteOption> options, std::span<RouteTerms> terms) {
  AIV_ASSERT(options.size() == terms.size());
  Tier tier = Tier::kOut;
  int soonest_back = -1;
  for (std::size_t i = 0; i < options.size(); ++i) {
    const Tier own = tier_of(options[i], ask.now_ms);
    fill_terms(ask, options[i], terms[i]);
    terms[i].verdict = verdict_of_unused(options[i], own);
    if (own < tier) tier = own;
    if (own == Tier::kEjected && (soonest_back < 0 || options[i].ejected_until_ms <
                                                          options[static_cast<std::size_t>(soonest_back)].ejected_until_ms)) {
      soonest_back = static_cast<int>(i);
    }
  }
  if (tier == Tier::kOut) return {};
  if (tier == Tier::kEjected) {
    const auto i = static_cast<std::size_t>(soonest_back);
    const bool free = options[i].busy < options[i].slots;
    terms[i].verdict = free ? Verdict::kChosen : Verdict::kWaitFor;
    return {free ? RouteOutcome::kChosen : RouteOutcome::kWait, soonest_back, terms[i].finish_ms};
  }

  const Leaders leaders = find_leaders(options, terms, tier, ask.now_ms);
  for (std::size_t i = 0; i < options.size(); ++i) {
    if (tier_of(options[i], ask.now_ms) != tier) continue;
    terms[i].verdict = options[i].busy < options[i].slots ? Verdict::kSlower : Verdict::kBusy;
  }
  const auto best = static_cast<std::size_t>(leaders.best);
  const double free_cost =
      leaders.best_free < 0 ? 0 : cost_of(terms[static_cast<std::size_t>(leaders.best_free)]);
  const bool wait = leaders.best_free < 0 ||
                    (ask.waiting == 0 && cost_of(terms[best]) < (1.0 - kWaitGain) * free_cost);
  if (wait) {
    terms[best].verdict = Verdict::kWaitFor;
    return {RouteOutcome::kWait, leaders.best, terms[best].finish_ms};
  }
  // Reservoir draw among the free ones within the tie.
  const double limit = free_cost * (1.0 + kTieFraction);
  int chosen = -1;
  std::uint64_t seen = 0;
  std::uint64_t random = ask.random;
  for (std::size_t i = 0; i < options.size(); ++i) {
    if (tier_of(options[i], ask.now_ms) != tier || options[i].busy >= options[i].slots) continue;
    if (cost_of(terms[i]) > limit) continue;
    terms[i].verdict = Verdict::kTied;
    seen += 1;
    random = random * 6364136223846793005ULL + 1442695040888963407ULL;  // Knuth's MMIX generator
    if ((random >> 33) % seen == 0) chosen = static_cast<int>(i);
  }
  terms[static_cast<std::size_t>(chosen)].verdict = Verdict::kChosen;
  return {RouteOutcome::kChosen, chosen, terms[static_cast<std::size_t>(chosen)].finish_ms};
}

}  // namespace aiv
