#include "net/pki.hpp"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <ctime>
#include <filesystem>
#include <memory>

#include "base/file.hpp"
#include "base/units.hpp"
#include "net/pki_openssl.hpp"

namespace aiv::net {
namespace {

constexpr long kHour = 3600;
constexpr long kDay = 24 * kHour;

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Buffer = std::unique_ptr<BIO, decltype(&BIO_free)>;
using Request = std::unique_ptr<X509_REQ, decltype(&X509_REQ_free)>;

std::string text_of(BIO* buffer) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(buffer, &data);
  return {data, static_cast<std::size_t>(size)};
}

std::string pem_of(X509* certificate) {
  const Buffer buffer(BIO_new(BIO_s_mem()), &BIO_free);
  PEM_write_bio_X509(buffer.get(), certificate);
  return text_of(buffer.get());
}

std::string pem_of(EVP_PKEY* key) {
  const Buffer buffer(BIO_new(BIO_s_mem()), &BIO_free);
  PEM_write_bio_PrivateKey(buffer.get(), key, nullptr, nullptr, 0, nullptr, nullptr);
  return text_of(buffer.get());
}

Result<Certificate> certificate_from_pem(const std::string& pem, const std::string& where) {
  const Buffer buffer(BIO_new_mem_buf(pem.data(), static_cast<int>(pem.size())), &BIO_free);
  Certificate out(PEM_read_bio_X509(buffer.get(), nullptr, nullptr, nullptr), &X509_free);
  if (!out) return fail(ErrorCode::kCorrupt, "is not a PEM certificate", where);
  return out;
}

Result<Key> read_key(const std::string& path) {
  const Result<std::string> pem = read_file(path, 64 * 1024);
  if (!pem) return std::unexpected(pem.error());
  const Buffer buffer(BIO_new_mem_buf(pem->data(), static_cast<int>(pem->size())), &BIO_free);
  Key out(PEM_read_bio_PrivateKey(buffer.get(), nullptr, nullptr, nullptr), &EVP_PKEY_free);
  if (!out) return fail(ErrorCode::kCorrupt, "is not a PEM private key", path);
  return out;
}

bool add_extension(X509* certificate, X509* issuer, int nid, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value.c_str());
  if (extension == nullptr) return false;
  const bool added = X509_add_ext(certificate, extension, -1) == 1;
  X509_EXTENSION_free(extension);
  return added;
}

Certificate new_certificate(EVP_PKEY* key, const std::string& organisation, const std::string& name, long seconds) {
  Certificate out(X509_new(), &X509_free);
  X509_set_version(out.get(), 2);
  std::uint64_t serial = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof serial);
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(out.get()), serial >> 1U);
  // Not by time(), which may be a tick behind: what is issued after a second has begun must not seem issued before it.
  const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
  // An hour back: clocks of lab machines are not that good.
  ASN1_TIME_set(X509_getm_notBefore(out.get()), now - kHour);
  ASN1_TIME_set(X509_getm_notAfter(out.get()), now + seconds);
  X509_set_pubkey(out.get(), key);
  X509_NAME* subject = X509_get_subject_name(out.get());
  const auto add = [&](const char* field, const std::string& value) {
    X509_NAME_add_entry_by_txt(subject, field, MBSTRING_UTF8, reinterpret_cast<const unsigned char*>(value.data()),
                               static_cast<int>(value.size()), -1, 0);
  };
  add("O", organisation);
  add("CN", name);
  return out;
}

struct Wanted {
  std::string name;       // of the subject
  std::string alt_names;  // as X509V3_EXT_conf reads them
  std::string usage;
  long seconds = 0;
};

// "node/n1": of one of our own processes, both ends of a link.
Wanted of_identity(const std::string& cluster, const std::string& identity, long seconds) {
  return {identity, fmt::format("URI:aiv://{}/{},DNS:localhost,IP:127.0.0.1", cluster, identity),
          "clientAuth,serverAuth", seconds};
}

