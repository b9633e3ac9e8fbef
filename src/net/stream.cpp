#include "net/stream.hpp"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <boost/asio/basic_socket_acceptor.hpp>
#include <boost/asio/error.hpp>
#include <boost/asio/ip/basic_resolver.hpp>
#include <charconv>

#include "base/log.hpp"
#include "net/socket_stream.hpp"

namespace aiv::net {
namespace asio = boost::asio;
using boost::system::error_code;
using detail::asio_wait;
using detail::io_failure;
using detail::shake_hands;
using detail::SocketOf;
using detail::SocketStream;
using detail::Tcp;
using detail::Unix;

namespace detail {

Error io_failure(const error_code& error, std::string where) {
  ErrorCode code = ErrorCode::kUnavailable;
  if (error == asio::error::operation_aborted) code = ErrorCode::kCancelled;
  return {code, error.message(), std::move(where)};
}

}  // namespace detail

namespace {

constexpr std::size_t kHandshakeLimit = 256;

std::string name_of(const SocketOf<Tcp>& socket) {
  error_code error;
  const auto endpoint = socket.remote_endpoint(error);
  return error ? "tcp" : fmt::format("{}:{}", endpoint.address().to_string(), endpoint.port());
}

void tune(SocketOf<Tcp>& socket, Clock::duration silence_max) {
  error_code ignored;
  socket.set_option(Tcp::no_delay(true), ignored);
  const auto user_timeout_ms =
      static_cast<unsigned int>(std::chrono::duration_cast<milliseconds>(silence_max).count());
  ::setsockopt(socket.native_handle(), IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms);
}

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

// Connects to the first endpoint that answers, within `timeout` for all of them.
template <class Protocol>
Task<Result<>> connect_any(SocketOf<Protocol>& socket, std::vector<typename Protocol::endpoint> endpoints,
                           Clock::duration timeout, std::string where) {
  const detail::TimeLimit limit(socket.get_executor(), timeout, [&socket] {
    error_code ignored;
    socket.close(ignored);
  });
  error_code error = asio::error::host_not_found;
  for (const auto& endpoint : endpoints) {
    error_code ignored;
    socket.close(ignored);
    auto connecting = [&](auto handler) { socket.async_connect(endpoint, std::move(handler)); };
    error = co_await asio_wait(connecting);
    if (limit.passed()) co_return fail(ErrorCode::kTimeout, "no answer in time", where);
    if (!error) co_return Result<>{};
  }
  co_return std::unexpected(io_failure(error, where));
}

}  // namespace

Task<Result<StreamPtr>> dial(std::string address, TlsContextPtr tls, Clock::duration timeout) {
  const Result<Address> parsed = parse_address(address);
  if (!parsed) co_return std::unexpected(parsed.error());
  const Executor executor = co_await this_executor();
  if (parsed->unix_socket) {
    SocketOf<Unix> socket(executor);
    std::vector<Unix::endpoint> endpoints;
    endpoints.emplace_back(parsed->path);
    const Result<> done = co_await connect_any<Unix>(socket, std::move(endpoints), timeout, address);
    if (!done) co_return std::unexpected(done.error());
    co_return std::make_unique<SocketStream>(std::move(socket), "unix");
  }
  asio::ip::basic_resolver<Tcp, Executor> resolver(executor);
  std::vector<Tcp::endpoint> endpoints;
  auto resolving = [&](auto handler) {
    resolver.async_resolve(parsed->host, parsed->port, [&endpoints, handler](const error_code& error, const auto& found) {
      for (const auto& entry : found) endpoints.push_back(entry.endpoint());
      handler(error);
    });
  };
  const error_code error = co_await asio_wait(resolving);
  if (error) co_return fail(ErrorCode::kUnavailable, "the host is not known: " + error.message(), address);
  SocketOf<Tcp> socket(executor);
  const Result<> done = co_await connect_any<Tcp>(socket, std::move(endpoints), timeout, address);
  if (!done) co_return std::unexpected(done.error());
  tune(socket, kPeerSilenceMax);
  std::string peer = name_of(socket);
  if (tls) co_return co_await shake_hands(std::move(socket), std::move(tls), std::move(peer), false);
  co_return std::make_unique<SocketStream>(std::move(socket), std::move(peer));
}

namespace {

template <class Protocol>
class ListenerOf final : public Listener {
 public:
  struct Shared {
    Shared(Executor executor, TlsContextPtr context, AcceptHandler on_accept)
        : acceptor(executor), tls(std::move(context)), handler(std::move(on_accept)) {}
    asio::basic_socket_acceptor<Protocol, Executor> acceptor;
    TlsContextPtr tls;
    AcceptHandler handler;
    std::size_t handshakes = 0;
    Clock::duration silence_max = kPeerSilenceMax;
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
    const Executor executor = co_await this_executor();
    while (shared->acceptor.is_open()) {
      SocketOf<Protocol> socket(executor);
      auto accepting = [&](auto handler) { shared->acceptor.async_accept(socket, std::move(handler)); };
      const error_code error = co_await asio_wait(accepting);
      if (error == asio::error::operation_aborted || error == asio::error::bad_descriptor) co_return;
      if (error) {
        // Out of descriptors, usually: taking a breath lets others close.
        log_warn("accept.failed", {{"reason", error.message()}});
        co_await sleep_for(milliseconds(50));
        continue;
      }
      if constexpr (std::is_same_v<Protocol, Tcp>) {
        tune(socket, shared->silence_max);
        if (shared->tls) {
          if (shared->handshakes >= kHandshakeLimit) continue;
          ++shared->handshakes;
          spawn(executor, handshake(shared, std::move(socket)), "handshake");
          continue;
        }
        const std::string peer = name_of(socket);
        shared->handler(std::make_unique<SocketStream>(std::move(socket), peer));
      } else {
        shared->handler(std::make_unique<SocketStream>(std::move(socket), "unix"));
      }
    }
  }
  static Task<> handshake(std::shared_ptr<Shared> shared, SocketOf<Tcp> socket) {
    const std::string peer = name_of(socket);
    Result<StreamPtr> stream = co_await shake_hands(std::move(socket), shared->tls, peer, true);
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
                                                 AcceptHandler handler, Clock::duration silence_max) {
  const Result<Address> parsed = parse_address(address);
  if (!parsed) return std::unexpected(parsed.error());
  if (parsed->unix_socket) return listen_unix(executor, parsed->path, std::move(handler));
  auto shared = std::make_shared<ListenerOf<Tcp>::Shared>(executor, std::move(tls), std::move(handler));
  shared->silence_max = silence_max;
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
