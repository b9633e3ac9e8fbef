// A client's HTTP/2 connection on a public port.
#include "net/h2.hpp"
#include "net/served_connection.hpp"

namespace aiv::net::detail {
namespace {

H2Limits limits_of(const HttpLimits& limits) {
  return {.max_concurrent_streams = limits.h2_streams_max,
          .max_header_bytes = limits.head_bytes_max,
          .stream_buffer_bytes = 64 * 1024,
          .write_stall_max = limits.write_stall_max,
          .strangers = true,
          .idle_max = limits.idle_time_max,
          .body_time_max = limits.body_time_max};
}

class Served final : public ServedConnection {
 public:
  Served(StreamPtr stream, ServerTermsPtr terms)
      : terms_(std::move(terms)),
        connection_(H2Connection::server(std::move(stream), terms_->handler, limits_of(terms_->limits))) {}

  Task<> serve() override {
    executor_ = co_await this_executor();
    const Error ended = co_await connection_->run();
    static_cast<void>(ended);
  }
  void sweep(Clock::time_point) override {
    if (!terms_->draining || std::exchange(told_, true)) return;
    // The handlers end what runs; the connection stays as long as they need.
    spawn(*executor_, shut_down(connection_), "h2.drain");
  }
  void kill() override { connection_->close("the server ends"); }

 private:
  static Task<> shut_down(H2Ptr connection) { co_await connection->shutdown(std::chrono::hours(1)); }

  ServerTermsPtr terms_;
  H2Ptr connection_;
  std::optional<Executor> executor_;  // once it runs
  bool told_ = false;
};

}  // namespace

ServedPtr serve_h2(StreamPtr stream, ServerTermsPtr terms) {
  return std::make_shared<Served>(std::move(stream), std::move(terms));
}

}  // namespace aiv::net::detail
