#include "net/stream.hpp"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <array>
#include <charconv>
#include <span>

#include "base/log.hpp"

namespace aiv::net {
namespace asio = boost::asio;
using boost::system::error_code;
using Tcp = asio::ip::tcp;
using Unix = asio::local::stream_protocol;

namespace {

constexpr std::size_t kHandshakeLimit = 256;
constexpr auto kHandshakeTime = seconds(10);

Error io_failure(const error_code& error, std::string where = {}) {
  ErrorCode code = ErrorCode::kUnavailable;
  if (error == asio::error::operation_aborted) code = ErrorCode::kCancelled;
  return {code, error.message(), std::move(where)};
}

std::string name_of(const Tcp::socket& socket) {
  error_code error;
  const auto endpoint = socket.remote_endpoint(error);
  return error ? "tcp" : fmt::format("{}:{}", endpoint.address().to_string(), endpoint.port());
}

void tune(Tcp::socket& socket) {
  error_code ignored;
  socket.set_option(Tcp::no_delay(true), ignored);
  // Half-open links (a pulled cable) end after 3 s with unacknowledged data, not after 15 minutes.
  const unsigned int user_timeout_ms = 3000;
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms);
}

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

constexpr std::size_t kReadMax = 256 * 1024;

std::span<char> thread_buffer() {
  thread_local std::vector<char> buffer(kReadMax);
  return buffer;
}

// Any Asio stream as a ByteStream.
template <class Socket>
class SocketStream final : public ByteStream {
 public:
  static constexpr bool kPlain = !requires(Socket& socket) { socket.next_layer(); };

  SocketStream(Socket socket, std::string peer) : socket_(std::move(socket)), peer_(std::move(peer)) {
    error_code ignored;
    if constexpr (kPlain) socket_.non_blocking(true, ignored);
  }
  ~SocketStream() override { shut(); }

