// `aiv server`: a small parent with two children of the same binary, so that a crash of the controller is not a
// crash of the gateway, nor the other way round.
#include <fmt/format.h>

#include <unistd.h>

#include <filesystem>

#include "base/file.hpp"
#include "base/log.hpp"
#include "base/units.hpp"
#include "cli/api_client.hpp"
#include "cli/api_client.hpp"
#include "cli/commands.hpp"
#include "cli/supervise.hpp"
#include "controller/controller.hpp"
#include "controller/disk_room.hpp"
#include "gateway/cors.hpp"
#include "gateway/gateway.hpp"
#include "net/http1.hpp"
#include "net/pki.hpp"
#include "net/task_scope.hpp"

namespace aiv::cli {
namespace {

constexpr auto kStartLimit = net::seconds(30);
constexpr auto kStopLimit = net::seconds(35);
constexpr auto kKeyPatience = net::seconds(5);
constexpr int kServerCertificateDays = 365;
constexpr int kNodeCertificateDays = 90;

struct ServerSettings {
  std::string data;
  std::string listen = "127.0.0.1:8080";
  std::string link_listen = "127.0.0.1:0";
  bool no_auth = false;
  bool tls = false;                    // with a certificate of the cluster's own authority
  std::vector<std::string> tls_names;  // that it is for, besides the usual ones
  std::string tls_cert;
  std::string tls_key;
  std::vector<std::string> cors_origins;
  std::size_t connections_per_address = 1024;
  std::int64_t replace_after_ms = 10'000;
  std::string link_host;
  std::string node_certificate = "7d";
};

bool is_loopback(const std::string& listen) {
  return listen.starts_with("127.") || listen.starts_with("localhost:") || listen.starts_with("[::1]:");
}

bool is_any_address(const std::string& host) {
  return host == "0.0.0.0" || host == "[::]";
}

std::string without_brackets(const std::string& host) {
  return host.starts_with('[') && host.ends_with(']') ? host.substr(1, host.size() - 2) : host;
}

std::string this_machine() {
  char name[256] = {};
  return ::gethostname(name, sizeof name - 1) == 0 ? name : "localhost";
}

struct Ports {
  int open = 0;
  int link = 0;
};

Result<Ports> read_ports(const std::string& data) {
  const auto text = read_file(data + "/run/gateway.ports", 4096);
  if (!text) return std::unexpected(text.error());
  const auto json = parse_json(*text);
  if (!json) return std::unexpected(json.error());
  JsonReader reader(*json, "gateway.ports");
  const Ports ports{static_cast<int>(reader.integer("public", 1, 65535)),
                    static_cast<int>(reader.integer("link", 1, 65535))};
  if (!reader.ok()) return std::unexpected(reader.error());
  return ports;
}

class Parent {
 public:
  explicit Parent(ServerSettings settings) : settings_(std::move(settings)) {}

  int run() {
    if (auto room = controller::make_room_to_start(settings_.data); !room) {
      return report(room.error(), "free at least 16 MiB on the disk of " + settings_.data + " and start again");
    }
    const auto prepared = prepare();
    if (!prepared && prepared.error().code == ErrorCode::kInvalidArgument)
      return report_usage(prepared.error());
    if (!prepared) return report(prepared.error());
    const auto executor = context_.get_executor();
    net::watch_signals(context_, [this](int) { on_signal(); });
    const auto settled = [this] { return ready_; };
    const auto final_exit = [this](int code) {
      exit_code_ = code;
      net::spawn(context_.get_executor(), stop(), "stop");
    };
    gateway_ = SupervisedChild::start(executor, {"gateway", gateway_arguments(settings_.listen, settings_.link_listen)},
                                      settled, final_exit);
    controller_ = SupervisedChild::start(executor, {"controller", controller_arguments()}, settled, final_exit);
    net::spawn(executor, announce(), "announce");
    context_.run();
    return exit_code_;
  }

 private:
  Result<> prepare() {
    for (const char* part : {"", "/run", "/logs", "/gateway", "/models"}) {
      const auto made = make_directories(settings_.data + part, 0700);
      if (!made) return made;
    }
    std::error_code ignored;
    std::filesystem::remove(settings_.data + "/run/gateway.ports", ignored);
    const auto authority = net::ensure_authority(settings_.data + "/ca", "aiv");
    if (!authority) return authority;
    const auto own = net::ensure_certificate(settings_.data + "/ca", "server/srv-1", settings_.data + "/ca", "server",
                                             kServerCertificateDays);
    if (!own) return std::unexpected(own.error());
    return settings_.tls ? make_web_certificate() : Result<>{};
  }

