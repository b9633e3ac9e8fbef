// The server's end of one HTTP/1.1 connection.
#include <fmt/format.h>
#include <time.h>

#include <array>
#include <charconv>

#include "base/log.hpp"
#include "net/http1_head.hpp"
#include "net/served_connection.hpp"

namespace aiv::net {
namespace {

constexpr std::size_t kReadAheadMax = 64 * 1024;  // bytes read ahead of what the exchange takes
constexpr std::size_t kChunkFrameMax = 20;        // 16 digits and two line ends
constexpr std::size_t kDiscardMax = 256 * 1024;   // of a body that the handler left unread

std::string_view reason_phrase(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 304:
      return "Not Modified";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Status";
  }
}

void append_number(std::string& out, std::uint64_t value, int base = 10) {
  std::array<char, 20> digits;
  const auto end = std::to_chars(digits.data(), digits.data() + digits.size(), value, base).ptr;
  out.append(digits.data(), end);
}

// Good to a few milliseconds, at a fifth of the price; for limits of seconds.
Clock::time_point about_now() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return Clock::time_point(std::chrono::duration_cast<Clock::duration>(
      seconds(now.tv_sec) + std::chrono::nanoseconds(now.tv_nsec)));
}

class ServedHttp1Exchange;
using ServedHttp1ExchangePtr = std::shared_ptr<ServedHttp1Exchange>;

// One connection: a pump that reads ahead (and so notices that the peer left), and a loop of exchanges.
class ServedHttp1 final : public detail::ServedConnection, public std::enable_shared_from_this<ServedHttp1> {
 public:
  ServedHttp1(StreamPtr stream, detail::ServerTermsPtr terms)
      : stream_(std::move(stream)), terms_(std::move(terms)) {}

  Task<> serve() override;
  void sweep(Clock::time_point now) override;
  void kill() override {
    gone_ = true;
    stream_->close();
  }

 private:
  friend class ServedHttp1Exchange;
  enum class Phase { kIdle, kHead, kBody, kHandling, kWriting };
  void enter(Phase phase) {
    phase_ = phase;
    since_ = about_now();
  }
  // Takes `bytes` off what was read ahead. Nothing is kept where nothing is left: the answer may stream for an hour.
  void consume(std::size_t bytes) {
    in_.erase(0, bytes);
    if (in_.empty()) std::string().swap(in_);
    room_.notify();
  }
  Task<> pump();
  Task<ServedHttp1ExchangePtr> read_head();
  Task<> refuse(int status, std::string reason);
  Task<bool> run(ServedHttp1ExchangePtr exchange);
  Task<bool> settle(ServedHttp1ExchangePtr exchange);
  Task<Result<>> send(std::string_view bytes);
  Task<> linger();

  StreamPtr stream_;
  detail::ServerTermsPtr terms_;
  std::string in_;
  bool eof_ = false;   // the peer closed its side
  bool gone_ = false;  // nobody is there any more
  bool timed_out_ = false;
  Signal arrived_;
  Signal room_;
  Phase phase_ = Phase::kIdle;
  Clock::time_point since_ = Clock::now();
  std::function<void()> on_gone_;
};
using ServedHttp1Ptr = std::shared_ptr<ServedHttp1>;

class ServedHttp1Exchange final : public ServerExchange {
 public:
  ServedHttp1Exchange(ServedHttp1Ptr connection, Http1Request request)
      : connection_(std::move(connection)), request_(std::move(request)), left_(request_.body.length) {}

  [[nodiscard]] const RequestHead& request() const override { return request_.head; }
  [[nodiscard]] std::string peer() const override { return connection_->stream_->peer(); }
  Task<Result<bool>> read_some(std::string& out) override;
  Task<Result<>> start(ResponseHead head) override;
  Task<Result<>> write(std::string_view bytes) override;
  Task<Result<>> finish(Headers trailers) override;
  void abort() override {
    connection_->on_gone_ = nullptr;
    ended_ = true;
    keep_alive_ = false;
    connection_->kill();
  }
  [[nodiscard]] bool gone() const override { return connection_->gone_ || (connection_->eof_ && body_done_); }
  void on_gone(std::function<void()> callback) override {
    if (callback && gone()) return callback();
    connection_->on_gone_ = std::move(callback);
  }
  void forget_request_headers() override { Headers().swap(request_.head.headers); }

