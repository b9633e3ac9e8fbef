// `aiv dev`: a whole cluster on this machine, all real processes on loopback. One server, one agent per node, each
// with GPUs of its own.
//
// Files: DIR/dev.json (this cluster), DIR/run/dev.sock (fault verbs), DIR/logs/, DIR/nodes/ID/ (an agent's data).
#pragma once
#include <map>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "cli/api_client.hpp"
#include "net/http_server.hpp"
#include "net/process.hpp"
#include "net/task_scope.hpp"

namespace aiv::cli {

struct DevSettings {
  std::string data;
  std::vector<std::string> nodes;  // each node's GPUs as --gpus wants them; "" = the machine's real GPUs
  std::string engine = "llama";
  std::string engine_dir;
  int port = 8080;
  bool no_auth = false;
  bool no_models = false;
};

class DevCluster {
 public:
  explicit DevCluster(DevSettings settings);
  // Until SIGTERM or SIGINT; leaves no process behind. Returns the exit code.
  int run();

 private:
  struct Node {
    std::string id;
    std::string gpus;
    net::ProcessPtr process;
  };

  net::Task<> start();
  net::Task<Result<>> bring_up();
  net::Task<Result<>> start_server();
  Result<> start_node(Node& node);
  net::Task<Result<>> wait_for_nodes();
  net::Task<Result<>> deploy_models();
  net::Task<Result<>> deploy(Json request);
  net::Task<> stop();
  net::Task<> watch_server(net::ProcessPtr process);
  net::Task<Result<Json>> api(std::string method, std::string path, Json body);

  // Fault verbs, by the socket.
  net::Task<> serve_fault(net::ExchangePtr exchange);
  net::Task<Result<>> apply_fault(std::string action, std::string target);
  net::Task<Result<>> fault_on_node(std::string action, Node* node);
  net::Task<Result<>> fault_on_server(std::string action, std::string target);
  net::Task<Result<>> fault_on_engine(std::string action, std::string replica);
  [[nodiscard]] std::string node_dir(const std::string& id) const { return settings_.data + "/nodes/" + id; }
  void sweep_leftovers() const;
  void write_record() const;

  DevSettings settings_;
  boost::asio::io_context context_{1};
  std::vector<Node> nodes_;
  net::ProcessPtr server_;
  std::unique_ptr<net::HttpServer> faults_;
  int public_port_ = 0;
  int link_port_ = 0;
  bool stopping_ = false;
  bool server_killed_on_purpose_ = false;
  int exit_code_ = 0;
  net::TaskScope tasks_{context_};
};

}  // namespace aiv::cli