  Task<Result<bool>> read_more(std::string& out) override {
    error_code error;
    std::size_t got = 0;
    if constexpr (kPlain) {
      // Readiness first, then one read into a buffer that all connections of the thread share.
      co_await socket_.async_wait(Socket::wait_read, asio::redirect_error(asio::use_awaitable, error));
      if (!error) {
        std::span<char> buffer = thread_buffer();
        got = socket_.read_some(asio::buffer(buffer.data(), buffer.size()), error);
        out.append(buffer.data(), got);
        if (error == asio::error::would_block) co_return true;
      }
    } else {
      std::array<char, 8192> buffer;
      got = co_await socket_.async_read_some(asio::buffer(buffer), asio::redirect_error(asio::use_awaitable, error));
      out.append(buffer.data(), got);
    }
    if (error == asio::error::eof || error == asio::ssl::error::stream_truncated) co_return false;
    if (error) co_return std::unexpected(io_failure(error, peer_));
    co_return true;
  }
  Task<Result<>> write_all(std::string_view bytes) override {
    error_code error;
    co_await asio::async_write(socket_, asio::buffer(bytes.data(), bytes.size()),
                               asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return std::unexpected(io_failure(error, peer_));
    co_return Result<>{};
  }
  void close() override { shut(); }
  [[nodiscard]] std::string peer() const override { return peer_; }
  [[nodiscard]] std::vector<std::string> peer_identities() const override {
    if constexpr (kPlain) {
      return {};
    } else {
      return uri_names(const_cast<Socket&>(socket_).native_handle());
    }
  }

 private:
  void shut() {
    error_code ignored;
    auto& lowest = socket_.lowest_layer();
    lowest.shutdown(asio::socket_base::shutdown_both, ignored);
    lowest.close(ignored);
  }
  Socket socket_;
  std::string peer_;
};

struct Address {
  bool unix_socket = false;
  std::string path;
  std::string host;
  std::string port;
};

Result<Address> parse_address(const std::string& text) {
  if (text.starts_with("unix:")) {
    Address out{.unix_socket = true, .path = text.substr(5)};
    if (out.path.size() >= sizeof(sockaddr_un::sun_path)) {
      return fail(ErrorCode::kInvalidArgument,
                  fmt::format("a Unix socket's path may have {} bytes, this has {}; use a shorter data directory",
                              sizeof(sockaddr_un::sun_path) - 1, out.path.size()),
                  out.path);
    }
    return out;
  }
  if (!text.starts_with("tcp:")) {
    return fail(ErrorCode::kInvalidArgument, "an address is tcp:HOST:PORT or unix:PATH", text);
  }
  const auto colon = text.rfind(':');
  Address out{.host = text.substr(4, colon - 4), .port = text.substr(colon + 1)};
  unsigned port = 0;
  const auto [end, error] = std::from_chars(out.port.data(), out.port.data() + out.port.size(), port);
  if (colon < 5 || error != std::errc{} || end != out.port.data() + out.port.size() || port > 65535) {
    return fail(ErrorCode::kInvalidArgument, "an address is tcp:HOST:PORT with a port up to 65535", text);
  }
  if (out.host.starts_with('[') && out.host.ends_with(']')) out.host = out.host.substr(1, out.host.size() - 2);
  return out;
}

using SslStream = asio::ssl::stream<Tcp::socket>;

asio::ssl::context borrowed_context(SSL_CTX* native) {
  // Asio's context frees what it is given.
  SSL_CTX_up_ref(native);
  return asio::ssl::context(native);
}

Task<Result<StreamPtr>> shake_hands(Tcp::socket socket, TlsContextPtr tls, bool as_server) {
  const std::string peer = name_of(socket);
  asio::ssl::context context = borrowed_context(tls->native());
  SslStream stream(std::move(socket), context);
  error_code error;
  asio::steady_timer timer(co_await asio::this_coro::executor, kHandshakeTime);
  auto* lowest = &stream.lowest_layer();
  timer.async_wait([lowest](const error_code& waited) {
    error_code ignored;
    if (!waited) lowest->close(ignored);
  });
  co_await stream.async_handshake(as_server ? asio::ssl::stream_base::server : asio::ssl::stream_base::client,
                                  asio::redirect_error(asio::use_awaitable, error));
  timer.cancel();
  if (error) {
    co_return fail(error.category() == asio::error::get_ssl_category() ? ErrorCode::kUnauthorized
                                                                       : ErrorCode::kUnavailable,
                   "TLS handshake failed: " + error.message(), peer);
  }
  co_return std::make_unique<SocketStream<SslStream>>(std::move(stream), peer);
}

template <class Operation>
Task<Result<>> within(Operation operation, Clock::duration timeout, std::string where) {
  using namespace asio::experimental::awaitable_operators;
  auto outcome = co_await (std::move(operation) || sleep_for(timeout));
  if (outcome.index() == 1) co_return fail(ErrorCode::kTimeout, "no answer in time", where);
  const error_code error = std::get<0>(outcome);
  if (error) co_return std::unexpected(io_failure(error, where));
  co_return Result<>{};
}

template <class Socket, class Endpoints>
Task<error_code> connect_any(Socket& socket, Endpoints endpoints) {
  error_code error = asio::error::host_not_found;
  for (const auto& endpoint : endpoints) {
    error_code ignored;
    socket.close(ignored);
    co_await socket.async_connect(endpoint, asio::redirect_error(asio::use_awaitable, error));
    if (!error) break;
  }
  co_return error;
}

}  // namespace

Result<std::shared_ptr<TlsContext>> TlsContext::make(bool server, const std::string& cert_file,
                                                     const std::string& key_file, const std::string& ca_file,
                                                     bool require_peer_certificate, std::string alpn) {
  auto out = std::make_shared<TlsContext>();
  out->alpn_ = std::move(alpn);
  SSL_CTX* context = SSL_CTX_new(server ? TLS_server_method() : TLS_client_method());
  AIV_ASSERT(context != nullptr);
  out->context_ = context;
  SSL_CTX_set_min_proto_version(context, ca_file.empty() ? TLS1_2_VERSION : TLS1_3_VERSION);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
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
  if (!out->alpn_.empty()) {
    const std::string wire = static_cast<char>(out->alpn_.size()) + out->alpn_;
    SSL_CTX_set_alpn_protos(context, reinterpret_cast<const unsigned char*>(wire.data()),
                            static_cast<unsigned int>(wire.size()));
    if (server) {
      SSL_CTX_set_alpn_select_cb(
          context,
          [](SSL*, const unsigned char** chosen, unsigned char* length, const unsigned char* offered,
             unsigned int offered_length, void* self) {
            const std::string& wanted = static_cast<TlsContext*>(self)->alpn_;
            for (unsigned int i = 0; i + 1 <= offered_length; i += 1U + offered[i]) {
              const std::string_view protocol(reinterpret_cast<const char*>(offered + i + 1), offered[i]);
              if (i + 1U + offered[i] > offered_length || protocol != wanted) continue;
              *chosen = offered + i + 1;
              *length = offered[i];
              return SSL_TLSEXT_ERR_OK;
            }
            return SSL_TLSEXT_ERR_ALERT_FATAL;
          },
          out.get());
    }
  }
  return out;
}

TlsContext::~TlsContext() { SSL_CTX_free(context_); }

Task<Result<StreamPtr>> dial(std::string address, TlsContextPtr tls, Clock::duration timeout) {
  const Result<Address> parsed = parse_address(address);
  if (!parsed) co_return std::unexpected(parsed.error());
  const auto executor = co_await asio::this_coro::executor;
  if (parsed->unix_socket) {
    Unix::socket socket(executor);
    const std::vector<Unix::endpoint> endpoints{Unix::endpoint(parsed->path)};
    const Result<> done = co_await within(connect_any(socket, endpoints), timeout, address);
    if (!done) co_return std::unexpected(done.error());
    co_return std::make_unique<SocketStream<Unix::socket>>(std::move(socket), "unix");
  }
  Tcp::resolver resolver(executor);
  error_code error;
  const auto found = co_await resolver.async_resolve(parsed->host, parsed->port,
                                                     asio::redirect_error(asio::use_awaitable, error));
  if (error) co_return fail(ErrorCode::kUnavailable, "the host is not known: " + error.message(), address);
  std::vector<Tcp::endpoint> endpoints;
  for (const auto& entry : found) endpoints.push_back(entry.endpoint());
  Tcp::socket socket(executor);
  const Result<> done = co_await within(connect_any(socket, endpoints), timeout, address);
  if (!done) co_return std::unexpected(done.error());
  tune(socket);
  if (tls) co_return co_await shake_hands(std::move(socket), tls, false);
  const std::string peer = name_of(socket);
  co_return std::make_unique<SocketStream<Tcp::socket>>(std::move(socket), peer);
}

namespace {

template <class Protocol>
class ListenerOf final : public Listener {
 public:
  struct Shared {
    Shared(Executor executor, TlsContextPtr context, AcceptHandler on_accept)
        : acceptor(executor), tls(std::move(context)), handler(std::move(on_accept)) {}
    typename Protocol::acceptor acceptor;
    TlsContextPtr tls;
    AcceptHandler handler;
    std::size_t handshakes = 0;
  };

