// The cluster's own certificate authority: made at the first start of a server, it signs the server's certificate
// and those of the nodes. Keys are ECDSA P-256, files 0600.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace aiv::net {

struct CertificateFiles {
  std::string ca;    // PEM of the authority
  std::string cert;  // PEM
  std::string key;   // PEM, 0600
};

// Makes DIR/ca.pem and DIR/ca.key unless both are there. `cluster` stands in the subject.
Result<> ensure_authority(const std::string& directory, const std::string& cluster);
// The cluster's name as the authority's certificate has it.
Result<std::string> authority_cluster(const std::string& directory);

// Signs a fresh key for `identity` ("node/n1", "server/srv1"): URI SAN aiv://CLUSTER/IDENTITY, clientAuth and
// serverAuth, valid from an hour ago for `days`. Writes OUT/NAME.pem and OUT/NAME.key; keeps a pair that is
// there and valid for two more days.
Result<CertificateFiles> ensure_certificate(const std::string& authority_directory, const std::string& identity,
                                            const std::string& out_directory, const std::string& name, int days);

// The same for https: for the names and addresses that clients call this machine by, serverAuth only. A pair
// that is there is kept while it is valid for two more days and for all of `hosts`. kInvalidArgument: one is
// neither a host name nor an address.
Result<CertificateFiles> ensure_web_certificate(const std::string& authority_directory,
                                                const std::vector<std::string>& hosts,
                                                const std::string& out_directory, const std::string& name,
                                                int days);

// ---- joining: the key is made where it is used and never leaves it ----------------------------------------

// base64url of the SHA-256 of the key in a PEM certificate (SubjectPublicKeyInfo): 43 characters. What a join token
// carries, so that a machine can tell the right cluster from a wrong one before it says anything.
Result<std::string> authority_pin(const std::string& certificate_pem);

struct NewRequest {
  std::string key;      // PEM, secret
  std::string request;  // PEM, PKCS#10
};
// A fresh P-256 key and the request for its certificate; make_request_for() uses the key of a file.
Result<NewRequest> make_request(const std::string& identity);
Result<NewRequest> make_request_for(const std::string& key_file, const std::string& identity);
// The pin of the key that a request is for.
Result<std::string> request_key_pin(const std::string& request_pem);

struct Issued {
  std::string certificate;  // PEM
  std::string authority;    // PEM
  std::string key_pin;      // of the certificate's key
  std::int64_t expires_at_s = 0;
};
// Signs a request in the name of `identity`, whatever name it gives itself. kInvalidArgument: not a request, not
// signed by its own key, or not for a P-256 key.
Result<Issued> sign_request(const std::string& authority_directory, const std::string& identity,
                            const std::string& request_pem, std::int64_t seconds);

struct CertificateFacts {
  std::string identity;  // URI SAN
  std::int64_t issued_at_s = 0;
  std::int64_t expires_at_s = 0;
};
Result<CertificateFacts> certificate_facts(const std::string& certificate_pem);
// kUnauthorized unless the certificate is for this key, signed by this authority, and for ".../identity_end".
Result<> check_issued(const std::string& certificate_pem, const std::string& key_pem, const std::string& authority_pem,
                      const std::string& identity_end);

// The same of the key of a request, which must be signed by it: whoever made the request holds the
// certificate's key. Whether the certificate is in its time is not asked.
Result<> check_certified(const std::string& certificate_pem, const std::string& request_pem,
                         const std::string& authority_pem, const std::string& identity_end);

// "aiv://CLUSTER/node/ID" -> ID if the role is `role`; empty otherwise.
std::string identity_of(const std::string& uri, const std::string& role);

}  // namespace aiv::net