  Result<> make_web_certificate() {
    std::vector<std::string> hosts{"localhost", "127.0.0.1", "::1", this_machine()};
    const std::string listens = settings_.listen.substr(0, settings_.listen.rfind(':'));
    if (!is_any_address(listens)) hosts.push_back(without_brackets(listens));
    hosts.insert(hosts.end(), settings_.tls_names.begin(), settings_.tls_names.end());
    const auto made = net::ensure_web_certificate(settings_.data + "/ca", hosts, settings_.data + "/ca",
                                                  "https", kServerCertificateDays);
    if (!made) return std::unexpected(made.error());
    settings_.tls_cert = made->cert;
    settings_.tls_key = made->key;
    return {};
  }

  [[nodiscard]] std::vector<std::string> gateway_arguments(const std::string& listen, const std::string& link) const {
    std::vector<std::string> out{"gateway-process", "--data", settings_.data, "--listen", listen, "--link-listen", link};
    if (settings_.no_auth) out.emplace_back("--no-auth");
    if (!settings_.tls_cert.empty()) out.insert(out.end(), {"--tls-cert", settings_.tls_cert, "--tls-key", settings_.tls_key});
    for (const std::string& origin : settings_.cors_origins) out.insert(out.end(), {"--cors-origin", origin});
    out.insert(out.end(), {"--connections-per-address", std::to_string(settings_.connections_per_address)});
    return out;
  }
  [[nodiscard]] std::vector<std::string> controller_arguments() const {
    std::vector<std::string> out{"controller-process", "--data", settings_.data, "--replace-after-ms",
                                 std::to_string(settings_.replace_after_ms), "--node-certificate",
                                 settings_.node_certificate, "--link-host", link_host()};
    if (settings_.no_auth) out.emplace_back("--no-auth");
    return out;
  }

  // What other machines call this one: the address that nodes may dial, or this machine's name where that is any.
  [[nodiscard]] std::string link_host() const {
    if (!settings_.link_host.empty()) return settings_.link_host;
    const std::string host = settings_.link_listen.substr(0, settings_.link_listen.rfind(':'));
    return is_any_address(host) ? this_machine() : host;
  }

  // Ready: both ports are open, and the gateway knows the key in admin.key, so that what a caller does first is not refused.
  // Whoever has deleted that key, or starts where no key can be stored, waits for it in vain: then it is said, and served.
  net::Task<> announce() {
    const auto deadline = net::Clock::now() + kStartLimit;
    auto first_healthy = net::Clock::time_point::max();
    while (!stopping_ && net::Clock::now() < deadline) {
      co_await net::sleep_for(net::milliseconds(20));
      const auto ports = read_ports(settings_.data);
      if (!ports) continue;
      const int health = co_await ask(*ports, "/health", "");
      if (health != 200) continue;
      if (!settings_.no_auth) {
        first_healthy = std::min(first_healthy, net::Clock::now());
        const bool known = co_await admin_key_known(*ports);
        const bool patient = net::Clock::now() - first_healthy < kKeyPatience;
        if (!known && patient) continue;
        if (!known) {
          log_warn("server.admin_key_unknown",
                   {{"file", settings_.data + "/admin.key"}, {"reason", "the gateway does not know the key in it, or it is not there"}});
        }
      }
      ready_ = true;
      const std::string host = settings_.listen.substr(0, settings_.listen.rfind(':'));
      // A restarted gateway must come back where clients and nodes know it.
      gateway_->set_arguments(
          gateway_arguments(fmt::format("{}:{}", host, ports->open),
                            fmt::format("{}:{}", settings_.link_listen.substr(0, settings_.link_listen.rfind(':')),
                                        ports->link)));
      print(fmt::format("link {}\nready {}://{}:{}\n", ports->link, settings_.tls_cert.empty() ? "http" : "https", host,
                        ports->open));
      co_return;
    }
    if (stopping_) co_return;
    log_error("server.not_ready", {{"after", "30 s"}});
    exit_code_ = static_cast<int>(ExitCode::kTimeout);
    co_await stop();
  }

  net::Task<bool> admin_key_known(Ports ports) {
    const auto key = read_file(settings_.data + "/admin.key", 4096);
    if (!key) co_return false;
    const int status = co_await ask(ports, "/v1/models", key_in(*key));
    co_return status == 200;
  }

