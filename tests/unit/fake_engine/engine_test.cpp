// The fake engine as the agent and the gateway see it: a process behind a socket.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>

#include <algorithm>
#include <chrono>
#include <memory>
#include <sstream>

#include "answer.hpp"
#include "engine_process.hpp"

namespace aiv::fake {
namespace {

using testing::Test;

std::string chat(const std::string& content, const std::string& more = "") {
  return R"({"messages":[{"role":"user","content":")" + content + R"("}])" + more + "}";
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t n = 0;
  for (auto at = text.find(part); at != std::string::npos; at = text.find(part, at + part.size())) ++n;
  return n;
}

// The texts of all deltas of a stream, put together.
std::string streamed_text(const std::string& stream) {
  std::string text;
  const std::string mark = R"("content":")";
  for (auto at = stream.find(mark); at != std::string::npos; at = stream.find(mark, at)) {
    at += mark.size();
    text += stream.substr(at, stream.find('"', at) - at);
  }
  return text;
}

TEST(FakeEngine, answers_503_while_it_loads_and_reports_its_progress) {
  EngineProcess engine("fake:fake-small?load_ms=400");
  ASSERT_TRUE(engine.wait_for("/health", "Loading model"));
  EXPECT_TRUE(has(engine.post("/v1/chat/completions", chat("hi")), "503 Service Unavailable"));
  ASSERT_TRUE(engine.wait_ready());
  const auto said = engine.output();
  EXPECT_TRUE(has(
      said, "\ncmd_child_to_router:state:{\"state\":\"loading\",\"payload\":{\"stages\":[\"text_model\"]"));
  EXPECT_TRUE(has(said, "\"state\":\"ready\""));
  EXPECT_TRUE(has(said, "\"n_ctx\":4096"));
}

TEST(FakeEngine, writes_the_lines_that_the_proof_of_residency_reads) {
  EngineProcess engine("fake:fake-small");
  ASSERT_TRUE(engine.wait_ready());
  const auto log = engine.log();
  for (const auto* line :
       {"using device Fake0 (fake device)", "load_tensors:        Fake0 model buffer size =   512.00 MiB",
        "llama_kv_cache:      Fake0 KV buffer size =   128.00 MiB",
        "sched_reserve:      Fake0 compute buffer size =    64.00 MiB", "splits = 1,"})
    EXPECT_TRUE(has(log, line)) << line << " in\n" << log;
  EXPECT_FALSE(has(log, "CPU"));
}

TEST(FakeEngine, shows_in_its_log_what_the_flags_and_settings_put_on_the_cpu) {
  EngineProcess weights("fake:fake-small?cpu_weights=64MiB");
  EngineProcess cache("fake:fake-small", {"-nkvo"});
  EngineProcess layers("fake:fake-small", {"-ngl", "2"});
  EngineProcess nothing("fake:fake-small", {"-dev", "none"});
  ASSERT_TRUE(weights.wait_ready() && cache.wait_ready() && layers.wait_ready() && nothing.wait_ready());
  EXPECT_TRUE(has(weights.log(), "CPU_Mapped model buffer size =    64.00 MiB"));
  EXPECT_TRUE(has(cache.log(), "CPU KV buffer size"));
  EXPECT_TRUE(has(layers.log(), "CPU_Mapped model buffer size"));
}

TEST(FakeEngine, stamps_tokens_with_the_time_when_they_were_made) {
  EngineProcess engine("fake:fake-small");
  ASSERT_TRUE(engine.wait_ready());
  const auto clock_ns = [] { return std::chrono::steady_clock::now().time_since_epoch() / std::chrono::nanoseconds(1); };
  auto last = clock_ns();
  const auto text = streamed_text(
      engine.post("/v1/chat/completions", chat("#fake tokens=3 token_ms=5 stamp=1", R"(,"stream":true)")));
  std::istringstream stamps(text);
  for (std::string stamp; stamps >> stamp;) {
    ASSERT_TRUE(stamp.starts_with("@")) << text;
    const auto made = std::stoll(stamp.substr(1));
    EXPECT_GT(made, last);
    last = made;
  }
  EXPECT_EQ(count(text, "@"), 3U);
  EXPECT_LT(last, clock_ns());
}

TEST(FakeEngine, streams_an_answer_in_chunks_that_make_up_the_whole_one) {
  EngineProcess engine("fake:fake-small", {"--alias", "fake-small"});
  ASSERT_TRUE(engine.wait_ready());
  const auto whole = engine.post("/v1/chat/completions", chat("hello"));
  const auto stream = engine.post("/v1/chat/completions",
                                  chat("hello", R"(,"stream":true,"stream_options":{"include_usage":true})"));
  const auto answer = *Answer::make("fake-small", "<|user|>\nhello<|end|>\n<|assistant|>\n");
  std::string expected;
  for (std::int64_t n = 0; n < 24; ++n) expected += piece_of(answer.token_at(n));
  EXPECT_EQ(streamed_text(whole), expected);
  EXPECT_EQ(streamed_text(stream), expected);
  EXPECT_EQ(count(stream, "\"role\":\"assistant\""), 1U);
  EXPECT_EQ(count(stream, "\"finish_reason\":\"stop\""), 1U);
  EXPECT_EQ(count(stream, "\"choices\":[],"), 1U);
  EXPECT_TRUE(has(stream, "\"completion_tokens\":24"));
  EXPECT_TRUE(stream.ends_with("data: [DONE]\n\n\r\n0\r\n\r\n"));
}

TEST(FakeEngine, obeys_length_stop_words_and_tools) {
  EngineProcess engine("fake:fake-small");
  ASSERT_TRUE(engine.wait_ready());
  const auto cut = engine.post("/v1/chat/completions", chat("#fake say=one two three", R"(,"stop":["two"])"));
  EXPECT_EQ(streamed_text(cut), "one ");
  const auto limited = engine.post("/v1/completions", R"({"prompt":"x","max_tokens":3})");
  EXPECT_TRUE(has(limited, "\"finish_reason\":\"length\"") && has(limited, "\"completion_tokens\":3,"));
  const auto tool = engine.post("/v1/chat/completions",
                                chat(R"(#fake tool=weather:{\"city\":\"Athens\"})", R"(,"stream":true)"));
  EXPECT_EQ(count(tool, "\"name\":\"weather\""), 1U);
  EXPECT_TRUE(has(tool, "\"finish_reason\":\"tool_calls\""));
}

TEST(FakeEngine, continues_an_answer_that_another_process_began) {
  EngineProcess first("fake:fake-small");
  EngineProcess second("fake:fake-small?token_ms=1", {"-c", "16384", "-np", "4"});
  ASSERT_TRUE(first.wait_ready() && second.wait_ready());
  const auto whole = streamed_text(first.post("/v1/chat/completions", chat("hello")));
  const auto begun = whole.substr(0, 5 * 10);
  const auto ids = second.post("/tokenize", R"({"content":"<|user|>\nhello<|end|>\n<|assistant|>\n)" + begun +
                                                R"(","add_special":true})");
  const auto from = ids.find("\"tokens\":") + 9;
  const auto list = ids.substr(from, ids.find(']', from) + 1 - from);
  const auto rest = second.post("/completion", R"({"prompt":)" + list + R"(,"n_predict":14})");
  EXPECT_TRUE(has(rest, "\"content\":\"" + whole.substr(begun.size()) + "\"")) << rest;
}

