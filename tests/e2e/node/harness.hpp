// A gateway's end of the node link, and an agent process on the other one.
#pragma once
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "base/json.hpp"
#include "net/h2.hpp"
#include "net/http.hpp"
#include "net/process.hpp"
#include "net/stream.hpp"
#include "node/agent.hpp"
#include "wire/documents.hpp"

namespace aiv::node::test {

// Runs this executable as agent, shim or probe if argv asks for it.
std::optional<int> maybe_child(int argc, char** argv);

struct Answer {
  int status = 0;  // 0: refused or broken, see `error`
  net::Headers headers;
  std::string body;
  net::Headers trailers;
  std::optional<Error> error;
  [[nodiscard]] std::string end() const { return net::header_or(trailers, "aiv-end", "(none)"); }
};

class NodeTest : public testing::Test {
 protected:
  NodeTest();
  ~NodeTest() override;

  // Whatever the test awaits, run to its end; fails the test after `limit`.
  template <class T>
  T wait(net::Task<T> task, net::Clock::duration limit = net::seconds(60)) {
    auto result = std::make_shared<std::optional<T>>();
    struct Keep {
      static net::Task<> run(net::Task<T> inner, std::shared_ptr<std::optional<T>> out) {
        *out = co_await std::move(inner);
      }
    };
    net::spawn(context_.get_executor(), Keep::run(std::move(task), result), "test");
    run_until([result] { return result->has_value(); }, limit);
    if (!result->has_value()) throw std::runtime_error("the test's step did not end in time");
    return std::move(**result);
  }
  bool run_until(const std::function<bool()>& condition, net::Clock::duration limit);

  // The agent under test; `options` are completed with addresses, certificates and the shim.
  void start_agent(AgentOptions options);
  void kill_agent(int signo = SIGKILL);
  int agent_exit();  // waits for it
  void await_link();

  Answer request(std::string method, std::string path, std::string body = {}, net::Headers headers = {});
  net::ClientExchangePtr open(std::string method, std::string path, std::string body);
  Answer finish(net::ClientExchangePtr exchange);
  Answer desire(std::vector<ReplicaSpec> replicas);
  NodeObserved observed();
  ReplicaStatus replica(const std::string& id);
  // Until it has that state; its status then, or the last one seen after `limit` (with a failure).
  ReplicaStatus await_state(const std::string& id, ReplicaState state,
                            net::Clock::duration limit = net::seconds(60));
  bool await_gone(const std::string& id, net::Clock::duration limit = net::seconds(30));
  // Until the device tells that many free bytes.
  bool await_free(std::size_t device, Bytes bytes, net::Clock::duration limit = net::seconds(10));
  static bool alive(std::int64_t pid);
  bool await_dead(std::int64_t pid, net::Clock::duration limit);

  // Serves the door of joining: what an agent without a valid certificate dials.
  net::Handler door_;
  std::int64_t certificate_s_ = 30 * 86'400;  // life of the agent's certificate, from now; below 0: lapsed so long ago

  boost::asio::io_context context_{1};
  std::string dir_;
  std::string data_dir_;
  std::unique_ptr<net::Listener> listener_;
  net::H2Ptr link_;
  net::ProcessPtr agent_;
  Version version_{1, 0};
};

}  // namespace aiv::node::test
