#include "sim/quotas.hpp"

#include <algorithm>

#include "core/prng.hpp"
#include "sim/world.hpp"

namespace aiv::sim {

namespace {

constexpr std::int64_t kMinuteMs = 60'000;
constexpr std::int64_t kSpanMaxMs =
    10 * kMinuteMs;  // longer spans follow from shorter ones, or the run is over
constexpr std::int64_t kWriteMs = 1'000;
constexpr std::int64_t kUnwrittenMaxMs = 2'000;  // a write's interval and the gateway's tick
// The clocks of a run start half an hour before a midnight, so that one lies within most runs.
constexpr std::int64_t kStartUnixMs = 1'767'225'600'000 - 30 * kMinuteMs;  // 2026-01-01 00:00 UTC
constexpr const char* kTeam = "team";

}  // namespace

// ---- the judge ------------------------------------------------------------------------------------------

void QuotaJudge::overdrawn(const std::string& name, const std::string& what, std::int64_t count,
                           std::int64_t allowed) {
  world_.checks().violate("I7", world_.now(),
                          "the quota of " + name + " is overdrawn: " + std::to_string(count) + " " + what +
                              ", allowed " + std::to_string(allowed));
}

void QuotaJudge::turn_day(Account& account, QuotaTime now) {
  const std::int64_t day = day_of(now.unix_ms);
  if (account.day == day) return;
  account.day = day;
  account.used_today = account.unwritten = 0;
  account.in_flight_then = account.asked;
  account.lately.clear();
}

void QuotaJudge::admitted(const std::string& name, std::uint64_t request, std::int64_t ask, QuotaTime now) {
  Account& account = accounts_[name];
  turn_day(account, now);
  const std::int64_t spoken_for = account.used_today - account.unwritten + account.asked;
  const std::int64_t day = account.limits.tokens_per_day;
  if (day > 0 && spoken_for > 0 && spoken_for + ask > day) {
    overdrawn(name, "tokens of the day are spoken for", spoken_for + ask, day);
  }
  account.admissions.push_back({request, now.monotonic_ms, ask, -1, account.asked});
  ++account.running;
  account.asked += ask;
  account.in_flight_then = account.asked;
  account.beyond = 0;
  const std::int64_t full = account.limits.tokens_per_min;
  for (const Admission& each : account.admissions) {
    if (each.used < 0) account.beyond += std::max<std::int64_t>(0, each.ask - full);
  }
  judge_spans(name, account, now);
}

void QuotaJudge::ended(const std::string& name, std::uint64_t request, std::int64_t used, QuotaTime now) {
  Account& account = accounts_[name];
  turn_day(account, now);
  const auto found = std::ranges::find_if(account.admissions,
                                          [request](const Admission& a) { return a.request == request; });
  if (found == account.admissions.end())
    return overdrawn(name, "ends of a request that was not admitted", 1, 0);
  if (used > found->ask) overdrawn(name, "tokens used by one request", used, found->ask);
  found->used = used;
  --account.running;
  account.asked -= found->ask;
  account.used_today += used;
  account.lately.emplace_back(now.monotonic_ms, used);
  while (account.lately.front().first + kUnwrittenMaxMs < now.monotonic_ms) account.lately.pop_front();
  judge_spans(name, account, now);
  while (!account.admissions.empty() && account.admissions.front().used >= 0 &&
         account.admissions.front().at_ms + kSpanMaxMs < now.monotonic_ms) {
    account.admissions.pop_front();
  }
}

// Every span that begins with an admission and ends with the last one; those between are no tighter.
void QuotaJudge::judge_spans(const std::string& name, const Account& account, QuotaTime now) {
  std::int64_t requests = 0;
  std::int64_t tokens = 0;
  const KeyLimits& limits = account.limits;
  const std::int64_t last_ms =
      account.admissions.empty() ? now.monotonic_ms : account.admissions.back().at_ms;
  for (auto it = account.admissions.rbegin(); it != account.admissions.rend(); ++it) {
    ++requests;
    tokens += it->used >= 0 ? it->used : std::min(it->ask, limits.tokens_per_min);
    const std::int64_t span = last_ms - it->at_ms;
    if (limits.requests_per_min > 0 &&
        (requests - limits.requests_per_min) * kMinuteMs > limits.requests_per_min * span) {
      return overdrawn(name, "requests within " + std::to_string(span) + " ms", requests,
                       limits.requests_per_min);
    }
    const std::int64_t over = tokens - account.beyond - it->before - limits.tokens_per_min;
    if (limits.tokens_per_min > 0 && over * kMinuteMs > limits.tokens_per_min * span) {
      return overdrawn(name, "tokens within " + std::to_string(span) + " ms", tokens, limits.tokens_per_min);
    }
  }
}

void QuotaJudge::gateway_lost(QuotaTime now) {
  for (auto& [name, account] : accounts_) {
    turn_day(account, now);
    account.admissions.clear();
    account.running = account.asked = account.beyond = 0;
  }
}

void QuotaJudge::restored(const std::string& name, std::int64_t tokens, QuotaTime now) {
  Account& account = accounts_[name];
  turn_day(account, now);
  std::int64_t may_miss = account.unwritten;  // what an earlier gateway lost stays lost
  for (const auto& [at, used] : account.lately) may_miss += used;
  account.unwritten = std::max<std::int64_t>(0, account.used_today - tokens);
  account.lately.clear();
  if (account.unwritten > may_miss) {
    overdrawn(name, "tokens of the day were forgotten by a gateway that died", account.unwritten, may_miss);
  }
}

void QuotaJudge::check(QuotaTime now) {
  for (auto& [name, account] : accounts_) {
    turn_day(account, now);
    const KeyLimits& limits = account.limits;
    if (limits.concurrency > 0 && account.running > limits.concurrency) {
      overdrawn(name, "requests at once", account.running, limits.concurrency);
    }
    const std::int64_t day = std::max(limits.tokens_per_day, account.in_flight_then) + account.unwritten;
    if (limits.tokens_per_day > 0 && account.used_today > day) {
      overdrawn(name, "tokens of the day", account.used_today, limits.tokens_per_day);
    }
  }
}

// ---- the gateway's --------------------------------------------------------------------------------------

QuotaTime Quotas::time() const {
  return {.monotonic_ms = world_.now(), .unix_ms = kStartUnixMs + world_.now()};
}

std::vector<std::string> Quotas::accounts_of(std::uint64_t request) const {
  Prng prng(request);
  const auto keys = static_cast<std::uint32_t>(world_.scenario().quota.keys);
  std::vector<std::string> out{"key-" + std::to_string(prng.below(keys) + 1)};
  if (world_.scenario().quota.team != KeyLimits{}) out.emplace_back(kTeam);
  return out;
}

const KeyLimits& Quotas::limits_of(const std::string& account) const {
  const Quota& quota = world_.scenario().quota;
  return account == kTeam ? quota.team : quota.key;
}

bool Quotas::admit(std::uint64_t request, std::int64_t ask) {
  if (world_.scenario().quota.keys == 0) return true;
  const QuotaTime now = time();
  const std::vector<std::string> names = accounts_of(request);
  std::vector<std::string> asked = names;
  if (world_.plant() == Plant::kQuotaForgetsTeam) asked.resize(1);
  for (const std::string& name : asked) {
    QuotaAccount& account = accounts_[name];
    account.set_limits(limits_of(name), now);
    if (account.refuses(ask, now)) return false;
  }
  Open& open = open_[request];
  const std::int64_t reserved = world_.plant() == Plant::kQuotaChargedAfter ? 0 : ask;
  for (const std::string& name : asked) open.holds.emplace_back(name, accounts_[name].reserve(reserved, now));
  for (const std::string& name : names) {
    written_.emplace(name, 0);
    judge_.limits(name, limits_of(name));
    judge_.admitted(name, request, ask, now);
  }
  return true;
}

void Quotas::settle(std::uint64_t request, std::int64_t used) {
  const auto found = open_.find(request);
  if (found == open_.end()) return;
  const QuotaTime now = time();
  const int times = world_.plant() == Plant::kQuotaSettledTwice && request % 8 == 0 ? 2 : 1;
  for (const auto& [name, hold] : found->second.holds) {
    for (int i = 0; i < times; ++i) accounts_[name].settle(hold, used, now);
  }
  for (const std::string& name : accounts_of(request)) judge_.ended(name, request, used, now);
  open_.erase(found);
}

void Quotas::lose() {
  accounts_.clear();
  open_.clear();
  judge_.gateway_lost(time());
}

void Quotas::restore() {
  const QuotaTime now = time();
  const bool today = written_day_ == day_of(now.unix_ms) && world_.plant() != Plant::kQuotaForgetsDay;
  for (auto& [name, tokens] : written_) {
    tokens = today ? tokens : 0;
    accounts_[name].restore_today(tokens, now);
    judge_.restored(name, tokens, now);
  }
}

void Quotas::write() {
  if (world_.now() - written_ms_ < kWriteMs) return;
  written_ms_ = world_.now();
  written_day_ = day_of(time().unix_ms);
  for (const auto& [name, account] : accounts_) written_[name] = account.used_today(time());
}

void Quotas::check() {
  if (world_.scenario().quota.keys > 0) judge_.check(time());
}

}  // namespace aiv::sim
