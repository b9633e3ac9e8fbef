// Puts the controller's parts together and runs them on one thread.
#include <csignal>
#include <cstdio>
#include <ctime>
#include <set>

#include "base/file.hpp"
#include "base/log.hpp"
#include "controller/api.hpp"
#include "controller/cluster.hpp"
#include "controller/controller.hpp"
#include "controller/data_lock.hpp"
#include "controller/enrolment.hpp"
#include "controller/event_file.hpp"
#include "controller/gateway_link.hpp"
#include "controller/store_sqlite.hpp"
#include "net/h2.hpp"
#include "net/task_scope.hpp"

namespace aiv::controller {

namespace {

constexpr auto kTick = net::milliseconds(250);
constexpr std::size_t kEventsRestored = 2'000;
constexpr auto kReadOnlyReminder = net::seconds(60);

// Of this machine's local time; 0 = Monday 00:00.
int week_minute() {
  const std::time_t now = std::time(nullptr);
  std::tm local{};
  if (::localtime_r(&now, &local) == nullptr) return -1;
  return ((local.tm_wday + 6) % 7) * kMinutesPerDay + local.tm_hour * 60 + local.tm_min;
}

class Server {
 public:
  Server(boost::asio::io_context& context, const ControllerOptions& options, std::unique_ptr<Store> store)
      : executor_(context.get_executor()),
        context_(context),
        options_(options),
        cluster_(executor_, std::move(store), cluster_options(options)),
        link_(executor_, cluster_, "unix:" + options.data_dir + "/run/gateway.sock"),
        enrolment_(cluster_, {options.data_dir + "/ca", options.node_certificate_s}),
        api_context_{cluster_, executor_, {}, false},
        api_(api_context_) {
    api_context_.authority_dir = options.data_dir + "/ca";
    api_context_.link_address = [this] { return link_address(); };
    link_.sign = [this](std::string node, std::string request) {
      return enrolment_.renew(std::move(node), std::move(request));
    };
    api_context_.ask_node = [this](std::string node, std::string path, std::size_t max_bytes) {
      return ask_node(std::move(node), std::move(path), max_bytes);
    };
    cluster_.on_fenced = [this](const std::string&) { stop(1); };
  }

  void start() { net::spawn(executor_, run(), "controller"); }
  [[nodiscard]] int exit_code() const { return exit_code_; }

  void stop(int code) {
    if (stopping_) return;
    stopping_ = true;
    exit_code_ = code;
    net::spawn(executor_, finish(), "controller stop");
  }

 private:
  static ClusterOptions cluster_options(const ControllerOptions& options) {
    ClusterOptions out;
    out.server_id = options.server_id;
    out.auth_required = options.auth_required;
    out.detector.replace_ms = options.replace_after_ms;
    return out;
  }

  net::Task<> run() {
    auto loaded = co_await cluster_.load();
    if (!loaded) {
      std::fprintf(stderr, "aiv: the controller cannot start: %s\n", loaded.error().message().c_str());
      stop(1);
      co_return;
    }
    co_await ensure_admin_key();
    auto opened = net::Listener::open(executor_, "unix:" + options_.data_dir + "/run/controller.sock", nullptr,
                                      [this](net::StreamPtr stream) { accept(std::move(stream)); });
    if (!opened) {
      std::fprintf(stderr, "aiv: the controller cannot listen: %s\n", opened.error().message().c_str());
      stop(1);
      co_return;
    }
    listener_ = std::move(*opened);
    net::spawn(executor_, cluster_.run(), "applier");
    net::spawn(executor_, keep_events(), "event file");
    net::spawn(executor_, link_.run(), "gateway link");
    net::spawn(executor_, tick(), "tick");
    net::spawn(executor_, cluster_.watch_store(), "store watch");
    net::spawn(executor_, remind(), "read-only reminder");
    log_info("controller.serving", {{"socket", options_.data_dir + "/run/controller.sock"}});
  }

  // The first start, or one after all admin keys were lost, makes one and leaves it where only the owner reads.
  net::Task<> ensure_admin_key() {
    const std::string path = options_.data_dir + "/admin.key";
    for (const auto& [id, record] : cluster_.keys()) {
      if (record.key.role == Role::kAdmin && !record.key.disabled && record.key.expires_at_ms == 0) co_return;
    }
    if (!cluster_.leads() || !cluster_.read_only_reason().empty()) co_return;
    RouteKey wanted;
    wanted.name = "first-admin";
    wanted.role = Role::kAdmin;
    Txn no_team;
    auto made = co_await create_key(api_context_, std::move(wanted), "controller", std::move(no_team));
    if (!made) {
      log_error("key.admin_not_created", {{"reason", made.error().message()}});
      co_return;
    }
    // The store first: a key in the file that nobody knows would be worse than the other way round.
    if (auto written = write_file_durably(path, made->text + "\n", 0600); !written) {
      log_error("key.admin_not_written", {{"file", path}, {"reason", written.error().message()}});
    }
  }

  void accept(net::StreamPtr stream) {
    auto connection = net::H2Connection::server(
        std::move(stream), [this](net::ExchangePtr exchange) {
          const bool joins = exchange->request().path == "/internal/v1/join" && exchange->request().method == "POST";
          return joins ? enrolment_.handle(std::move(exchange)) : api_.handle(std::move(exchange));
        });
    connections_.insert(connection);
    net::spawn(executor_, serve(connection), "api connection");
  }

