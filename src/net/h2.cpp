#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/log.hpp"
#include "net/h2_connection.hpp"

namespace aiv::net {
namespace h2 {
namespace {

constexpr std::size_t kWriteBatch = 256 * 1024;
constexpr auto kSecondLook = milliseconds(200);
constexpr auto kGuardPeriod = seconds(1);
// A frame of a large body must not hold tokens of other streams up for long.
constexpr std::uint32_t kMaxFrame = 16384;
constexpr std::uint64_t kResetsMax = 1'000'000;  // at once, and again each second

}  // namespace

void Connection::prepare(Executor executor) {
  if (session_ != nullptr) return;
  executor_ = executor;
  nghttp2_session_callbacks* callbacks = nullptr;
  AIV_ASSERT(nghttp2_session_callbacks_new(&callbacks) == 0);
  nghttp2_session_callbacks_set_on_begin_headers_callback(callbacks, &Connection::on_begin_headers);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, &Connection::on_header);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, &Connection::on_frame);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, &Connection::on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, &Connection::on_close);
  if (limits_.strangers)
    nghttp2_session_callbacks_set_on_frame_send_callback(callbacks, &Connection::on_sent);
  nghttp2_option* options = nullptr;
  AIV_ASSERT(nghttp2_option_new(&options) == 0);
  nghttp2_option_set_no_auto_window_update(options, 1);
  nghttp2_option_set_peer_max_concurrent_streams(options, 1U << 20U);
  // nghttp2 answers a burst of 1,000 RST_STREAM frames with GOAWAY, against attacks by strangers
  // (CVE-2023-44487). On our links a reset is a client that left: a thousand readers who close their tabs
  // must not take a node away.
  if (!limits_.strangers) nghttp2_option_set_stream_reset_rate_limit(options, kResetsMax, kResetsMax);
  const int made = server_ ? nghttp2_session_server_new2(&session_, callbacks, this, options)
                           : nghttp2_session_client_new2(&session_, callbacks, this, options);
  nghttp2_option_del(options);
  nghttp2_session_callbacks_del(callbacks);
  AIV_ASSERT(made == 0);
  const std::array<nghttp2_settings_entry, 5> settings{{
      {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, static_cast<std::uint32_t>(limits_.max_concurrent_streams)},
      {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, static_cast<std::uint32_t>(limits_.stream_window_bytes)},
      {NGHTTP2_SETTINGS_MAX_FRAME_SIZE, kMaxFrame},
      {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, static_cast<std::uint32_t>(limits_.max_header_bytes)},
      {NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
  }};
  // Only clients may announce ENABLE_PUSH = 0; for a server the last entry is left out.
  nghttp2_submit_settings(session_, NGHTTP2_FLAG_NONE, settings.data(), server_ ? 4 : 5);
  nghttp2_session_set_local_window_size(session_, NGHTTP2_FLAG_NONE, 0,
                                        static_cast<std::int32_t>(limits_.connection_window_bytes));
}

Task<Error> Connection::run() {
  const auto self = shared_from_this();
  prepare(co_await this_executor());
  last_read_ = Clock::now();
  writer_running_ = true;
  spawn(*executor_, write_loop(), "h2.write");
  if (limits_.ping_every > Clock::duration::zero()) spawn(*executor_, ping_loop(), "h2.ping");
  if (limits_.strangers) spawn(*executor_, guard_loop(), "h2.guard");
  std::string buffer;
  std::string reason;
  while (!closed_) {
    buffer.clear();
    const Result<bool> more = co_await stream_->read_more(buffer);
    if (!more || !*more) {
      reason = more ? "the peer closed the connection" : more.error().reason;
      break;
    }
    last_read_ = Clock::now();
    const ssize_t used = nghttp2_session_mem_recv(
        session_, reinterpret_cast<const std::uint8_t*>(buffer.data()), buffer.size());
    if (used < 0) {
      reason = fmt::format("HTTP/2 protocol error: {}", nghttp2_strerror(static_cast<int>(used)));
      break;
    }
    wake_if_due();
    if (drained()) {
      reason = "the peer drained the connection";
      break;
    }
    if (nghttp2_session_want_read(session_) == 0 && nghttp2_session_want_write(session_) == 0) {
      reason = "the connection was shut down";
      break;
    }
  }
  if (close_reason_.empty()) close_reason_ = reason;
  closed_ = true;
  fail_all(close_reason_);
  stream_->close();
  wake();
  ended_.notify();
  // The writer touches the session; let it leave first.
  while (writer_running_) co_await sleep_for(milliseconds(1));
  co_return Error{ErrorCode::kUnavailable, close_reason_, stream_->peer()};
}

Task<> Connection::write_loop() {
  const auto self = shared_from_this();
  std::string batch;
  while (!closed_) {
    if (!write_due_) {
      co_await writer_.wait();
      continue;
    }
    write_due_ = false;
    batch.clear();
    while (batch.size() < kWriteBatch) {
      const std::uint8_t* data = nullptr;
      const ssize_t size = nghttp2_session_mem_send(session_, &data);
      if (size < 0) {
        close(fmt::format("HTTP/2 error: {}", nghttp2_strerror(static_cast<int>(size))));
        break;
      }
      if (size == 0) break;
      batch.append(reinterpret_cast<const char*>(data), static_cast<std::size_t>(size));
    }
    if (closed_) break;
    if (batch.size() >= kWriteBatch) write_due_ = true;
    if (batch.empty()) continue;
    writing_since_ = Clock::now();
    const Result<> written = co_await stream_->write_all(batch);
    writing_since_ = Clock::time_point::max();
    if (!written) {
      close(written.error().reason);
      break;
    }
    if (drained()) close("the peer drained the connection");
  }
  writer_running_ = false;
}

