// Byte streams under HTTP: TCP, TLS over TCP, Unix sockets; and the listeners and diallers that make them.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "net/async.hpp"

typedef struct ssl_ctx_st SSL_CTX;
typedef struct ssl_st SSL;

namespace aiv::net {

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // Waits for bytes and appends them to `out` (at most 256 KiB a call); false at the peer's end. Nothing is held
  // while it waits, so an idle connection costs no buffer.
  virtual Task<Result<bool>> read_more(std::string& out) = 0;
  virtual Task<Result<>> write_all(std::string_view bytes) = 0;
  // Tells the peer that nothing follows what was written. It can still be read from, until it closes its side too.
  virtual Task<> end_output() = 0;
  virtual void close() = 0;
  [[nodiscard]] virtual std::string peer() const = 0;
  // Subject alternative URIs of the verified peer certificate; empty without one.
  [[nodiscard]] virtual std::vector<std::string> peer_identities() const = 0;
  // The application protocol agreed on in the TLS handshake; empty without one.
  [[nodiscard]] virtual std::string protocol() const { return {}; }
  // When the verified peer certificate was issued, seconds since 1970; 0 without one.
  [[nodiscard]] virtual std::int64_t peer_issued_at_s() const { return 0; }
};
using StreamPtr = std::unique_ptr<ByteStream>;

// A TLS 1.3 context with our certificate, verifying the peer against `ca_file`, ALPN `alpn`: protocols separated by
// commas, the one we like best first; may be empty. Without `ca_file`, TLS 1.2 will do.
class TlsContext {
 public:
  static Result<std::shared_ptr<TlsContext>> make(bool server, const std::string& cert_file, const std::string& key_file,
                                                  const std::string& ca_file, bool require_peer_certificate,
                                                  std::string alpn);
  // A client that knows nothing of the peer but the pin of its authority (net/pki.hpp): the handshake fails before a byte
  // is sent unless the peer's certificate is signed by a key of that pin.
  static Result<std::shared_ptr<TlsContext>> make_pinned(std::string authority_pin, std::string alpn);
  // A client of https: the peer's certificate must be signed by `ca_file` (empty: by one of the system's
  // authorities) and be for `host`, a name or an address. TLS 1.2 will do.
  static Result<std::shared_ptr<TlsContext>> make_https(std::string host, const std::string& ca_file);
  // Of a server: also lets clients without a certificate in, for the protocol `alpn` alone, and sends the authority's
  // certificate along, which such a client compares with its pin.
  Result<> accept_without_certificate(std::string alpn, const std::string& ca_file);
  ~TlsContext();
  SSL_CTX* native() const { return context_; }
  [[nodiscard]] const std::string& pin() const { return pin_; }
  // Whom the peer's certificate must be for; empty: not asked.
  [[nodiscard]] const std::string& host() const { return host_; }

 private:
  static int choose_protocol(SSL* ssl, const unsigned char** chosen, unsigned char* length, const unsigned char* offered,
                             unsigned int offered_length, void* self);
  SSL_CTX* context_ = nullptr;
  std::vector<std::string> alpn_;
  std::string anonymous_alpn_;
  std::string pin_;
  std::string host_;
};
using TlsContextPtr = std::shared_ptr<TlsContext>;

// "tcp:HOST:PORT" or "unix:PATH". TLS when `tls` is set. Nagle off, TCP_USER_TIMEOUT 3 s on TCP.
Task<Result<StreamPtr>> dial(std::string address, TlsContextPtr tls, Clock::duration timeout);

// Half-open links (a pulled cable) end after so long with unacknowledged data, not after 15 minutes.
inline constexpr Clock::duration kPeerSilenceMax = seconds(3);

using AcceptHandler = std::function<void(StreamPtr)>;

// Listens until destroyed. A Unix path is created 0600 (an existing socket that nobody serves is replaced).
// The handshake, where TLS is set, is done before the handler sees the stream, at most `kHandshakeLimit` at once.
class Listener {
 public:
  // `silence_max`: how long a TCP peer may leave what was sent unacknowledged, or its window shut.
  static Result<std::unique_ptr<Listener>> open(Executor executor, const std::string& address, TlsContextPtr tls,
                                                AcceptHandler handler, Clock::duration silence_max = kPeerSilenceMax);
  virtual ~Listener() = default;
  [[nodiscard]] virtual int port() const = 0;  // 0 for a Unix socket
  virtual void close() = 0;
};

}  // namespace aiv::net
