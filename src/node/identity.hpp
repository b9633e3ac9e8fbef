// Who this node is: its key, its certificate, and the server it belongs to.
//
// Files below DATA/tls (0700), written in this order when a machine joins:
//   node.key    made here, never leaves this machine; a second try after a lost answer uses it again
//   ca.pem      the cluster's authority, checked against the token's pin
//   node.pem    our certificate; replaced when it is renewed
//   join.json   {"id","server"}: written last, so a machine that has it has joined
#pragma once
#include <optional>
#include <string>

#include "base/result.hpp"
#include "core/join_token.hpp"
#include "net/async.hpp"

namespace aiv::node {

struct Membership {
  std::string node_id;
  std::string server_address;  // "tcp:HOST:PORT"
  std::string ca_file;
  std::string cert_file;
  std::string key_file;
};

// nullopt where nothing has joined yet; kCorrupt for a join.json that is not ours.
Result<std::optional<Membership>> read_membership(const std::string& data_dir);

struct JoinOptions {
  JoinToken token;
  std::string server_address;
  std::string data_dir;
  std::string node_id;
};
// Nothing is sent before the server's certificate chain ends in the token's pin and names a server. Errors:
// kUnavailable (nobody answers), kUnauthorized (another cluster's server, or the token is not valid), else the server's
// own words.
net::Task<Result<Membership>> join_cluster(JoinOptions options);

// True where the certificate is no longer in its time by this machine's clock, so that no link can be opened
// with it.
Result<bool> certificate_lapsed(const std::string& cert_file);
// Asks for a new certificate for the same key, by the door through which machines join: that one wants no
// certificate. Only a server of our own authority is asked. What it sends is stored. Errors: kUnavailable
// (nobody answers, or no controller is there), else the server's own words.
net::Task<Result<>> renew_lapsed(Membership member);

// When the certificate is to be renewed: at two thirds of its life. Seconds from now, 0 = now.
Result<std::int64_t> renewal_due_in_s(const std::string& cert_file);
// A request for the next certificate with the same key.
Result<std::string> renewal_request(const std::string& key_file, const std::string& node_id);
// Takes the next certificate after checking that it is for our key, from our authority, in our name. Blocking.
Result<> store_renewed(const Membership& member, const std::string& certificate_pem);

}  // namespace aiv::node
