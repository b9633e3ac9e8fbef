// The way in for machines that are not nodes yet: they reach the link port without a certificate, by a protocol of their
// own ("aiv-join/1"), and may ask for one thing: a certificate, for a join token. The controller decides; this relays.
#pragma once
#include "gateway/controller_client.hpp"
#include "net/h2.hpp"

namespace aiv::gateway {

inline constexpr const char* kJoinProtocol = "aiv-join/1";
inline constexpr net::seconds kJoinLimit{20};       // for the whole connection
inline constexpr std::size_t kJoinBodyMax = 16 * 1024;
inline constexpr std::size_t kJoinsAtOnce = 32;

class JoinDoor {
 public:
  JoinDoor(net::Executor executor, ControllerClient& controller) : executor_(executor), controller_(controller) {}
  // One connection, for its whole life. Above kJoinsAtOnce it is closed at once: the machine tries again.
  net::Task<> serve(net::StreamPtr stream);

 private:
  net::Task<> handle(net::ExchangePtr exchange, std::string peer);
  static net::Task<> close_later(std::weak_ptr<net::H2Connection> connection);

  net::Executor executor_;
  ControllerClient& controller_;
  std::size_t open_ = 0;
};

}  // namespace aiv::gateway