  [[nodiscard]] bool started() const { return started_; }
  [[nodiscard]] bool ended() const { return ended_; }
  [[nodiscard]] bool body_done() const { return body_done_; }
  [[nodiscard]] bool keep_alive() const { return keep_alive_ && request_.keep_alive; }
  [[nodiscard]] bool body_asked() const { return !request_.expects_continue || continued_; }

 private:
  ServedHttp1Ptr connection_;
  Http1Request request_;
  std::uint64_t left_;
  ChunkedDecoder decoder_;
  bool body_done_ = request_.body.kind == BodyFraming::Kind::kNone;
  bool continued_ = false;
  bool started_ = false;
  bool ended_ = false;
  bool chunked_ = false;
  bool bodiless_ = false;
  bool keep_alive_ = true;
  std::string head_;  // waits for the first bytes of the body, to leave in one write
};

// ---- exchange --------------------------------------------------------------------------------------------

Task<Result<bool>> ServedHttp1Exchange::read_some(std::string& out) {
  ServedHttp1& c = *connection_;
  while (!body_done_) {
    if (!c.in_.empty()) {
      std::string_view in = c.in_;
      if (request_.body.kind == BodyFraming::Kind::kLength) {
        const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(left_, in.size()));
        out.append(in.substr(0, count));
        in.remove_prefix(count);
        left_ -= count;
        body_done_ = left_ == 0;
      } else {
        if (!decoder_.feed(in, out)) {
          keep_alive_ = false;
          co_return fail(ErrorCode::kInvalidArgument, "the chunked body is malformed");
        }
        body_done_ = decoder_.done();
      }
      c.consume(c.in_.size() - in.size());
      if (body_done_) c.enter(ServedHttp1::Phase::kHandling);
      co_return true;
    }
    if (c.timed_out_) co_return fail(ErrorCode::kTimeout, "the body did not arrive in time");
    if (c.eof_ || c.gone_)
      co_return fail(ErrorCode::kCancelled, "the client left before the body was complete");
    if (request_.expects_continue && !continued_) {
      continued_ = true;
      const Result<> sent = co_await c.send("HTTP/1.1 100 Continue\r\n\r\n");
      if (!sent) co_return std::unexpected(sent.error());
    }
    if (c.phase_ != ServedHttp1::Phase::kBody) c.enter(ServedHttp1::Phase::kBody);
    co_await c.arrived_.wait();
  }
  co_return false;
}

Task<Result<>> ServedHttp1Exchange::start(ResponseHead head) {
  AIV_ASSERT(!started_);
  started_ = true;
  bodiless_ = request_.head.method == "HEAD" || head.status == 204 || head.status == 304;
  head_.reserve(512);
  head_ = "HTTP/1.1 ";
  append_number(head_, static_cast<std::uint64_t>(head.status));
  head_ += ' ';
  head_ += reason_phrase(head.status);
  head_ += "\r\n";
  bool has_length = false;
  for (const Header& header : head.headers) {
    // A value with CR, LF or NUL would end the head early (response splitting): it is our own fault, so it is
    // dropped.
    if (!is_field_value(header.value)) continue;
    if (header.name == "connection") {
      // The handler ends the connection; what is said of it stands below, once.
      if (header.value == "close") keep_alive_ = false;
      continue;
    }
    has_length = has_length || header.name == "content-length";
    head_ += header.name;
    head_ += ": ";
    head_ += header.value;
    head_ += "\r\n";
  }
  if (!has_length && !bodiless_) {
    if (request_.http10) {
      keep_alive_ = false;  // the body ends with the connection
    } else {
      chunked_ = true;
      head_ += "transfer-encoding: chunked\r\n";
    }
  }
  if (connection_->terms_->draining) keep_alive_ = false;
  // More of the body to come than is worth throwing away: the connection will end, so the answer says so.
  if (request_.body.kind == BodyFraming::Kind::kLength && left_ > kDiscardMax) keep_alive_ = false;
  if (!keep_alive()) {
    head_ += "connection: close\r\n";
  } else if (request_.http10) {
    head_ += "connection: keep-alive\r\n";
  }
  head_ += "\r\n";
  co_return Result<>{};
}

