#include "gateway/relay.hpp"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/log.hpp"
#include "base/units.hpp"
#include "gateway/pulse.hpp"
#include "gateway/relay_continuation.hpp"

namespace aiv::gateway {
namespace {

using net::Clock;

constexpr std::string_view kDone = "data: [DONE]\n\n";
constexpr net::seconds kErrorBodyWait{5};
constexpr net::milliseconds kPaceWindow{static_cast<std::int64_t>(kPaceWindowMs)};
constexpr net::milliseconds kProbeAfter{700};  // of silence
constexpr net::milliseconds kProbeLimit{1500};
// The same for a request that has no token yet and may be moved for the price of its prompt.
constexpr net::milliseconds kQuickProbeAfter{250};
constexpr net::milliseconds kQuickProbeLimit{300};
constexpr net::milliseconds kQuickFor{2000};  // from its start: later more than that would be thrown away

double ms_between(Clock::time_point from, Clock::time_point to) {
  return std::chrono::duration<double, std::milli>(to - from).count();
}

Clock::duration ms(double value) { return std::chrono::milliseconds(static_cast<std::int64_t>(value)); }

// What the engine itself answers for a request that it could not do; another replica would say the same.
bool is_clients_fault(int status) { return status == 400 || status == 413 || status == 422 || status == 501; }

}  // namespace

void Relay::Presence::leave() {
  gone = true;
  if (upstream) upstream->cancel();
  if (waiter) waiter->signal.notify();
}

Relay::Relay(GatewayState& state, InferenceCall call)
    : state_(state),
      call_(std::move(call)),
      metrics_(state.metrics.model(call_.model->name)),
      demand_{.model = call_.model,
              .key_id = std::move(call_.key_id),
              .tenant = call_.tenant,
              .prompt_bytes = call_.request.prompt_bytes,
              .max_tokens = call_.request.max_tokens},
      last_write_(call_.arrived) {}

Relay::~Relay() { call_.exchange->on_gone(nullptr); }

net::Task<> Relay::run() {
  // The callback holds what it needs itself: it may come after this object is gone.
  const auto presence = presence_;
  call_.exchange->on_gone([presence] { presence->leave(); });
  int refusals = 0;
  for (;;) {
    bool acquired = false;
    if (continuation_) {
      acquired = co_await acquire_survivor();
    } else {
      acquired = co_await acquire();
    }
    if (!acquired) break;
    result_.attempts += 1;
    result_.replica = lease_->replica().id;
    link_lost_ = engine_left_ = hung_ = false;
    probes_failed_ = 0;
    attempt_at_ = Clock::now();
    Step step = Step::kEnded;
    if (continuation_) {
      step = co_await resume();
    } else {
      step = co_await attempt();
      // Not from within the attempt, whose frame would wait with each stream.
      if (step == Step::kAnswers && call_.request.stream) {
        step = co_await relay_stream(presence_->upstream);
      } else if (step == Step::kAnswers) {
        step = co_await relay_whole(presence_->upstream);
      }
    }
    presence_->upstream = nullptr;
    lease_.reset();
    if (step == Step::kEnded) break;
    if (step == Step::kRefused) {
      result_.attempts -= 1;
      if (++refusals >= kRefusalsMax) {
        co_await fail_refused();
        break;
      }
      co_await net::sleep_for(kRefusedPause);
      continue;
    }
    const bool goes_on = co_await answer_failure();
    if (!goes_on) break;
  }
}

// Apart, since run()'s frame waits with each stream and would have room for the error.
net::Task<> Relay::fail_refused() {
  return fail_with(overloaded("The replicas refuse further requests.", "overloaded", 1));
}

// An attempt has failed: true when there is to be another one, else the client has been told.
net::Task<bool> Relay::answer_failure() {
  if (crashes_ >= kCrashesMax) {
    ApiError poison{.status = 500,
                    .type = "api_error",
                    .code = "request_crashes_engine",
                    .message = "Two engines ended while they worked on this request; it is not tried again.",
                    .never_retry = true};
    co_await fail_with(std::move(poison));
    co_return false;
  }
  if (relayed_ && !result_.end.empty() && !call_.request.include_usage) {
    // Its last event has left; only the end mark was lost.
    out_.clear();
    emit(kDone);
    const bool sent = co_await send(out_);
    if (sent) {
      const Result<> finished = co_await call_.exchange->finish();
      static_cast<void>(finished);
    }
    count_partial();
    co_return false;
  }
  if (relayed_) {
    const ResumeObstacle obstacle = begin_resume();
    if (obstacle == ResumeObstacle::kNone) co_return true;
    ApiError error = cannot_continue(obstacle);
    if (!engine_error_.empty()) {
      error = from_engine_error(200, engine_error_);
      if (error.code.empty()) error.code = "engine_error";
    }
    count_partial();
    co_await fail_with(std::move(error));
    co_return false;
  }
  // A request that only lost its node or engine is tried once more whatever the budget says.
  const bool free_try = result_.attempts == 1 && (link_lost_ || engine_left_ || hung_);
  if (result_.attempts >= kAttemptsMax || (!retrying_ && !free_try && !state_.dispatcher.may_retry())) {
    co_await fail_with(replica_failed("No replica could answer: " + failure_ + "."));
    co_return false;
  }
  if (!retrying_) retrying_ = state_.dispatcher.retry_token();
  exclude_tried();
  forget_attempt();
  co_return true;
}

// Nothing of it has left, so the next attempt starts from nothing.
void Relay::forget_attempt() {
  if (call_.form) call_.form->forget();
  in_.clear();
  engine_error_.clear();
  journal_.clear();
  tokens_ = 0;
  done_ = rename_ = model_seen_ = learned_ = pace_spoiled_ = false;
}

net::Task<bool> Relay::acquire() {
  if (presence_->gone) {
    cancelled();
    co_return false;
  }
  const auto started = Clock::now();
  lease_ = state_.dispatcher.try_bind(demand_);
  if (lease_) co_return true;
  if (!call_.request.stream && call_.model->replicas.empty() && call_.model->state != "failed" &&
      call_.model->state != "idle") {
    ApiError error = not_ready(*call_.model, monotonic_ms(), state_.dispatcher.draw());
    co_await fail_with(std::move(error));
    co_return false;
  }
  auto queued = state_.dispatcher.enqueue(demand_);
  if (!queued) {
    if (!failure_.empty()) queued.error() = replica_failed("No replica could answer: " + failure_ + ".");
    co_await fail_with(std::move(queued.error()));
    co_return false;
  }
  const WaiterPtr waiter = *queued;
  presence_->waiter = waiter;
  while (!waiter->lease && !waiter->error && !presence_->gone) {
    const auto deadline = call_.request.stream ? next_life_sign() : Clock::now() + net::seconds(60);
    const bool notified = co_await waiter->signal.wait_until(deadline);
    if (!notified && call_.request.stream) co_await life_sign();
  }
  presence_->waiter = nullptr;
  result_.queue_ms += ms_between(started, Clock::now());
  if (presence_->gone) {
    state_.dispatcher.cancel(waiter);
    cancelled();
    co_return false;
  }
  if (waiter->error) {
    co_await fail_with(std::move(*waiter->error));
    co_return false;
  }
  lease_ = std::move(waiter->lease);
  co_return true;
}

net::Task<Relay::Step> Relay::attempt() {
  Replica& replica = lease_->replica();
  link_ = state_.links.find(replica.node);
  if (!link_) co_return failed("the link to its node is down");
  // Several requests may have been bound at once for the last places of the link.
  if (!state_.links.has_room(replica.node)) co_return Step::kRefused;
  net::RequestHead head{.method = "POST",
                        .path = "/node/v1/replicas/" + replica.id + std::string(engine_path(call_.request.endpoint)),
                        .query = {},
                        .headers = {{"content-type", "application/json"}, {"x-request-id", call_.request_id}}};
  if (!call_.trace.empty()) head.headers.push_back({"traceparent", call_.trace});
  auto opened = co_await link_->open(
      std::move(head), engine_body(call_.request, lease_->slot().slot, lease_->slot().same_tenant));
  if (!opened && opened.error().code == ErrorCode::kRefused) co_return Step::kRefused;
  if (!opened) co_return failed(opened.error().reason);
  const net::ClientExchangePtr upstream = *opened;
  presence_->upstream = upstream;
  if (presence_->gone) co_return cancelled();

  const auto asked = Clock::now();
  const auto limit = asked + first_limit();
  while (true) {
    auto deadline = std::min(limit, next_probe(asked));
    if (call_.request.stream) deadline = std::min(deadline, next_life_sign());
    auto answer = co_await upstream->head(deadline);
    if (presence_->gone) co_return cancelled();
    if (answer) {
      if (answer->status != 200) co_return co_await read_failure(upstream, std::move(*answer));
      break;
    }
    if (answer.error().code == ErrorCode::kRefused) co_return Step::kRefused;
    if (answer.error().code != ErrorCode::kTimeout) co_return failed(answer.error().reason);
    if (Clock::now() >= limit) co_return failed("it did not answer in time", true);
    const bool hung = co_await hangs(asked);
    if (presence_->gone) co_return cancelled();
    if (hung) co_return failed("it answers nothing any more", true);
    co_await life_sign();
  }
  co_return Step::kAnswers;
}

net::Task<Relay::Step> Relay::read_failure(net::ClientExchangePtr upstream, net::ResponseHead head) {
  if (net::find_header(head.headers, "aiv-refused") != nullptr) co_return Step::kRefused;
  const auto body = co_await upstream->read_body(std::size_t{256} << 10, Clock::now() + kErrorBodyWait);
  if (presence_->gone) co_return cancelled();
  ApiError error = from_engine_error(head.status, body ? *body : std::string());
  if (is_clients_fault(error.status)) {
    co_await fail_with(std::move(error));
    co_return Step::kEnded;
  }
  if (head.status == 401 || head.status == 403) {
    log_error("engine.refused_us", {{"replica", lease_->replica().id}, {"status", head.status}});
  }
  co_return failed("it answered with status " + std::to_string(head.status) + " (" + printable(error.message, 200) + ")");
}

net::Task<Relay::Step> Relay::relay_whole(net::ClientExchangePtr upstream) {
  const auto body = co_await upstream->read_body(kAnswerBytesMax, Clock::now() + first_limit());
  if (presence_->gone) co_return cancelled();
  if (!body) co_return failed(body.error().reason, body.error().code == ErrorCode::kTimeout);
  const std::string end = net::header_or(upstream->trailers(), "aiv-end", "");
  if (end != "complete") {
    note_end(end);
    co_return failed(end.empty() ? "its answer was cut off" : "its answer was cut off (" + printable(end, 80) + ")");
  }
  learn(*body);
  result_.end = std::string(find_json_string(*body, "finish_reason").value_or("stop"));
  result_.first_token_ms = ms_between(call_.arrived, Clock::now());
  std::string out;
  if (call_.form) {
    auto formed = call_.form->whole(*body);
    if (!formed && formed.error().code == ErrorCode::kInvalidArgument) {
      co_await fail_with(bad_request(formed.error().reason, formed.error().where));
      co_return Step::kEnded;
    }
    if (!formed) co_return failed(formed.error().reason);
    out = std::move(*formed);
  } else {
    append_with_model(out, *body, call_.request.model);
  }
  net::ResponseHead head{200, answer_headers()};
  head.headers.push_back({"content-type", "application/json"});
  result_.status = 200;
  const Result<> sent = co_await call_.exchange->respond(std::move(head), std::move(out));
  if (!sent) co_return cancelled();
  count_success();
  co_return Step::kEnded;
}

net::Task<Relay::Step> Relay::relay_stream(net::ClientExchangePtr upstream) {
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
    if (!*more) co_return co_await end_stream(upstream);
    last_event = lease_->replica().heard_at = Clock::now();
    const bool sound = scan_events();
    sample_pace(last_event);
    const bool sent = co_await send_events();
    if (!sent) co_return cancelled();
    if (!sound) co_return stream_failed("the engine reported an error");
    if (in_.size() > kEventBytesMax) co_return stream_failed("an event is too large");
  }
}