// For `key`, signed by the authority.
Result<Certificate> signed_certificate(const Certificate& authority, const Key& authority_key, EVP_PKEY* key,
                                       const std::string& cluster, const Wanted& wanted) {
  Certificate certificate = new_certificate(key, cluster, wanted.name, wanted.seconds);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(authority.get()));
  const bool extended =
      add_extension(certificate.get(), authority.get(), NID_basic_constraints, "critical,CA:FALSE") &&
      add_extension(certificate.get(), authority.get(), NID_ext_key_usage, wanted.usage) &&
      add_extension(certificate.get(), authority.get(), NID_subject_alt_name, wanted.alt_names);
  if (!extended || X509_sign(certificate.get(), authority_key.get(), EVP_sha256()) == 0) {
    return fail(ErrorCode::kInternal, "the certificate could not be signed", wanted.name);
  }
  return certificate;
}

bool is_address(const std::string& host) {
  std::array<unsigned char, sizeof(in6_addr)> bytes{};
  return ::inet_pton(AF_INET, host.c_str(), bytes.data()) == 1 ||
         ::inet_pton(AF_INET6, host.c_str(), bytes.data()) == 1;
}

// Nothing that would mean something else in the list of names that OpenSSL is given.
bool is_host_name(const std::string& host) {
  return !host.empty() && host.size() <= 253 && std::ranges::all_of(host, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.';
  });
}

bool is_for_all(const std::string& certificate_path, const std::vector<std::string>& hosts) {
  const auto certificate = read_certificate_pem(certificate_path);
  return certificate && std::ranges::all_of(hosts, [&](const std::string& host) {
           return is_address(host)
                      ? X509_check_ip_asc(certificate->get(), host.c_str(), 0) == 1
                      : X509_check_host(certificate->get(), host.data(), host.size(), 0, nullptr) == 1;
         });
}

std::int64_t seconds_of(const ASN1_TIME* time) {
  std::tm fields{};
  if (ASN1_TIME_to_tm(time, &fields) != 1) return 0;
  return static_cast<std::int64_t>(::timegm(&fields));
}

Result<> write_pair(const std::string& base, X509* certificate, EVP_PKEY* key) {
  // The key first: a certificate without its key would be kept and never work.
  const Result<> written = write_file_durably(base + ".key", pem_of(key), 0600);
  if (!written) return written;
  return write_file_durably(base + ".pem", pem_of(certificate), 0644);
}

bool still_valid(const std::string& certificate_path, const std::string& key_path, X509* authority) {
  std::error_code ignored;
  if (!std::filesystem::exists(key_path, ignored)) return false;
  const auto certificate = read_certificate_pem(certificate_path);
  if (!certificate) return false;
  std::time_t later = std::time(nullptr) + 2 * kDay;
  if (X509_cmp_time(X509_get0_notAfter(certificate->get()), &later) < 0) return false;
  const Key signer(X509_get_pubkey(authority), &EVP_PKEY_free);
  return X509_verify(certificate->get(), signer.get()) == 1;
}

}  // namespace

Result<Certificate> read_certificate_pem(const std::string& path) {
  const Result<std::string> pem = read_file(path, 64 * 1024);
  if (!pem) return std::unexpected(pem.error());
  return certificate_from_pem(*pem, path);
}

std::string authority_pin_of(X509* certificate) {
  unsigned char* der = nullptr;
  const int size = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(certificate), &der);
  if (size <= 0) return {};
  unsigned char digest[EVP_MAX_MD_SIZE];
  unsigned int digest_size = 0;
  const bool done = EVP_Digest(der, static_cast<std::size_t>(size), digest, &digest_size, EVP_sha256(), nullptr) == 1;
  OPENSSL_free(der);
  if (!done) return {};
  std::string text(64, '\0');
  text.resize(static_cast<std::size_t>(
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(text.data()), digest, static_cast<int>(digest_size))));
  while (text.ends_with('=')) text.pop_back();
  std::ranges::replace(text, '+', '-');
  std::ranges::replace(text, '/', '_');
  return text;
}

std::int64_t certificate_issued_at_s(X509* certificate) {
  return seconds_of(X509_get0_notBefore(certificate)) + kHour;
}

Result<std::string> authority_pin(const std::string& certificate_pem) {
  const auto certificate = certificate_from_pem(certificate_pem, "the authority's certificate");
  if (!certificate) return std::unexpected(certificate.error());
  return authority_pin_of(certificate->get());
}

