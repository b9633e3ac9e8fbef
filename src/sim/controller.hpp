// A simulated controller process around the very core::step of the product: it takes events in, has its
// writes made durable before documents go out, pushes documents to nodes and gateways again until they are
// answered.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "core/reconcile.hpp"
#include "sim/store.hpp"

namespace aiv::sim {

class World;
class Node;

class Controller {
 public:
  Controller(World& world, std::string name) : world_(world), name_(std::move(name)) {}

  void start();  // takes the lead, reads the state; again and again until the store lets it
  void kill() { alive_ = false; }
  void stop() { stopped_ = true; }
  void go_on();

  // What the gateway and the nodes tell it; kept for later while the process is stopped.
  void link_up(const std::string& node);
  void link_down(const std::string& node, bool goodbye);
  void heartbeat(const std::string& node);
  void observed(const std::shared_ptr<const NodeObserved>& document);
  void load(const event::Load& load);
  void gateway_lost();
  void gateway_back();

  // An admin's change. `done(true)`: acknowledged.
  void change(std::function<void(StoredState&)> change, std::vector<Event> events,
              std::function<void(Outcome)> done);

  [[nodiscard]] const ControllerState& state() const { return state_; }
  [[nodiscard]] bool leads() const { return alive_ && loaded_ && !fenced_; }
  [[nodiscard]] bool alive() const { return alive_; }
  [[nodiscard]] bool stopped() const { return stopped_; }
  [[nodiscard]] const std::string& name() const { return name_; }
  [[nodiscard]] std::int64_t plans() const { return steps_; }

 private:
  struct Session {
    bool up = false;
    Version acknowledged;
    bool in_flight = false;
    std::uint64_t no = 0;
  };
  void load(std::int64_t epoch);
  void tick(std::int64_t due_ms);
  void take(const Event& event);
  void plant(std::vector<Command>& commands);
  void pump();
  void write_batch();
  void perform(const Command& command);
  void push_desired(const std::string& node);
  void push_routes();
  void fenced();
  // Where news comes from. Each keeps its order, whatever the process does: the gateway's streams share one
  // connection, the store answers on one thread. Between them a process that goes on after a stop may read in
  // any order.
  enum class From { kGateway, kStore, kTimer };
  struct Backlog {
    std::deque<std::function<void()>> actions;
    bool draining = false;
  };
  // Runs it now, or in its turn after the process went on, if it still lives then.
  void later(From from, std::function<void()> action);
  void drain(From from);

  World& world_;
  std::string name_;
  ControllerState state_;
  bool alive_ = true;
  bool stopped_ = false;
  bool loaded_ = false;
  bool fenced_ = false;
  bool writing_ = false;
  bool read_only_ = false;
  bool gateway_heard_ = true;
  std::deque<Command> commands_;
  std::map<std::string, NodeDesired> desired_;
  std::map<std::string, Session> sessions_;
  std::optional<RouteTable> routes_;
  Version routes_sent_;
  bool routes_in_flight_ = false;
  std::uint64_t next_session_ = 1;
  std::int64_t steps_ = 0;
  std::map<From, Backlog> backlog_;
};

}  // namespace aiv::sim
