// One inference request from its checked form to the end of its answer: a slot, an attempt on a replica, and what to
// do when that breaks.
//
// RULES
// - Bytes are relayed as they came; JSON is looked at only for the end, errors and timings.
// - The head of a stream is held until the engine's first event or 5 s, so that until then every failure has its
//   proper status. After that comments keep the connection alive.
// - A replica that fails before anything was relayed is replaced (at most 3 attempts, within the retry budget). Later
//   the stream is continued on another replica where that can be done right (core/resume.hpp, relay_resume.cpp).
//   Otherwise it ends with one error event and without [DONE]: a broken stream never looks complete.
// - The retry budget keeps requests that fail everywhere from loading the cluster. It does not hold back those whose
//   node was lost or whose stream is continued: each lost replica causes them once, and slots bound them.
// - An engine that is silent while another replica could take over is asked for its health: a stopped process still
//   accepts connections, and nothing but its silence tells. A young request without a token costs little to move: it goes
//   after one question of 0.3 s, once. Otherwise two unanswered questions of 1.5 s and the engine is given up. From the
//   first unanswered one on nobody else is sent there until it answers (pulse.hpp).
// - An engine's answer counts as whole only with its terminator ([DONE], or the trailer `aiv-end: complete`).
// - When the client leaves, the upstream exchange is cancelled at once, at every stage.
// - A request under which two engines exited goes nowhere again.
#pragma once
#include <memory>
#include <optional>
#include <string>

#include "core/openai_request.hpp"
#include "core/resume.hpp"
#include "gateway/api/answer_form.hpp"
#include "gateway/auth.hpp"
#include "gateway/journal.hpp"
#include "gateway/sse.hpp"
#include "gateway/state.hpp"

namespace aiv::gateway {

inline constexpr int kAttemptsMax = 3;
inline constexpr int kRefusalsMax = 100;           // "no slot": the ledger and the agent disagree for a moment
inline constexpr net::milliseconds kRefusedPause{20};
inline constexpr int kCrashesMax = 2;
inline constexpr std::size_t kAnswerBytesMax = std::size_t{64} << 20;
inline constexpr std::size_t kEventBytesMax = std::size_t{4} << 20;
inline constexpr int kProbesMax = 2;  // unanswered ones, then the replica counts as hung

struct InferenceCall {
  net::ExchangePtr exchange;
  std::string key_id;        // whose request it is; empty without authentication
  std::uint64_t tenant = 0;  // whose cached prompts it may share (core/routing.hpp)
  CheckedRequest request;
  ModelPtr model;
  std::string request_id;
  std::string trace;  // traceparent of the caller, or empty
  net::Clock::time_point arrived;
  net::Headers headers;  // of every answer (x-request-id ...)
  bool debug = false;    // say which replica answered
  std::shared_ptr<AnswerForm> form;  // nullptr: the answer is OpenAI's and passes as it came
};

struct RelayResult {
  int status = 0;
  std::string replica{};
  int attempts = 0;
  int resumes = 0;  // how often the stream was continued on another replica
  double queue_ms = 0;
  double first_token_ms = 0;
  EngineTimings usage;
  std::string end{};  // finish reason, "cancelled", or an error's code
};

class Relay {
 public:
  Relay(GatewayState& state, InferenceCall call);
  ~Relay();
  Relay(const Relay&) = delete;
  Relay& operator=(const Relay&) = delete;
  net::Task<> run();
  // How it ended; after run().
  [[nodiscard]] const RelayResult& result() const { return result_; }
  struct Continuation;  // relay_continuation.hpp

 private:
  enum class Step { kEnded, kRetry, kRefused, kAnswers };
  struct Tried {
    ReplicaPtr replica;  // held, so that no new one has its address
    net::Clock::time_point at;
    bool hung = false;
  };
  // What the client's leaving must reach, wherever the relay waits just then.
  struct Presence {
    bool gone = false;
    net::ClientExchangePtr upstream;
    WaiterPtr waiter;
    void leave();
  };

