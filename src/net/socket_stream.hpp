// A TCP or Unix socket as a ByteStream. For the sources of net only.
#pragma once
#include <sys/socket.h>

#include <boost/asio/basic_stream_socket.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <cerrno>
#include <span>

#include "net/asio_wait.hpp"
#include "net/stream.hpp"

namespace aiv::net::detail {

namespace asio = boost::asio;
using boost::system::error_code;
using Tcp = asio::ip::tcp;
using Unix = asio::local::stream_protocol;
template <class Protocol>
using SocketOf = asio::basic_stream_socket<Protocol, Executor>;

inline constexpr std::size_t kReadMax = 256 * 1024;

// All connections of a thread read into one buffer, so that an idle one has none.
std::span<char> thread_buffer();
Error io_failure(const error_code& error, std::string where = {});
inline error_code last_error() { return {errno, boost::system::system_category()}; }

enum class Moved { kSome, kNothingNow, kEnd, kFailed };
// One recv() into the thread's buffer; `bytes` is what came.
Moved receive_some(int fd, std::span<const char>& bytes);
// Sends from the front of `bytes`, and removes what has gone.
Moved send_some(int fd, std::string_view& bytes);

template <class Protocol>
void shut(SocketOf<Protocol>& socket) {
  error_code ignored;
  // What was sent must still arrive where the peer's bytes were not read to their end.
  if constexpr (std::is_same_v<Protocol, Tcp>) socket.shutdown(asio::socket_base::shutdown_both, ignored);
  socket.close(ignored);
}

template <class Protocol>
class SocketStream final : public ByteStream {
 public:
  SocketStream(SocketOf<Protocol> socket, std::string peer) : socket_(std::move(socket)), peer_(std::move(peer)) {
    error_code ignored;
    socket_.non_blocking(true, ignored);
  }
  ~SocketStream() override { shut<Protocol>(socket_); }

  Task<Result<bool>> read_more(std::string& out) override {
    auto readable = [this](auto handler) { socket_.async_wait(SocketOf<Protocol>::wait_read, std::move(handler)); };
    for (;;) {
      // Readiness first, then one read: to read ahead of it would be in vain every other time.
      const error_code error = co_await asio_wait(readable);
      if (error) co_return std::unexpected(io_failure(error, peer_));
      std::span<const char> bytes;
      switch (receive_some(socket_.native_handle(), bytes)) {
        case Moved::kSome: out.append(bytes.data(), bytes.size()); co_return true;
        case Moved::kEnd: co_return false;
        case Moved::kFailed: co_return std::unexpected(io_failure(last_error(), peer_));
        case Moved::kNothingNow: break;
      }
    }
  }
  Task<Result<>> write_all(std::string_view bytes) override {
    auto writable = [this](auto handler) { socket_.async_wait(SocketOf<Protocol>::wait_write, std::move(handler)); };
    while (!bytes.empty()) {
      const Moved moved = send_some(socket_.native_handle(), bytes);
      if (moved == Moved::kFailed) co_return std::unexpected(io_failure(last_error(), peer_));
      if (moved != Moved::kNothingNow) continue;
      const error_code error = co_await asio_wait(writable);
      if (error) co_return std::unexpected(io_failure(error, peer_));
    }
    co_return Result<>{};
  }
  Task<> end_output() override {
    error_code ignored;
    socket_.shutdown(asio::socket_base::shutdown_send, ignored);
    co_return;
  }
  void close() override { shut<Protocol>(socket_); }
  [[nodiscard]] std::string peer() const override { return peer_; }
  [[nodiscard]] std::vector<std::string> peer_identities() const override { return {}; }

 private:
  SocketOf<Protocol> socket_;
  std::string peer_;
};

// The handshake, at most 10 s; then the stream. kUnauthorized when the peer, or we, refused.
Task<Result<StreamPtr>> shake_hands(SocketOf<Tcp> socket, TlsContextPtr tls, std::string peer, bool as_server);

}  // namespace aiv::net::detail
