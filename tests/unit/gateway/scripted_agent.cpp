#include "scripted_agent.hpp"

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>

#include "wire/documents.hpp"

namespace aiv::gateway::test {
namespace {

net::Task<> run_link(net::H2Ptr connection) {
  const Error ended = co_await connection->run();
  static_cast<void>(ended);
}

net::Task<> dial_agent(std::string address, Agent* agent) {
  auto stream = co_await net::dial(address, nullptr, net::seconds(5));
  EXPECT_TRUE(stream);
  if (!stream) co_return;
  net::Handler handler = [agent](net::ExchangePtr exchange) { return agent->handle(std::move(exchange)); };
  agent->connection = net::H2Connection::server(std::move(*stream), std::move(handler), agent->limits);
  co_await run_link(agent->connection);
}

net::Task<> send_request(std::string address, net::RequestHead head, std::string body, Answer* answer, bool* done,
                         net::ClientExchangePtr* running) {
  const auto client = net::make_http1_client(address);
  const auto deadline = net::Clock::now() + net::seconds(10);
  auto opened = co_await client->open(std::move(head), std::move(body));
  if (opened) {
    const net::ClientExchangePtr exchange = *opened;
    if (running != nullptr) *running = exchange;
    auto got = co_await exchange->head(deadline);
    if (got) {
      answer->headers = got->headers;
      while (true) {
        const Result<bool> more = co_await exchange->read_some(answer->body, deadline);
        if (more && *more) continue;
        answer->complete = more.has_value();
        break;
      }
      answer->status = got->status;
    }
  }
  *done = true;
}

}  // namespace

std::string chat_body(const std::string& fields) {
  return R"({"model":"m","messages":[{"role":"user","content":"hi"}])" + (fields.empty() ? "" : "," + fields) + "}";
}

// ---- agent

net::Task<> Agent::handle(net::ExchangePtr exchange) {
  const std::string path = exchange->request().path;
  Result<> sent;
  if (path == "/node/v1/hello") {
    NodeObserved observed;
    observed.node = node_;
    observed.boot_id = "boot";
    observed.incarnation = 1;
    std::string json = dump_json(wire::to_json(observed));
    sent = co_await exchange->respond_json(200, std::move(json));
    co_return;
  }
  const auto body = co_await exchange->read_body(std::size_t{8} << 20);
  if (path.ends_with("/health")) {
    co_await help(exchange, path);  // beside the requests, whose order and bodies are looked at
    co_return;
  }
  paths.push_back(path);
  traces.push_back(net::header_or(exchange->request().headers, "traceparent", ""));
  bodies.push_back(body.value_or("(broken)"));
  if (script.refusals > 0) {
    script.refusals -= 1;
    net::Headers refused;
    refused.push_back({"aiv-refused", "1"});
    sent = co_await exchange->respond_json(503, "{}", std::move(refused));
    co_return;
  }
  if (path.ends_with("/apply-template") || path.ends_with("/tokenize")) {
    co_await help(exchange, path);
    co_return;
  }
  active += 1;
  active_max = std::max(active_max, active);
  co_await answer(exchange);
  active -= 1;
}

net::Task<> Agent::wait_cancelled(net::ExchangePtr exchange) {
  while (!exchange->gone()) co_await net::sleep_for(net::milliseconds(2));
  cancelled += 1;
}

net::Task<> Agent::answer(net::ExchangePtr exchange) {
  if (script.first_ms > 0) co_await net::sleep_for(net::milliseconds(script.first_ms));
  Result<> sent;
  if (script.status != 200) {
    std::string error = R"({"error":{"code":)" + std::to_string(script.status) + R"(,"message":"scripted","type":")" +
                        script.error_type + "\"}}";
    sent = co_await exchange->respond_json(script.status, std::move(error));
    co_return;
  }
  if (bodies.back().find("\"stream\":true") != std::string::npos) co_return co_await stream(exchange);
  if (script.stall_at == 0) co_return co_await wait_cancelled(exchange);
  net::ResponseHead head{.status = 200, .headers = {}};
  head.headers.push_back({"content-type", "application/json"});
  sent = co_await exchange->start(std::move(head));
  if (script.die_at >= 0) co_return exchange->abort();
  const std::string body =
      R"({"choices":[{"finish_reason":"stop","index":0,"message":{"role":"assistant","content":"whole"}}],"model":")" + script.model +
      R"(","usage":{"completion_tokens":5,"prompt_tokens":7,"total_tokens":12},"timings":{"cache_n":0,"prompt_n":7,"prompt_ms":7.0,"predicted_n":5,"predicted_ms":50.0}})";
  sent = co_await exchange->write(body);
  net::Headers trailers;
  if (script.eof_at < 0) trailers.push_back({"aiv-end", script.trailer});
  sent = co_await exchange->finish(std::move(trailers));
}

