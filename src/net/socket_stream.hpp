// A TCP or Unix socket as a ByteStream. For the sources of net only.
#pragma once
#include <sys/socket.h>

#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <cerrno>

#include "net/asio_wait.hpp"
#include "net/poller.hpp"
#include "net/stream.hpp"

namespace aiv::net::detail {

namespace asio = boost::asio;
using boost::system::error_code;
using Tcp = asio::ip::tcp;
using Unix = asio::local::stream_protocol;
template <class Protocol>
using SocketOf = asio::basic_stream_socket<Protocol, Executor>;

Error io_failure(const error_code& error, std::string where = {});
inline error_code last_error() {
  return {errno, boost::system::system_category()};
}

// Takes the descriptor out of `socket`.
template <class Protocol>
int release(SocketOf<Protocol>& socket) {
  error_code ignored;
  return socket.release(ignored);
}

// A TCP or Unix socket.
class SocketStream final : public ByteStream {
 public:
  template <class Protocol>
  SocketStream(SocketOf<Protocol> socket, std::string peer)
      : socket_(socket.get_executor(), release<Protocol>(socket)),
        tcp_(std::is_same_v<Protocol, Tcp>),
        peer_(std::move(peer)) {}
  ~SocketStream() override { close(); }

  Task<Result<bool>> read_more(std::string& out) override {
    for (;;) {
      std::span<const char> bytes;
      switch (socket_.receive(bytes)) {
        case Moved::kSome:
          out.append(bytes.data(), bytes.size());
          co_return true;
        case Moved::kEnd:
          co_return false;
        case Moved::kFailed:
          co_return refused();
        case Moved::kNothingNow:
          break;
      }
      co_await socket_.readable();
    }
  }
  Task<Result<>> write_all(std::string_view bytes) override {
    while (!bytes.empty()) {
      const Moved moved = socket_.send(bytes);
      if (moved == Moved::kFailed) co_return refused();
      if (moved == Moved::kNothingNow) co_await socket_.writable();
    }
    co_return Result<>{};
  }
  Task<> end_output() override {
    socket_.end_output();
    co_return;
  }
  void close() override { socket_.close(tcp_); }
  [[nodiscard]] std::string peer() const override { return peer_; }
  [[nodiscard]] std::vector<std::string> peer_identities() const override { return {}; }

 private:
  // Apart: a read waits as long as its connection lasts, and its frame would have room for all that the error is made of.
  [[nodiscard]] [[gnu::noinline]] std::unexpected<Error> refused() const {
    return std::unexpected(io_failure(last_error(), peer_));
  }
  PolledSocket socket_;
  const bool tcp_;
  std::string peer_;
};

// The handshake, at most 10 s; then the stream. kUnauthorized when the peer, or we, refused.
Task<Result<StreamPtr>> shake_hands(SocketOf<Tcp> socket, TlsContextPtr tls, std::string peer,
                                    bool as_server);

}  // namespace aiv::net::detail