Task<Result<>> ServedHttp1Exchange::write(std::string_view bytes) {
  AIV_ASSERT(started_ && !ended_);
  if (connection_->gone_) co_return fail(ErrorCode::kCancelled, "the client left");
  if (bodiless_) bytes = {};
  std::string framed = std::exchange(head_, {});
  framed.reserve(framed.size() + bytes.size() + kChunkFrameMax);
  if (chunked_ && !bytes.empty()) {
    append_number(framed, bytes.size(), 16);
    framed += "\r\n";
    framed += bytes;
    framed += "\r\n";
  } else {
    framed += bytes;
  }
  co_return co_await connection_->send(framed);
}

Task<Result<>> ServedHttp1Exchange::finish(Headers) {
  AIV_ASSERT(started_ && !ended_);
  connection_->on_gone_ = nullptr;
  ended_ = true;
  std::string last = std::exchange(head_, {});
  if (chunked_ && !bodiless_) last += "0\r\n\r\n";
  if (last.empty()) co_return Result<>{};
  co_return co_await connection_->send(last);
}

// ---- connection ------------------------------------------------------------------------------------------

Task<Result<>> ServedHttp1::send(std::string_view bytes) {
  if (gone_) co_return fail(ErrorCode::kCancelled, "the client left");
  const Phase before = phase_;
  enter(Phase::kWriting);
  const Result<> written = co_await stream_->write_all(bytes);
  enter(before == Phase::kWriting ? Phase::kHandling : before);
  if (!written) gone_ = true;
  co_return written;
}

Task<> ServedHttp1::pump() {
  const auto self = shared_from_this();
  while (!gone_) {
    if (in_.size() >= kReadAheadMax) {
      co_await room_.wait();
      continue;
    }
    const Result<bool> more = co_await stream_->read_more(in_);
    if (!more || !*more) {
      eof_ = true;
      if (!more) gone_ = true;
      arrived_.notify();
      // A client that closes its side while we answer has left: HTTP allows half-close, no SDK does it.
      if (phase_ == Phase::kHandling || phase_ == Phase::kWriting) {
        if (auto callback = std::exchange(on_gone_, nullptr)) callback();
      }
      break;
    }
    arrived_.notify();
  }
}

void ServedHttp1::sweep(Clock::time_point now) {
  const HttpLimits& limits = terms_->limits;
  const auto spent = now - since_;
  switch (phase_) {
    case Phase::kIdle:
      if (spent > limits.idle_time_max || terms_->draining) kill();
      break;
    case Phase::kHead:
    case Phase::kBody:
      if (spent > (phase_ == Phase::kHead ? limits.head_time_max : limits.body_time_max)) {
        timed_out_ = true;
        arrived_.notify();
      }
      break;
    case Phase::kWriting:
      if (spent > limits.write_stall_max) {
        log_info("client.stalled", {{"peer", stream_->peer()}});
        kill();
        if (auto callback = std::exchange(on_gone_, nullptr)) callback();
      }
      break;
    case Phase::kHandling:
      break;
  }
}

Task<> ServedHttp1::refuse(int status, std::string reason) {
  const HeadRefusal refusal{status, std::move(reason)};
  const std::string body = refusal_json(refusal);
  const std::string answer = fmt::format(
      "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{}",
      status, reason_phrase(status), body.size(), body);
  co_await send(answer);
}

