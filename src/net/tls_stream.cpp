// TLS over a TCP socket. OpenSSL works on memory; the socket is ours, so that many records leave in one send() and
// arrive in one recv().
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "net/pki_openssl.hpp"
#include "net/socket_stream.hpp"

namespace aiv::net::detail {
namespace {

constexpr auto kHandshakeTime = seconds(10);

std::vector<std::string> uri_names(SSL* ssl) {
  std::vector<std::string> out;
  X509* certificate = SSL_get0_peer_certificate(ssl);
  if (certificate == nullptr || SSL_get_verify_result(ssl) != X509_V_OK) return out;
  auto* names = static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  if (names == nullptr) return out;
  for (int i = 0; i < sk_GENERAL_NAME_num(names); ++i) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(names, i);
    if (name->type != GEN_URI) continue;
    const ASN1_IA5STRING* uri = name->d.uniformResourceIdentifier;
    out.emplace_back(reinterpret_cast<const char*>(ASN1_STRING_get0_data(uri)),
                     static_cast<std::size_t>(ASN1_STRING_length(uri)));
  }
  GENERAL_NAMES_free(names);
  return out;
}

std::int64_t issued_at_s(SSL* ssl) {
  X509* certificate = SSL_get0_peer_certificate(ssl);
  if (certificate == nullptr || SSL_get_verify_result(ssl) != X509_V_OK) return 0;
  return certificate_issued_at_s(certificate);
}

std::string protocol_of(SSL* ssl) {
  const unsigned char* name = nullptr;
  unsigned int size = 0;
  SSL_get0_alpn_selected(ssl, &name, &size);
  return name == nullptr ? std::string() : std::string(reinterpret_cast<const char*>(name), size);
}

// The last entry of OpenSSL's queue of this thread, which is empty afterwards.
std::string tls_reason() {
  const unsigned long code = ERR_peek_last_error();
  ERR_clear_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return reason != nullptr ? reason : "unknown reason";
}

// With what is wrong with the peer's certificate, if that was it.
std::string handshake_reason(SSL* ssl) {
  std::string reason = tls_reason();
  const long verified = SSL_get_verify_result(ssl);
  if (verified != X509_V_OK) reason += std::string(" (") + X509_verify_cert_error_string(verified) + ")";
  return reason;
}

class TlsStream final : public ByteStream {
 public:
  TlsStream(SocketOf<Tcp> socket, TlsContextPtr context, std::string peer, bool as_server)
      : socket_(socket.get_executor(), release<Tcp>(socket)), context_(std::move(context)), peer_(std::move(peer)), ssl_(SSL_new(context_->native())) {
    AIV_ASSERT(ssl_ != nullptr);
    arrived_ = BIO_new(BIO_s_mem());
    leaving_ = BIO_new(BIO_s_mem());
    AIV_ASSERT(arrived_ != nullptr && leaving_ != nullptr);
    SSL_set_bio(ssl_, arrived_, leaving_);  // owns both
    if (as_server) {
      SSL_set_accept_state(ssl_);
    } else {
      SSL_set_connect_state(ssl_);
      expect_host();
    }
  }
  ~TlsStream() override {
    close();
    SSL_free(ssl_);
  }

  Task<Result<>> shake_hands() {
    for (;;) {
      ERR_clear_error();
      const int done = SSL_do_handshake(ssl_);
      const int error = SSL_get_error(ssl_, done);
      const std::string reason = done == 1 || error == SSL_ERROR_WANT_READ ? "" : handshake_reason(ssl_);
      // Also after a failure: the peer is told why.
      const Result<> sent = co_await flush();
      if (!reason.empty()) co_return fail(ErrorCode::kUnauthorized, "TLS handshake failed: " + reason, peer_);
      if (!sent) co_return sent;
      if (done == 1) co_return Result<>{};
      const Result<bool> more = co_await receive();
      if (!more) co_return std::unexpected(more.error());
      if (!*more) co_return fail(ErrorCode::kUnavailable, "the peer closed during the TLS handshake", peer_);
    }
  }