  explicit ListenerOf(std::shared_ptr<Shared> shared) : shared_(std::move(shared)) {}
  ~ListenerOf() override { close(); }
  void close() override {
    error_code ignored;
    shared_->acceptor.close(ignored);
    if constexpr (std::is_same_v<Protocol, Unix>) {
      if (!path.empty()) ::unlink(path.c_str());
      path.clear();
    }
  }
  [[nodiscard]] int port() const override {
    if constexpr (std::is_same_v<Protocol, Tcp>) {
      error_code error;
      const auto endpoint = shared_->acceptor.local_endpoint(error);
      return error ? 0 : endpoint.port();
    } else {
      return 0;
    }
  }
  std::string path;

  static Task<> accept_loop(std::shared_ptr<Shared> shared) {
    const auto executor = co_await asio::this_coro::executor;
    while (shared->acceptor.is_open()) {
      error_code error;
      auto socket = co_await shared->acceptor.async_accept(asio::redirect_error(asio::use_awaitable, error));
      if (error == asio::error::operation_aborted || error == asio::error::bad_descriptor) co_return;
      if (error) {
        // Out of descriptors, usually: taking a breath lets others close.
        log_warn("accept.failed", {{"reason", error.message()}});
        co_await sleep_for(milliseconds(50));
        continue;
      }
      if constexpr (std::is_same_v<Protocol, Tcp>) {
        tune(socket);
        if (shared->tls) {
          if (shared->handshakes >= kHandshakeLimit) continue;
          ++shared->handshakes;
          spawn(executor, handshake(shared, std::move(socket)), "handshake");
          continue;
        }
        const std::string peer = name_of(socket);
        shared->handler(std::make_unique<SocketStream<Tcp::socket>>(std::move(socket), peer));
      } else {
        shared->handler(std::make_unique<SocketStream<Unix::socket>>(std::move(socket), "unix"));
      }
    }
  }
  static Task<> handshake(std::shared_ptr<Shared> shared, Tcp::socket socket) {
    const std::string peer = name_of(socket);
    Result<StreamPtr> stream = co_await shake_hands(std::move(socket), shared->tls, true);
    --shared->handshakes;
    if (!stream) {
      log_warn("tls.refused", {{"peer", peer}, {"reason", stream.error().reason}});
      co_return;
    }
    if (shared->acceptor.is_open()) shared->handler(std::move(*stream));
  }