  net::Task<> serve(net::H2Ptr connection) {
    const Error ended = co_await connection->run();
    log_debug("api.connection_ended", {{"reason", ended.message()}});
    connections_.erase(connection);
  }

  // The gateway wrote its ports; their host is told by whoever started us.
  [[nodiscard]] std::string link_address() const {
    const auto text = read_file(options_.data_dir + "/run/gateway.ports", 4096);
    const auto json = text ? parse_json(*text) : Result<Json>(std::unexpected(text.error()));
    if (!json || !json->is_object() || options_.link_host.empty()) return {};
    return options_.link_host + ":" + std::to_string(json->value("link", 0));
  }

  net::Task<> tick() {
    auto due = net::Clock::now();
    while (!stopping_) {
      cluster_.take(event::Tick{link_.gateway_heard(), week_minute()});
      // From the time that was due: a late tick shows as late, but ticks are never made up for in a burst.
      due = std::max(due + kTick, net::Clock::now());
      co_await net::sleep_until(due);
    }
  }

  // What happened goes to a file, off the loop; what cannot be written stays in memory.
  net::Task<> keep_events() {
    const std::string path = options_.data_dir + "/events.jsonl";
    auto earlier = std::make_shared<std::vector<EventEntry>>();
    std::function<void()> read = [earlier, path] { *earlier = read_event_file(path, kEventsRestored); };
    co_await net::run_blocking(read);
    EventLog& log = cluster_.events();
    log.restore(std::move(*earlier));
    EventLog::Subscription subscription(log, executor_);
    std::int64_t written = log.first_seq() - 1;
    bool failing = false;
    while (!stopping_) {
      auto batch = std::make_shared<std::vector<EventEntry>>(log.since(written, kEventsRestored));
      if (batch->empty()) {
        co_await subscription.signal().wait_until(net::Clock::now() + net::seconds(1));
        continue;
      }
      written = batch->back().seq;
      auto done = std::make_shared<Result<>>();
      std::function<void()> append = [done, batch, path] { *done = append_event_file(path, *batch); };
      co_await net::run_blocking(append);
      if (!*done && !failing) log_warn("events.not_kept", {{"reason", done->error().message()}});
      failing = !*done;
    }
  }

  net::Task<> remind() {
    while (!stopping_) {
      co_await net::sleep_for(kReadOnlyReminder);
      if (const std::string reason = cluster_.read_only_reason(); !reason.empty()) {
        log_error("state.read_only", {{"reason", reason}});
      }
    }
  }

  net::Task<Result<std::string>> ask_node(std::string node, std::string path, std::size_t max_bytes) {
    auto client = link_.client();
    if (!client) co_return fail(ErrorCode::kUnavailable, "the gateway is not connected", "node " + node);
    auto opened = co_await client->open({"GET", "/internal/v1/nodes/" + node + path, {}, {}}, "");
    if (!opened) co_return std::unexpected(opened.error());
    net::ClientExchangePtr exchange = std::move(*opened);
    const auto deadline = net::Clock::now() + net::seconds(5);
    auto head = co_await exchange->head(deadline);
    if (!head) co_return std::unexpected(head.error());
    auto body = co_await exchange->read_body(max_bytes, deadline);
    if (!body) co_return std::unexpected(body.error());
    if (head->status == 404) co_return fail(ErrorCode::kNotFound, "the node does not have it", "node " + node);
    if (head->status != 200) {
      co_return fail(ErrorCode::kUnavailable, "the node answered " + std::to_string(head->status), "node " + node);
    }
    co_return *std::move(body);
  }

  net::Task<> finish() {
    log_info("controller.stopping");
    if (listener_) listener_->close();
    api_context_.stopping = true;
    link_.stop();
    cluster_.stop();
    if (exit_code_ == 0) co_await cluster_.resign();
    for (const net::H2Ptr& connection : std::set<net::H2Ptr>(connections_)) connection->close("the controller stops");
    context_.stop();
  }

  net::Executor executor_;
  boost::asio::io_context& context_;
  ControllerOptions options_;
  Cluster cluster_;
  GatewayLink link_;
  Enrolment enrolment_;
  ApiContext api_context_;
  Api api_;
  std::unique_ptr<net::Listener> listener_;
  std::set<net::H2Ptr> connections_;
  bool stopping_ = false;
  int exit_code_ = 0;
};

}  // namespace

int run_controller(const ControllerOptions& options) {
  log_init("controller");
  for (const std::string& directory : {options.data_dir, options.data_dir + "/run"}) {
    if (auto made = make_directories(directory, 0700); !made) {
      std::fprintf(stderr, "aiv: the data directory cannot be made: %s\n", made.error().message().c_str());
      return 1;
    }
  }
  auto lock = DataLock::take(options.data_dir);
  if (!lock) {
    std::fprintf(stderr, "aiv: %s\n", lock.error().message().c_str());
    return 1;
  }
  SqliteOptions sqlite;
  sqlite.accept_older_state = options.accept_older_state;
  auto store = open_sqlite_store(options.data_dir, sqlite);
  if (!store) {
    std::fprintf(stderr, "aiv: the state cannot be opened: %s\n", store.error().message().c_str());
    return 1;
  }
  boost::asio::io_context context(1);
  Server server(context, options, *std::move(store));
  const net::TaskScope tasks(context);
  net::watch_signals(context, [&server](int signo) {
    if (signo == SIGTERM || signo == SIGINT) server.stop(0);
  });
  server.start();
  context.run();
  return server.exit_code();
}

}  // namespace aiv::controller
