// A gateway with in-process agents whose engines do what a script says: everything real but the node and the model.
#pragma once
#include <boost/asio/io_context.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/json.hpp"
#include "gateway/server.hpp"
#include "net/http1.hpp"

namespace aiv::gateway::test {

struct Script {
  int tokens = 3;
  int token_ms = 0;
  int first_ms = 0;
  int status = 200;       // another: an engine's error body with it
  std::string error_type = "server_error";
  int refusals = 0;       // so many requests are refused first
  int die_at = -1;        // the stream is reset before token N
  int stall_at = -1;      // nothing comes from token N on, until the gateway cancels
  int eof_at = -1;        // END_STREAM without [DONE] and trailer before token N
  int exit_at = -1;       // the trailer says engine-exit before token N
  int error_at = -1;      // an error event instead of token N
  std::string model = "m";
  std::string trailer = "complete";
  bool tool = false;            // the answer is a call of a tool
  int tool_from = -1;           // it becomes one at token N
  std::string template_adds;    // what its template puts before a begun answer
  bool reasoning = false;       // the first token is reasoning
  bool adds_blanks = false;     // the tokenizer puts a blank before each fragment
  int helper_status = 200;      // of /apply-template and /tokenize
  bool crlf_piecemeal = false;  // events leave in pieces of three bytes
};

class Agent {
 public:
  Agent(net::Executor executor, std::string node) : executor_(executor), node_(std::move(node)) {}
  net::Task<> handle(net::ExchangePtr exchange);

  Script script;
  std::vector<std::string> bodies;  // of the requests, in order
  std::vector<std::string> paths;
  std::vector<std::string> traces;  // their traceparent
  int cancelled = 0;
  int active = 0;
  int active_max = 0;

  net::H2Ptr connection;
  net::H2Limits limits;  // of its link

 private:
  net::Task<> answer(net::ExchangePtr exchange);
  net::Task<> stream(net::ExchangePtr exchange);
  net::Task<> help(net::ExchangePtr exchange, std::string path);
  [[nodiscard]] std::string event(int n, bool native, int start) const;
  net::Task<> wait_cancelled(net::ExchangePtr exchange);
  net::Executor executor_;
  std::string node_;
};

struct Answer {
  int status = 0;
  net::Headers headers;
  std::string body;
  bool complete = false;  // the body had its proper end
  [[nodiscard]] Json json() const { return parse_json(body).value_or(Json()); }
  [[nodiscard]] std::string header(std::string_view name) const { return net::header_or(headers, name, ""); }
};

class Cluster {
 public:
  explicit Cluster(GatewayOptions options = {});
  ~Cluster();
  Cluster(const Cluster&) = delete;
  Cluster& operator=(const Cluster&) = delete;

  Agent& add_agent(const std::string& node, net::H2Limits limits = {});
  // A table with model "m", one replica "NODE-r" with `slots` slots on each agent added so far.
  void publish(int slots = 4);
  RouteTable table(int slots) const;
  void apply(RouteTable table);

  Answer request(const std::string& method, const std::string& path, const std::string& body = {}, net::Headers headers = {});
  Answer chat(const std::string& fields = {}, net::Headers headers = {});
  // Starts a request and leaves it when `when` first says so; true if that happened within the limit.
  bool chat_and_leave(const std::string& fields, std::function<bool()> when);
  // Starts a request; its answer has status 0 until it has ended.
  std::shared_ptr<const Answer> chat_later(const std::string& fields, net::Headers headers = {});
  // Runs the loop until `done` or 10 s have passed; whether it came true.
  bool run_until(const std::function<bool()>& done);

  [[nodiscard]] GatewayState& state() { return server_->state(); }
  [[nodiscard]] GatewayServer& server() { return *server_; }
  [[nodiscard]] net::Executor executor() { return loop_.get_executor(); }
  [[nodiscard]] const std::string& directory() const { return directory_; }

 private:
  std::string directory_;
  boost::asio::io_context loop_;
  std::unique_ptr<GatewayServer> server_;
  std::vector<std::unique_ptr<Agent>> agents_;
  std::vector<std::string> nodes_;
  std::vector<std::unique_ptr<net::Listener>> listeners_;
  std::int64_t rev_ = 0;
};

std::string chat_body(const std::string& fields);

}  // namespace aiv::gateway::test