// Text "tN" is token 100 + N; the rendered prompt is "PROMPT:".
net::Task<> Agent::help(net::ExchangePtr exchange, std::string path) {
  Result<> sent;
  if (path.ends_with("/health")) {
    if (script.stall_at >= 0) {
      while (!exchange->gone()) co_await net::sleep_for(net::milliseconds(2));
      co_return;
    }
    sent = co_await exchange->respond_json(200, R"({"status":"ok"})");
    co_return;
  }
  if (script.helper_status != 200) {
    sent = co_await exchange->respond_json(script.helper_status, R"({"error":{"code":500,"message":"scripted"}})");
    co_return;
  }
  const Json asked = parse_json(bodies.back()).value_or(Json());
  std::string out = R"({"prompt":"PROMPT:"})";
  if (path.ends_with("/apply-template") && asked["messages"].back()["role"] == "assistant") {
    out = dump_json(Json{{"prompt", "PROMPT:" + script.template_adds + asked["messages"].back()["content"].get<std::string>()}});
  }
  if (path.ends_with("/tokenize") && asked["content"].is_string()) {
    // The prompt is seven tokens, as its usage says.
    const std::string text = asked["content"].get<std::string>();
    Json all = Json::object();
    all["tokens"] = std::vector<int>(static_cast<std::size_t>(7 + std::count(text.begin(), text.end(), 't')), 1);
    out = dump_json(all);
  } else if (path.ends_with("/tokenize")) {
    Json tokens = Json::array();
    for (const Json& text : asked["content"]) {
      const std::string word = text.get<std::string>();
      for (std::size_t at = 0; at < word.size();) {
        std::size_t end = word.find('t', at + 1);
        if (end == std::string::npos) end = word.size();
        const std::string piece = word.substr(at, end - at);
        Json token = Json::object();
        token["id"] = 100 + std::atoi(piece.c_str() + 1);
        token["piece"] = script.adds_blanks ? " " + piece : piece;
        tokens.push_back(std::move(token));
        at = end;
      }
    }
    Json all = Json::object();
    all["tokens"] = std::move(tokens);
    out = dump_json(all);
  }
  sent = co_await exchange->respond_json(200, std::move(out));
}

std::string Agent::event(int n, bool native, int start) const {
  const std::string text = "t" + std::to_string(n);
  if (n == script.error_at) return R"(data: {"error":{"code":500,"message":"Compute error.","type":"server_error"}})";
  if (native) {
    const std::string counts = R"(,"tokens_predicted":)" + std::to_string(n - start + (n < script.tokens ? 1 : 0)) +
                               R"(,"tokens_evaluated":)" + std::to_string(7 + start);
    if (n < script.tokens) return R"(data: {"index":0,"content":")" + text + R"(","tokens":[],"stop":false)" + counts + "}";
    return R"(data: {"index":0,"content":"","tokens":[],"stop":true,"stop_type":"eos")" + counts + "}";
  }
  const std::string tail = R"(],"created":17,"id":"c-)" + node_ + R"(","model":")" + script.model + "\"";
  const bool tool = script.tool || (script.tool_from >= 0 && n >= script.tool_from);
  const std::string delta = tool ? R"("tool_calls":[{"index":0,"function":{"arguments":")" + text + R"("}}])"
                            : script.reasoning && n == 0 ? R"("reasoning_content":")" + text + "\""
                                                         : R"("content":")" + text + "\"";
  if (n < script.tokens) return R"(data: {"choices":[{"finish_reason":null,"index":0,"delta":{)" + delta + "}}" + tail + "}";
  const std::string finish = R"(data: {"choices":[{"finish_reason":")" + std::string(tool ? "tool_calls" : "stop") + R"(","index":0,"delta":{}})" + tail;
  const std::string made = std::to_string(script.tokens - start);
  const std::string timings =
      R"(,"timings":{"cache_n":0,"prompt_n":7,"prompt_ms":7.0,"predicted_n":)" + made + R"(,"predicted_ms":30.0}})";
  if (bodies.back().find("continue_final_message") == std::string::npos) return finish + timings;
  // What continues says its usage apart, with the begun text as prompt.
  return finish + "}\n\n" + R"(data: {"choices":[)" + tail + R"(,"usage":{"completion_tokens":)" + made + R"(,"prompt_tokens":)" +
         std::to_string(7 + start) + R"(,"total_tokens":)" + std::to_string(7 + script.tokens) + "}" + timings;
}