// A stream has been silent for a while: how it ends, or nothing where the engine is waited for. Apart from the reading
// loops, which run for every token and pay for no further frame.
net::Task<std::optional<Relay::Step>> Relay::sit_out(Clock::time_point silent_since, Clock::time_point limit) {
  if (Clock::now() >= limit) co_return stream_failed("it stopped sending", true);
  const bool hung = co_await hangs(silent_since);
  if (presence_->gone) co_return cancelled();
  if (hung) co_return stream_failed("it answers nothing any more", true);
  co_await life_sign();
  co_return std::nullopt;
}

// The engine's body has ended: with its terminator it is whole, without it is broken.
net::Task<Relay::Step> Relay::end_stream(net::ClientExchangePtr upstream) {
  const std::string end = net::header_or(upstream->trailers(), "aiv-end", "");
  if (!done_) {
    note_end(end);
    std::string reason = "its answer was cut off";
    if (!end.empty() && end != "complete") reason += " (" + printable(end, 80) + ")";
    co_return stream_failed(std::move(reason));
  }
  const Result<> finished = co_await call_.exchange->finish();
  if (!finished) co_return cancelled();
  count_success();
  co_return Step::kEnded;
}

// How the agent says that an answer ended. An engine that left by itself marks the request.
void Relay::note_end(std::string_view end) {
  if (!end.starts_with("engine-exit")) return;
  engine_left_ = true;
  ++crashes_;
}