  Task<Result<bool>> read_more(std::string& out) override {
    for (;;) {
      const std::size_t before = out.size();
      int state = SSL_ERROR_NONE;
      while (state == SSL_ERROR_NONE && out.size() - before < kReadMax && BIO_ctrl_pending(arrived_) > 0) state = decrypt(out);
      if (out.size() > before) co_return true;
      if (state == SSL_ERROR_ZERO_RETURN) co_return false;
      if (state != SSL_ERROR_NONE && state != SSL_ERROR_WANT_READ) {
        co_return fail(ErrorCode::kUnavailable, "TLS failed: " + tls_reason(), peer_);
      }
      // An answer of TLS itself, to a change of keys.
      if (BIO_ctrl_pending(leaving_) > 0 && !flushing_) {
        const Result<> sent = co_await flush();
        if (!sent) co_return std::unexpected(sent.error());
      }
      const Result<bool> more = co_await receive();
      if (!more || !*more) co_return more;
    }
  }

  Task<Result<>> write_all(std::string_view bytes) override {
    ERR_clear_error();
    if (!bytes.empty() && SSL_write(ssl_, bytes.data(), static_cast<int>(bytes.size())) <= 0) {
      co_return fail(ErrorCode::kUnavailable, "TLS failed: " + tls_reason(), peer_);
    }
    while (flushing_) co_await flushed_.wait();
    co_return co_await flush();
  }

  Task<> end_output() override {
    ERR_clear_error();
    SSL_shutdown(ssl_);
    while (flushing_) co_await flushed_.wait();
    const Result<> sent = co_await flush();
    if (sent) socket_.end_output();
  }

  void close() override { socket_.close(true); }
  [[nodiscard]] std::string peer() const override { return peer_; }
  [[nodiscard]] std::vector<std::string> peer_identities() const override { return uri_names(ssl_); }
  [[nodiscard]] std::string protocol() const override { return protocol_of(ssl_); }
  [[nodiscard]] std::int64_t peer_issued_at_s() const override { return issued_at_s(ssl_); }

 private:
  void expect_host() {
    const std::string& host = context_->host();
    if (host.empty()) return;
    if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_), host.c_str()) == 1) return;
    SSL_set_tlsext_host_name(ssl_, host.c_str());
    AIV_ASSERT(SSL_set1_host(ssl_, host.c_str()) == 1);
  }

  // One record, into the thread's buffer and from there to `out`.
  int decrypt(std::string& out) {
    ERR_clear_error();
    const std::span<char> buffer = thread_buffer();
    const int got = SSL_read(ssl_, buffer.data(), static_cast<int>(buffer.size()));
    if (got <= 0) return SSL_get_error(ssl_, got);
    out.append(buffer.data(), static_cast<std::size_t>(got));
    return SSL_ERROR_NONE;
  }

  // Waits for bytes of the socket; false at its end.
  Task<Result<bool>> receive() {
    for (;;) {
      std::span<const char> bytes;
      switch (socket_.receive(bytes)) {
        case Moved::kSome:
          AIV_ASSERT(BIO_write(arrived_, bytes.data(), static_cast<int>(bytes.size())) == static_cast<int>(bytes.size()));
          co_return true;
        case Moved::kEnd: co_return false;
        case Moved::kFailed: co_return std::unexpected(io_failure(last_error(), peer_));
        case Moved::kNothingNow: break;
      }
      co_await socket_.readable();
    }
  }

  // Sends what OpenSSL has made, also what it makes meanwhile.
  Task<Result<>> flush() {
    flushing_ = true;
    Result<> out;
    while (out && BIO_ctrl_pending(leaving_) > 0) {
      char* data = nullptr;
      const long size = BIO_get_mem_data(leaving_, &data);
      std::string_view bytes(data, static_cast<std::size_t>(size));
      const Moved moved = socket_.send(bytes);
      if (moved == Moved::kFailed) {
        out = std::unexpected(io_failure(last_error(), peer_));
        break;
      }
      // Not BIO_reset(): that overwrites the whole of the buffer with zeros each time.
      drop_front(static_cast<std::size_t>(size) - bytes.size());
      if (moved == Moved::kNothingNow) co_await socket_.writable();
    }
    flushing_ = false;
    flushed_.notify();
    co_return out;
  }

  void drop_front(std::size_t count) {
    const std::span<char> buffer = thread_buffer();
    while (count > 0) {
      const int dropped = BIO_read(leaving_, buffer.data(), static_cast<int>(std::min(count, buffer.size())));
      AIV_ASSERT(dropped > 0);
      count -= static_cast<std::size_t>(dropped);
    }
  }

  PolledSocket socket_;
  TlsContextPtr context_;
  std::string peer_;
  SSL* ssl_;
  BIO* arrived_ = nullptr;  // from the peer, encrypted
  BIO* leaving_ = nullptr;  // to the peer, encrypted
  bool flushing_ = false;
  Signal flushed_;
};

}  // namespace