TEST(FakeEngine, keeps_its_slots_and_lets_the_others_wait_in_line) {
  EngineProcess engine("fake:fake-small");
  ASSERT_TRUE(engine.wait_ready());
  std::vector<std::unique_ptr<Peer>> peers;
  for (int i = 0; i < 5; ++i) {
    peers.push_back(std::make_unique<Peer>(engine.socket()));
    peers.back()->post("/v1/chat/completions", chat("#fake tokens=1000 token_ms=1000", R"(,"stream":true)"));
  }
  ASSERT_TRUE(engine.wait_for("/metrics", "llamacpp:requests_processing 2\n"));
  ASSERT_TRUE(engine.wait_for("/metrics", "llamacpp:requests_deferred 3\n"));
  EXPECT_EQ(count(engine.get("/slots"), "\"is_processing\":true"), 2U);
  peers.pop_back();  // one that waits
  EXPECT_TRUE(engine.wait_for("/metrics", "llamacpp:requests_deferred 2\n"));
  peers.erase(peers.begin());  // one that is served: the next in line takes its slot
  EXPECT_TRUE(engine.wait_for("/metrics", "llamacpp:requests_deferred 1\n"));
  EXPECT_TRUE(has(engine.get("/metrics"), "llamacpp:requests_processing 2\n"));
  peers.clear();
  EXPECT_TRUE(engine.wait_for("/metrics", "llamacpp:requests_processing 0\n"));
}