bool Relay::moves_quickly() const {
  return !relayed_ && !continuation_ && !moved_quickly_ && Clock::now() < attempt_at_ + kQuickFor;
}

// When the replica is asked whether it is there, after so long a silence.
Clock::time_point Relay::next_probe(Clock::time_point silent_since) const {
  const auto since = std::max({silent_since, probed_at_, lease_->replica().heard_at});
  return since + (moves_quickly() ? kQuickProbeAfter : kProbeAfter);
}

// True when the engine under a silent exchange answers nothing at all. Only a missing answer counts: whoever says "not
// ready" lives, and a link that is gone breaks the exchange itself.
net::Task<bool> Relay::hangs(Clock::time_point silent_since) {
  if (Clock::now() < next_probe(silent_since)) co_return false;
  const ReplicaPtr replica = lease_->shared_replica();
  if (std::max(silent_since, replica->heard_at) > probed_at_) probes_failed_ = 0;
  probed_at_ = Clock::now();
  if (!state_.dispatcher.has_alternative(demand_, *replica)) co_return false;
  const bool quick = moves_quickly();
  const Pulse pulse = co_await feel_pulse(link_, replica, quick ? kQuickProbeLimit : kProbeLimit);
  probed_at_ = Clock::now();
  if (pulse != Pulse::kSilent) {
    probes_failed_ = 0;
    co_return false;
  }
  watch_hung(state_.executor, state_.links, replica);
  probed_at_ -= kProbeAfter;  // the next question follows at once
  moved_quickly_ = moved_quickly_ || quick;
  probes_failed_ += 1;
  co_return quick || probes_failed_ >= kProbesMax;
}

