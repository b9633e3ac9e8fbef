// The fake engine's event loop: one thread, epoll, no thread per request, so that thousands of streams cost
// little.
//
// Slots are kept as llama-server keeps them: a request beyond them waits in line without limit; a peer that
// closes its end frees its slot, or its place in the line, at once. Until the model is loaded every path
// answers 503.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <queue>
#include <string>
#include <vector>

#include "answer.hpp"
#include "http.hpp"
#include "load.hpp"
#include "options.hpp"
#include "reply.hpp"

namespace aiv::fake {

// A request for tokens, from the time it is read to its last byte.
struct Generation {
  Generation(Reply reply_, Answer answer_) : reply(std::move(reply_)), answer(std::move(answer_)) {}
  Reply reply;
  Answer answer;
  std::string prefill;  // repeated before the first token
  std::vector<std::string> stop_words;
  std::int64_t end = 0;  // first token that is not sent
  Finish finish = Finish::kStop;
  std::string stop_word;
  std::string cut_text;   // with a stop word: the whole text to send
  std::string held;       // of a token in which the stop word begins
  std::int64_t next = 0;  // token to send next
  std::int64_t received_ns = 0;
  std::int64_t started_ns = 0;  // when it got its slot
  std::int64_t first_ns = 0;    // when the first token was due
  std::int64_t due_ns = 0;
  std::string text;  // so far, for an answer that is not streamed
  std::vector<Token> tokens;
  bool head_sent = false;
};

class Server {
 public:
  Server(const Options& options, EngineLog& log) : options_(options), log_(log), load_(options, log) {}
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  Result<> listen();
  // Returns the process's exit status.
  int run();

 private:
  enum class State { kReading, kQueued, kGenerating, kStalled, kClosing };
  struct Connection {
    int fd = -1;
    std::uint32_t index = 0;
    std::uint32_t serial = 0;  // of this use of the index
    State state = State::kReading;
    std::uint32_t interest = 0;
    std::string in;
    std::string out;
    std::size_t out_sent = 0;
    RequestReader reader;
    HttpRequest request;
    std::unique_ptr<Generation> generation;
    int slot = -1;
    std::int64_t task = 0;
  };
  struct Timer {
    std::int64_t due_ns;
    std::uint32_t index;
    std::uint32_t serial;
    std::int64_t task;
    friend bool operator>(const Timer& a, const Timer& b) { return a.due_ns > b.due_ns; }
  };

  // server.cpp: sockets and the loop
  void accept_all();
  void on_event(std::uint32_t index, std::uint32_t serial, std::uint32_t events);
  void read_from(Connection& c);
  void flush(Connection& c);
  void watch(Connection& c, std::uint32_t events);
  void close_connection(Connection& c);
  void handle_input(Connection& c);
  void finish_request(Connection& c);
  void on_ready();
  void on_stdin();
  void on_signal();
  void begin_shutdown();
  [[nodiscard]] std::optional<int> step_load();
  void run_timers();
  [[nodiscard]] std::int64_t next_due() const;

  // endpoints.cpp: what each path answers
  void handle_request(Connection& c);
  void respond(Connection& c, int status, std::string_view body,
               std::string_view type = "application/json; charset=utf-8");
  void respond_error(Connection& c, int status, std::string_view type, std::string_view message,
                     std::string_view more = {});
  void handle_generation(Connection& c, ReplyKind kind);
  void handle_embeddings(Connection& c);
  void handle_rerank(Connection& c);
  void handle_small(Connection& c, const std::string& path);
  [[nodiscard]] std::string slots_json() const;
  [[nodiscard]] std::string props_json() const;
  [[nodiscard]] std::string metrics_text() const;
  [[nodiscard]] std::string model_object() const;

  // generate.cpp: slots, pace and tokens
  void enqueue(Connection& c, std::unique_ptr<Generation> generation);
  void give_slots();
  void start(Connection& c);
  void on_due(Connection& c, std::int64_t now_ns);
  bool apply_fault(Connection& c);  // true when a fault took the request
  void send_token(Connection& c, std::int64_t now_ns);
  void end_generation(Connection& c, std::int64_t now_ns);
  void release(Connection& c);
  void arm(Connection& c);
  [[nodiscard]] Timings timings_of(const Generation& g, std::int64_t now_ns) const;
  [[nodiscard]] double token_ms_now(const Generation& g) const;

  const Options& options_;
  EngineLog& log_;
  Load load_;
  int epoll_ = -1;
  int listener_ = -1;
  int signals_ = -1;
  bool ready_ = false;
  bool stopping_ = false;
  bool stdin_open_ = false;
  std::string stdin_line_;
  std::int64_t load_next_ns_ = 0;
  std::optional<std::int64_t> die_ns_;
  std::optional<int> exit_status_;

  std::vector<std::unique_ptr<Connection>> connections_;
  std::vector<std::uint32_t> free_indices_;
  std::vector<Connection*> slots_;
  std::vector<int> free_slots_;
  std::deque<std::pair<std::uint32_t, std::int64_t>> line_;  // index, task
  std::int64_t waiting_ = 0;
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
  std::int64_t next_task_ = 0;
  std::int64_t start_unix_ = 0;

  struct Counters {
    std::int64_t prompt_tokens = 0;
    double prompt_ms = 0;
    std::int64_t predicted_tokens = 0;
    double predicted_ms = 0;
    std::int64_t cancelled = 0;
  } counters_;
};

}  // namespace aiv::fake
