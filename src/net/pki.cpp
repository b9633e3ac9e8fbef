#include "net/pki.hpp"

#include <fmt/format.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>

#include <ctime>
#include <filesystem>
#include <memory>

#include "base/file.hpp"

namespace aiv::net {
namespace {

constexpr long kHour = 3600;
constexpr long kDay = 24 * kHour;

using Key = std::unique_ptr<EVP_PKEY, decltype(&EVP_PKEY_free)>;
using Certificate = std::unique_ptr<X509, decltype(&X509_free)>;
using Buffer = std::unique_ptr<BIO, decltype(&BIO_free)>;


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

Result<Certificate> read_certificate(const std::string& path) {
  const Result<std::string> pem = read_file(path, 64 * 1024);
  if (!pem) return std::unexpected(pem.error());
  const Buffer buffer(BIO_new_mem_buf(pem->data(), static_cast<int>(pem->size())), &BIO_free);
  Certificate out(PEM_read_bio_X509(buffer.get(), nullptr, nullptr, nullptr), &X509_free);
  if (!out) return fail(ErrorCode::kCorrupt, "is not a PEM certificate", path);
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

Certificate new_certificate(EVP_PKEY* key, const std::string& organisation, const std::string& name, int days) {
  Certificate out(X509_new(), &X509_free);
  X509_set_version(out.get(), 2);
  std::uint64_t serial = 0;
  RAND_bytes(reinterpret_cast<unsigned char*>(&serial), sizeof serial);
  ASN1_INTEGER_set_uint64(X509_get_serialNumber(out.get()), serial >> 1U);
  // An hour back: clocks of lab machines are not that good.
  X509_gmtime_adj(X509_getm_notBefore(out.get()), -kHour);
  X509_gmtime_adj(X509_getm_notAfter(out.get()), kDay * days);
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

Result<> write_pair(const std::string& base, X509* certificate, EVP_PKEY* key) {
  // The key first: a certificate without its key would be kept and never work.
  const Result<> written = write_file_durably(base + ".key", pem_of(key), 0600);
  if (!written) return written;
  return write_file_durably(base + ".pem", pem_of(certificate), 0644);
}

bool still_valid(const std::string& certificate_path, const std::string& key_path, X509* authority) {
  std::error_code ignored;
  if (!std::filesystem::exists(key_path, ignored)) return false;
  const auto certificate = read_certificate(certificate_path);
  if (!certificate) return false;
  std::time_t later = std::time(nullptr) + 2 * kDay;
  if (X509_cmp_time(X509_get0_notAfter(certificate->get()), &later) < 0) return false;
  const Key signer(X509_get_pubkey(authority), &EVP_PKEY_free);
  return X509_verify(certificate->get(), signer.get()) == 1;
}

}  // namespace

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
  const Certificate certificate = new_certificate(key.get(), cluster, "AIvailable authority", 3650);
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
  const auto certificate = read_certificate(directory + "/ca.pem");
  if (!certificate) return std::unexpected(certificate.error());
  std::string name(256, '\0');
  const int size = X509_NAME_get_text_by_NID(X509_get_subject_name(certificate->get()), NID_organizationName,
                                             name.data(), static_cast<int>(name.size()));
  if (size <= 0) return fail(ErrorCode::kCorrupt, "the authority's certificate names no cluster", directory);
  name.resize(static_cast<std::size_t>(size));
  return name;
}

Result<CertificateFiles> ensure_certificate(const std::string& authority_directory, const std::string& identity,
                                            const std::string& out_directory, const std::string& name, int days) {
  const CertificateFiles files{authority_directory + "/ca.pem", out_directory + "/" + name + ".pem",
                               out_directory + "/" + name + ".key"};
  const auto authority = read_certificate(files.ca);
  if (!authority) return std::unexpected(authority.error());
  if (still_valid(files.cert, files.key, authority->get())) return files;
  const auto authority_key = read_key(authority_directory + "/ca.key");
  if (!authority_key) return std::unexpected(authority_key.error());
  const auto cluster = authority_cluster(authority_directory);
  if (!cluster) return std::unexpected(cluster.error());
  const Result<> made = make_directories(out_directory, 0700);
  if (!made) return std::unexpected(made.error());
  const Key key(EVP_EC_gen("P-256"), &EVP_PKEY_free);
  AIV_ASSERT(key != nullptr);
  const Certificate certificate = new_certificate(key.get(), *cluster, identity, days);
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(authority->get()));
  const bool extended =
      add_extension(certificate.get(), authority->get(), NID_basic_constraints, "critical,CA:FALSE") &&
      add_extension(certificate.get(), authority->get(), NID_ext_key_usage, "clientAuth,serverAuth") &&
      add_extension(certificate.get(), authority->get(), NID_subject_alt_name,
                    fmt::format("URI:aiv://{}/{},DNS:localhost,IP:127.0.0.1", *cluster, identity));
  if (!extended || X509_sign(certificate.get(), authority_key->get(), EVP_sha256()) == 0) {
    return fail(ErrorCode::kInternal, "the certificate could not be signed", identity);
  }
  const Result<> written = write_pair(out_directory + "/" + name, certificate.get(), key.get());
  if (!written) return std::unexpected(written.error());
  return files;
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