namespace {

Result<NewRequest> request_with(const Key& key, const std::string& identity) {
  const Request request(X509_REQ_new(), &X509_REQ_free);
  AIV_ASSERT(key != nullptr && request != nullptr);
  // Only the key counts: what the certificate says is decided by who signs it.
  X509_NAME_add_entry_by_txt(X509_REQ_get_subject_name(request.get()), "CN", MBSTRING_UTF8,
                             reinterpret_cast<const unsigned char*>(identity.data()), static_cast<int>(identity.size()),
                             -1, 0);
  X509_REQ_set_pubkey(request.get(), key.get());
  if (X509_REQ_sign(request.get(), key.get(), EVP_sha256()) == 0) {
    return fail(ErrorCode::kInternal, "the request for a certificate could not be signed", identity);
  }
  const Buffer buffer(BIO_new(BIO_s_mem()), &BIO_free);
  PEM_write_bio_X509_REQ(buffer.get(), request.get());
  return NewRequest{pem_of(key.get()), text_of(buffer.get())};
}

}  // namespace

Result<NewRequest> make_request(const std::string& identity) {
  return request_with(Key(EVP_EC_gen("P-256"), &EVP_PKEY_free), identity);
}

Result<NewRequest> make_request_for(const std::string& key_file, const std::string& identity) {
  const auto key = read_key(key_file);
  if (!key) return std::unexpected(key.error());
  return request_with(*key, identity);
}

Result<Issued> sign_request(const std::string& authority_directory, const std::string& identity,
                            const std::string& request_pem, std::int64_t seconds) {
  const Buffer buffer(BIO_new_mem_buf(request_pem.data(), static_cast<int>(request_pem.size())), &BIO_free);
  const Request request(PEM_read_bio_X509_REQ(buffer.get(), nullptr, nullptr, nullptr), &X509_REQ_free);
  if (!request) return fail(ErrorCode::kInvalidArgument, "is not a PEM certificate request", "request");
  EVP_PKEY* key = X509_REQ_get0_pubkey(request.get());
  // Whoever asks must hold the key. Only P-256: nothing weaker, and nothing that costs minutes to check.
  if (key == nullptr || X509_REQ_verify(request.get(), key) != 1) {
    return fail(ErrorCode::kInvalidArgument, "is not signed by the key it is for", "request");
  }
  char group[32] = {};
  std::size_t group_size = 0;
  if (EVP_PKEY_get_id(key) != EVP_PKEY_EC || EVP_PKEY_get_group_name(key, group, sizeof group, &group_size) != 1 ||
      std::string_view(group) != "prime256v1") {
    return fail(ErrorCode::kInvalidArgument, "must be for an ECDSA P-256 key", "request");
  }
  const auto authority = read_certificate_pem(authority_directory + "/ca.pem");
  if (!authority) return std::unexpected(authority.error());
  const auto authority_key = read_key(authority_directory + "/ca.key");
  if (!authority_key) return std::unexpected(authority_key.error());
  const auto cluster = authority_cluster(authority_directory);
  if (!cluster) return std::unexpected(cluster.error());
  const auto certificate = signed_certificate(*authority, *authority_key, key, *cluster,
                                              of_identity(*cluster, identity, static_cast<long>(seconds)));
  if (!certificate) return std::unexpected(certificate.error());
  return Issued{pem_of(certificate->get()), pem_of(authority->get()), authority_pin_of(certificate->get()),
                seconds_of(X509_get0_notAfter(certificate->get()))};
}

Result<std::string> request_key_pin(const std::string& request_pem) {
  const Buffer buffer(BIO_new_mem_buf(request_pem.data(), static_cast<int>(request_pem.size())), &BIO_free);
  const Request request(PEM_read_bio_X509_REQ(buffer.get(), nullptr, nullptr, nullptr), &X509_REQ_free);
  if (!request || X509_REQ_get0_pubkey(request.get()) == nullptr) {
    return fail(ErrorCode::kInvalidArgument, "is not a PEM certificate request", "request");
  }
  const Certificate carrier(X509_new(), &X509_free);
  X509_set_pubkey(carrier.get(), X509_REQ_get0_pubkey(request.get()));
  return authority_pin_of(carrier.get());
}