  // The status of the gateway's answer; 0 when there is none.
  net::Task<int> ask(Ports ports, std::string path, std::string key) {
    net::TlsContextPtr tls;
    if (!settings_.tls_cert.empty()) {
      auto made = net::TlsContext::make(false, "", "", "", false, "");
      if (!made) co_return 0;
      tls = *made;
    }
    const std::string address = fmt::format("tcp:127.0.0.1:{}", ports.open);
    const auto client = net::make_http1_client(address, false, net::seconds(2), tls);
    net::RequestHead head{"GET", std::move(path), "", {}};
    if (!key.empty()) head.headers.push_back({"authorization", "Bearer " + key});
    auto exchange = co_await client->open(std::move(head), "");
    if (!exchange) co_return 0;
    const auto answer = co_await (*exchange)->head(net::Clock::now() + net::seconds(2));
    co_return answer ? answer->status : 0;
  }

  void on_signal() {
    if (stopping_) {
      gateway_->kill();
      controller_->kill();
      return;
    }
    net::spawn(context_.get_executor(), stop(), "stop");
  }

  net::Task<> stop() {
    if (stopping_) co_return;
    stopping_ = true;
    // The gateway first: it ends its streams while the controller still hears the nodes.
    co_await gateway_->stop(kStopLimit);
    co_await controller_->stop(kStopLimit);
    context_.stop();
  }