void Connection::close(std::string reason) {
  if (closed_) return;
  closed_ = true;
  close_reason_ = std::move(reason);
  stream_->close();
  wake();
  ended_.notify();
}

// After the peer's GOAWAY: nothing is left that has an end.
bool Connection::drained() {
  if (server_ || !goaway_received_) return false;
  return std::all_of(streams_.begin(), streams_.end(),
                     [](const auto& entry) { return entry.second->endless; });
}

Task<> Connection::ping_loop() {
  const auto self = shared_from_this();
  constexpr auto kNotAsked = Clock::time_point::max();
  auto asked = kNotAsked;  // when the PING without an answer was sent
  bool looked_again = false;
  while (!closed_) {
    const auto now = Clock::now();
    if (last_read_ > asked) asked = kNotAsked;
    if (asked == kNotAsked) {
      looked_again = false;
      if (now - last_read_ >= limits_.ping_every) {
        nghttp2_submit_ping(session_, NGHTTP2_FLAG_NONE, nullptr);
        asked = now;
        wake();
      }
    }
    auto next = asked == kNotAsked ? last_read_ + limits_.ping_every : asked + limits_.ping_limit;
    if (asked != kNotAsked && now >= next) {
      if (looked_again) break;
      // It may have been us who stood still: what lies in the socket is read before the peer is judged.
      looked_again = true;
      next = now + kSecondLook;
    }
    co_await ended_.wait_until(next);
  }
  if (looked_again) close("the peer was silent after a PING");
}

// What a peer that we do not know may not do: keep a connection without using it, or let an answer lie.
Task<> Connection::guard_loop() {
  const auto self = shared_from_this();
  while (!closed_) {
    co_await ended_.wait_until(Clock::now() + kGuardPeriod);
    const auto now = Clock::now();
    if (closed_) break;
    if (streams_.empty() && now - idle_since_ > limits_.idle_max) {
      co_await shutdown(Clock::duration::zero());
      break;
    }
    if (writing_since_ < now && now - writing_since_ > limits_.write_stall_max) {
      close("the client took nothing for too long");
      break;
    }
    for (const auto& [id, stream] : streams_) {
      const bool waits_for_peer = !stream->head_done || stream->out_waits();
      if (!waits_for_peer || now - stream->progress_at <= limits_.write_stall_max) continue;
      if (!stream->head_done) {
        close("a head did not arrive in time");
        break;
      }
      // Closed, and so taken out of the map, only when the frame has left.
      reset(stream, NGHTTP2_CANCEL);
    }
  }
}

std::size_t Connection::room() const {
  if (session_ == nullptr) return limits_.max_concurrent_streams;
  const std::size_t allowed =
      nghttp2_session_get_remote_settings(session_, NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS);
  return allowed > streams_.size() ? allowed - streams_.size() : 0;
}

Task<> Connection::shutdown(Clock::duration grace) {
  const auto self = shared_from_this();
  const auto deadline = Clock::now() + grace;
  if (session_ != nullptr && !closed_) {
    draining_ = true;
    nghttp2_submit_goaway(session_, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(session_),
                          NGHTTP2_NO_ERROR, nullptr, 0);
    wake();
  }
  while (!closed_ && !streams_.empty() && Clock::now() < deadline) co_await sleep_for(milliseconds(10));
  // Lets the GOAWAY and the last frames leave.
  if (!closed_) co_await sleep_for(milliseconds(10));
  close("shut down");
}

void Connection::fail_all(const std::string& reason) {
  const auto streams = std::exchange(streams_, {});
  for (const auto& [id, stream] : streams) close_stream(stream, NGHTTP2_INTERNAL_ERROR, reason);
}

void Connection::close_stream(const StreamState& stream, std::uint32_t code, std::string reason) {
  if (stream->closed) return;
  stream->closed = true;
  stream->error_code = code;
  stream->close_reason = std::move(reason);
  stream->readable.notify();
  stream->writable.notify();
  if (!stream->out_ended || code != NGHTTP2_NO_ERROR) {
    if (auto callback = std::exchange(stream->on_gone, nullptr)) callback();
  }
  stream->on_gone = nullptr;
}

Error Connection::why(const Stream& stream) const {
  if (stream.cancelled) return {ErrorCode::kCancelled, "cancelled by us", stream_->peer()};
  if (stream.error_code == NGHTTP2_REFUSED_STREAM)
    return {ErrorCode::kRefused, "the peer refused", stream_->peer()};
  std::string reason = stream.close_reason;
  if (reason.empty()) {
    reason = fmt::format("the stream was reset ({})", nghttp2_http2_strerror(stream.error_code));
  }
  return {ErrorCode::kUnavailable, reason, stream_->peer()};
}

}  // namespace h2

std::shared_ptr<H2Connection> H2Connection::server(StreamPtr stream, Handler handler, H2Limits limits) {
  return std::make_shared<h2::Connection>(std::move(stream), std::move(handler), limits, true);
}

std::shared_ptr<H2Connection> H2Connection::client(StreamPtr stream, H2Limits limits) {
  return std::make_shared<h2::Connection>(std::move(stream), nullptr, limits, false);
}

}  // namespace aiv::net
