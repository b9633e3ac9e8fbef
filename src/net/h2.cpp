#include "net/h2.hpp"

#include <fmt/format.h>
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <array>
#include <map>
#include <optional>

#include "base/log.hpp"

namespace aiv::net {
namespace {

// Bytes a writer may have waiting in one stream before write() makes it wait.
constexpr std::size_t kStreamBufferMax = 256 * 1024;
constexpr std::size_t kWriteBatch = 256 * 1024;
constexpr auto kWriteStall = seconds(30);
constexpr auto kSecondLook = milliseconds(200);
// A frame of a large body must not hold tokens of other streams up for long.
constexpr std::uint32_t kMaxFrame = 16384;
constexpr std::uint64_t kResetsMax = 1'000'000;  // at once, and again each second

struct Stream {
  explicit Stream(Executor executor) : readable(executor), writable(executor) {}
  std::int32_t id = 0;
  // What has arrived.
  std::string in;
  Headers headers;  // of the head; pseudo headers apart
  Headers trailers;
  std::string method, path, query;
  int status = 0;
  bool head_done = false;
  bool in_ended = false;  // END_STREAM seen
  std::size_t header_bytes = 0;
  Signal readable;
  // What is to leave.
  std::string out;
  std::size_t out_sent = 0;
  bool out_ended = false;
  bool deferred = false;
  Headers out_trailers;
  Signal writable;
  // How it ended.
  bool closed = false;
  bool cancelled = false;
  std::uint32_t error_code = 0;
  std::string close_reason;
  std::function<void()> on_gone;
  bool endless = false;
};
using StreamState = std::shared_ptr<Stream>;

nghttp2_nv nv_of(std::string_view name, std::string_view value) {
  // A value that never comes again must not push those that do out of the peer's table.
  const bool once = name == "x-request-id" || name == "content-length";
  return {reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          static_cast<std::uint8_t>(once ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE)};
}

// Fields that only make sense on HTTP/1.1 connections (RFC 9113 8.2.2).
bool connection_specific(std::string_view name) {
  return name == "connection" || name == "transfer-encoding" || name == "keep-alive" || name == "upgrade" ||
         name == "proxy-connection" || name == "host";
}

// Appends what may stand in HTTP/2; nghttp2 copies when a head is submitted.
void append_fields(std::vector<nghttp2_nv>& out, const Headers& headers) {
  out.reserve(out.size() + headers.size());
  for (const Header& header : headers) {
    if (!connection_specific(header.name)) out.push_back(nv_of(header.name, header.value));
  }
}

class Connection;

class ServerSide final : public ServerExchange {
 public:
  ServerSide(std::shared_ptr<Connection> connection, StreamState stream);
  ~ServerSide() override;
  [[nodiscard]] const RequestHead& request() const override { return head_; }
  [[nodiscard]] std::string peer() const override;
  Task<Result<bool>> read_some(std::string& out) override;
  Task<Result<>> start(ResponseHead head) override;
  Task<Result<>> write(std::string_view bytes) override;
  Task<Result<>> finish(Headers trailers) override;
  void abort() override;
  [[nodiscard]] bool gone() const override { return stream_->closed; }
  void on_gone(std::function<void()> callback) override { stream_->on_gone = std::move(callback); }

 private:
  std::shared_ptr<Connection> connection_;
  StreamState stream_;
  RequestHead head_;
  bool started_ = false;
};

class ClientSide final : public ClientExchange {
 public:
  ClientSide(std::shared_ptr<Connection> connection, StreamState stream)
      : connection_(std::move(connection)), stream_(std::move(stream)) {}
  ~ClientSide() override { cancel(); }
  Task<Result<ResponseHead>> head(Clock::time_point deadline) override;
  Task<Result<bool>> read_some(std::string& out, Clock::time_point deadline) override;
  [[nodiscard]] const Headers& trailers() const override { return stream_->trailers; }
  void cancel() override;

