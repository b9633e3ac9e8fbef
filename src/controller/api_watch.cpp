// Watching a list of /aiv/v1: what it holds first, then each change, as server-sent events.
//
//   event: put      data: the item, whole    one for each item at first, then for each that is new or changed
//   event: delete   data: {"id": ...}        or {"name": ...}, as the items are known by
//   event: synced   data: {"revision": N}    once, after the first items
//
// Level-triggered as the rest: a watcher that was away asks anew and has the truth; there is no history to
// lose.
#include <map>

#include "controller/api.hpp"

namespace aiv::controller {

namespace {

// A watcher is told at most so often: a burst of changes is one look.
constexpr auto kBetweenLooks = net::milliseconds(250);
// Some figures (busy slots, free memory) move without an event.
constexpr auto kLookEach = net::seconds(1);
constexpr auto kStillHereEach = net::seconds(15);

// What a watcher has been told.
class Told {
 public:
  // The text that brings it up to date.
  std::string update(const Json& items) {
    std::string out;
    std::map<std::string, std::string> now;
    for (const Json& item : items) {
      std::string text = dump_json(item);
      const std::string name = name_of(item);
      const auto before = known_.find(name);
      if (before == known_.end() || before->second != text) out += "event: put\ndata: " + text + "\n\n";
      now.emplace(name, std::move(text));
    }
    for (const auto& [name, text] : known_) {
      if (now.contains(name)) continue;
      Json gone;
      gone[key_] = name;
      out += "event: delete\ndata: " + dump_json(gone) + "\n\n";
    }
    known_ = std::move(now);
    return out;
  }

 private:
  std::string name_of(const Json& item) {
    key_ = item.contains("id") ? "id" : "name";
    return item.value(key_, "");
  }

  const char* key_ = "id";
  std::map<std::string, std::string> known_;
};

}  // namespace

net::Task<> Api::watch_list(net::ExchangePtr exchange, const ApiRoute* route, ApiRequest request) {
  const bool begun = co_await begin_stream(exchange);
  if (!begun) co_return;
  EventLog::Subscription subscription(context_.cluster.events(), context_.executor);
  exchange->on_gone([&subscription] { subscription.signal().notify(); });
  Told told;
  bool synced = false;
  auto last_sent = net::Clock::now();
  while (!exchange->gone() && !context_.stopping) {
    const auto looked = net::Clock::now();
    ApiReply reply = co_await route->handler(context_, request);
    if (reply.status != 200) break;
    std::string text = told.update(reply.body["items"]);
    if (!synced) {
      Json revision;
      revision["revision"] = reply.body["revision"];
      text += "event: synced\ndata: " + dump_json(revision) + "\n\n";
      synced = true;
    }
    if (text.empty() && net::Clock::now() - last_sent > kStillHereEach) text = ": still here\n\n";
    if (!text.empty()) {
      auto sent = co_await exchange->write(text);
      if (!sent) break;
      last_sent = net::Clock::now();
    }
    co_await subscription.signal().wait_until(looked + kLookEach);
    if (exchange->gone() || context_.stopping) break;
    co_await net::sleep_until(looked + kBetweenLooks);
  }
  co_await end_stream(exchange);
}

}  // namespace aiv::controller
