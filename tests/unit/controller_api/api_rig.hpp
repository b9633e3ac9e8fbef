// The API over an in-memory state, called through an exchange that keeps what it is given.
#pragma once
#include <gtest/gtest.h>

#include "base/units.hpp"
#include "controller/api.hpp"
#include "controller/store_memory.hpp"

namespace aiv::test {

class FakeExchange : public net::ServerExchange {
 public:
  FakeExchange(net::RequestHead head, std::string body) : head_(std::move(head)), body_(std::move(body)) {}
  [[nodiscard]] const net::RequestHead& request() const override { return head_; }
  [[nodiscard]] std::string peer() const override { return "test"; }
  net::Task<Result<bool>> read_some(std::string& out) override {
    const bool more = !body_.empty();
    out += std::exchange(body_, "");
    co_return more;
  }
  net::Task<Result<>> start(net::ResponseHead head) override {
    answer = std::move(head);
    co_return Result<>{};
  }
  net::Task<Result<>> write(std::string_view bytes) override {
    text += bytes;
    co_return Result<>{};
  }
  net::Task<Result<>> finish(net::Headers) override {
    finished = true;
    co_return Result<>{};
  }
  void abort() override {}
  [[nodiscard]] bool gone() const override { return left; }
  void on_gone(std::function<void()> callback) override { gone_ = std::move(callback); }
  void forget_request_headers() override { head_.headers.clear(); }
  void leave() {
    left = true;
    if (gone_) gone_();
  }

  net::ResponseHead answer;
  std::string text;
  bool finished = false;
  bool left = false;

 private:
  net::RequestHead head_;
  std::string body_;
  std::function<void()> gone_;
};

struct Answer {
  int status = 0;
  Json body;
  [[nodiscard]] std::string message() const { return body.at("error").at("message"); }
  [[nodiscard]] std::string code() const { return body.at("error").at("code"); }
};

class Rig {
 public:
  Rig() {
    auto store = std::make_unique<controller::MemoryStore>();
    memory = store.get();
    cluster = std::make_unique<controller::Cluster>(context.get_executor(), std::move(store), controller::ClusterOptions{});
    api_context = std::make_unique<controller::ApiContext>(controller::ApiContext{*cluster, context.get_executor(), {}, false});
    api = std::make_unique<controller::Api>(*api_context);
    net::spawn(context.get_executor(), load(), "load");
    run_until([this] { return loaded; });
    net::spawn(context.get_executor(), cluster->run(), "applier");
  }
  ~Rig() {
    cluster->stop();
    context.restart();
    context.run_for(std::chrono::milliseconds(50));
  }

  template <class Condition>
  void run_until(Condition condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (!condition() && std::chrono::steady_clock::now() < deadline) {
      context.restart();
      context.run_one_for(std::chrono::milliseconds(20));
    }
    ASSERT_TRUE(condition());
  }

  Answer call(const std::string& method, const std::string& path, const std::string& body = "",
              const std::string& role = "admin") {
    return end(begin(method, path, body, role));
  }
  // A request that runs until it waits for something; several may be begun before one ends.
  std::shared_ptr<FakeExchange> begin(const std::string& method, const std::string& path,
                                      const std::string& body = "", const std::string& role = "admin") {
    net::RequestHead head{method, path.substr(0, path.find('?')), "", {}};
    if (path.contains('?')) head.query = path.substr(path.find('?') + 1);
    if (!role.empty()) head.headers.push_back({"x-aiv-role", role});
    head.headers.push_back({"x-aiv-actor", "key/tester"});
    auto exchange = std::make_shared<FakeExchange>(std::move(head), body);
    net::spawn(context.get_executor(), api->handle(exchange), "request");
    return exchange;
  }
  Answer end(const std::shared_ptr<FakeExchange>& exchange) {
    run_until([&] { return exchange->finished; });
    auto json = parse_json(exchange->text);
    return {exchange->answer.status, json ? *json : Json()};
  }

  // Straight to the state, past the API.
  void apply(controller::Cluster::Change change) {
    bool done = false;
    net::spawn(context.get_executor(), store(std::move(change), &done), "change");
    run_until([&] { return done; });
  }

  // A node with fake devices of these sizes.
  void join(const std::string& node, const std::vector<Bytes>& devices) {
    NodeObserved document;
    document.node = node;
    document.incarnation = 1;
    document.seq = 1;
    for (std::size_t i = 0; i < devices.size(); ++i) {
      Device device;
      device.id = node + "/" + std::to_string(i);
      device.backend = "fake";
      device.vram_bytes = device.free_bytes = devices[i];
      document.devices.push_back(device);
    }
    cluster->take(event::LinkUp{node});
    cluster->take(event::Observed{document});
  }

  boost::asio::io_context context{1};
  controller::MemoryStore* memory = nullptr;
  std::unique_ptr<controller::Cluster> cluster;
  std::unique_ptr<controller::ApiContext> api_context;
  std::unique_ptr<controller::Api> api;
  bool loaded = false;

 private:
  net::Task<> store(controller::Cluster::Change change, bool* done) {
    const auto stored = co_await cluster->change(std::move(change));
    EXPECT_TRUE(stored);
    *done = true;
  }
  net::Task<> load() {
    const auto result = co_await cluster->load();
    EXPECT_TRUE(result);
    loaded = true;
  }
};

}  // namespace aiv::test