// Splits what has arrived into events; what may leave is in_[0, whole_) or, where something was left out or changed,
// out_.
bool Relay::scan_events() {
  std::size_t run = 0;  // start of what is not yet copied, when copied_
  whole_ = 0;
  copied_ = false;
  out_.clear();
  const std::string_view in = in_;
  bool sound = true;
  const auto leave_out = [&](std::size_t until) {
    out_.append(in.substr(run, whole_ - run));
    run = until;
    copied_ = true;
  };
  while (const std::size_t size = next_event(in.substr(whole_))) {
    const std::string_view event = in.substr(whole_, size);
    const SseEvent kind = classify_event(event);
    if (kind == SseEvent::kError) {
      engine_error_ = event_data(event);
      leave_out(whole_ + size);
      whole_ += size;
      sound = false;
      break;
    }
    if (kind == SseEvent::kComment || done_) {  // our own comments keep the connection alive
      leave_out(whole_ + size);
      whole_ += size;
      continue;
    }
    if (kind == SseEvent::kDone) {
      done_ = true;
    } else {
      // Whose turn it is goes out with the first of what is said: until then the request can still be tried anew.
      if (!relayed_ && whole_ == 0 && whole_ + size == in.size() && is_role_event(event)) break;
      note_event(event, kind);
    }
    if (call_.form) {
      leave_out(whole_ + size);
      if (done_) call_.form->done(out_);
      if (!done_) call_.form->event(out_, event_data(event));
    } else if (rename_) {
      leave_out(whole_ + size);
      append_with_model(out_, event, call_.request.model);
    }
    whole_ += size;
  }
  if (copied_) out_.append(in.substr(run, whole_ - run));
  return sound;
}

