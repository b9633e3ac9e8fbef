// A simulated machine: its power, its agent, its engines and their memory.
//
// The agent obeys documents as the real one does (persist, then act; older versions refused) and lets
// core/replica_life decide what happens to each engine. Engines are processes: they outlive their agent, hold
// memory until the driver gives it back, load for as long as their bytes take, hang, exit.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/documents.hpp"
#include "core/replica_life.hpp"

namespace aiv::sim {

class World;

enum class Served { kAccepted, kUnknown, kNotReady, kNoSlot };

class Node {
 public:
  Node(World& world, std::string id, std::vector<Device> devices);

  // ---- faults
  void power_off();
  void power_on();
  void kill_agent(std::int64_t restart_ms);
  void stop_agent();
  void continue_agent();
  bool kill_engine();  // one at random; false when none runs
  bool stop_engine(std::int64_t for_ms);
  void steal(Bytes bytes);
  std::int64_t slow_load_until = 0, load_oom_until = 0, load_exit_until = 0, load_hang_until = 0;
  std::int64_t slow_network_until = 0;

  // ---- messages
  // What arrives from a controller; `answer(status, version)` is called where the agent answers.
  using Answer = std::function<void(int status, Version highest)>;
  void take_document(const NodeDesired& document, const Answer& answer);
  void link_opened();  // a session began: it says what it is
  void send_observed();

  // ---- requests
  Served begin_request(const std::string& replica, std::uint64_t request, std::int64_t prompt,
                       std::int64_t tokens);
  void cancel_request(const std::string& replica, std::uint64_t request);
  void link_closed();  // its streams end
  void cut_healed();   // what stood still in the network goes on
  [[nodiscard]] bool answers() const { return power_ && agent_ && !agent_stopped_; }
  [[nodiscard]] bool powered() const { return power_; }
  [[nodiscard]] bool agent_runs() const { return power_ && agent_; }

  [[nodiscard]] const std::string& id() const { return id_; }
  [[nodiscard]] const std::vector<Device>& devices() const { return devices_; }
  [[nodiscard]] const std::optional<NodeDesired>& desired() const { return desired_; }
  [[nodiscard]] NodeObserved observed() const;
  // Bytes that our engines hold on the device now.
  [[nodiscard]] Bytes held_on(const std::string& device) const;

  // Network state, changed by World.
  bool linked = false;
  std::uint64_t link_no = 0;
  bool cut_up = false, cut_down = false;
  std::vector<std::function<void()>> waiting_up, waiting_down;  // sent into a cut

 private:
  struct Engine {
    std::uint64_t no = 0;
    ReplicaSpec spec;
    std::vector<DeviceBytes> takes;  // what it really holds of each device
    bool alive = true;
    bool ready = false;
    bool stopped = false;
    std::int64_t released_ms = -1;
    std::set<std::uint64_t> requests;
  };
  struct Replica {
    Replica(ReplicaSpec s, LifeLimits limits) : spec(std::move(s)), life(limits) {}
    ReplicaSpec spec;
    ReplicaLife life;
    std::uint64_t engine = 0;
    std::uint64_t timer = 0;
    bool stopping = false;
    bool idle_told = false;
    bool releasing = false;
    std::deque<std::pair<LifeEvent, std::string>> queue;
  };

  void start_agent();
  void agent_later(std::int64_t delay_ms,
                   std::function<void()> action);  // of this incarnation, not while stopped
  void heartbeat();
  void whole_report();
  void changed();
  void reconcile();
  void end_strangers();
  void start_replica(const ReplicaSpec& spec);
  void push(const std::string& id, LifeEvent event, std::string detail);
  void drive(const std::string& id, LifeEvent event, std::string detail);
  std::optional<LifeAction> perform(const std::string& id, Replica& replica, LifeAction action);
  void wait(const std::string& id, Replica& replica, LifeAction action);
  std::pair<LifeEvent, std::string> ask_room(const ReplicaSpec& spec);
  void start_engine(const std::string& id, Replica& replica);
  void engine_loaded(std::uint64_t no);
  void canary(const std::string& id, std::uint64_t engine);
  void exit_later(std::uint64_t no, std::int64_t delay_ms, const std::string& why, bool for_good);
  void engine_exited(std::uint64_t no, const std::string& why, bool for_good);
  void memory_back(std::uint64_t no);
  void release(const std::string& id, std::uint64_t engine);
  Engine* engine_of(const std::string& replica);
  Engine* find_engine(std::uint64_t no);
  void freeze_requests(const Engine& engine);
  void resume_requests(const Engine& engine);

  World& world_;
  std::string id_;
  std::vector<Device> devices_;
  std::int64_t disk_bytes_per_ms_;
  bool power_ = true;
  bool agent_ = false;
  bool agent_stopped_ = false;
  bool change_noted_ = false;
  std::uint64_t incarnation_ = 0;
  std::uint64_t boot_ = 1;
  std::int64_t seq_ = 0;
  std::optional<NodeDesired> desired_;  // on its disk
  std::map<std::string, Replica> replicas_;
  std::vector<Engine> engines_;
  std::map<std::string, std::string> loading_;  // device -> replica
  std::vector<std::function<void()>> while_stopped_;
};

}  // namespace aiv::sim
