// Who may still use how much: the accounts of all keys and teams (core/quota.hpp) on this gateway.
//
// A ticket is a request's reservation. It is settled when it is destroyed, whatever happened to the request, with what
// was said to it last; a request that used nothing gives everything back.
#pragma once
#include <expected>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/quota.hpp"
#include "gateway/api_error.hpp"
#include "gateway/routes.hpp"

namespace aiv::gateway {

class QuotaBook {
 public:
  class Ticket {
   public:
    Ticket() = default;
    ~Ticket();
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;
    // Tokens of prompt and answer.
    void used(std::int64_t tokens) { used_ = tokens; }

   private:
    friend class QuotaBook;
    struct Hold {
      std::shared_ptr<QuotaAccount> account;  // outlives the book and the key
      QuotaHold hold;
    };
    std::vector<Hold> holds_;
    std::int64_t used_ = 0;
  };
  using TicketPtr = std::unique_ptr<Ticket>;
  struct Refusal {
    QuotaRefusal what;
    std::string whose;  // "this key", "the team 'x'"
  };

  // Against the key's account and its team's, or against none. `key` nullptr (nobody was asked for one): no limits.
  std::expected<TicketPtr, Refusal> admit(const RouteKey* key, const Routes& routes, std::int64_t tokens, QuotaTime now);
  // x-ratelimit-*: of the key's own limits, else its team's; none without limits.
  [[nodiscard]] net::Headers headers(const RouteKey* key, QuotaTime now) const;
  // At the start: what the keys have used today.
  void restore(const std::string& key_id, const std::string& team, std::int64_t tokens, QuotaTime now);
  [[nodiscard]] const QuotaAccount* account(const std::string& key_id) const;

 private:
  std::shared_ptr<QuotaAccount>& account_of(const std::string& name);
  std::map<std::string, std::shared_ptr<QuotaAccount>> accounts_;  // "key/ID", "team/NAME"
};

QuotaTime quota_now();
ApiError quota_exceeded(const QuotaBook::Refusal& refusal);

}  // namespace aiv::gateway