Task<Result<StreamPtr>> shake_hands(SocketOf<Tcp> socket, TlsContextPtr tls, std::string peer, bool as_server) {
  const Executor executor = co_await this_executor();
  auto stream = std::make_unique<TlsStream>(std::move(socket), std::move(tls), std::move(peer), as_server);
  const TimeLimit limit(executor, kHandshakeTime, [open = stream.get()] { open->close(); });
  const Result<> done = co_await stream->shake_hands();
  if (limit.passed()) co_return fail(ErrorCode::kTimeout, "no TLS handshake within 10 s", stream->peer());
  if (!done) co_return std::unexpected(done.error());
  co_return std::move(stream);
}

}  // namespace aiv::net::detail

namespace aiv::net {
namespace {

// Instead of the usual chain check: the one certificate of the peer's chain that has the pinned key is the authority.
int verify_against_pin(X509_STORE_CTX* store, void* self) {
  STACK_OF(X509)* sent = X509_STORE_CTX_get0_untrusted(store);
  STACK_OF(X509)* trusted = sk_X509_new_null();
  for (int i = 0; i < sk_X509_num(sent); ++i) {
    X509* certificate = sk_X509_value(sent, i);
    if (authority_pin_of(certificate) == static_cast<TlsContext*>(self)->pin()) sk_X509_push(trusted, certificate);
  }
  int good = 0;
  if (sk_X509_num(trusted) == 0) {
    X509_STORE_CTX_set_error(store, X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY);
  } else {
    X509_STORE_CTX_set0_trusted_stack(store, trusted);
    good = X509_verify_cert(store);
  }
  sk_X509_free(trusted);
  return good == 1 ? 1 : 0;
}

}  // namespace

Result<std::shared_ptr<TlsContext>> TlsContext::make(bool server, const std::string& cert_file,
                                                     const std::string& key_file, const std::string& ca_file,
                                                     bool require_peer_certificate, std::string alpn) {
  auto out = std::make_shared<TlsContext>();
  std::string wire;  // RFC 7301 3.1: each name with its length before it
  while (!alpn.empty()) {
    const std::size_t comma = alpn.find(',');
    const std::string name = alpn.substr(0, comma);
    AIV_ASSERT(!name.empty() && name.size() < 256);
    wire += static_cast<char>(name.size()) + name;
    out->alpn_.push_back(name);
    alpn.erase(0, comma == std::string::npos ? alpn.size() : comma + 1);
  }
  SSL_CTX* context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
  AIV_ASSERT(context != nullptr);
  out->context_ = context;
  SSL_CTX_set_min_proto_version(context, ca_file.empty() ? TLS1_2_VERSION : TLS1_3_VERSION);
  // Buffers of idle connections are given back, but not those of links between our own processes, which never idle.
  if (ca_file.empty()) SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  if (!cert_file.empty() && SSL_CTX_use_certificate_chain_file(context, cert_file.c_str()) != 1) {
    return fail(ErrorCode::kIo, "is not a readable PEM certificate", cert_file);
  }
  if (!key_file.empty() && SSL_CTX_use_PrivateKey_file(context, key_file.c_str(), SSL_FILETYPE_PEM) != 1) {
    return fail(ErrorCode::kIo, "is not a readable PEM private key that fits the certificate", key_file);
  }
  if (!ca_file.empty()) {
    if (SSL_CTX_load_verify_locations(context, ca_file.c_str(), nullptr) != 1) {
      return fail(ErrorCode::kIo, "is not a readable PEM certificate", ca_file);
    }
  }
  if (require_peer_certificate) {
    SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  }
  if (!wire.empty()) {
    SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>(wire.data()),
                            static_cast<unsigned int>(wire.size()));
    if (server) SSL_CTX_set_alpn_select_cb(context, &TlsContext::choose_protocol, out.get());
  }
  return out;
}

