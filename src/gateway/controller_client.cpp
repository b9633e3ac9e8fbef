#include "gateway/controller_client.hpp"

#include <utility>

#include "net/stream.hpp"

namespace aiv::gateway {

net::Task<> ControllerClient::keep_reading(net::H2Ptr connection) {
  const Error ended = co_await connection->run();
  static_cast<void>(ended);
}

net::Task<Result<net::ClientExchangePtr>> ControllerClient::open(net::RequestHead head, std::string body) {
  while (dialling_) co_await dialled_.wait();
  if (!connection_ || !connection_->open_for_requests()) {
    dialling_ = true;
    auto stream = co_await net::dial(address_, nullptr, net::seconds(2));
    dialling_ = false;
    dialled_.notify();
    if (!stream) co_return std::unexpected(stream.error());
    connection_ = net::H2Connection::client(std::move(*stream));
    net::spawn(executor_, keep_reading(connection_), "controller.read");
  }
  const net::H2Ptr connection = connection_;
  co_return co_await connection->open(std::move(head), std::move(body));
}

void ControllerClient::close() {
  if (connection_) connection_->close("the gateway ends");
}

}  // namespace aiv::gateway
