// Keeps one replica as its spec wants it: performs what core/replica_life decides, with a shim, an engine,
// its log and its socket.
//
// One coroutine per replica (run); everything happens on the agent's one thread.
#pragma once
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>

#include "core/documents.hpp"
#include "core/replica_life.hpp"
#include "core/residency.hpp"
#include "net/http.hpp"
#include "node/devices.hpp"
#include "node/replica_files.hpp"
#include "node/shim_link.hpp"

namespace aiv::node {

struct RoomAnswer {
  LifeEvent event = LifeEvent::kNoRoom;  // kRoom, kNotYet, kNoRoom or kUnfit
  std::string detail;
  EngineView view;  // of the spec's devices, with kRoom
  std::map<std::string, Bytes> free_before;
};

// Who decides about memory: one load at a time per device, against what is free now.
class Room {
 public:
  virtual ~Room() = default;
  virtual net::Task<RoomAnswer> ask(ReplicaSpec spec) = 0;
  // The replica's turn is over: it serves, or it is gone.
  virtual void loading_done(const std::string& replica_id) = 0;
  // Waits (bounded) until the devices show the memory that was free before the load.
  virtual net::Task<> wait_released(ReplicaSpec spec, std::map<std::string, Bytes> free_before) = 0;
  virtual Result<EngineView> view(const std::vector<std::string>& device_ids) = 0;
};

struct SupervisorOptions {
  std::string data_dir;
  std::string engine_dir;
  std::string engine_program;  // llama-server
  std::string fake_engine_program;
  std::vector<std::string> shim_command;
  std::int64_t orphan_limit_ms = 600'000;
  std::int64_t load_limit_ms = 0;  // 0: from the spec's bytes
  std::int64_t drain_limit_ms = 5'000;
  std::int64_t canary_every_ms = 60'000;
};

class Supervisor : public std::enable_shared_from_this<Supervisor> {
 public:
  // `changed` is called after anything that status() shows has changed.
  Supervisor(net::Executor executor, ReplicaSpec spec, Version version, SupervisorOptions options, Room& room,
             std::function<void()> changed);

  // The whole life; returns when the replica is over and its files are gone.
  net::Task<> run();
  void set_draining(bool draining);
  void stop();

  [[nodiscard]] const ReplicaSpec& spec() const { return spec_; }
  [[nodiscard]] const std::string& hash() const { return hash_; }
  [[nodiscard]] ReplicaStatus status() const;
  [[nodiscard]] bool over() const { return over_; }
  // From the start of a load until the devices have shown the memory free again.
  [[nodiscard]] bool holds_memory() const { return holds_memory_; }
  [[nodiscard]] std::int64_t engine_pid() const { return engine_pid_; }

  // ---- for the relay -------------------------------------------------------------------------------------
  [[nodiscard]] bool accepts_requests() const { return life_.accepts_requests() && !stopping_; }
  [[nodiscard]] bool has_slot() const { return running_ < spec_.slots; }
  [[nodiscard]] std::string engine_address() const { return "unix:" + paths_.engine_socket; }
  [[nodiscard]] const std::string& api_key() const { return api_key_; }
  // Keeps idle connections to the engine until it is told to end.
  [[nodiscard]] std::shared_ptr<net::HttpClient> engine_client();
  [[nodiscard]] const ReplicaPaths& paths() const { return paths_; }
  // A request that is relayed; `takes_slot` counts against the cap. Ends with the object.
  class Lease {
   public:
    Lease(std::shared_ptr<Supervisor> owner, bool takes_slot, std::function<void()> cancel);
    ~Lease();
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;

   private:
    std::shared_ptr<Supervisor> owner_;
    bool takes_slot_;
    std::list<std::function<void()>>::iterator cancel_;
  };
  // How the engine that served until now ended, once that is known; empty if it lives after `limit`.
  net::Task<std::string> exit_within(net::Clock::duration limit);

 private:
  struct Queued {
    LifeEvent event;
    std::string detail;
    std::uint64_t engine;  // events of an engine that was replaced are dropped; 0: not of an engine
  };
  void push(LifeEvent event, std::string detail = {}, std::uint64_t engine = 0);
  net::Task<LifeAction> perform(LifeAction action);
  net::Task<LifeAction> wait_for_event(LifeAction action);
  LifeAction resume(LifeEvent event, std::string detail = {});
  net::Task<bool> adopt();
  net::Task<Result<>> start_engine();
  net::Task<Result<std::string>> write_files();
  net::Task<> follow(std::uint64_t engine);
  bool take_line(const std::string& line, std::uint64_t engine);
  void take_protocol(const std::string& line, std::uint64_t engine);
  void engine_gone(const std::string& status, std::uint64_t engine);
  net::Task<LifeAction> prove();
  net::Task<> canary(std::uint64_t engine);
  net::Task<Result<std::string>> ask_engine(net::RequestHead head, std::string body,
                                            net::Clock::duration limit);
  net::Task<> send_to_shim(std::string command);
  void kill_engine(int signo);
  void housekeeping();
  net::Task<> read_slots(std::uint64_t engine);
  net::Task<> ask_health(std::uint64_t engine);
  void cancel_requests();
  void note_change();

  net::Executor executor_;
  ReplicaSpec spec_;
  std::string hash_;
  Version version_;
  SupervisorOptions options_;
  Room& room_;
  std::function<void()> changed_;
  ReplicaPaths paths_;
  ReplicaLife life_;
  net::Signal wake_;
  std::deque<Queued> queue_;

  std::uint64_t engine_ = 0;  // counts engines started or adopted
  ResidencyParser log_;
  ShimLinkPtr link_;
  EngineView view_;
  std::map<std::string, Bytes> free_before_;
  std::string api_key_;
  std::shared_ptr<net::HttpClient> client_;
  std::int64_t engine_pid_ = 0;
  std::int64_t engine_start_ = 0;
  std::int64_t started_at_ms_ = 0;
  double progress_ = 0;
  bool engine_ready_ = false;
  bool protocol_seen_ = false;
  bool replayed_ = false;
  std::string exit_;  // of the engine that was last seen to end
  std::uint64_t exited_engine_ = 0;
  std::vector<DeviceBytes> measured_;
  bool out_of_memory_ = false;  // how the last load ended

  std::list<std::function<void()>> cancels_;
  int running_ = 0;
  int slots_busy_ = 0;
  bool asking_engine_ = false;
  net::Clock::time_point last_canary_{};
  net::Clock::time_point last_slots_{};
  bool holds_memory_ = false;
  bool idle_told_ = false;
  bool stopping_ = false;
  bool over_ = false;
  ReplicaStatus told_;
};
using SupervisorPtr = std::shared_ptr<Supervisor>;

}  // namespace aiv::node