Result<CertificateFacts> certificate_facts(const std::string& certificate_pem) {
  const auto certificate = certificate_from_pem(certificate_pem, "the certificate");
  if (!certificate) return std::unexpected(certificate.error());
  CertificateFacts out;
  out.issued_at_s = certificate_issued_at_s(certificate->get());
  out.expires_at_s = seconds_of(X509_get0_notAfter(certificate->get()));
  auto* names = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate->get(), NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* uri = name->d.uniformResourceIdentifier;
    out.identity.assign(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                        static_cast<std::size_t>(ASN1_STRING_length(uri)));
  }
  GENERAL_NAMES_free(names);
  return out;
}

namespace {

Result<> check_signed_for(const Certificate& certificate, const std::string& certificate_pem,
                          const std::string& authority_pem, const std::string& identity_end) {
  const auto authority = certificate_from_pem(authority_pem, "the authority's certificate");
  if (!authority) return std::unexpected(authority.error());
  const Key signer(X509_get_pubkey(authority->get()), &EVP_PKEY_free);
  if (X509_verify(certificate.get(), signer.get()) != 1) {
    return fail(ErrorCode::kUnauthorized, "the certificate is not signed by the cluster's authority");
  }
  const auto facts = certificate_facts(certificate_pem);
  if (!facts || !facts->identity.ends_with("/" + identity_end)) {
    return fail(ErrorCode::kUnauthorized, "the certificate is for somebody else", facts ? facts->identity : "");
  }
  return {};
}

}  // namespace

Result<> check_issued(const std::string& certificate_pem, const std::string& key_pem,
                      const std::string& authority_pem, const std::string& identity_end) {
  const auto certificate = certificate_from_pem(certificate_pem, "the certificate");
  if (!certificate) return std::unexpected(certificate.error());
  const Buffer buffer(BIO_new_mem_buf(key_pem.data(), static_cast<int>(key_pem.size())), &BIO_free);
  const Key key(PEM_read_bio_PrivateKey(buffer.get(), nullptr, nullptr, nullptr), &EVP_PKEY_free);
  if (!key || X509_check_private_key(certificate->get(), key.get()) != 1) {
    return fail(ErrorCode::kUnauthorized, "the certificate is not for this machine's key");
  }
  return check_signed_for(*certificate, certificate_pem, authority_pem, identity_end);
}

Result<> check_certified(const std::string& certificate_pem, const std::string& request_pem,
                         const std::string& authority_pem, const std::string& identity_end) {
  const auto certificate = certificate_from_pem(certificate_pem, "the certificate");
  if (!certificate) return std::unexpected(certificate.error());
  const Buffer buffer(BIO_new_mem_buf(request_pem.data(), static_cast<int>(request_pem.size())), &BIO_free);
  const Request request(PEM_read_bio_X509_REQ(buffer.get(), nullptr, nullptr, nullptr), &X509_REQ_free);
  const Key key(X509_get_pubkey(certificate->get()), &EVP_PKEY_free);
  EVP_PKEY* asked = request ? X509_REQ_get0_pubkey(request.get()) : nullptr;
  if (!key || asked == nullptr || EVP_PKEY_eq(key.get(), asked) != 1 ||
      X509_REQ_verify(request.get(), asked) != 1) {
    return fail(ErrorCode::kUnauthorized, "the request is not by the key of the certificate");
  }
  return check_signed_for(*certificate, certificate_pem, authority_pem, identity_end);
}

Result<> ensure_authority(const std::string& directory, const std::string& cluster) {
  const Result<> made = make_directories(directory, 0700);
  if (!made) return made;
  std::error_code ignored;
  const std::string base = directory + "/ca";
  const bool has_certificate = std::filesystem::exists(base + ".pem", ignored);
  const bool has_key = std::filesystem::exists(base + ".key", ignored);
  if (has_certificate && has_key) return {};
  if (has_certificate != has_key && has_certificate) {
    return fail(ErrorCode::kCorrupt, "the authority's key is missing; restore it, or remove ca.pem to begin anew "
                                     "(every node must then join again)", base + ".key");
  }
  const Key key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  AIV_ASSERT(key != nullptr);
  const Certificate certificate = new_certificate(key.get(), cluster, "AIvailable authority", 3650 * kDay);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate.get()));
  const bool extended = add_extension(certificate.get(), certificate.get(), NID_basic_constraints, "critical,CA:TRUE") &&
                        add_extension(certificate.get(), certificate.get(), NID_key_usage,
                                      "critical,keyCertSign,cRLSign") &&
                        add_extension(certificate.get(), certificate.get(), NID_subject_key_identifier, "hash");
  if (!extended || X509_sign(certificate.get(), key.get(), EVP_sha256()) == 0) {
    return fail(ErrorCode::kInternal, "the authority's certificate could not be signed", directory);
  }
  return write_pair(base, certificate.get(), key.get());
}

