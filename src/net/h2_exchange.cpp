// What the two ends of an exchange do to their connection.
#include "net/h2_connection.hpp"

namespace aiv::net::h2 {
namespace {

// Fields that only make sense on HTTP/1.1 connections (RFC 9113 8.2.2).
bool connection_specific(std::string_view name) {
  return name == "connection" || name == "transfer-encoding" || name == "keep-alive" || name == "upgrade" ||
         name == "proxy-connection" || name == "host";
}

}  // namespace

nghttp2_nv nv_of(std::string_view name, std::string_view value) {
  // A value that never comes again must not push those that do out of the peer's table.
  const bool once = name == "x-request-id" || name == "content-length";
  return {reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data())),
          reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data())), name.size(), value.size(),
          static_cast<std::uint8_t>(once ? NGHTTP2_NV_FLAG_NO_INDEX : NGHTTP2_NV_FLAG_NONE)};
}

void append_fields(std::vector<nghttp2_nv>& out, const Headers& headers) {
  out.reserve(out.size() + headers.size());
  for (const Header& header : headers) {
    if (!connection_specific(header.name)) out.push_back(nv_of(header.name, header.value));
  }
}

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
  auto now = Clock::now();
  const auto deadline = now + limits_.write_stall_max;
  while (!stream->closed && stream->out.size() - stream->out_sent > limits_.stream_buffer_bytes) {
    if (now >= deadline) {
      reset(stream, NGHTTP2_CANCEL);
      co_return fail(ErrorCode::kTimeout, "the reader took nothing for too long", stream_->peer());
    }
    co_await stream->writable.wait_until(deadline);
    now = Clock::now();
  }
  if (stream->closed || closed_) co_return std::unexpected(why(*stream));
  if (!stream->out_waits()) stream->progress_at = now;
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
  provider.source.ptr = stream.get();
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
  if (room() == 0)
    co_return fail(ErrorCode::kRefused, "the peer takes no more requests at once", stream_->peer());
  auto stream = std::make_shared<Stream>(*executor_);
  stream->out = std::move(body);
  stream->out_ended = true;
  stream->endless = head.endless;
  std::string path = std::move(head.path);
  if (!head.query.empty()) path += "?" + head.query;
  std::vector<nghttp2_nv> list{nv_of(":method", head.method), nv_of(":scheme", "http"),
                               nv_of(":authority", "aiv"), nv_of(":path", path)};
  append_fields(list, head.headers);
  nghttp2_data_provider provider{};
  provider.source.ptr = stream.get();
  provider.read_callback = &Connection::read_source;
  const std::int32_t id = nghttp2_submit_request(session_, nullptr, list.data(), list.size(),
                                                 stream->out.empty() ? nullptr : &provider, stream.get());
  if (id < 0) co_return fail(ErrorCode::kUnavailable, nghttp2_strerror(id), stream_->peer());
  stream->id = id;
  streams_[id] = stream;
  wake();
  co_return std::make_shared<ClientSide>(std::static_pointer_cast<Connection>(shared_from_this()), stream);
}

ServerSide::ServerSide(std::shared_ptr<Connection> connection, StreamState stream)
    : connection_(std::move(connection)), stream_(std::move(stream)) {
  head_ = {std::move(stream_->method), std::move(stream_->path), std::move(stream_->query), std::move(stream_->headers)};
}

ServerSide::~ServerSide() {
  stream_->on_gone = nullptr;
  // A handler that left without an end: the peer must not take what it has for the whole.
  if (!stream_->out_ended) connection_->reset(stream_, NGHTTP2_INTERNAL_ERROR);
}

std::string ServerSide::peer() const {
  return connection_->stream().peer();
}

Task<Result<bool>> ServerSide::read_some(std::string& out) {
  const Clock::duration limit = connection_->limits().body_time_max;
  if (limit > Clock::duration::zero() && body_deadline_ == Clock::time_point::max())
    body_deadline_ = Clock::now() + limit;
  return connection_->take(stream_, out, body_deadline_);
}

Task<Result<>> ServerSide::start(ResponseHead head) {
  AIV_ASSERT(!started_);
  started_ = true;
  bodiless_ = head_.method == "HEAD" || head.status == 204 || head.status == 304;
  co_return connection_->submit_response(stream_, head);
}

Task<Result<>> ServerSide::write(std::string_view bytes) {
  AIV_ASSERT(started_);
  if (bodiless_) bytes = {};
  return connection_->put(stream_, bytes);
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
  co_return ResponseHead{stream_->status, std::move(stream_->headers)};
}

// Without a frame of its own, as in ServerSide: take() and put() hold what they need.
Task<Result<bool>> ClientSide::read_some(std::string& out, Clock::time_point deadline) {
  return connection_->take(stream_, out, deadline);
}

void ClientSide::cancel() {
  if (stream_->closed || stream_->cancelled) return;
  if (stream_->in_ended && stream_->out_ended && stream_->out.empty()) return;
  stream_->cancelled = true;
  connection_->reset(stream_, NGHTTP2_CANCEL);
  stream_->readable.notify();
}

}  // namespace aiv::net::h2
