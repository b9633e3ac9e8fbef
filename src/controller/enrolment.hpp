// How a machine becomes a node, and stays one.
//
// Joining: the machine has checked the server's authority against the pin in its token, then sends the token's secret and
// a request for a certificate, made with a key that never leaves it. One use of the token is spent, and the node's
// record written, in one transaction before anything is signed. A machine whose answer got lost may ask again with the
// same key: that costs no second use. A name that is taken is refused: a token must not be a way to become somebody
// else's node.
// Staying: certificates live 7 days; the agent says when two thirds are over, and gets a new one over its link.
#pragma once
#include <deque>
#include <map>
#include <string>

#include "controller/cluster.hpp"
#include "net/http.hpp"
#include "net/pki.hpp"

namespace aiv::controller {

struct EnrolmentOptions {
  std::string authority_dir;
  std::int64_t certificate_s = 7 * 86'400;
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
    std::int64_t time_ms = 0;
  };
  static Result<Wish> read(const std::string& body);
  net::Task<Result<net::Issued>> join(Wish wish, std::string peer);
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