TEST(FakeEngine, serves_many_requests_on_one_connection) {
  EngineProcess engine("fake:fake-small");
  ASSERT_TRUE(engine.wait_ready());
  Peer peer(engine.socket());
  for (int i = 0; i < 20; ++i) {
    peer.post("/v1/chat/completions", chat("#fake tokens=3 token_ms=0", R"(,"stream":true)"));
    ASSERT_TRUE(peer.read_until("\r\n0\r\n\r\n").ends_with("data: [DONE]\n\n\r\n0\r\n\r\n")) << i;
  }
}

TEST(FakeEngine, breaks_where_the_control_line_orders_it) {
  EngineProcess engine("fake:fake-small");
  ASSERT_TRUE(engine.wait_ready());
  const auto eof = engine.post("/v1/chat/completions", chat("#fake eof_at=3", R"(,"stream":true)"));
  EXPECT_EQ(count(eof, "\"content\":\" "), 3U);
  EXPECT_FALSE(has(eof, "[DONE]") || has(eof, "\r\n0\r\n"));
  const auto error = engine.post("/v1/chat/completions", chat("#fake error_at=3", R"(,"stream":true)"));
  EXPECT_TRUE(has(error, "data: {\"error\":{\"code\":500,\"message\":\"Compute error.\""));
  EXPECT_FALSE(has(error, "[DONE]"));
  EXPECT_TRUE(has(engine.post("/v1/chat/completions", chat("#fake error_at=0")), "HTTP/1.1 500"));
  Peer stalled(engine.socket());
  stalled.post("/v1/chat/completions", chat("#fake stall_at=2", R"(,"stream":true)"));
  ASSERT_TRUE(engine.wait_for("/slots", "\"is_processing\":true"));
  stalled.close();
  EXPECT_TRUE(engine.wait_for("/metrics", "llamacpp:requests_processing 0\n"));
  Peer dying(engine.socket());
  dying.post("/v1/chat/completions", chat("#fake die_at=2", R"(,"stream":true)"));
  EXPECT_EQ(count(dying.read_until(""), "\"content\":\" "), 2U);
  const auto status = engine.wait_exit();
  ASSERT_TRUE(status.has_value());
  EXPECT_EQ(WEXITSTATUS(*status), 134);
}

TEST(FakeEngine, fails_to_load_as_the_real_one_does) {
  for (const auto& [model, text] : {std::pair{"fake:m?oom=weights", "unable to allocate Fake0 buffer"},
                                    std::pair{"fake:m?oom=kv", "failed to allocate buffer for kv cache"},
                                    std::pair{"fake:m?oom=compute", "failed to allocate compute buffers"}}) {
    EngineProcess engine(model);
    const auto status = engine.wait_exit();
    ASSERT_TRUE(status.has_value()) << model;
    EXPECT_EQ(WEXITSTATUS(*status), 1);
    EXPECT_TRUE(has(engine.log(), text)) << engine.log();
  }
  EngineProcess exits("fake:m?load_exit=7");
  EXPECT_EQ(WEXITSTATUS(exits.wait_exit().value_or(0)), 7);
}