void Relay::note_event(std::string_view event, SseEvent kind) {
  // Progress of the prompt, which only a form asks for, is no token.
  if (call_.form && find_json_value(event, "prompt_progress") != std::string_view::npos) return;
  pass_event(event);
  if (kind == SseEvent::kToken && journal_.add(event, call_.request.endpoint)) ++tokens_;
  if (kind == SseEvent::kFinish) result_.end = std::string(find_json_string(event, "finish_reason").value_or(""));
  if (kind != SseEvent::kToken) learn(event_data(event));
}

void Relay::pass_event(std::string_view event) {
  if (model_seen_) return;
  model_seen_ = true;
  const auto model = find_json_string(event, "model");
  rename_ = model && *model != call_.request.model;
  first_token_at_ = pace_since_ = Clock::now();
  pace_tokens_ = 0;
  result_.first_token_ms = ms_between(call_.arrived, first_token_at_);
  metrics_.time_to_first_token.observe(result_.first_token_ms / 1000.0);
}

// The engine's own figures, once per answer: what the rates and the accounting are learned from.
void Relay::learn(std::string_view json) {
  const auto timings = find_timings(json);
  if (!timings) return;
  // Prefer figures with times; the usage chunk and the timings come in the same event or one after the other.
  if (learned_ && timings->generated_ms <= 0) return;
  learned_ = true;
  result_.usage = *timings;
  Replica& replica = lease_->replica();
  replica.speed.observe_prefill(timings->prompt_tokens, timings->prompt_ms);
  replica.speed.observe_decode(timings->generated_tokens, timings->generated_ms, replica.ledger.busy());
}

// Speed while it streams: a card that slows down is seen before a long answer ends.
void Relay::sample_pace(Clock::time_point now) {
  if (!model_seen_ || now - pace_since_ < kPaceWindow) return;
  const std::int64_t tokens = tokens_ - pace_tokens_;
  if (tokens < kPaceMinTokens) return;
  Replica& replica = lease_->replica();
  if (!pace_spoiled_) replica.speed.observe_pace(tokens, ms_between(pace_since_, now), replica.ledger.busy());
  pace_since_ = now;
  pace_tokens_ = tokens_;
  pace_spoiled_ = false;
}

net::Task<bool> Relay::send_events() {
  const std::string_view bytes = copied_ ? std::string_view(out_) : std::string_view(in_).substr(0, whole_);
  bool sent = true;
  if (!bytes.empty()) {
    sent = co_await send(bytes);
    relayed_ = true;
  }
  in_.erase(0, whole_);
  // Between two tokens a stream keeps no room for them.
  if (in_.empty()) std::string().swap(in_);
  std::string().swap(out_);
  whole_ = 0;
  co_return sent;
}