  ServerSettings settings_;
  boost::asio::io_context context_{1};
  std::shared_ptr<SupervisedChild> gateway_;
  std::shared_ptr<SupervisedChild> controller_;
  bool ready_ = false;
  bool stopping_ = false;
  int exit_code_ = 0;
  net::TaskScope tasks_{context_};
};

int run_server(ServerSettings settings) {
  log_init("server");
  if (settings.no_auth && !is_loopback(settings.listen)) {
    return report_usage({ErrorCode::kRefused, "without keys only a loopback address may be served",
                         "--listen " + settings.listen},
                        "leave --no-auth out, and make keys with: aiv key create NAME");
  }
  if (settings.tls_cert.empty() != settings.tls_key.empty())
    return report_usage({ErrorCode::kInvalidArgument, "--tls-cert and --tls-key go together"});
  if (settings.tls && !settings.tls_cert.empty())
    return report_usage(
        {ErrorCode::kInvalidArgument, "--tls makes its own certificate; with --tls-cert leave it out"});
  if (!settings.tls_names.empty() && !settings.tls)
    return report_usage({ErrorCode::kInvalidArgument, "--tls-name goes with --tls"});
  if (const auto cors = gateway::Cors::make(settings.cors_origins, !settings.no_auth); !cors)
    return report_usage(cors.error());
  std::error_code ignored;
  settings.data = std::filesystem::absolute(settings.data, ignored).lexically_normal().string();
  return Parent(std::move(settings)).run();
}

int run_gateway_process(const ServerSettings& settings) {
  log_init("gateway");
  gateway::GatewayOptions options;
  options.data_dir = settings.data;
  options.public_address = "tcp:" + settings.listen;
  options.link_address = "tcp:" + settings.link_listen;
  options.link_cert_file = settings.data + "/ca/server.pem";
  options.link_key_file = settings.data + "/ca/server.key";
  options.link_ca_file = settings.data + "/ca/ca.pem";
  options.public_cert_file = settings.tls_cert;
  options.public_key_file = settings.tls_key;
  options.auth = !settings.no_auth;
  options.cors_origins = settings.cors_origins;
  options.connections_per_address = settings.connections_per_address;
  return gateway::run_gateway(std::move(options));
}

int run_controller_process(const ServerSettings& settings) {
  log_init("controller");
  controller::ControllerOptions options;
  options.data_dir = settings.data;
  options.auth_required = !settings.no_auth;
  options.replace_after_ms = settings.replace_after_ms;
  options.link_host = settings.link_host;
  const auto life = duration_option("--node-certificate", settings.node_certificate, 3000);
  if (!life) return report_usage(life.error());
  options.node_certificate_s = *life / 1000;
  return controller::run_controller(options);
}

// Makes what a node on another machine needs to join: its certificate and key, and the authority's certificate.
int issue_node(const std::string& data, const std::string& node, const std::string& out) {
  if (node.empty() || node.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.") !=
                          std::string::npos) {
    return report_usage({ErrorCode::kInvalidArgument, "a node's name has letters, digits, '-', '_' and '.'",
                         printable(node)});
  }
  std::error_code ignored;
  if (!std::filesystem::exists(data + "/ca/ca.key", ignored)) {
    return report({ErrorCode::kNotFound, "no server has been started with this data directory yet", data},
                  "aiv server --data " + data);
  }
  const auto files = net::ensure_certificate(data + "/ca", "node/" + node, out, "node", kNodeCertificateDays);
  if (!files) return report(files.error());
  const auto authority = read_file(files->ca, 64 * 1024);
  const auto copied = authority ? write_file_durably(out + "/ca.pem", *authority, 0644)
                                : Result<>(std::unexpected(authority.error()));
  if (!copied) return report(copied.error());
  print(fmt::format("Copy {} to {} (the key is secret), and run there:\n"
                    "  aiv node --id {} --server HOST:PORT --data DIR --ca ca.pem --cert node.pem --key node.key\n",
                    out, node, node));
  return 0;
}

std::string default_data() {
  const char* base = std::getenv("XDG_DATA_HOME");
  const char* home = std::getenv("HOME");
  return (base != nullptr ? std::string(base) : std::string(home != nullptr ? home : "") + "/.local/share") + "/aiv/server";
}

}  // namespace

void add_server_command(CLI::App& app, int& exit_code) {
  auto settings = std::make_shared<ServerSettings>();
  settings->data = default_data();
  CLI::App* verb = app.add_subcommand("server", "Run the gateway and the controller");
  CLI::App* gateway = app.add_subcommand("gateway-process", "")->group("");
  CLI::App* controller = app.add_subcommand("controller-process", "")->group("");
  for (CLI::App* each : {verb, gateway, controller}) {
    each->add_option("--data", settings->data, "Data directory")->capture_default_str();
    each->add_flag("--no-auth", settings->no_auth, "Ask for no key; loopback only");
  }
  for (CLI::App* each : {verb, gateway}) {
    each->add_option("--listen", settings->listen, "Address and port for clients")->capture_default_str();
    each->add_option("--link-listen", settings->link_listen, "Address and port for nodes (0: any free port)")
        ->capture_default_str();
    each->add_option("--tls-cert", settings->tls_cert, "Certificate (PEM) for https");
    each->add_option("--tls-key", settings->tls_key, "Its private key (PEM)");
    each->add_option("--cors-origin", settings->cors_origins,
                     "A web origin whose pages may use the API, such as https://chat.example.org; may be repeated; '*': any")
        ->take_all();
    each->add_option("--connections-per-address", settings->connections_per_address, "Open connections per client address")
        ->check(CLI::Range(1, 1'000'000))
        ->capture_default_str();
  }
  verb->add_flag("--tls", settings->tls,
                 "https with a certificate of the cluster's own authority (DIR/ca/ca.pem)");
  verb->add_option(
          "--tls-name", settings->tls_names,
          "A name or address that this certificate is for besides this machine's name; may be repeated")
      ->take_all();
  for (CLI::App* each : {verb, controller}) {
    each->add_option("--replace-after-ms", settings->replace_after_ms,
                     "Silence after which a node's replicas are placed elsewhere")
        ->check(CLI::Range(2500, 3'600'000))
        ->capture_default_str();
  }
  for (CLI::App* each : {verb, controller}) {
    each->add_option("--link-host", settings->link_host, "What nodes call this machine (default: its name)");
    each->add_option("--node-certificate", settings->node_certificate, "Life of a node's certificate; renewed after 2/3")
        ->capture_default_str();
  }
  verb->require_subcommand(0, 1);
  add_server_state_commands(*verb, settings->data, exit_code);
  CLI::App* issue = verb->add_subcommand("issue-node", "Make the certificate with which a node on another machine joins");
  auto node = std::make_shared<std::string>();
  auto out = std::make_shared<std::string>();
  issue->add_option("node", *node, "Name of the node")->required();
  issue->add_option("--out", *out, "Folder for ca.pem, node.pem and node.key")->required();
  issue->add_option("--data", settings->data, "Data directory of the server")->capture_default_str();
  issue->callback([settings, node, out, &exit_code] { exit_code = issue_node(settings->data, *node, *out); });
  verb->callback([settings, verb, &exit_code] {
    if (verb->get_subcommands().empty()) exit_code = run_server(*settings);
  });
  gateway->callback([settings, &exit_code] { exit_code = run_gateway_process(*settings); });
  controller->callback([settings, &exit_code] { exit_code = run_controller_process(*settings); });
}

}  // namespace aiv::cli