 private:
  std::shared_ptr<Connection> connection_;
  StreamState stream_;
};

class Connection final : public H2Connection {
 public:
  Connection(StreamPtr stream, Handler handler, H2Limits limits, bool server)
      : stream_(std::move(stream)), handler_(std::move(handler)), limits_(limits), server_(server) {}
  ~Connection() override { nghttp2_session_del(session_); }

  Task<Error> run() override;
  Task<> shutdown(Clock::duration grace) override;
  void close(std::string reason) override;
  [[nodiscard]] bool open_for_requests() const override {
    return !closed_ && !draining_ && !goaway_received_;
  }
  [[nodiscard]] std::size_t active_streams() const override { return streams_.size(); }
  [[nodiscard]] std::size_t room() const override;
  [[nodiscard]] const ByteStream& stream() const override { return *stream_; }
  [[nodiscard]] Clock::time_point last_read() const override { return last_read_; }
  Task<Result<ClientExchangePtr>> open(RequestHead head, std::string body) override;

  // Used by the exchanges.
  Task<Result<bool>> take(StreamState stream, std::string& out, Clock::time_point deadline);
  Task<Result<>> put(StreamState stream, std::string_view bytes);
  Result<> submit_response(const StreamState& stream, const ResponseHead& head);
  void end_output(const StreamState& stream, Headers trailers);
  void reset(const StreamState& stream, std::uint32_t code);
  // Something is to be sent.
  void wake() {
    if (std::exchange(write_due_, true)) return;
    writer_.notify();
  }
  // The same, where nghttp2 may have something to say.
  void wake_if_due() {
    if (nghttp2_session_want_write(session_) != 0) wake();
  }
  [[nodiscard]] Error why(const Stream& stream) const;

 private:
  void prepare(Executor executor);
  Task<> write_loop();
  Task<> ping_loop();
  bool drained();
  void fail_all(const std::string& reason);
  void close_stream(const StreamState& stream, std::uint32_t code, std::string reason);
  StreamState find(std::int32_t id) const {
    const auto it = streams_.find(id);
    return it == streams_.end() ? nullptr : it->second;
  }

  static int on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* self);
  static int on_header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name,
                       std::size_t name_size, const std::uint8_t* value, std::size_t value_size, std::uint8_t,
                       void* self);
  static int on_frame(nghttp2_session*, const nghttp2_frame* frame, void* self);
  static int on_data(nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* data,
                     std::size_t size, void* self);
  static int on_close(nghttp2_session*, std::int32_t id, std::uint32_t code, void* self);
  static ssize_t read_source(nghttp2_session*, std::int32_t id, std::uint8_t* buffer, std::size_t size,
                             std::uint32_t* flags, nghttp2_data_source*, void* self);

  StreamPtr stream_;
  Handler handler_;
  H2Limits limits_;
  bool server_;
  std::optional<Executor> executor_;  // once it runs
  nghttp2_session* session_ = nullptr;
  std::map<std::int32_t, StreamState> streams_;
  Signal writer_;
  bool write_due_ = false;
  Signal ended_;
  bool closed_ = false;
  bool draining_ = false;
  bool goaway_received_ = false;
  bool writer_running_ = false;
  std::string close_reason_;
  Clock::time_point last_read_ = Clock::now();
};

// ---- session ---------------------------------------------------------------------------------------------

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
  nghttp2_option* options = nullptr;
  AIV_ASSERT(nghttp2_option_new(&options) == 0);
  nghttp2_option_set_no_auto_window_update(options, 1);
  nghttp2_option_set_peer_max_concurrent_streams(options, 1U << 20U);
  // nghttp2 answers a burst of 1,000 RST_STREAM frames with GOAWAY, against attacks by strangers
  // (CVE-2023-44487). On our links a reset is a client that left: a thousand readers who close their tabs
  // must not take a node away.
  nghttp2_option_set_stream_reset_rate_limit(options, kResetsMax, kResetsMax);
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
    const Result<> written = co_await stream_->write_all(batch);
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
  return std::all_of(streams_.begin(), streams_.end(), [](const auto& entry) { return entry.second->endless; });
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

// ---- callbacks -------------------------------------------------------------------------------------------