net::Task<bool> Relay::send(std::string_view bytes) {
  if (!head_sent_) {
    head_sent_ = true;
    result_.status = 200;
    call_.exchange->forget_request_headers();
    const Result<> started = co_await call_.exchange->start(stream_head());
    if (!started) co_return false;
  }
  const auto before = Clock::now();
  const Result<> written = co_await call_.exchange->write(bytes);
  last_write_ = Clock::now();
  if (last_write_ - before > net::milliseconds(50)) pace_spoiled_ = true;
  co_return written.has_value();
}

net::Task<> Relay::life_sign() {
  if (!call_.request.stream || presence_->gone || Clock::now() < next_life_sign()) co_return;
  std::string sign;
  if (call_.form) call_.form->life_sign(sign);
  if (!call_.form) sign = ": keep-alive\n\n";
  co_await send(sign);
}

Relay::Step Relay::stream_failed(std::string reason, bool hung) {
  in_.clear();  // what is left is no whole event
  return failed(std::move(reason), hung);
}

net::Task<> Relay::fail_with(ApiError error) {
  result_.end = error.code.empty() ? "error" : error.code;
  metrics_.failures_by_code[result_.end] += 1;
  if (retrying_) metrics_.failovers_failed += 1;
  if (relayed_) metrics_.streams_broken += 1;
  if (continuation_) metrics_.resumes_failed += 1;
  if (head_sent_) {
    const std::string event = call_.form ? call_.form->error_event(error) : openai_error_event(error);
    const bool sent = co_await send(event);
    if (sent) {
      const Result<> finished = co_await call_.exchange->finish();
      static_cast<void>(finished);
    }
    co_return;
  }
  result_.status = error_status(family(), error);
  net::ResponseHead head{result_.status, answer_headers()};
  for (net::Header& header : error_headers(error)) head.headers.push_back(std::move(header));
  const Result<> sent = co_await call_.exchange->respond(std::move(head), error_body(family(), error, call_.request_id));
  static_cast<void>(sent);
}

Relay::Step Relay::failed(std::string reason, bool hung) {
  Replica& replica = lease_->replica();
  failure_ = std::move(reason);
  hung_ = hung;
  replica.failures += 1;
  // A link that went down says nothing of the replica: it is unreachable until the link is back, then usable at once.
  link_lost_ = !link_ || state_.links.find(replica.node) != link_;
  if (!link_lost_) {
    replica.ejection.failed(monotonic_ms());
    tried_.push_back({lease_->shared_replica(), Clock::now(), hung});
  }
  log_warn("replica.failed", {{"replica", replica.id},
                              {"node", replica.node},
                              {"request", call_.request_id},
                              {"reason", printable(failure_, 300)},
                              {"hung", hung},
                              {"tokens", tokens_}});
  return Step::kRetry;
}

Relay::Step Relay::cancelled() {
  result_.end = "cancelled";
  if (result_.status == 0) result_.status = 499;  // as nginx logs it: nobody is there to read a status
  metrics_.cancelled += 1;
  count_partial();
  return Step::kEnded;
}

// An answer that did not end by itself is accounted for with what was relayed of it.
void Relay::count_partial() {
  if (learned_) return;
  result_.usage.generated_tokens = tokens_;
  metrics_.generation_tokens += static_cast<std::uint64_t>(tokens_);
}