// The next request; nullptr when the connection is over.
Task<ServedHttp1ExchangePtr> ServedHttp1::read_head() {
  enter(Phase::kIdle);
  timed_out_ = false;
  for (;;) {
    // RFC 9112 2.2: an empty line before the request line is skipped.
    while (in_.starts_with("\r\n")) in_.erase(0, 2);
    if (!in_.empty() && phase_ == Phase::kIdle) enter(Phase::kHead);
    const std::size_t end = find_head_end(in_);
    const std::size_t size = end == std::string::npos ? in_.size() : end;
    if (size > terms_->limits.head_bytes_max) {
      co_await refuse(431, "the head is larger than the limit");
      co_return nullptr;
    }
    if (end != std::string::npos) {
      auto parsed = parse_request_head(std::string_view(in_).substr(0, end), terms_->limits.header_count_max);
      consume(end);
      if (!parsed) {
        co_await refuse(parsed.error().status, parsed.error().reason);
        co_return nullptr;
      }
      co_return std::make_shared<ServedHttp1Exchange>(shared_from_this(), std::move(*parsed));
    }
    // A TLS hello on a plain port must not wait for its head to end.
    if (!in_.empty() && (in_[0] < 'A' || in_[0] > 'Z')) {
      co_await refuse(400, "this is not an HTTP/1.1 request");
      co_return nullptr;
    }
    if (timed_out_) {
      if (!in_.empty()) co_await refuse(408, "the head did not arrive in time");
      co_return nullptr;
    }
    if (eof_ || gone_) co_return nullptr;
    co_await arrived_.wait();
  }
}

// True if the connection may carry another exchange. Its frame waits with each stream, so what only the beginning or the
// end needs is elsewhere.
Task<bool> ServedHttp1::run(ServedHttp1ExchangePtr exchange) {
  enter(Phase::kHandling);
  try {
    co_await terms_->handler(exchange);
  } catch (const std::exception& error) {
    log_error("request.failed", {{"reason", error.what()}, {"path", exchange->request().path}});
  }
  on_gone_ = nullptr;
  co_return co_await settle(std::move(exchange));
}

// After the handler: as run().
Task<bool> ServedHttp1::settle(ServedHttp1ExchangePtr exchange) {
  if (gone_) co_return false;
  if (!exchange->started()) {
    co_await refuse(500, "the request was not answered");
    co_return false;
  }
  if (!exchange->ended()) {
    exchange->abort();
    co_return false;
  }
  if (!exchange->keep_alive()) co_return false;
  // What is left of the body must not be read as the next request.
  std::string rest;
  std::size_t discarded = 0;
  while (!exchange->body_done()) {
    if (!exchange->body_asked()) co_return false;
    const Result<bool> more = co_await exchange->read_some(rest);
    discarded += rest.size();
    rest.clear();
    if (!more || discarded > kDiscardMax) co_return false;
  }
  co_return true;
}

Task<> ServedHttp1::serve() {
  const auto self = shared_from_this();
  spawn(co_await this_executor(), pump(), "http1.read");
  for (;;) {
    ServedHttp1ExchangePtr exchange = co_await read_head();
    if (!exchange) break;
    const bool go_on = co_await run(std::move(exchange));
    if (!go_on) break;
    if (terms_->draining) break;
  }
  if (!gone_ && !eof_) co_await linger();
  kill();
  room_.notify();
  arrived_.notify();
}

// Whoever closes while bytes of the peer are unread, or still on their way, resets the connection, and an
// answer that the peer has not read by then is lost (RFC 9112 9.6). So only our side is closed, and what
// comes is thrown away.
Task<> ServedHttp1::linger() {
  enter(Phase::kHandling);
  co_await stream_->end_output();
  const auto end = Clock::now() + terms_->limits.linger_max;
  while (!eof_ && !gone_) {
    in_.clear();
    room_.notify();
    const auto deadline = std::min(end, Clock::now() + terms_->limits.linger_silence_max);
    const bool arrived = co_await arrived_.wait_until(deadline);
    if (!arrived || Clock::now() >= end) break;
  }
}

}  // namespace

namespace detail {

ServedPtr serve_http1(StreamPtr stream, ServerTermsPtr terms) {
  return std::make_shared<ServedHttp1>(std::move(stream), std::move(terms));
}

}  // namespace detail
}  // namespace aiv::net