net::Task<> Agent::stream(net::ExchangePtr exchange) {
  net::ResponseHead head{.status = 200, .headers = {}};
  head.headers.push_back({"content-type", "text/event-stream"});
  Result<> sent = co_await exchange->start(std::move(head));
  net::Headers trailers;
  const bool native = paths.back().ends_with("/completion");
  int start = 0;
  if (native) {
    // How much of the answer the prompt holds: as ids, or as text.
    const Json prompt = parse_json(bodies.back()).value_or(Json())["prompt"];
    if (prompt.is_array()) start = static_cast<int>(prompt.size()) - 1;
    if (prompt.is_string()) {
      const std::string text = prompt.get<std::string>();
      start = static_cast<int>(std::count(text.begin(), text.end(), 't'));
    }
  } else if (const Json asked = parse_json(bodies.back()).value_or(Json()); asked.contains("continue_final_message")) {
    const std::string text = asked["messages"].back()["content"].get<std::string>();
    start = static_cast<int>(std::count(text.begin(), text.end(), 't'));
    sent = co_await exchange->write(R"(data: {"choices":[{"finish_reason":null,"index":0,"delta":{"role":"assistant","content":null}}]})" "\n\n");
  }
  for (int n = start; n <= script.tokens && sent; ++n) {
    if (exchange->gone()) break;
    if (n == script.die_at) co_return exchange->abort();
    if (n == script.stall_at) co_return co_await wait_cancelled(exchange);
    if (n == script.eof_at || n == script.exit_at) {
      if (n == script.exit_at) trailers.push_back({"aiv-end", "engine-exit;status=134"});
      sent = co_await exchange->finish(std::move(trailers));
      co_return;
    }
    std::string event = this->event(n, native, start);
    event += "\n\n";
    if (n == script.tokens && !native) event += "data: [DONE]\n\n";
    for (std::size_t at = 0; at < event.size() && sent;) {
      const std::size_t size = script.crlf_piecemeal ? std::min<std::size_t>(3, event.size() - at) : event.size();
      const std::string piece = event.substr(at, size);
      sent = co_await exchange->write(piece);
      at += size;
    }
    if (n == script.error_at) break;
    if (script.token_ms > 0) co_await net::sleep_for(net::milliseconds(script.token_ms));
  }
  if (exchange->gone()) {
    cancelled += 1;
    co_return;
  }
  trailers.push_back({"aiv-end", script.trailer});
  sent = co_await exchange->finish(std::move(trailers));
}

// ---- cluster

Cluster::Cluster(GatewayOptions options) {
  char directory[] = "/tmp/aiv-gateway-XXXXXX";
  EXPECT_NE(mkdtemp(directory), nullptr);
  directory_ = directory;
  options.data_dir = directory_;
  options.public_address = "tcp:127.0.0.1:0";
  server_ = std::make_unique<GatewayServer>(loop_.get_executor(), std::move(options));
  const auto ready = server_->prepare();
  EXPECT_TRUE(ready) << ready.error().message();
  const auto listening = server_->listen_rest(nullptr);
  EXPECT_TRUE(listening) << listening.error().message();
}

Cluster::~Cluster() {
  server_->state().links.close_all("test ends");
  for (const auto& agent : agents_) {
    if (agent->connection) agent->connection->close("test ends");
  }
  const auto settle = net::Clock::now() + net::milliseconds(30);
  run_until([&] { return net::Clock::now() >= settle; });
  listeners_.clear();
  server_.reset();
  std::filesystem::remove_all(directory_);
}

