#include <fmt/format.h>

#include <optional>

#include "net/http1.hpp"
#include "net/http1_head.hpp"

namespace aiv::net {
namespace {

constexpr std::size_t kHeadMax = 64 * 1024;
constexpr std::size_t kInputMax = 256 * 1024;
constexpr std::size_t kIdleMax = 64;
constexpr auto kLastAnswerWait = milliseconds(500);

// A connection with a pump that reads ahead, so that waiting with a deadline needs no cancelled read.
class Connection final : public std::enable_shared_from_this<Connection> {
 public:
  Connection(StreamPtr stream, Executor executor)
      : arrived(executor), room(executor), stream_(std::move(stream)) {}
  ~Connection() { close(); }

  static Task<> pump(std::shared_ptr<Connection> self) {
    while (!self->closed) {
      if (self->in.size() >= kInputMax) {
        co_await self->room.wait();
        continue;
      }
      const Result<bool> more = co_await self->stream_->read_more(self->in);
      if (!more || !*more) {
        self->closed = true;
        self->clean_eof = more.has_value();
      }
      self->arrived.notify();
    }
  }
  void close() {
    closed = true;
    stream_->close();
    room.notify();
    arrived.notify();
  }
  Task<Result<>> send(std::string bytes) {
    Result<> sent = co_await stream_->write_all(bytes);
    // Its answer may still be read, but nothing after it.
    if (!sent) broken = true;
    co_return sent;
  }

  std::string in;
  bool closed = false;
  bool clean_eof = false;
  bool broken = false;
  Signal arrived;
  Signal room;

 private:
  StreamPtr stream_;
};
using ConnectionPtr = std::shared_ptr<Connection>;

struct Pool {
  ~Pool() {
    for (const ConnectionPtr& connection : idle) connection->close();
  }
  std::vector<ConnectionPtr> idle;
};

class Client;

// What is needed to send a request again: a kept connection may have been closed by the peer just when it was used.
struct Resend {
  std::shared_ptr<Client> client;
  std::string bytes;
  Task<Result<ConnectionPtr>> operator()();
};

class Exchange final : public ClientExchange {
 public:
  Exchange(ConnectionPtr connection, std::shared_ptr<Pool> pool, bool head_request, std::string address,
           std::optional<Resend> resend)
      : connection_(std::move(connection)),
        pool_(std::move(pool)),
        head_request_(head_request),
        address_(std::move(address)),
        resend_(std::move(resend)) {}
  ~Exchange() override { cancel(); }

  Task<Result<ResponseHead>> head(Clock::time_point deadline) override {
    while (!parsed_) {
      const std::size_t end = find_head_end(connection_->in);
      if (end != std::string::npos) {
        auto parsed = parse_response_head(std::string_view(connection_->in).substr(0, end), head_request_);
        connection_->in.erase(0, end);
        if (!parsed) co_return fail(ErrorCode::kUnavailable, parsed.error().reason, address_);
        if (parsed->head.status < 200) continue;
        response_ = std::move(*parsed);
        left_ = response_.body.length;
        parsed_ = true;
        resend_.reset();
        if (response_.body.kind == BodyFraming::Kind::kNone) end_of_body();
        break;
      }
      if (connection_->in.size() > kHeadMax) co_return fail(ErrorCode::kTooLarge, "the answer's head is too large");
      if (connection_->closed && resend_ && !released_ && connection_->in.empty()) {
        Resend resend = std::move(*resend_);
        resend_.reset();
        auto fresh = co_await resend();
        if (!fresh) co_return std::unexpected(fresh.error());
        connection_ = std::move(*fresh);
        if (released_) connection_->close();
        continue;
      }
      if (connection_->closed) {
        co_return fail(ErrorCode::kUnavailable, "the connection closed before an answer", address_);
      }
      if (Clock::now() >= deadline) co_return fail(ErrorCode::kTimeout, "no answer in time", address_);
      co_await connection_->arrived.wait_until(deadline);
    }
    co_return response_.head;
  }

  Task<Result<bool>> read_some(std::string& out, Clock::time_point deadline) override {
    if (!parsed_) {
      const Result<ResponseHead> head_read = co_await head(deadline);
      if (!head_read) co_return std::unexpected(head_read.error());
    }
    while (!ended_) {
      Connection& c = *connection_;
      if (!c.in.empty()) {
        std::string_view in = c.in;
        const std::size_t before = out.size();
        switch (response_.body.kind) {
          case BodyFraming::Kind::kLength: {
            const auto count = static_cast<std::size_t>(std::min<std::uint64_t>(left_, in.size()));
            out.append(in.substr(0, count));
            in.remove_prefix(count);
            left_ -= count;
            if (left_ == 0) ended_ = true;
            break;
          }
          case BodyFraming::Kind::kChunked:
            if (!decoder_.feed(in, out)) co_return fail(ErrorCode::kUnavailable, "malformed chunked answer", address_);
            if (decoder_.done()) ended_ = true;
            break;
          case BodyFraming::Kind::kUntilClose:
            out.append(in);
            in = {};
            break;
          case BodyFraming::Kind::kNone: ended_ = true; break;
        }
        c.in.erase(0, c.in.size() - in.size());
        c.room.notify();
        if (ended_) end_of_body();
        if (out.size() > before) co_return true;
        continue;
      }
      if (c.closed) {
        if (response_.body.kind == BodyFraming::Kind::kUntilClose && c.clean_eof) {
          ended_ = true;
          break;
        }
        co_return fail(ErrorCode::kUnavailable, "the connection closed in the middle of the answer", address_);
      }
      if (Clock::now() >= deadline) co_return fail(ErrorCode::kTimeout, "nothing arrived in time", address_);
      co_await c.arrived.wait_until(deadline);
    }
    co_return false;
  }