int Connection::on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* self) {
  auto* me = static_cast<Connection*>(self);
  if (frame->hd.type != NGHTTP2_HEADERS) return 0;
  if (me->server_ && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
    auto stream = std::make_shared<Stream>(*me->executor_);
    stream->id = frame->hd.stream_id;
    me->streams_[stream->id] = stream;
  }
  return 0;
}

int Connection::on_header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name,
                          std::size_t name_size, const std::uint8_t* value, std::size_t value_size,
                          std::uint8_t, void* self) {
  auto* me = static_cast<Connection*>(self);
  const StreamState stream = me->find(frame->hd.stream_id);
  if (!stream) return 0;
  std::string key(reinterpret_cast<const char*>(name), name_size);
  std::string text(reinterpret_cast<const char*>(value), value_size);
  stream->header_bytes += name_size + value_size + 32;
  if (stream->header_bytes > me->limits_.max_header_bytes) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  if (stream->head_done) {
    stream->trailers.push_back({std::move(key), std::move(text)});
  } else if (key == ":method") {
    stream->method = std::move(text);
  } else if (key == ":path") {
    const auto mark = text.find('?');
    stream->path = text.substr(0, mark);
    if (mark != std::string::npos) stream->query = text.substr(mark + 1);
  } else if (key == ":status") {
    stream->status = std::atoi(text.c_str());
  } else if (!key.starts_with(':')) {
    stream->headers.push_back({std::move(key), std::move(text)});
  }
  return 0;
}

int Connection::on_frame(nghttp2_session* session, const nghttp2_frame* frame, void* self) {
  auto* me = static_cast<Connection*>(self);
  if (frame->hd.type == NGHTTP2_GOAWAY) me->goaway_received_ = true;
  const StreamState stream = me->find(frame->hd.stream_id);
  if (!stream) return 0;
  const bool first_head = frame->hd.type == NGHTTP2_HEADERS && !stream->head_done;
  if (first_head) {
    // 1xx answers come before the real head.
    if (!me->server_ && stream->status < 200) {
      stream->headers.clear();
      return 0;
    }
    stream->head_done = true;
  }
  const bool ends = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
                    (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (ends) stream->in_ended = true;
  if (first_head || ends) stream->readable.notify();
  if (first_head && me->server_) {
    auto exchange =
        std::make_shared<ServerSide>(std::static_pointer_cast<Connection>(me->shared_from_this()), stream);
    if (me->draining_ || !me->handler_) {
      nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_REFUSED_STREAM);
      return 0;
    }
    spawn(*me->executor_, me->handler_(std::move(exchange)), "h2.request");
  }
  return 0;
}

int Connection::on_data(nghttp2_session* session, std::uint8_t, std::int32_t id, const std::uint8_t* data,
                        std::size_t size, void* self) {
  auto* me = static_cast<Connection*>(self);
  // Credit of the connection goes back at once: a slow reader of one stream must not starve the others.
  nghttp2_session_consume_connection(session, size);
  const StreamState stream = me->find(id);
  if (!stream || stream->cancelled) {
    nghttp2_session_consume_stream(session, id, size);
    return 0;
  }
  stream->in.append(reinterpret_cast<const char*>(data), size);
  stream->readable.notify();
  return 0;
}

int Connection::on_close(nghttp2_session*, std::int32_t id, std::uint32_t code, void* self) {
  auto* me = static_cast<Connection*>(self);
  const StreamState stream = me->find(id);
  if (!stream) return 0;
  me->streams_.erase(id);
  me->close_stream(stream, code, "");
  return 0;
}

