// Relay: continuing a broken stream on another replica (core/resume.hpp has the rules).
//
// The way: /apply-template renders the messages there, /tokenize turns what was delivered into ids, /completion goes on
// from both. Where tools are offered /v1/chat/completions goes on from the begun message, which the template is first seen
// to leave as it is. The events of both are written anew in the mould of the stream's first one.
#include <algorithm>
#include <array>
#include <utility>

#include "base/json.hpp"
#include "base/log.hpp"
#include "base/units.hpp"
#include "gateway/relay.hpp"
#include "gateway/relay_continuation.hpp"

namespace aiv::gateway {
namespace {

using net::Clock;

constexpr std::size_t kHelperBytesMax = std::size_t{16} << 20;
constexpr net::milliseconds kHelperLimit{5000};
constexpr net::milliseconds kSurvivorPoll{50};
constexpr net::milliseconds kQueueRound{250};  // then those who failed before are looked at again

}  // namespace

// Decides whether the answer is continued, and prepares for it the first time.
ResumeObstacle Relay::begin_resume() {
  ResumeFacts facts;
  const auto request = parse_json(call_.request.body + "}");
  if (!request) return ResumeObstacle::kNoText;  // we wrote it: cannot be
  describe_request(*request, call_.request.endpoint, facts);
  journal_.tell(facts);
  facts.resumes = result_.resumes;
  // An engine's error that the request itself caused would come again.
  const bool own_fault = !engine_error_.empty() && from_engine_error(200, engine_error_).status < 500;
  if (!result_.end.empty()) return ResumeObstacle::kNoText;  // it had ended: only its usage is missing
  const ResumeObstacle obstacle = own_fault ? ResumeObstacle::kTooOften : resume_obstacle(facts);
  if (obstacle != ResumeObstacle::kNone) return obstacle;
  if (!continuation_) {
    continuation_ = std::make_unique<Continuation>(*request, call_.request.endpoint);
    journal_.rename(call_.request.model);
    demand_.front = true;
  }
  result_.resumes += 1;
  metrics_.resumes += 1;
  engine_error_.clear();
  in_.clear();
  return ResumeObstacle::kNone;
}

void Relay::exclude_tried() {
  demand_.excluded.clear();
  const auto again = Clock::now() - net::milliseconds(kSameReplicaAfterMs);
  for (const Tried& tried : tried_) {
    if (!continuation_ || tried.hung || tried.at > again) demand_.excluded.push_back(tried.replica.get());
  }
}

// A slot on a replica that can go on; comments keep the client patient meanwhile. False: the client has been told.
net::Task<bool> Relay::acquire_survivor() {
  const auto started = Clock::now();
  const auto deadline = started + net::milliseconds(state_.options.survivor_wait_ms);
  while (!presence_->gone && Clock::now() < deadline) {
    exclude_tried();
    lease_ = state_.dispatcher.try_bind(demand_);
    if (lease_) break;
    auto queued = state_.dispatcher.enqueue(demand_);
    if (!queued) {
      co_await net::sleep_for(kSurvivorPoll);
      co_await life_sign();
      continue;
    }
    const WaiterPtr waiter = *queued;
    presence_->waiter = waiter;
    const auto round = std::min(deadline, Clock::now() + kQueueRound);
    while (!waiter->lease && !waiter->error && !presence_->gone && Clock::now() < round) {
      co_await waiter->signal.wait_until(round);
    }
    presence_->waiter = nullptr;
    if (!waiter->lease) state_.dispatcher.cancel(waiter);
    lease_ = std::move(waiter->lease);
    if (lease_) break;
    co_await life_sign();
  }
  result_.queue_ms += std::chrono::duration<double, std::milli>(Clock::now() - started).count();
  if (presence_->gone) {
    lease_.reset();
    cancelled();
    co_return false;
  }
  if (lease_) co_return true;
  count_partial();
  co_await fail_with(replica_failed("The replica failed in the middle of the answer (" + failure_ +
                                    "), and no other one could continue it in time."));
  co_return false;
}

net::Task<Result<std::string>> Relay::ask(std::string path, std::string body) {
  const auto deadline = Clock::now() + kHelperLimit;
  net::RequestHead head{.method = "POST",
                        .path = "/node/v1/replicas/" + lease_->replica().id + path,
                        .query = {},
                        .headers = {{"content-type", "application/json"}, {"x-request-id", call_.request_id}}};
  auto opened = co_await link_->open(std::move(head), std::move(body));
  if (!opened) co_return std::unexpected(opened.error());
  const net::ClientExchangePtr exchange = *opened;
  presence_->upstream = exchange;
  const auto answer = co_await exchange->head(deadline);
  if (!answer) co_return std::unexpected(answer.error());
  auto text = co_await exchange->read_body(kHelperBytesMax, deadline);
  if (!text) co_return std::unexpected(text.error());
  if (answer->status != 200) {
    co_return fail(ErrorCode::kUnavailable, path + " was answered with status " + std::to_string(answer->status));
  }
  co_return std::move(*text);
}

ApiError Relay::cannot_continue(ResumeObstacle obstacle) const {
  return replica_failed("The replica failed in the middle of the answer (" + failure_ +
                        "), which cannot be continued elsewhere because " + std::string(to_string(obstacle)) + ".");
}

// What the next replica is asked; an empty string when nothing is left to be generated. kConflict: its template does not
// leave a begun answer as it is.
net::Task<Result<std::string>> Relay::continuation_body() {
  Continuation& c = *continuation_;
  if (call_.request.endpoint == Endpoint::kChat && !c.rendered) {
    std::string request = call_.request.body + "}";
    auto answer = co_await ask("/apply-template", std::move(request));
    if (!answer) co_return std::unexpected(answer.error());
    if (auto taken = c.take_prompt(*answer); !taken) co_return std::unexpected(taken.error());
  }
  c.set_delivered(journal_.texts(), journal_.events());
  if (c.by_chat) co_return co_await chat_continuation_body();
  if (c.wants_tokens()) {
    std::string request = c.tokenize_body();
    auto answer = co_await ask("/tokenize", std::move(request));
    if (!answer) co_return std::unexpected(answer.error());
    if (auto taken = c.take_tokens(*answer); !taken) co_return std::unexpected(taken.error());
  }
  const auto left = tokens_left(call_.request.max_tokens, c.delivered_tokens);
  if (left && *left == 0) co_return std::string();
  co_return c.completion_body(left, result_.resumes, lease_->slot().slot, lease_->slot().same_tenant);
}

net::Task<Result<std::string>> Relay::chat_continuation_body() {
  Continuation& c = *continuation_;
  std::string request = c.begun_template_body();
  auto answer = co_await ask("/apply-template", std::move(request));
  if (!answer) co_return std::unexpected(answer.error());
  const auto fits = c.take_begun_prompt(*answer);
  if (!fits) co_return std::unexpected(fits.error());
  if (!*fits) co_return fail(ErrorCode::kConflict, std::string(to_string(ResumeObstacle::kTemplate)));
  // The engine will count the begun text as prompt: its length in tokens is that with it less that without it.
  if (c.wants_prompt_count()) {
    std::string prompt = c.count_body(false);
    auto tokens = co_await ask("/tokenize", std::move(prompt));
    if (!tokens) co_return std::unexpected(tokens.error());
    if (auto taken = c.take_count(*tokens, false); !taken) co_return std::unexpected(taken.error());
  }
  std::string begun = c.count_body(true);
  auto tokens = co_await ask("/tokenize", std::move(begun));
  if (!tokens) co_return std::unexpected(tokens.error());
  if (auto taken = c.take_count(*tokens, true); !taken) co_return std::unexpected(taken.error());
  const auto left = tokens_left(call_.request.max_tokens, c.delivered_tokens);
  if (left && *left == 0) co_return std::string();
  co_return c.chat_body(left, result_.resumes, lease_->slot().slot, lease_->slot().same_tenant);
}

net::Task<Relay::Step> Relay::resume() {
  Continuation& c = *continuation_;
  link_ = state_.links.find(lease_->replica().node);
  if (!link_) co_return failed("the link to its node is down");
  const auto body = co_await continuation_body();
  if (presence_->gone) co_return cancelled();
  if (!body && body.error().code == ErrorCode::kRefused) co_return Step::kRefused;
  if (!body && body.error().code == ErrorCode::kConflict) {
    count_partial();
    ApiError error = cannot_continue(ResumeObstacle::kTemplate);
    co_await fail_with(std::move(error));
    co_return Step::kEnded;
  }
  if (!body) co_return failed(body.error().reason, body.error().code == ErrorCode::kTimeout);
  log_info("stream.continued", {{"request", call_.request_id},
                                {"replica", lease_->replica().id},
                                {"tokens", c.delivered_tokens},
                                {"exact", c.exact},
                                {"resume", result_.resumes}});
  if (body->empty()) {
    c.finish = "length";
    co_return co_await finish_continuation();
  }
  net::RequestHead head{.method = "POST",
                        .path = "/node/v1/replicas/" + lease_->replica().id + (c.by_chat ? std::string(engine_path(Endpoint::kChat)) : "/completion"),
                        .query = {},
                        .headers = {{"content-type", "application/json"}, {"x-request-id", call_.request_id}}};
  std::string bytes = *body;
  auto opened = co_await link_->open(std::move(head), std::move(bytes));
  if (!opened) co_return failed(opened.error().reason);
  const net::ClientExchangePtr upstream = *opened;
  presence_->upstream = upstream;
  const auto asked = Clock::now();
  const auto limit = asked + first_limit();
  while (true) {
    const auto deadline = std::min({limit, next_probe(asked), next_life_sign()});
    const auto answer = co_await upstream->head(deadline);
    if (presence_->gone) co_return cancelled();
    if (answer && answer->status == 200) break;
    if (answer) {
      const auto text = co_await upstream->read_body(std::size_t{256} << 10, Clock::now() + kHelperLimit);
      if (presence_->gone) co_return cancelled();
      if (net::find_header(answer->headers, "aiv-refused") != nullptr) co_return Step::kRefused;
      const ApiError error = from_engine_error(answer->status, text ? *text : std::string());
      // The context is full: where the unbroken answer would have ended too.
      if (error.code == "context_length_exceeded") {
        c.finish = "length";
        co_return co_await finish_continuation();
      }
      co_return failed("it answered with status " + std::to_string(answer->status) + " (" + printable(error.message, 200) + ")");
    }
    if (answer.error().code == ErrorCode::kRefused) co_return Step::kRefused;
    if (answer.error().code != ErrorCode::kTimeout) co_return failed(answer.error().reason);
    if (Clock::now() >= limit) co_return failed("it did not answer in time", true);
    const bool hung = co_await hangs(asked);
    if (presence_->gone) co_return cancelled();
    if (hung) co_return failed("it answers nothing any more", true);
    co_await life_sign();
  }
  co_return co_await continue_stream(upstream);
}

net::Task<Relay::Step> Relay::continue_stream(net::ClientExchangePtr upstream) {
  in_.clear();
  auto last_event = Clock::now();
  while (true) {
    const auto limit = last_event + stall_limit();
    const auto deadline = std::min({limit, next_life_sign(), next_probe(last_event)});
    const Result<bool> more = co_await upstream->read_some(in_, deadline);
    if (presence_->gone) co_return cancelled();
    if (!more && more.error().code == ErrorCode::kTimeout) {
      const std::optional<Step> ended = co_await sit_out(last_event, limit);
      if (ended) co_return *ended;
      continue;
    }
    if (!more) co_return stream_failed(more.error().reason);
    if (!*more) {
      const std::string end = net::header_or(upstream->trailers(), "aiv-end", "");
      note_end(end);
      co_return stream_failed("its answer was cut off" + (end.empty() ? "" : " (" + printable(end, 80) + ")"));
    }
    last_event = lease_->replica().heard_at = Clock::now();
    const bool sound = scan_continuation();
    if (!out_.empty()) {
      const bool sent = co_await send(out_);
      if (!sent) co_return cancelled();
    }
    if (!sound) co_return stream_failed("the engine reported an error");
    if (in_.size() > kEventBytesMax) co_return stream_failed("an event is too large");
    if (!continuation_->finish.empty()) {
      upstream->cancel();  // ended, or cut by a stop string: nothing more is wanted
      co_return co_await finish_continuation();
    }
  }
}

void Relay::say(const std::string& text) {
  if (text.empty()) return;
  emit(journal_.text_event(text));
  journal_.add_text(text);
  ++tokens_;
}

// Takes the whole events of in_ and puts into out_ what the client gets. False: an error event came.
bool Relay::scan_continuation() {
  out_.clear();
  bool sound = true;
  std::size_t done = 0;
  while (const std::size_t size = next_event(std::string_view(in_).substr(done))) {
    const std::string_view event = std::string_view(in_).substr(done, size);
    done += size;
    const SseEvent kind = classify_event(event);
    if (!continuation_->finish.empty() || kind == SseEvent::kComment) continue;
    if (kind == SseEvent::kError) engine_error_ = event_data(event);
    sound = kind != SseEvent::kError && take_continuation(event);
    if (!sound) break;
  }
  in_.erase(0, done);
  return sound;
}

// One event of an answer that goes on. False: it makes no sense.
bool Relay::take_continuation(std::string_view event) {
  Continuation& c = *continuation_;
  if (c.by_chat && classify_event(event) == SseEvent::kDone) {
    c.finish = c.ending;
    return !c.finish.empty();
  }
  const auto step = c.by_chat ? c.take_chat_event(event_data(event)) : c.take_event(event_data(event));
  if (!step) return false;
  StopSeam::Out out = c.seam.feed(step->text);
  say(out.text);
  if (out.stopped) {
    c.finish = "stop";
    return true;
  }
  if (!step->delta.is_null()) {
    say(c.seam.rest());
    const std::string made = journal_.delta_event(step->delta);
    emit(made);
    journal_.add(made, Endpoint::kChat);
    ++tokens_;
  }
  if (!step->finish.empty()) {
    say(c.seam.rest());
    (c.by_chat ? c.ending : c.finish) = step->finish;
  }
  // The chat route says them behind its last event.
  if (!c.finish.empty() || !c.ending.empty()) {
    if (const auto timings = find_timings(event_data(event)); timings && timings->generated_ms > 0) {
      Replica& replica = lease_->replica();
      replica.speed.observe_prefill(timings->prompt_tokens, timings->prompt_ms);
      replica.speed.observe_decode(timings->generated_tokens, timings->generated_ms, replica.ledger.busy());
    }
  }
  return true;
}

// An event that was made here, in the form that the client speaks.
void Relay::emit(std::string_view event) {
  if (!call_.form) {
    out_ += event;
  } else if (event_data(event) == "[DONE]") {
    call_.form->done(out_);
  } else {
    call_.form->event(out_, event_data(event));
  }
}

net::Task<Relay::Step> Relay::finish_continuation() {
  Continuation& c = *continuation_;
  const AnswerUsage usage = whole_usage(c.evaluated, c.predicted, c.delivered_tokens);
  result_.end = c.finish;
  result_.usage = {.prompt_tokens = usage.prompt_tokens, .generated_tokens = usage.completion_tokens};
  learned_ = true;
  const bool chat = call_.request.endpoint == Endpoint::kChat;
  out_.clear();
  emit(journal_.finish_event(c.finish, chat ? nullptr : &usage));
  if (chat && call_.request.include_usage) emit(journal_.usage_event(usage));
  emit("data: [DONE]\n\n");
  const bool sent = co_await send(out_);
  if (!sent) co_return cancelled();
  const Result<> finished = co_await call_.exchange->finish();
  if (!finished) co_return cancelled();
  count_success();
  co_return Step::kEnded;
}

}  // namespace aiv::gateway
