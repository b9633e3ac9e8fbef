// The cluster's own certificate authority: made at the first start of a server, it signs the server's certificate
// and those of the nodes. Keys are ECDSA P-256, files 0600.
#pragma once
#include <string>

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

// "aiv://CLUSTER/node/ID" -> ID if the role is `role`; empty otherwise.
std::string identity_of(const std::string& uri, const std::string& role);

}  // namespace aiv::net