ssize_t Connection::read_source(nghttp2_session* session, std::int32_t id, std::uint8_t* buffer,
                                std::size_t size, std::uint32_t* flags, nghttp2_data_source*, void* self) {
  auto* me = static_cast<Connection*>(self);
  const StreamState stream = me->find(id);
  if (!stream) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
  const std::size_t left = stream->out.size() - stream->out_sent;
  const std::size_t count = std::min(size, left);
  std::copy_n(stream->out.data() + stream->out_sent, count, buffer);
  stream->out_sent += count;
  const bool was_full = left > kStreamBufferMax / 2;
  if (stream->out_sent == stream->out.size()) {
    stream->out.clear();
    stream->out_sent = 0;
    if (stream->out_ended) {
      *flags |= NGHTTP2_DATA_FLAG_EOF;
      if (!stream->out_trailers.empty()) {
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        std::vector<nghttp2_nv> trailers;
        append_fields(trailers, stream->out_trailers);
        nghttp2_submit_trailer(session, id, trailers.data(), trailers.size());
      }
    } else if (count == 0) {
      stream->deferred = true;
      return NGHTTP2_ERR_DEFERRED;
    }
  }
  if (was_full && stream->out.size() - stream->out_sent <= kStreamBufferMax / 2) stream->writable.notify();
  return static_cast<ssize_t>(count);
}

// ---- for the exchanges -----------------------------------------------------------------------------------

Task<Result<bool>> Connection::take(StreamState stream, std::string& out, Clock::time_point deadline) {
  const auto self = shared_from_this();
  for (;;) {
    if (!stream->in.empty()) {
      const std::size_t size = stream->in.size();
      if (out.empty()) {
        out.swap(stream->in);
      } else {
        out += stream->in;
      }
      stream->in.clear();
      if (!stream->closed && !closed_) {
        nghttp2_session_consume_stream(session_, stream->id, size);
        wake_if_due();
      }
      co_return true;
    }
    if (stream->in_ended) co_return false;
    if (stream->closed || stream->cancelled) co_return std::unexpected(why(*stream));
    if (Clock::now() >= deadline)
      co_return fail(ErrorCode::kTimeout, "nothing arrived in time", stream_->peer());
    co_await stream->readable.wait_until(deadline);
  }
}

Task<Result<>> Connection::put(StreamState stream, std::string_view bytes) {
  const auto self = shared_from_this();
  const auto deadline = Clock::now() + kWriteStall;
  while (!stream->closed && stream->out.size() - stream->out_sent > kStreamBufferMax) {
    if (Clock::now() >= deadline) {
      reset(stream, NGHTTP2_CANCEL);
      co_return fail(ErrorCode::kTimeout, "the reader took nothing for 30 s", stream_->peer());
    }
    co_await stream->writable.wait_until(deadline);
  }
  if (stream->closed || closed_) co_return std::unexpected(why(*stream));
  stream->out.append(bytes);
  if (stream->deferred) {
    stream->deferred = false;
    nghttp2_session_resume_data(session_, stream->id);
  }
  wake();
  co_return Result<>{};
}

Result<> Connection::submit_response(const StreamState& stream, const ResponseHead& head) {
  if (stream->closed || closed_) return std::unexpected(why(*stream));
  const std::string status = std::to_string(head.status);
  std::vector<nghttp2_nv> list{nv_of(":status", status)};
  append_fields(list, head.headers);
  nghttp2_data_provider provider{};
  provider.read_callback = &Connection::read_source;
  if (nghttp2_submit_response(session_, stream->id, list.data(), list.size(), &provider) != 0) {
    return fail(ErrorCode::kInternal, "the answer could not be sent");
  }
  wake();
  return {};
}

void Connection::end_output(const StreamState& stream, Headers trailers) {
  stream->out_ended = true;
  stream->out_trailers = std::move(trailers);
  if (stream->closed || closed_) return;
  stream->deferred = false;
  nghttp2_session_resume_data(session_, stream->id);
  wake();
}

void Connection::reset(const StreamState& stream, std::uint32_t code) {
  if (stream->closed || closed_) return;
  nghttp2_submit_rst_stream(session_, NGHTTP2_FLAG_NONE, stream->id, code);
  wake();
}

