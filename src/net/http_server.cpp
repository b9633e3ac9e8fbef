#include "net/http_server.hpp"

#include <map>

#include "base/log.hpp"
#include "net/served_connection.hpp"

namespace aiv::net {
namespace {

using detail::ServedConnection;
using detail::ServedPtr;
using detail::ServerTerms;

constexpr auto kSweepPeriod = seconds(1);
constexpr std::string_view kTooMany =
    "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\ncontent-length: "
    "153\r\nretry-after: 1\r\n"
    "connection: close\r\n\r\n"
    R"({"error":{"message":"Too many connections from this address; use those that are open, or close some.",)"
    R"("type":"service_unavailable","code":"connections"}})";

struct ServerState {
  std::shared_ptr<ServerTerms> terms = std::make_shared<ServerTerms>();
  std::map<ServedConnection*, std::weak_ptr<ServedConnection>> connections;
  std::map<std::string, std::size_t> per_address;
};
using StatePtr = std::shared_ptr<ServerState>;

// "127.0.0.1" of "127.0.0.1:40312".
std::string host_of(const std::string& peer) {
  return peer.substr(0, peer.rfind(':'));
}

class Server final : public HttpServer {
 public:
  Server(StatePtr state, std::unique_ptr<Listener> listener)
      : state_(std::move(state)), listener_(std::move(listener)) {}
  ~Server() override {
    listener_->close();
    state_->terms->draining = true;
    const auto connections = state_->connections;
    for (const auto& [key, weak] : connections) {
      if (const ServedPtr connection = weak.lock()) connection->kill();
    }
  }
  [[nodiscard]] int port() const override { return listener_->port(); }
  void drain() override {
    state_->terms->draining = true;
    listener_->close();
  }
  [[nodiscard]] std::size_t connections() const override { return state_->connections.size(); }

  static void accept(const StatePtr& state, Executor executor, StreamPtr stream) {
    const HttpLimits& limits = state->terms->limits;
    std::string address = host_of(stream->peer());
    const auto mine = state->per_address.find(address);
    const std::size_t open = mine == state->per_address.end() ? 0 : mine->second;
    if (state->connections.size() >= limits.connections_max || open >= limits.connections_per_address_max) {
      return spawn(executor, turn_away(std::move(stream)), "http.turn_away");
    }
    spawn(executor, serve(state, std::move(address), std::move(stream)), "http.connection");
  }

  static Task<> sweep_loop(std::weak_ptr<ServerState> weak) {
    for (;;) {
      co_await sleep_for(kSweepPeriod);
      const auto state = weak.lock();
      if (!state) co_return;
      const auto connections = state->connections;
      for (const auto& [key, item] : connections) {
        if (const ServedPtr connection = item.lock()) connection->sweep(Clock::now());
      }
    }
  }

 private:
  static Task<> serve(StatePtr state, std::string address, StreamPtr stream) {
    const bool h2 = stream->protocol() == "h2";
    const ServedPtr connection = h2 ? detail::serve_h2(std::move(stream), state->terms)
                                    : detail::serve_http1(std::move(stream), state->terms);
    state->connections[connection.get()] = connection;
    state->per_address[address] += 1;
    co_await connection->serve();
    state->connections.erase(connection.get());
    const auto mine = state->per_address.find(address);
    if (--mine->second == 0) state->per_address.erase(mine);
  }

  // A word why, for whoever looks; whether it arrives does not matter.
  static Task<> turn_away(StreamPtr stream) {
    if (stream->protocol() == "h2") co_return;
    const Result<> sent = co_await stream->write_all(kTooMany);
    if (sent) co_await stream->end_output();
  }

  StatePtr state_;
  std::unique_ptr<Listener> listener_;
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::open(Executor executor, const std::string& address,
                                                     TlsContextPtr tls, Handler handler, HttpLimits limits) {
  auto state = std::make_shared<ServerState>();
  state->terms->limits = limits;
  state->terms->handler = std::move(handler);
  auto accept = [state, executor](StreamPtr stream) { Server::accept(state, executor, std::move(stream)); };
  auto listener =
      Listener::open(executor, address, std::move(tls), std::move(accept), limits.write_stall_max);
  if (!listener) return std::unexpected(listener.error());
  spawn(executor, Server::sweep_loop(state), "http.sweep");
  return std::make_unique<Server>(state, std::move(*listener));
}

}  // namespace aiv::net
