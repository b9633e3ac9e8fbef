#include "gateway/pulse.hpp"

#include <utility>

#include "base/log.hpp"

namespace aiv::gateway {
namespace {

constexpr net::milliseconds kWatchPause{250};
constexpr net::milliseconds kWatchLimit{1000};

net::Task<> watch(const NodeLinks* links, ReplicaPtr replica) {
  const auto since = net::Clock::now();
  while (replica->routed) {
    const net::H2Ptr link = links->find(replica->node);
    if (!link) break;
    const Pulse pulse = co_await feel_pulse(link, replica, kWatchLimit);
    if (pulse == Pulse::kAlive) break;
    co_await net::sleep_for(kWatchPause);
  }
  replica->hung = false;
  const auto silent = std::chrono::duration_cast<net::milliseconds>(net::Clock::now() - since);
  log_info("replica.answers_again",
           {{"replica", replica->id}, {"node", replica->node}, {"silent_ms", silent.count()}});
}

}  // namespace

net::Task<Pulse> feel_pulse(net::H2Ptr link, ReplicaPtr replica, net::Clock::duration limit) {
  net::RequestHead head{
      .method = "GET", .path = "/node/v1/replicas/" + replica->id + "/health", .query = {}, .headers = {}};
  const auto asked = net::Clock::now();
  const auto opened = co_await link->open(std::move(head), std::string());
  if (!opened) co_return Pulse::kAlive;
  const net::ClientExchangePtr probe = *opened;
  const auto answer = co_await probe->head(asked + limit);
  probe->cancel();
  const auto now = net::Clock::now();
  if (answer || answer.error().code != ErrorCode::kTimeout) {
    if (answer) replica->heard_at = now;
    co_return Pulse::kAlive;
  }
  if (replica->heard_at > asked) co_return Pulse::kAlive;  // a token of another request came meanwhile
  co_return now > asked + limit + kOwnDelayMax ? Pulse::kUnheard : Pulse::kSilent;
}

void watch_hung(net::Executor executor, const NodeLinks& links, ReplicaPtr replica) {
  if (replica->hung) return;
  replica->hung = true;
  net::spawn(executor, watch(&links, std::move(replica)), "pulse.watch");
}

}  // namespace aiv::gateway
