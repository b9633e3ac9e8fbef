#include "gateway/gateway.hpp"

#include <csignal>
#include <cstdio>
#include <memory>
#include <utility>

#include "base/exit_code.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "gateway/internal_api.hpp"
#include "gateway/public_api.hpp"
#include "gateway/server.hpp"
#include "net/task_scope.hpp"

namespace aiv::gateway {
namespace {

int start_failed(const Error& error) {
  std::fprintf(stderr, "aiv: %s\n", error.message().c_str());
  return static_cast<int>(exit_code_of(error.code));
}

// Whether only this machine can reach "tcp:HOST:PORT" or "unix:PATH".
bool is_loopback(std::string_view address) {
  return address.starts_with("unix:") || address.starts_with("tcp:127.") || address.starts_with("tcp:[::1]:") ||
         address.starts_with("tcp:localhost:");
}

}  // namespace

GatewayServer::GatewayServer(net::Executor executor, GatewayOptions options)
    : state_(executor, std::move(options)), public_api_(state_), internal_api_(state_), join_door_(executor, state_.controller) {}

GatewayServer::~GatewayServer() = default;

Result<> GatewayServer::prepare() {
  const GatewayOptions& o = state_.options;
  if (!o.auth && !o.open_without_auth && !is_loopback(o.public_address)) {
    return fail(ErrorCode::kRefused, "without authentication only a loopback address may be served; "
                "use 127.0.0.1, turn authentication on, or say --i-know-this-is-open", o.public_address);
  }
  auto cors = Cors::make(o.cors_origins, o.auth);
  if (!cors) return std::unexpected(cors.error());
  state_.cors = std::move(*cors);
  const std::string& dir = state_.options.data_dir;
  for (const char* part : {"", "/run", "/gateway", "/logs"}) {
    if (auto made = make_directories(dir + part); !made) return made;
  }
  if (auto loaded = state_.routes.load(); !loaded) {
    // The controller sends the table anew; until then nothing is routed.
    log_error("routes.damaged", {{"reason", loaded.error().message()}});
  }
  state_.dispatcher.apply(state_.routes.current()->table());
  const QuotaTime now = quota_now();
  if (auto loaded = state_.usage.load(now.unix_ms); !loaded) {
    log_error("usage.damaged", {{"reason", loaded.error().message()}});
  }
  for (const auto& [row, count] : state_.usage.today()) {
    const RouteKey* key = state_.routes.current()->find_key(row.key_id);
    const std::string team = row.team ? *row.team : key != nullptr ? key->team : std::string();
    state_.quotas.restore(row.key_id, team, count.prompt_tokens + count.generated_tokens, now);
  }
  state_.links.deny(state_.routes.current()->table().denied_nodes);
  return state_.access_log.open();
}

Result<net::TlsContextPtr> GatewayServer::link_tls() const {
  const GatewayOptions& o = state_.options;
  auto made = net::TlsContext::make(true, o.link_cert_file, o.link_key_file, o.link_ca_file, true, "aiv-node/1");
  if (!made) return made;
  if (auto open = (*made)->accept_without_certificate(kJoinProtocol, o.link_ca_file); !open) {
    return std::unexpected(open.error());
  }
  return made;
}

Result<> GatewayServer::listen() {
  const GatewayOptions& o = state_.options;
  net::TlsContextPtr public_tls;
  if (!o.public_cert_file.empty()) {
    auto made = net::TlsContext::make(true, o.public_cert_file, o.public_key_file, "", false, "h2,http/1.1");
    if (!made) return std::unexpected(made.error());
    public_tls = std::move(*made);
  }
  auto tls = link_tls();
  if (!tls) return std::unexpected(tls.error());
  auto link = net::Listener::open(state_.executor, o.link_address, std::move(*tls),
                                  [this](net::StreamPtr stream) { accept_link(std::move(stream)); });
  if (!link) return std::unexpected(link.error());
  link_listener_ = std::move(*link);
  return listen_rest(std::move(public_tls));
}

Result<> GatewayServer::listen_rest(net::TlsContextPtr public_tls) {
  const GatewayOptions& o = state_.options;
  auto internal = net::Listener::open(state_.executor, "unix:" + o.data_dir + "/run/gateway.sock", nullptr,
                                      [this](net::StreamPtr stream) { accept_internal(std::move(stream)); });
  if (!internal) return std::unexpected(internal.error());
  internal_listener_ = std::move(*internal);
  net::HttpLimits limits;
  limits.connections_per_address_max = o.connections_per_address;
  auto opened = net::HttpServer::open(
      state_.executor, o.public_address, std::move(public_tls),
      [this](net::ExchangePtr exchange) { return public_api_.handle(std::move(exchange)); }, limits);
  if (!opened) return std::unexpected(opened.error());
  public_server_ = std::move(*opened);
  state_.connections = [this] { return public_server_->connections(); };
  net::spawn(state_.executor, state_.dispatcher.run(), "dispatcher");
  net::spawn(state_.executor, state_.access_log.run(), "access_log");
  net::spawn(state_.executor, state_.usage.run(), "usage");
  return {};
}

Result<> GatewayServer::start() {
  if (auto ready = prepare(); !ready) return ready;
  if (auto listening = listen(); !listening) return listening;
  const int link_port = link_listener_ ? link_listener_->port() : 0;
  const Json ports{{"public", public_server_->port()}, {"link", link_port}};
  const std::string file = state_.options.data_dir + "/run/gateway.ports";
  if (auto written = write_file_durably(file, dump_json(ports) + "\n"); !written) return written;
  log_info("gateway.listening", {{"public", public_server_->port()}, {"link", link_port}});
  if (state_.options.on_listening) state_.options.on_listening(public_server_->port(), link_port);
  return {};
}

void GatewayServer::accept_link(net::StreamPtr stream) {
  if (stream->protocol() == kJoinProtocol) {
    net::spawn(state_.executor, join_door_.serve(std::move(stream)), "join");
    return;
  }
  net::spawn(state_.executor, state_.links.serve(std::move(stream)), "link");
}

net::Task<> GatewayServer::serve_internal(net::H2Ptr connection) {
  const Error ended = co_await connection->run();
  log_debug("internal.closed", {{"reason", ended.reason}});
}

void GatewayServer::accept_internal(net::StreamPtr stream) {
  const net::H2Ptr connection = net::H2Connection::server(
      std::move(stream), [this](net::ExchangePtr exchange) { return internal_api_.handle(std::move(exchange)); });
  net::spawn(state_.executor, serve_internal(connection), "internal");
}

net::Task<> GatewayServer::drain(net::Clock::duration grace) {
  if (state_.draining) co_return;
  state_.draining = true;
  log_info("gateway.draining", {{"running", state_.dispatcher.requests_running()}});
  public_server_->drain();
  const auto deadline = net::Clock::now() + grace;
  while (state_.dispatcher.requests_running() > 0 && net::Clock::now() < deadline) {
    co_await net::sleep_for(net::milliseconds(20));
  }
  // What is still streaming loses its upstream here and ends with an error event.
  state_.links.close_all("the gateway ends");
  co_await net::sleep_for(net::milliseconds(50));
  state_.controller.close();
  state_.access_log.flush();
  if (auto written = state_.usage.flush(); !written) log_warn("usage.not_written", {{"reason", written.error().message()}});
}

int run_gateway(GatewayOptions options) {
  log_init("gateway");
  boost::asio::io_context context(1);
  GatewayServer server(context.get_executor(), std::move(options));
  const net::TaskScope tasks(context);
  if (auto started = server.start(); !started) return start_failed(started.error());
  int signals = 0;
  struct Ending {
    static net::Task<> run(GatewayServer* gateway, boost::asio::io_context* loop) {
      co_await gateway->drain(net::seconds(30));
      loop->stop();
    }
  };
  net::watch_signals(context, [&](int signo) {
    if (signo == SIGHUP) return;
    if (++signals > 1) return context.stop();
    net::spawn(context.get_executor(), Ending::run(&server, &context), "gateway.drain");
  });
  context.run();
  log_info("gateway.stopped", {});
  return 0;
}

}  // namespace aiv::gateway