int TlsContext::choose_protocol(SSL* ssl, const unsigned char** chosen, unsigned char* length,
                                const unsigned char* offered, unsigned int offered_length, void* self) {
  const auto* context = static_cast<TlsContext*>(self);
  const auto choose = [&](std::string_view name) {
    for (unsigned int i = 0; i + 1 <= offered_length; i += 1U + offered[i]) {
      if (i + 1U + offered[i] > offered_length) break;
      if (std::string_view(reinterpret_cast<const char*>(offered + i + 1), offered[i]) != name) continue;
      *chosen = offered + i + 1;
      *length = offered[i];
      return true;
    }
    return false;
  };
  for (const std::string& ours : context->alpn_) {
    if (choose(ours)) return SSL_TLSEXT_ERR_OK;
  }
  if (!context->anonymous_alpn_.empty() && choose(context->anonymous_alpn_)) {
    // Decided here because TLS 1.3 asks for the client's certificate only after this.
    SSL_set_verify(ssl, SSL_VERIFY_NONE, nullptr);
    return SSL_TLSEXT_ERR_OK;
  }
  return SSL_TLSEXT_ERR_ALERT_FATAL;
}

Result<std::shared_ptr<TlsContext>> TlsContext::make_pinned(std::string authority_pin, std::string alpn) {
  auto made = make(false, "", "", "", true, std::move(alpn));
  if (!made) return made;
  (*made)->pin_ = std::move(authority_pin);
  SSL_CTX_set_min_proto_version((*made)->context_, TLS1_3_VERSION);
  SSL_CTX_set_cert_verify_callback((*made)->context_, verify_against_pin, made->get());
  return made;
}

Result<std::shared_ptr<TlsContext>> TlsContext::make_https(std::string host, const std::string& ca_file) {
  auto made = make(false, "", "", ca_file, true, "http/1.1");
  if (!made) return made;
  SSL_CTX* context = (*made)->context_;
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  if (ca_file.empty() && SSL_CTX_set_default_verify_paths(context) != 1) {
    return fail(ErrorCode::kIo, "the system's certificate authorities cannot be read");
  }
  (*made)->host_ = std::move(host);
  return made;
}

Result<> TlsContext::accept_without_certificate(std::string alpn, const std::string& ca_file) {
  const auto authority = read_certificate_pem(ca_file);
  if (!authority) return std::unexpected(authority.error());
  // No session may be carried over from a handshake without a certificate to one that needs it.
  SSL_CTX_set_session_cache_mode(context_, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_options(context_, SSL_OP_NO_TICKET);
  SSL_CTX_set_num_tickets(context_, 0);
  if (SSL_CTX_add1_chain_cert(context_, authority->get()) != 1) {
    return fail(ErrorCode::kInternal, "cannot be sent along", ca_file);
  }
  anonymous_alpn_ = std::move(alpn);
  return {};
}

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

}  // namespace aiv::net
