// Certificates as OpenSSL has them, for pki.cpp and stream.cpp alone.
#pragma once
#include <openssl/x509.h>

#include <cstdint>
#include <memory>
#include <string>

#include "base/result.hpp"

namespace aiv::net {

using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;

// kIo, or kCorrupt if the file holds no PEM certificate.
Result<Certificate> read_certificate_pem(const std::string& path);
// base64url of the SHA-256 of its SubjectPublicKeyInfo: 43 characters.
std::string authority_pin_of(X509* certificate);
// Our certificates begin an hour before they are issued (clocks of lab machines are not that good).
std::int64_t certificate_issued_at_s(X509* certificate);

}  // namespace aiv::net
