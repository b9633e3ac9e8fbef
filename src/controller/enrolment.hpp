// How a machine becomes a node, and stays one.
//
// Joining: the machine has checked the server's authority against the pin in its token, then sends the
// token's secret and a request for a certificate, made with a key that never leaves it. One use of the token
// is spent, and the node's record written, in one transaction before anything is signed. A machine whose
// answer got lost may ask again with the same key: that costs no second use. A name that is taken is refused:
// a token must not be a way to become somebody else's node.
// Staying: certificates live 7 days; the agent says when two thirds are over, and gets a new one over its link.
// Coming back: a node that was away while its
// certificate lapsed (or could not be renewed, because this controller was away) cannot open a link. It comes
// to the same door as one that joins, with its old certificate in the place of a token, and gets a new one
// for the same key, until 30 days after the lapse. Rationale: the old certificate proves that this key was
// let in under this name; a removed node is refused by the list of the removed, not by its lapse; and a
// certificate for that key is of no use to anybody else, so a request that was overheard gains nothing.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <string>

#include "controller/cluster.hpp"
#include "net/http.hpp"
#include "net/pki.hpp"

namespace aiv::controller {

struct EnrolmentOptions {
  std::string authority_dir;
  std::int64_t certificate_s = 7 * 86'400;
  std::int64_t lapsed_s_max = 30 * 86'400;  // how long after its lapse a certificate can still be renewed
  std::function<std::int64_t()> unix_ms = [] { return Cluster::now().unix_ms; };
};

class Enrolment {
 public:
  Enrolment(Cluster& cluster, EnrolmentOptions options) : cluster_(cluster), options_(std::move(options)) {}

  // POST /internal/v1/join, as the gateway relays it; the address that asked is in x-aiv-peer.
  net::Task<> handle(net::ExchangePtr exchange);
  // A new certificate for a node that is connected. kUnauthorized when it was removed.
  net::Task<Result<net::Issued>> renew(std::string node, std::string request_pem);

 private:
  struct Wish {
    std::string token_id;
    std::string secret;
    std::string node;
    std::string request;
    std::string certificate;  // of a node that comes back; then there is no token
    std::int64_t time_ms = 0;
  };
  static Result<Wish> read(const std::string& body);
  net::Task<Result<net::Issued>> join(Wish wish, std::string peer);
  net::Task<Result<net::Issued>> come_back(Wish wish, std::string peer);
  // Why the old certificate is no reason to give a new one.
  [[nodiscard]] Result<> check_old_certificate(const Wish& wish) const;
  // Both must mean the same by a time.
  [[nodiscard]] Result<> check_clock(const Wish& wish) const;
  // Why the token does not let `wish` in; empty when it does.
  [[nodiscard]] std::string token_fault(const Wish& wish) const;
  [[nodiscard]] bool too_many_failures(const std::string& peer);
  void note_failure(const std::string& peer);
  net::Task<Result<net::Issued>> sign(std::string node, std::string request_pem);

  Cluster& cluster_;
  EnrolmentOptions options_;
  std::map<std::string, std::deque<std::int64_t>> failures_;  // by address, monotonic ms
};

}  // namespace aiv::controller
