// What nghttp2 calls while it reads and writes.
#include <algorithm>
#include <cstdlib>

#include "net/h2_connection.hpp"
#include "net/http1_head.hpp"

namespace aiv::net::h2 {

int Connection::on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* self) {
  auto* me = static_cast<Connection*>(self);
  if (frame->hd.type != NGHTTP2_HEADERS) return 0;
  if (me->server_ && frame->headers.cat == NGHTTP2_HCAT_REQUEST) {
    auto stream = std::make_shared<Stream>(*me->executor_);
    stream->id = frame->hd.stream_id;
    stream->headers.reserve(8);
    me->streams_[stream->id] = stream;
    nghttp2_session_set_stream_user_data(me->session_, stream->id, stream.get());
  }
  return 0;
}

int Connection::on_header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name,
                          std::size_t name_size, const std::uint8_t* value, std::size_t value_size,
                          std::uint8_t, void* self) {
  auto* me = static_cast<Connection*>(self);
  Stream* const stream = me->find(frame->hd.stream_id);
  if (stream == nullptr) return 0;
  std::string key(reinterpret_cast<const char*>(name), name_size);
  std::string text(reinterpret_cast<const char*>(value), value_size);
  stream->header_bytes += name_size + value_size + 32;
  if (stream->header_bytes > me->limits_.max_header_bytes) {
    if (!me->limits_.strangers || stream->head_done) return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    stream->head_too_large = true;  // answered when all of it has come
    return 0;
  }
  if (stream->head_done) {
    stream->trailers.push_back({std::move(key), std::move(text)});
  } else if (key == ":method") {
    stream->method = std::move(text);
  } else if (me->limits_.strangers && key == ":path") {
    stream->target = std::move(text);
  } else if (me->limits_.strangers && key == ":authority") {
    stream->authority = std::move(text);
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

int Connection::on_frame(nghttp2_session*, const nghttp2_frame* frame, void* self) {
  auto* me = static_cast<Connection*>(self);
  if (frame->hd.type == NGHTTP2_GOAWAY) me->goaway_received_ = true;
  Stream* const stream = me->find(frame->hd.stream_id);
  if (stream == nullptr) return 0;
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
  if (first_head && me->server_) me->begin_request(stream->shared_from_this());
  return 0;
}

namespace {

Task<> answer_refusal(ExchangePtr exchange, HeadRefusal refusal) {
  const Result<> sent = co_await exchange->respond_json(refusal.status, refusal_json(refusal));
  static_cast<void>(sent);
}

}  // namespace

void Connection::begin_request(const StreamState& stream) {
  const auto self = std::static_pointer_cast<Connection>(shared_from_this());
  std::optional<HeadRefusal> refusal;
  if (limits_.strangers) {
    stream->progress_at = Clock::now();
    auto head =
        stream->head_too_large
            ? std::unexpected(HeadRefusal{431, "the head is larger than the limit"})
            : check_h2_request(stream->method, stream->target, stream->authority, std::move(stream->headers));
    if (head) {
      stream->path = std::move(head->path);
      stream->query = std::move(head->query);
      stream->headers = std::move(head->headers);
    } else {
      refusal = std::move(head.error());
    }
  }
  auto exchange = std::make_shared<ServerSide>(self, stream);
  if (draining_ || !handler_) return exchange->abort();
  if (refusal)
    return spawn(*executor_, answer_refusal(std::move(exchange), std::move(*refusal)), "h2.refuse");
  spawn(*executor_, handler_(std::move(exchange)), "h2.request");
}

// The whole answer has left; what the peer still sends of its request would only be thrown away (RFC
// 9113 8.1).
int Connection::on_sent(nghttp2_session* session, const nghttp2_frame* frame, void* self) {
  const auto* me = static_cast<const Connection*>(self);
  const bool ends = (frame->hd.type == NGHTTP2_HEADERS || frame->hd.type == NGHTTP2_DATA) &&
                    (frame->hd.flags & NGHTTP2_FLAG_END_STREAM) != 0;
  if (!ends || !me->server_) return 0;
  const Stream* const stream = me->find(frame->hd.stream_id);
  if (stream != nullptr && !stream->in_ended) {
    nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, stream->id, NGHTTP2_NO_ERROR);
  }
  return 0;
}

int Connection::on_data(nghttp2_session* session, std::uint8_t, std::int32_t id, const std::uint8_t* data,
                        std::size_t size, void* self) {
  auto* me = static_cast<Connection*>(self);
  // Credit of the connection goes back at once: a slow reader of one stream must not starve the others.
  nghttp2_session_consume_connection(session, size);
  Stream* const stream = me->find(id);
  if (stream == nullptr || stream->cancelled) {
    nghttp2_session_consume_stream(session, id, size);
    return 0;
  }
  stream->in.append(reinterpret_cast<const char*>(data), size);
  stream->readable.notify();
  return 0;
}

int Connection::on_close(nghttp2_session* session, std::int32_t id, std::uint32_t code, void* self) {
  auto* me = static_cast<Connection*>(self);
  const auto entry = me->streams_.find(id);
  if (entry == me->streams_.end()) return 0;
  const StreamState stream = std::move(entry->second);
  me->streams_.erase(entry);
  nghttp2_session_set_stream_user_data(session, id, nullptr);
  if (me->streams_.empty()) me->idle_since_ = Clock::now();
  me->close_stream(stream, code, "");
  return 0;
}

ssize_t Connection::read_source(nghttp2_session* session, std::int32_t id, std::uint8_t* buffer,
                                std::size_t size, std::uint32_t* flags, nghttp2_data_source* source,
                                void* self) {
  auto* me = static_cast<Connection*>(self);
  auto* const stream = static_cast<Stream*>(source->ptr);
  const std::size_t left = stream->out.size() - stream->out_sent;
  const std::size_t count = std::min(size, left);
  std::copy_n(stream->out.data() + stream->out_sent, count, buffer);
  stream->out_sent += count;
  if (me->limits_.strangers && count > 0) stream->progress_at = Clock::now();
  const std::size_t half = me->limits_.stream_buffer_bytes / 2;
  const bool was_full = left > half;
  if (stream->out_sent == stream->out.size()) {
    stream->out.clear();
    stream->out_sent = 0;
    if (stream->out_ended) {
      std::string().swap(stream->out);  // a request's body; its answer may stream for an hour
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
  if (was_full && stream->out.size() - stream->out_sent <= half) stream->writable.notify();
  return static_cast<ssize_t>(count);
}

}  // namespace aiv::net::h2
