// Requests to the controller over its Unix socket: one HTTP/2 connection, dialled when it is needed and again after
// it broke.
#pragma once
#include <string>

#include "net/h2.hpp"

namespace aiv::gateway {

class ControllerClient : public net::HttpClient {
 public:
  ControllerClient(net::Executor executor, std::string address) : executor_(executor), address_(std::move(address)), dialled_(executor) {}
  // kUnavailable when nobody listens there.
  net::Task<Result<net::ClientExchangePtr>> open(net::RequestHead head, std::string body) override;
  void close();

 private:
  static net::Task<> keep_reading(net::H2Ptr connection);
  net::Executor executor_;
  std::string address_;
  net::H2Ptr connection_;
  bool dialling_ = false;
  net::Signal dialled_;
};

}  // namespace aiv::gateway
