// The inside of an HTTP/2 connection: its streams, nghttp2's session and the two ends of an exchange. For the
// sources of net only; h2.cpp runs it, h2_session.cpp is what nghttp2 calls, h2_exchange.cpp what the
// exchanges do.
#pragma once
#include <nghttp2/nghttp2.h>

#include <map>
#include <optional>

#include "net/h2.hpp"

namespace aiv::net::h2 {

struct Stream : std::enable_shared_from_this<Stream> {
  explicit Stream(Executor executor) : readable(executor), writable(executor) {}
  std::int32_t id = 0;
  // What has arrived.
  std::string in;
  Headers headers;  // of the head; pseudo headers apart
  Headers trailers;
  std::string method, path, query;
  std::string target, authority;  // of a stranger, as they came
  bool head_too_large = false;
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
  // When it began, or when the peer last took something of what waits for it.
  Clock::time_point progress_at = Clock::now();
  [[nodiscard]] bool out_waits() const { return out.size() > out_sent; }
  // How it ended.
  bool closed = false;
  bool cancelled = false;
  std::uint32_t error_code = 0;
  std::string close_reason;
  std::function<void()> on_gone;
  bool endless = false;
};
using StreamState = std::shared_ptr<Stream>;

// A field as nghttp2 takes it; refers to both.
nghttp2_nv nv_of(std::string_view name, std::string_view value);
// Appends what may stand in HTTP/2; nghttp2 copies when a head is submitted.
void append_fields(std::vector<nghttp2_nv>& out, const Headers& headers);

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
  void forget_request_headers() override { Headers().swap(head_.headers); }

 private:
  std::shared_ptr<Connection> connection_;
  StreamState stream_;
  RequestHead head_;
  Clock::time_point body_deadline_ = Clock::time_point::max();
  bool started_ = false;
  bool bodiless_ = false;
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
  [[nodiscard]] const H2Limits& limits() const { return limits_; }

 private:
  void prepare(Executor executor);
  Task<> write_loop();
  Task<> ping_loop();
  Task<> guard_loop();
  void begin_request(const StreamState& stream);
  bool drained();
  void fail_all(const std::string& reason);
  void close_stream(const StreamState& stream, std::uint32_t code, std::string reason);
  // By the pointer that nghttp2 keeps for us: with a thousand streams a walk through the map costs more than
  // the rest of a token's reception. Every stream in the session is in streams_, until fail_all(), after
  // which nghttp2 is not called any more.
  Stream* find(std::int32_t id) const {
    return static_cast<Stream*>(nghttp2_session_get_stream_user_data(session_, id));
  }

  static int on_begin_headers(nghttp2_session*, const nghttp2_frame* frame, void* self);
  static int on_header(nghttp2_session*, const nghttp2_frame* frame, const std::uint8_t* name,
                       std::size_t name_size, const std::uint8_t* value, std::size_t value_size, std::uint8_t,
                       void* self);
  static int on_frame(nghttp2_session*, const nghttp2_frame* frame, void* self);
  static int on_data(nghttp2_session*, std::uint8_t, std::int32_t id, const std::uint8_t* data,
                     std::size_t size, void* self);
  static int on_sent(nghttp2_session* session, const nghttp2_frame* frame, void* self);
  static int on_close(nghttp2_session* session, std::int32_t id, std::uint32_t code, void* self);
  static ssize_t read_source(nghttp2_session*, std::int32_t id, std::uint8_t* buffer, std::size_t size,
                             std::uint32_t* flags, nghttp2_data_source* source, void* self);

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
  Clock::time_point idle_since_ = Clock::now();
  Clock::time_point writing_since_ = Clock::time_point::max();
};

}  // namespace aiv::net::h2
