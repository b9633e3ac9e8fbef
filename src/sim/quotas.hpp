// Keys with quotas in front of the simulated gateway: the product's accounts (core/quota.hpp), one per key
// and one for the team they all belong to, and a judge with books of its own.
//
// I7: a quota is never overdrawn by more than what is in flight. Judged by its definition, not by another
// bucket: of the requests admitted in any span of time s there are at most L * (1 + s / 60 s), and their
// tokens are at most that and what was in flight: what those in flight at the span's end may use beyond a
// full bucket, and what those in flight at its begin give back of their reservations meanwhile. Requests at
// once and tokens of a day are counted.
#pragma once
#include <cstdint>
#include <deque>
#include <map>
#include <string>
#include <vector>

#include "core/quota.hpp"

namespace aiv::sim {

class World;

inline constexpr std::int64_t kAnswerTokensMax = 500;  // what a simulated client asks for at most

class QuotaJudge {
 public:
  explicit QuotaJudge(World& world) : world_(world) {}
  void limits(const std::string& account, const KeyLimits& limits) { accounts_[account].limits = limits; }
  // `ask`: the tokens that it may use at most; `used`: those of its prompt and answer.
  void admitted(const std::string& account, std::uint64_t request, std::int64_t ask, QuotaTime now);
  void ended(const std::string& account, std::uint64_t request, std::int64_t used, QuotaTime now);
  // The gateway forgot the minutes, and of the day what it had not yet written.
  void gateway_lost(QuotaTime now);
  void restored(const std::string& account, std::int64_t tokens, QuotaTime now);
  // After every event.
  void check(QuotaTime now);

 private:
  struct Admission {
    std::uint64_t request = 0;
    std::int64_t at_ms = 0;
    std::int64_t ask = 0;
    std::int64_t used = -1;   // -1: in flight
    std::int64_t before = 0;  // asked by those in flight at its admission
  };
  struct Account {
    KeyLimits limits;
    std::deque<Admission> admissions;  // of the last minutes, and all in flight
    std::int64_t running = 0;
    std::int64_t asked = 0;   // by those in flight
    std::int64_t beyond = 0;  // what those in flight at the last admission may use beyond a full bucket
    std::int64_t in_flight_then = 0;  // asked by those in flight at the last admission
    std::int64_t day = 0;
    std::int64_t used_today = 0;
    std::int64_t unwritten = 0;  // of today, which a killed gateway had not written
    std::deque<std::pair<std::int64_t, std::int64_t>> lately;  // (ended at, used) within a write's interval
  };
  void judge_spans(const std::string& name, const Account& account, QuotaTime now);
  void turn_day(Account& account, QuotaTime now);
  void overdrawn(const std::string& name, const std::string& what, std::int64_t count, std::int64_t allowed);
  World& world_;
  std::map<std::string, Account> accounts_;
};

// What the product's gateway does with them (gateway/quota_book).
class Quotas {
 public:
  explicit Quotas(World& world) : world_(world), judge_(world) {}
  // Whether the quotas of this request's key allow it. Which key it carries follows from its number.
  bool admit(std::uint64_t request, std::int64_t ask);
  void settle(std::uint64_t request, std::int64_t used);
  void lose();     // the gateway died, its requests are settled
  void restore();  // it is back, with the day's sums from its disk
  void write();    // the day's sums, once a second
  void check();

 private:
  struct Open {
    std::vector<std::pair<std::string, QuotaHold>> holds;
  };
  [[nodiscard]] std::vector<std::string> accounts_of(std::uint64_t request) const;
  [[nodiscard]] const KeyLimits& limits_of(const std::string& account) const;
  [[nodiscard]] QuotaTime time() const;
  World& world_;
  QuotaJudge judge_;
  std::map<std::string, QuotaAccount> accounts_;
  std::map<std::uint64_t, Open> open_;
  std::map<std::string, std::int64_t> written_;
  std::int64_t written_day_ = 0;
  std::int64_t written_ms_ = 0;
};

}  // namespace aiv::sim