  [[nodiscard]] const Headers& trailers() const override { return no_trailers_; }

  void cancel() override {
    if (released_) return;
    released_ = true;
    connection_->close();
  }

 private:
  // The connection may serve again only if nothing of this exchange is left on it.
  void end_of_body() {
    ended_ = true;
    if (released_) return;
    if (pool_ && response_.keep_alive && connection_->in.empty() && !connection_->closed &&
        !connection_->broken && pool_->idle.size() < kIdleMax) {
      released_ = true;
      pool_->idle.push_back(connection_);
    }
  }

  ConnectionPtr connection_;
  std::shared_ptr<Pool> pool_;
  bool head_request_;
  std::string address_;
  std::optional<Resend> resend_;
  Http1Response response_;
  ChunkedDecoder decoder_;
  std::uint64_t left_ = 0;
  bool parsed_ = false;
  bool ended_ = false;
  bool released_ = false;
  Headers no_trailers_;
};

class Client final : public HttpClient, public std::enable_shared_from_this<Client> {
 public:
  Client(std::string address, bool keep_alive, Clock::duration connect_timeout, TlsContextPtr tls)
      : address_(std::move(address)), connect_timeout_(connect_timeout), tls_(std::move(tls)) {
    if (keep_alive) pool_ = std::make_shared<Pool>();
    host_ = "localhost";
    if (address_.starts_with("tcp:")) host_ = address_.substr(4);
  }

  Task<Result<ClientExchangePtr>> open(RequestHead head, std::string body) override {
    std::string bytes = head.method + " " + encoded(head.path);
    if (!head.query.empty()) bytes += "?" + head.query;
    bytes += " HTTP/1.1\r\nhost: " + host_ + "\r\n";
    for (const Header& header : head.headers) {
      if (header.value.find_first_of(std::string_view("\r\n\0", 3)) != std::string::npos) {
        co_return fail(ErrorCode::kInvalidArgument, "a header value holds a line break", header.name);
      }
      bytes += header.name + ": " + header.value + "\r\n";
    }
    if (!body.empty() || head.method == "POST" || head.method == "PUT" || head.method == "PATCH") {
      bytes += fmt::format("content-length: {}\r\n", body.size());
    }
    if (!pool_) bytes += "connection: close\r\n";
    bytes += "\r\n";
    bytes += body;
    const bool head_request = head.method == "HEAD";
    ConnectionPtr kept = take_idle();
    if (kept) {
      const Result<> sent = co_await kept->send(bytes);
      if (sent) {
        std::optional<Resend> resend(std::in_place, shared_from_this(), std::move(bytes));
        co_return std::make_shared<Exchange>(std::move(kept), pool_, head_request, address_, std::move(resend));
      }
    }
    const Result<ConnectionPtr> connection = co_await send_fresh(std::move(bytes));
    if (!connection) co_return std::unexpected(connection.error());
    co_return std::make_shared<Exchange>(*connection, pool_, head_request, address_, std::nullopt);
  }

  // A new connection with `bytes` on their way.
  Task<Result<ConnectionPtr>> send_fresh(std::string bytes) {
    Result<ConnectionPtr> connection = co_await connect();
    if (!connection) co_return connection;
    const Result<> sent = co_await (*connection)->send(std::move(bytes));
    // The peer may answer and close before it took the whole body (413): then the answer is what counts, and it may
    // still be on its way to us when our sending fails.
    const auto answer_limit = Clock::now() + kLastAnswerWait;
    while (!sent && (*connection)->in.empty() && !(*connection)->closed && Clock::now() < answer_limit) {
      co_await (*connection)->arrived.wait_until(answer_limit);
    }
    if (!sent && (*connection)->in.empty()) {
      co_return fail(ErrorCode::kUnavailable, sent.error().reason, address_);
    }
    co_return connection;
  }

 private:
  static std::string encoded(std::string_view path) {
    std::string out;
    for (const char c : path) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte <= 0x20 || byte >= 0x7F || std::string_view("?#%\"<>\\^`{|}").find(c) != std::string_view::npos) {
        out += fmt::format("%{:02X}", byte);
      } else {
        out += c;
      }
    }
    return out;
  }

  ConnectionPtr take_idle() {
    while (pool_ && !pool_->idle.empty()) {
      ConnectionPtr kept = std::move(pool_->idle.back());
      pool_->idle.pop_back();
      if (!kept->closed && kept->in.empty()) return kept;
      kept->close();
    }
    return nullptr;
  }

  Task<Result<ConnectionPtr>> connect() {
    Result<StreamPtr> stream = co_await dial(address_, tls_, connect_timeout_);
    if (!stream) co_return std::unexpected(stream.error());
    const Executor executor = co_await this_executor();
    auto connection = std::make_shared<Connection>(std::move(*stream), executor);
    spawn(executor, Connection::pump(connection), "http1.client");
    co_return connection;
  }

  std::string address_;
  std::string host_;
  Clock::duration connect_timeout_;
  TlsContextPtr tls_;
  std::shared_ptr<Pool> pool_;
};

Task<Result<ConnectionPtr>> Resend::operator()() { co_return co_await client->send_fresh(std::move(bytes)); }

}  // namespace

std::shared_ptr<HttpClient> make_http1_client(std::string address, bool keep_alive, Clock::duration connect_timeout,
                                              TlsContextPtr tls) {
  return std::make_shared<Client>(std::move(address), keep_alive, connect_timeout, std::move(tls));
}

}  // namespace aiv::net