  net::Task<bool> acquire();
  net::Task<Step> attempt();
  net::Task<Step> read_failure(net::ClientExchangePtr upstream, net::ResponseHead head);
  net::Task<Step> relay_whole(net::ClientExchangePtr upstream);
  net::Task<Step> relay_stream(net::ClientExchangePtr upstream);
  net::Task<Step> end_stream(net::ClientExchangePtr upstream);
  net::Task<std::optional<Step>> sit_out(net::Clock::time_point silent_since, net::Clock::time_point limit);
  void note_end(std::string_view end);
  net::Task<bool> hangs(net::Clock::time_point silent_since);
  [[nodiscard]] bool moves_quickly() const;
  net::Task<bool> answer_failure();
  [[nodiscard]] net::Clock::time_point next_probe(net::Clock::time_point silent_since) const;
  Step stream_failed(std::string reason, bool hung = false);

  // relay_resume.cpp
  [[nodiscard]] ResumeObstacle begin_resume();
  net::Task<bool> acquire_survivor();
  void exclude_tried();
  net::Task<Step> resume();
  net::Task<Result<std::string>> ask(std::string path, std::string body);
  net::Task<Result<std::string>> continuation_body();
  net::Task<Step> continue_stream(net::ClientExchangePtr upstream);
  net::Task<Result<std::string>> chat_continuation_body();
  bool scan_continuation();
  bool take_continuation(std::string_view event);
  void say(const std::string& text);
  [[nodiscard]] ApiError cannot_continue(ResumeObstacle obstacle) const;
  net::Task<Step> finish_continuation();
  void emit(std::string_view event);
  net::Task<bool> send_events();
  net::Task<bool> send(std::string_view bytes);
  net::Task<> life_sign();
  net::Task<> fail_with(ApiError error);
  net::Task<> fail_refused();

  bool scan_events();  // false: an error event came
  void note_event(std::string_view event, SseEvent kind);
  void pass_event(std::string_view event);
  void learn(std::string_view json);
  void sample_pace(net::Clock::time_point now);
  void count_success();
  void count_partial();
  void forget_attempt();
  Step failed(std::string reason, bool hung = false);
  Step cancelled();
  net::ResponseHead stream_head();
  net::Headers answer_headers();
  [[nodiscard]] ApiFamily family() const { return call_.form ? call_.form->family() : ApiFamily::kOpenAi; }
  [[nodiscard]] net::Clock::time_point next_life_sign() const;
  [[nodiscard]] net::Clock::duration first_limit() const;
  [[nodiscard]] double patience_ms(bool moves_when_alone) const;
  [[nodiscard]] net::Clock::duration stall_limit() const;

  GatewayState& state_;
  InferenceCall call_;
  ModelMetrics& metrics_;
  Demand demand_;
  std::shared_ptr<Presence> presence_ = std::make_shared<Presence>();
  LeasePtr lease_;
  net::H2Ptr link_;
  RelayResult result_;
  std::string failure_;          // why the last attempt failed
  std::string engine_error_;     // the error event, as it came
  int crashes_ = 0;
  Dispatcher::RetryToken retrying_;  // set from the second attempt on
  std::vector<Tried> tried_;
  bool link_lost_ = false;       // the last failure was the link's, not the replica's
  bool engine_left_ = false;     // or the engine ended
  bool hung_ = false;            // or it answers nothing
  int probes_failed_ = 0;
  net::Clock::time_point attempt_at_;
  net::Clock::time_point probed_at_;
  bool moved_quickly_ = false;
  Journal journal_;
  std::unique_ptr<Continuation> continuation_;  // set once the stream is to be continued
  bool head_sent_ = false;
  bool relayed_ = false;         // something of the answer has left: no retry any more
  bool done_ = false;            // [DONE] came
  bool rename_ = false;          // the engine calls the model otherwise than the client
  bool model_seen_ = false;
  bool learned_ = false;
  std::int64_t tokens_ = 0;
  net::Clock::time_point last_write_;
  net::Clock::time_point first_token_at_;
  net::Clock::time_point pace_since_;
  std::int64_t pace_tokens_ = 0;
  bool pace_spoiled_ = false;    // the client took bytes slowly: its pace, not the engine's
  std::string in_;
  std::string out_;              // what leaves next, unless it is all of in_'s whole events
  std::size_t whole_ = 0;        // bytes of in_ that are whole events
  bool copied_ = false;
};

}  // namespace aiv::gateway