bool Cluster::run_until(const std::function<bool()>& done) {
  const auto deadline = net::Clock::now() + net::seconds(10);
  loop_.restart();
  while (!done() && net::Clock::now() < deadline) loop_.run_one_for(std::chrono::milliseconds(20));
  return done();
}

Agent& Cluster::add_agent(const std::string& node, net::H2Limits limits) {
  agents_.push_back(std::make_unique<Agent>(loop_.get_executor(), node));
  Agent* agent = agents_.back().get();
  agent->limits = limits;
  const std::string address = "unix:" + directory_ + "/link-" + node + std::to_string(listeners_.size()) + ".sock";
  auto opened = net::Listener::open(loop_.get_executor(), address, nullptr, [this, node](net::StreamPtr stream) {
    net::spawn(loop_.get_executor(), server_->state().links.serve_as(std::move(stream), node), "test.link");
  });
  EXPECT_TRUE(opened) << opened.error().message();
  listeners_.push_back(std::move(*opened));
  net::spawn(loop_.get_executor(), dial_agent(address, agent), "test.agent");
  EXPECT_TRUE(run_until([&] { return agent->connection && server_->state().links.up(node); }));
  nodes_.push_back(node);
  return *agent;
}

RouteTable Cluster::table(int slots) const {
  RouteTable table;
  table.version = {1, rev_};
  RouteModel model{.name = "m", .model = "m", .ctx_per_slot = 4096, .created_ms = 1'700'000'000'000, .state = "ready"};
  for (const std::string& node : nodes_) model.replicas.push_back({.id = node + "-r", .node = node, .slots = slots});
  table.models.push_back(std::move(model));
  return table;
}

void Cluster::apply(RouteTable table) {
  table.version = {1, ++rev_};
  struct Offer {
    static net::Task<> run(GatewayState* state, RouteTable routes, bool* done) {
      const Result<> taken = co_await state->routes.offer(std::move(routes));
      EXPECT_TRUE(taken);
      state->dispatcher.apply(state->routes.current()->table());
      *done = true;
    }
  };
  bool done = false;
  net::spawn(loop_.get_executor(), Offer::run(&server_->state(), std::move(table), &done), "test.offer");
  EXPECT_TRUE(run_until([&] { return done; }));
}

void Cluster::publish(int slots) { apply(table(slots)); }

Answer Cluster::request(const std::string& method, const std::string& path, const std::string& body, net::Headers headers) {
  Answer answer;
  bool done = false;
  net::RequestHead head{.method = method, .path = path, .query = {}, .headers = std::move(headers)};
  net::spawn(loop_.get_executor(),
             send_request("tcp:127.0.0.1:" + std::to_string(server_->public_port()), std::move(head), body, &answer, &done, nullptr),
             "test.client");
  EXPECT_TRUE(run_until([&] { return done; }));
  return answer;
}

Answer Cluster::chat(const std::string& fields, net::Headers headers) {
  return request("POST", "/v1/chat/completions", chat_body(fields), std::move(headers));
}

std::shared_ptr<const Answer> Cluster::chat_later(const std::string& fields, net::Headers headers) {
  struct Later {
    static net::Task<> run(std::string address, net::RequestHead head, std::string body, std::shared_ptr<Answer> into) {
      bool done = false;
      co_await send_request(address, std::move(head), std::move(body), into.get(), &done, nullptr);
    }
  };
  auto answer = std::make_shared<Answer>();
  net::RequestHead head{.method = "POST", .path = "/v1/chat/completions", .query = {}, .headers = std::move(headers)};
  net::spawn(loop_.get_executor(),
             Later::run("tcp:127.0.0.1:" + std::to_string(server_->public_port()), std::move(head), chat_body(fields), answer),
             "test.client");
  return answer;
}

bool Cluster::chat_and_leave(const std::string& fields, std::function<bool()> when) {
  Answer answer;
  bool done = false;
  net::ClientExchangePtr running;
  net::RequestHead head{.method = "POST", .path = "/v1/chat/completions", .query = {}, .headers = {}};
  net::spawn(loop_.get_executor(),
             send_request("tcp:127.0.0.1:" + std::to_string(server_->public_port()), std::move(head), chat_body(fields), &answer,
                          &done, &running),
             "test.client");
  const bool came = run_until([&] { return running && when(); });
  if (running) running->cancel();
  running.reset();
  return run_until([&] { return done; }) && came;
}

}  // namespace aiv::gateway::test
