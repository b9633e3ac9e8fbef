#include "gateway/join_door.hpp"

#include "base/json.hpp"
#include "base/log.hpp"

namespace aiv::gateway {
namespace {

std::string error_text(std::string_view code, const std::string& message) {
  return dump_json(Json{{"error", {{"code", code}, {"message", message}}}});
}

}  // namespace

net::Task<> JoinDoor::close_later(std::weak_ptr<net::H2Connection> connection) {
  co_await net::sleep_for(kJoinLimit);
  if (const auto still = connection.lock()) still->close("joining takes too long");
}

net::Task<> JoinDoor::serve(net::StreamPtr stream) {
  if (open_ >= kJoinsAtOnce) {
    log_warn("join.too_many", {{"peer", stream->peer()}});
    stream->close();
    co_return;
  }
  ++open_;
  const std::string peer = stream->peer();
  const net::H2Ptr connection = net::H2Connection::server(
      std::move(stream), [this, peer](net::ExchangePtr exchange) { return handle(std::move(exchange), peer); },
      net::H2Limits{.max_concurrent_streams = 1});
  net::spawn(executor_, close_later(connection), "join.limit");
  const Error ended = co_await connection->run();
  --open_;
  log_debug("join.closed", {{"peer", peer}, {"reason", ended.reason}});
}

net::Task<> JoinDoor::handle(net::ExchangePtr exchange, std::string peer) {
  Result<> sent;
  const net::RequestHead& head = exchange->request();
  if (head.method != "POST" || head.path != "/join/v1/node") {
    std::string error = error_text("not_found", "only POST /join/v1/node is served here");
    sent = co_await exchange->respond_json(404, std::move(error));
    co_return;
  }
  auto body = co_await exchange->read_body(kJoinBodyMax);
  if (!body) co_return;
  net::RequestHead out{.method = "POST", .path = "/internal/v1/join", .query = {}, .headers = {}};
  out.headers.push_back({"x-aiv-peer", peer.substr(0, peer.rfind(':'))});
  const auto deadline = net::Clock::now() + net::seconds(10);
  auto opened = co_await controller_.open(std::move(out), std::move(*body));
  Result<std::string> answer = std::unexpected(Error{ErrorCode::kUnavailable, "no answer", ""});
  int status = 503;
  if (opened) {
    const net::ClientExchangePtr upstream = *opened;
    const auto answered = co_await upstream->head(deadline);
    if (answered) {
      status = answered->status;
      answer = co_await upstream->read_body(64 * 1024, deadline);
    }
  }
  if (!answer) {
    status = 503;
    answer = error_text("unavailable", "the controller is away; try again in a moment");
  }
  std::string text = std::move(*answer);
  sent = co_await exchange->respond_json(status, std::move(text));
}

}  // namespace aiv::gateway
