#include "gateway/quota_book.hpp"

#include <algorithm>
#include <utility>

#include "base/host.hpp"
#include "gateway/dispatcher.hpp"

namespace aiv::gateway {
namespace {

constexpr std::int64_t kRetryAfterMaxS = 60;  // SDKs do not retry at all above a limit of theirs

std::string seconds(std::int64_t ms) { return std::to_string((ms + 999) / 1000) + "s"; }

std::string key_account(const std::string& id) { return "key/" + id; }
std::string team_account(const std::string& name) { return "team/" + name; }

}  // namespace

QuotaTime quota_now() { return {.monotonic_ms = monotonic_ms(), .unix_ms = unix_ms()}; }

QuotaBook::Ticket::~Ticket() {
  const QuotaTime now = quota_now();
  for (const Hold& hold : holds_) hold.account->settle(hold.hold, used_, now);
}

std::shared_ptr<QuotaAccount>& QuotaBook::account_of(const std::string& name) {
  auto& account = accounts_[name];
  if (!account) account = std::make_shared<QuotaAccount>();
  return account;
}

std::expected<QuotaBook::TicketPtr, QuotaBook::Refusal> QuotaBook::admit(const RouteKey* key, const Routes& routes,
                                                                         std::int64_t tokens, QuotaTime now) {
  auto ticket = std::make_unique<Ticket>();
  if (key == nullptr) return ticket;
  const auto own = account_of(key_account(key->id));
  own->set_limits(key->limits, now);
  if (const auto refused = own->refuses(tokens, now)) return std::unexpected(Refusal{*refused, "this key"});
  std::shared_ptr<QuotaAccount> team;
  if (!key->team.empty()) {
    team = account_of(team_account(key->team));
    team->set_limits(routes.team_limits(key->team), now);
    if (const auto refused = team->refuses(tokens, now)) {
      return std::unexpected(Refusal{*refused, "the team '" + key->team + "'"});
    }
  }
  ticket->holds_.push_back({own, own->reserve(tokens, now)});
  if (team) ticket->holds_.push_back({team, team->reserve(tokens, now)});
  return ticket;
}

net::Headers QuotaBook::headers(const RouteKey* key, QuotaTime now) const {
  net::Headers out;
  if (key == nullptr) return out;
  QuotaState state;
  for (const std::string& name : {key_account(key->id), team_account(key->team)}) {
    const auto found = accounts_.find(name);
    if (found == accounts_.end()) continue;
    const QuotaState next = found->second->state(now);
    if (state.limit_requests < 0 && next.limit_requests >= 0) {
      state.limit_requests = next.limit_requests;
      state.remaining_requests = next.remaining_requests;
      state.reset_requests_ms = next.reset_requests_ms;
    }
    if (state.limit_tokens < 0 && next.limit_tokens >= 0) {
      state.limit_tokens = next.limit_tokens;
      state.remaining_tokens = next.remaining_tokens;
      state.reset_tokens_ms = next.reset_tokens_ms;
    }
  }
  if (state.limit_requests >= 0) {
    out.push_back({"x-ratelimit-limit-requests", std::to_string(state.limit_requests)});
    out.push_back({"x-ratelimit-remaining-requests", std::to_string(state.remaining_requests)});
    out.push_back({"x-ratelimit-reset-requests", seconds(state.reset_requests_ms)});
  }
  if (state.limit_tokens >= 0) {
    out.push_back({"x-ratelimit-limit-tokens", std::to_string(state.limit_tokens)});
    out.push_back({"x-ratelimit-remaining-tokens", std::to_string(state.remaining_tokens)});
    out.push_back({"x-ratelimit-reset-tokens", seconds(state.reset_tokens_ms)});
  }
  return out;
}

void QuotaBook::restore(const std::string& key_id, const std::string& team, std::int64_t tokens, QuotaTime now) {
  for (const std::string& name : {key_account(key_id), team.empty() ? std::string() : team_account(team)}) {
    if (name.empty()) continue;
    auto& account = account_of(name);
    account->restore_today(account->used_today(now) + tokens, now);
  }
}

const QuotaAccount* QuotaBook::account(const std::string& key_id) const {
  const auto found = accounts_.find(key_account(key_id));
  return found == accounts_.end() ? nullptr : found->second.get();
}

ApiError quota_exceeded(const QuotaBook::Refusal& refusal) {
  const std::int64_t wait_s = (refusal.what.retry_after_ms + 999) / 1000;
  return {.status = 429,
          .type = "rate_limit_error",
          .code = "rate_limit_exceeded",
          .message = "The limit of " + std::to_string(refusal.what.allowed) + " " +
                     std::string(to_string(refusal.what.limit)) + " of " + refusal.whose + " is reached; try again in " +
                     std::to_string(wait_s) + " s.",
          .retry_after_s = static_cast<int>(std::clamp<std::int64_t>(wait_s, 1, kRetryAfterMaxS))};
}

}  // namespace aiv::gateway