 private:
  std::shared_ptr<Shared> shared_;
};

Result<std::unique_ptr<Listener>> listen_unix(Executor executor, const std::string& path, AcceptHandler handler) {
  auto shared = std::make_shared<ListenerOf<Unix>::Shared>(executor, nullptr, std::move(handler));
  const Unix::endpoint endpoint(path);
  error_code error;
  {
    // A socket file that nobody serves is left over from a kill; one that somebody serves must not be taken away.
    asio::io_context probe_context;
    Unix::socket probe(probe_context);
    probe.connect(endpoint, error);
    if (!error) return fail(ErrorCode::kConflict, "another process already serves this socket", path);
    if (error == asio::error::connection_refused) ::unlink(path.c_str());
  }
  shared->acceptor.open(endpoint.protocol(), error);
  const mode_t old_mask = ::umask(0177);
  if (!error) shared->acceptor.bind(endpoint, error);
  ::umask(old_mask);
  if (!error) shared->acceptor.listen(512, error);
  if (error) return fail(ErrorCode::kIo, "cannot listen: " + error.message(), path);
  auto out = std::make_unique<ListenerOf<Unix>>(shared);
  out->path = path;
  spawn(executor, ListenerOf<Unix>::accept_loop(shared), "accept");
  return out;
}

}  // namespace

Result<std::unique_ptr<Listener>> Listener::open(Executor executor, const std::string& address, TlsContextPtr tls,
                                                 AcceptHandler handler) {
  const Result<Address> parsed = parse_address(address);
  if (!parsed) return std::unexpected(parsed.error());
  if (parsed->unix_socket) return listen_unix(executor, parsed->path, std::move(handler));
  auto shared = std::make_shared<ListenerOf<Tcp>::Shared>(executor, std::move(tls), std::move(handler));
  error_code error;
  const auto ip = asio::ip::make_address(parsed->host == "localhost" ? "127.0.0.1" : parsed->host, error);
  if (error) return fail(ErrorCode::kInvalidArgument, "listen on a literal address, such as 127.0.0.1", address);
  const Tcp::endpoint endpoint(ip, static_cast<std::uint16_t>(std::stoul(parsed->port)));
  shared->acceptor.open(endpoint.protocol(), error);
  if (!error) shared->acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
  if (!error) shared->acceptor.bind(endpoint, error);
  if (!error) shared->acceptor.listen(4096, error);
  if (error == asio::error::address_in_use) {
    return fail(ErrorCode::kConflict, "the port is in use by another program; choose another one", address);
  }
  if (error) return fail(ErrorCode::kIo, "cannot listen: " + error.message(), address);
  auto out = std::make_unique<ListenerOf<Tcp>>(shared);
  spawn(executor, ListenerOf<Tcp>::accept_loop(shared), "accept");
  return out;
}

}  // namespace aiv::net