Result<std::string> authority_cluster(const std::string& directory) {
  const auto certificate = read_certificate_pem(directory + "/ca.pem");
  if (!certificate) return std::unexpected(certificate.error());
  std::string name(256, '\0');
  const int size = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate->get()), NID_organizationName,
                                             name.data(), static_cast<int>(name.size()));
  if (size <= 0) return fail(ErrorCode::kCorrupt, "the authority's certificate names no cluster", directory);
  name.resize(static_cast<std::size_t>(size));
  return name;
}

namespace {

// The pair OUT/NAME: kept while it is valid for two more days and for all of `hosts`, else made anew as
// `wanted(cluster)` says.
template <class WantedOf>
Result<CertificateFiles> ensure_pair(const std::string& authority_directory, const std::string& out_directory,
                                     const std::string& name, const std::vector<std::string>& hosts,
                                     WantedOf&& wanted) {
  const std::string base = out_directory + "/" + name;
  const CertificateFiles files{authority_directory + "/ca.pem", base + ".pem", base + ".key"};
  const auto authority = read_certificate_pem(files.ca);
  if (!authority) return std::unexpected(authority.error());
  if (still_valid(files.cert, files.key, authority->get()) && is_for_all(files.cert, hosts)) return files;
  const auto authority_key = read_key(authority_directory + "/ca.key");
  if (!authority_key) return std::unexpected(authority_key.error());
  const auto cluster = authority_cluster(authority_directory);
  if (!cluster) return std::unexpected(cluster.error());
  const Result<> made = make_directories(out_directory, 0700);
  if (!made) return std::unexpected(made.error());
  const Key key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  AIV_ASSERT(key != nullptr);
  const auto certificate = signed_certificate(*authority, *authority_key, key.get(), *cluster, wanted(*cluster));
  if (!certificate) return std::unexpected(certificate.error());
  const Result<> written = write_pair(base, certificate->get(), key.get());
  if (!written) return std::unexpected(written.error());
  return files;
}

}  // namespace

Result<CertificateFiles> ensure_certificate(const std::string& authority_directory, const std::string& identity,
                                            const std::string& out_directory, const std::string& name, int days) {
  return ensure_pair(authority_directory, out_directory, name, {}, [&](const std::string& cluster) {
    return of_identity(cluster, identity, days * kDay);
  });
}

Result<CertificateFiles> ensure_web_certificate(const std::string& authority_directory,
                                                const std::vector<std::string>& hosts, const std::string& out_directory,
                                                const std::string& name, int days) {
  std::string names;
  for (const std::string& host : hosts) {
    if (!is_address(host) && !is_host_name(host)) {
      return fail(ErrorCode::kInvalidArgument, "is neither a host name nor an address", printable(host, 80));
    }
    names += (names.empty() ? "" : ",") + std::string(is_address(host) ? "IP:" : "DNS:") + host;
  }
  if (names.empty()) return fail(ErrorCode::kInvalidArgument, "a certificate for https needs a host name");
  return ensure_pair(authority_directory, out_directory, name, hosts, [&](const std::string&) {
    return Wanted{"https", names, "serverAuth", days * kDay};
  });
}

std::string identity_of(const std::string& uri, const std::string& role) {
  constexpr std::string_view kScheme = "aiv://";
  if (!uri.starts_with(kScheme)) return {};
  const auto slash = uri.find('/', kScheme.size());
  if (slash == std::string::npos) return {};
  const std::string prefix = "/" + role + "/";
  const std::string rest = uri.substr(slash);
  if (!rest.starts_with(prefix)) return {};
  std::string id = rest.substr(prefix.size());
  if (id.empty() || id.find('/') != std::string::npos) return {};
  return id;
}

}  // namespace aiv::net