Task<Result<ClientExchangePtr>> Connection::open(RequestHead head, std::string body) {
  if (!open_for_requests()) co_return fail(ErrorCode::kUnavailable, "the link is closed", stream_->peer());
  prepare(co_await this_executor());
  if (room() == 0) co_return fail(ErrorCode::kRefused, "the peer takes no more requests at once", stream_->peer());
  auto stream = std::make_shared<Stream>(*executor_);
  stream->out = std::move(body);
  stream->out_ended = true;
  stream->endless = head.endless;
  std::string path = std::move(head.path);
  if (!head.query.empty()) path += "?" + head.query;
  std::vector<nghttp2_nv> list{nv_of(":method", head.method), nv_of(":scheme", "http"), nv_of(":authority", "aiv"),
                               nv_of(":path", path)};
  append_fields(list, head.headers);
  nghttp2_data_provider provider{};
  provider.read_callback = &Connection::read_source;
  const std::int32_t id = nghttp2_submit_request(session_, nullptr, list.data(), list.size(),
                                                 stream->out.empty() ? nullptr : &provider, nullptr);
  if (id < 0) co_return fail(ErrorCode::kUnavailable, nghttp2_strerror(id), stream_->peer());
  stream->id = id;
  streams_[id] = stream;
  wake();
  co_return std::make_shared<ClientSide>(std::static_pointer_cast<Connection>(shared_from_this()), stream);
}

// ---- exchanges -------------------------------------------------------------------------------------------

ServerSide::ServerSide(std::shared_ptr<Connection> connection, StreamState stream)
    : connection_(std::move(connection)), stream_(std::move(stream)) {
  head_ = {stream_->method, stream_->path, stream_->query, stream_->headers};
}

ServerSide::~ServerSide() {
  stream_->on_gone = nullptr;
  // A handler that left without an end: the peer must not take what it has for the whole.
  if (!stream_->out_ended) connection_->reset(stream_, NGHTTP2_INTERNAL_ERROR);
}

std::string ServerSide::peer() const { return connection_->stream().peer(); }

Task<Result<bool>> ServerSide::read_some(std::string& out) {
  co_return co_await connection_->take(stream_, out, Clock::time_point::max());
}

Task<Result<>> ServerSide::start(ResponseHead head) {
  AIV_ASSERT(!started_);
  started_ = true;
  co_return connection_->submit_response(stream_, head);
}

Task<Result<>> ServerSide::write(std::string_view bytes) {
  AIV_ASSERT(started_);
  co_return co_await connection_->put(stream_, bytes);
}

Task<Result<>> ServerSide::finish(Headers trailers) {
  stream_->on_gone = nullptr;
  connection_->end_output(stream_, std::move(trailers));
  if (stream_->closed && stream_->error_code != NGHTTP2_NO_ERROR)
    co_return std::unexpected(connection_->why(*stream_));
  co_return Result<>{};
}

void ServerSide::abort() {
  stream_->on_gone = nullptr;
  stream_->out_ended = true;
  connection_->reset(stream_, started_ ? NGHTTP2_INTERNAL_ERROR : NGHTTP2_REFUSED_STREAM);
}

Task<Result<ResponseHead>> ClientSide::head(Clock::time_point deadline) {
  while (!stream_->head_done) {
    if (stream_->closed) co_return std::unexpected(connection_->why(*stream_));
    if (Clock::now() >= deadline) {
      co_return fail(ErrorCode::kTimeout, "no answer in time", connection_->stream().peer());
    }
    co_await stream_->readable.wait_until(deadline);
  }
  co_return ResponseHead{stream_->status, stream_->headers};
}

Task<Result<bool>> ClientSide::read_some(std::string& out, Clock::time_point deadline) {
  co_return co_await connection_->take(stream_, out, deadline);
}

void ClientSide::cancel() {
  if (stream_->closed || stream_->cancelled) return;
  if (stream_->in_ended && stream_->out_ended && stream_->out.empty()) return;
  stream_->cancelled = true;
  connection_->reset(stream_, NGHTTP2_CANCEL);
  stream_->readable.notify();
}

}  // namespace

std::shared_ptr<H2Connection> H2Connection::server(StreamPtr stream, Handler handler, H2Limits limits) {
  return std::make_shared<Connection>(std::move(stream), std::move(handler), limits, true);
}

std::shared_ptr<H2Connection> H2Connection::client(StreamPtr stream, H2Limits limits) {
  return std::make_shared<Connection>(std::move(stream), nullptr, limits, false);
}

}  // namespace aiv::net