TEST(FakeEngine, leaves_on_command_on_a_signal_and_with_its_parent) {
  EngineProcess told("fake:fake-small");
  EngineProcess orphan("fake:fake-small");
  EngineProcess ended("fake:fake-small");
  ASSERT_TRUE(told.wait_ready() && orphan.wait_ready() && ended.wait_ready());
  told.tell("cmd_router_to_child:exit");
  EXPECT_EQ(told.wait_exit(), 0);
  orphan.close_stdin();
  EXPECT_EQ(WEXITSTATUS(orphan.wait_exit().value_or(0)), 1);
  // A router's child that got a signal still waits for its stdin to say so, as llama-server does.
  kill(ended.pid(), SIGTERM);
  while (!has(ended.log(), "cleaning up")) {
  }
  ASSERT_EQ(kill(ended.pid(), 0), 0);
  ended.tell("cmd_router_to_child:exit");
  EXPECT_EQ(ended.wait_exit(), 0);
}

TEST(FakeEngine, waits_on_sigterm_for_the_peer_of_an_open_stream) {
  EngineProcess engine("fake:fake-small");
  ASSERT_TRUE(engine.wait_ready());
  Peer peer(engine.socket());
  peer.post("/v1/chat/completions", chat("#fake tokens=100000 token_ms=1", R"(,"stream":true)"));
  ASSERT_FALSE(peer.read_until("\"content\":\"").empty());
  kill(engine.pid(), SIGTERM);
  // It accepts nobody any more, but stays as long as the stream's peer does.
  while (Peer(engine.socket()).connected() && !has(engine.log(), "cleaning up")) {
  }
  ASSERT_EQ(kill(engine.pid(), 0), 0);
  engine.tell("cmd_router_to_child:exit");
  peer.close();
  EXPECT_EQ(engine.wait_exit(), 0);
}

TEST(FakeEngine, embeds_and_ranks_with_models_of_that_kind_only) {
  EngineProcess embed("fake:fake-embed");
  EngineProcess rank("fake:ranker?kind=rerank");
  ASSERT_TRUE(embed.wait_ready() && rank.wait_ready());
  const auto two = embed.post("/v1/embeddings", R"({"input":["a","b"]})");
  EXPECT_TRUE(has(two, "\"index\":0") && has(two, "\"index\":1") && has(two, "\"embedding\":[")) << two;
  EXPECT_TRUE(
      has(embed.post("/v1/embeddings", R"({"input":"a","encoding_format":"base64"})"), "\"embedding\":\""));
  EXPECT_TRUE(has(embed.post("/v1/chat/completions", chat("hi")), "HTTP/1.1 501"));
  const auto ranked = rank.post("/v1/rerank", R"({"query":"q","documents":["a","b","c"],"top_n":2})");
  EXPECT_EQ(count(ranked, "relevance_score"), 2U);
}

TEST(FakeEngine, refuses_bad_input_and_goes_on) {
  EngineProcess engine("fake:fake-small");
  ASSERT_TRUE(engine.wait_ready());
  EXPECT_TRUE(has(engine.post("/v1/chat/completions", "{bad"), "HTTP/1.1 500"));
  EXPECT_TRUE(has(engine.post("/v1/chat/completions", "[]"), "HTTP/1.1 400"));
  EXPECT_TRUE(has(engine.post("/v1/chat/completions", chat("#fake nonsense=1")), "HTTP/1.1 400"));
  EXPECT_TRUE(has(engine.post("/v1/completions", R"({"prompt":")" + std::string(20'000, 'x') + "\"}"),
                  "exceed_context_size_error"));
  EXPECT_TRUE(has(engine.get("/nope"), "HTTP/1.1 404"));
  for (const auto* garbage : {"\r\n\r\n", "GET\r\n\r\n", "POST /x HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
                              "POST / HTTP/1.1\r\nbroken\r\n\r\n"}) {
    Peer peer(engine.socket());
    peer.send(garbage);
    EXPECT_TRUE(peer.closed_by_peer()) << garbage;
  }
  EXPECT_TRUE(engine.wait_ready());
}

TEST(FakeEngine, refuses_a_flag_that_it_does_not_know) {
  EngineProcess engine("fake:fake-small", {"--bogus"});
  EXPECT_EQ(WEXITSTATUS(engine.wait_exit().value_or(0)), 1);
}

}  // namespace
}  // namespace aiv::fake