void Relay::count_success() {
  Replica& replica = lease_->replica();
  replica.ejection.succeeded();
  const auto now = Clock::now();
  const EngineTimings& usage = result_.usage;
  const std::int64_t prompt = usage.prompt_tokens + usage.cached_tokens;
  const std::int64_t generated = usage.generated_tokens > 0 ? usage.generated_tokens : tokens_;
  result_.usage.generated_tokens = generated;
  Model& model = *call_.model;
  model.answers += 1;
  if (generated > 0) model.output_tokens.observe(static_cast<double>(generated));
  if (prompt > 0) {
    model.prompt_tokens.observe(static_cast<double>(prompt));
    const auto bytes = static_cast<double>(std::max<std::size_t>(call_.request.prompt_bytes, 1));
    model.tokens_per_byte.observe(std::min(1.0, static_cast<double>(prompt) / bytes));
  }
  metrics_.prompt_tokens += static_cast<std::uint64_t>(prompt);
  metrics_.generation_tokens += static_cast<std::uint64_t>(generated);
  const double total_s = ms_between(call_.arrived, now) / 1000.0;
  metrics_.e2e_request_latency.observe(total_s);
  metrics_.queue_time.observe(result_.queue_ms / 1000.0);
  if (call_.request.stream && generated > 1) {
    metrics_.inter_token_latency.observe(ms_between(first_token_at_, now) / 1000.0 / static_cast<double>(generated - 1));
  }
  if (!call_.request.stream) metrics_.time_to_first_token.observe(total_s);
  metrics_.success_by_finish_reason[result_.end] += 1;
  if (retrying_) metrics_.failovers_recovered += 1;
  if (continuation_) metrics_.resumes_recovered += 1;
}

// Once: an answer has one head.
net::Headers Relay::answer_headers() {
  net::Headers headers = std::move(call_.headers);
  if (call_.debug) {
    headers.push_back({"x-aiv-replica", result_.replica});
    headers.push_back({"x-aiv-attempts", std::to_string(result_.attempts)});
  }
  return headers;
}

net::ResponseHead Relay::stream_head() {
  net::ResponseHead head{200, answer_headers()};
  head.headers.push_back({"content-type", std::string(call_.form ? call_.form->stream_type() : "text/event-stream")});
  head.headers.push_back({"cache-control", "no-cache"});
  head.headers.push_back({"x-accel-buffering", "no"});
  return head;
}

Clock::time_point Relay::next_life_sign() const {
  return head_sent_ ? last_write_ + net::milliseconds(state_.options.keep_alive_ms)
                    : call_.arrived + net::milliseconds(state_.options.head_hold_ms);
}

// How long a silence is borne at least, in ms: long where nobody else could answer (unless the answer is to move all the
// same) or where a kernel may be compiling.
double Relay::patience_ms(bool moves_when_alone) const {
  const bool alone = !moves_when_alone && !state_.dispatcher.has_alternative(demand_, lease_->replica());
  return alone || lease_->replica().software ? state_.options.stall_alone_ms : state_.options.stall_ms_min;
}

// How long the first token (of a stream) or the whole answer may take.
Clock::duration Relay::first_limit() const {
  const RouteTerms& terms = lease_->terms();
  if (!call_.request.stream) {
    // Nothing arrives before the end, so only a multiple of the longest answer asked for can be a limit.
    const double tokens = static_cast<double>(call_.request.max_tokens > 0 ? call_.request.max_tokens
                                              : call_.model->ctx_per_slot > 0 ? call_.model->ctx_per_slot : 4096);
    const Replica& replica = lease_->replica();
    const double decode = tokens * 1000.0 / (replica.speed.decode_per_s() * batch_factor(replica.ledger.slots()));
    return ms(std::clamp(3.0 * (terms.prefill_ms + decode), std::max(60'000.0, patience_ms(false)), 3'600'000.0));
  }
  const double token_ms = 1000.0 / lease_->replica().speed.decode_per_s();
  return ms(std::clamp(3.0 * (terms.prefill_ms + token_ms), patience_ms(false), 3'600'000.0));
}

Clock::duration Relay::stall_limit() const {
  constexpr double kBatchTokens = 2048;  // a neighbour's prompt: nobody gets a token while one batch of it runs
  const double batch_ms = kBatchTokens * 1000.0 / lease_->replica().speed.prefill_per_s();
  return ms(std::clamp(3.0 * batch_ms, patience_ms(relayed_), 600'000.0));
}

}  // namespace aiv::gateway
