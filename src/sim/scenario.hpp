// clang-format off
// A scenario file (TOML): what the cluster is, what load it gets, what breaks and when.
//
//   cluster = { servers = 1, store = "sqlite", nodes = 10, gpus = ["GTX 1080:8GiB", "RTX 3060:12GiB,GTX 970:4GiB"],
//               models = 6, first_model = 0, spare_replicas = 1, slots = 4, replicas_min = 0, replicas_max = 3 }
//             gpus repeat over the nodes, "," parts devices of a node; with replicas_min and _max the autoscaler decides
//   load    = { rps = 2.0, noise = 0.1, mean_tokens = 120, mean_prompt = 400, ttft = "15s", trace = "FILE.csv" }
//   phase   = [ { at = "10m", model = 2, rps = 1.5 } ]      from then on that model gets so much; 0: all, by Zipf
//   run     = { duration = "1h", settle = "5m" }
//   expect  = { from = "20m", moves_max = 0, moves_min = 0, scaled_max = 9, evicted_min = 1, good_min = 0.99 }
//   network = { delay = "2ms", jitter = "3ms" }
//   faults  = { per_hour = 60.0, overlap = true, for_min = "2s", for_max = "30s", mix = { engine_kill = 30 } }
//   admin   = { per_hour = 6.0 }                deployments scaled, changed, deleted, nodes drained
//   quota   = { keys = 3, requests_per_min = 60, tokens_per_min = 9000, concurrency = 4, tokens_per_day = 200000,
//               team_requests_per_min = 0, team_tokens_per_min = 0, team_concurrency = 0, team_tokens_per_day = 0 }
//             every request carries one of so many keys, all of one team; 0: no limit
//   policy  = { replace = true, retry = true }  false: without our fail-over, for comparison
//   fault   = [ { at = "90s", kind = "node_cut", target = "n3", for = "20s", bytes = "4GiB", share = 0.5 } ]
//
// Every table but `cluster` may be left out. An unknown key is refused with its line.
// clang-format on
#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "core/documents.hpp"

namespace aiv::sim {

enum class FaultKind {
  kEngineKill,
  kEngineStop,  // SIGSTOP: hangs, later goes on
  kAgentKill,   // the engines go on; a new agent adopts them
  kAgentStop,
  kNodeKill,      // power loss; back after `for`
  kNodeCut,       // both directions
  kOneWayCut,     // what the node says is not heard; what it is told arrives
  kSlowNetwork,   // up to 4 s more per message
  kSlowLoad,      // loads take ten times as long
  kLoadOom,       // loads end for want of memory although the figures said that they fit
  kLoadExit,      // loads end with status 1
  kLoadHang,      // loads never end
  kMemoryStolen,  // another program takes `bytes` on each device
  kControllerKill,
  kControllerStop,
  kControllerSplit,  // a second one takes over while the first goes on believing that it leads
  kGatewayKill,
  kStoreLeader,     // the store answers nothing; what it was asked may have been done
  kDiskFull,        // the store refuses writes
  kMassCut,         // `share` of the nodes at once
  kStaleDocuments,  // documents from before are delivered again, in any order
  kDrain            // an operator drains the node for a while
};

[[nodiscard]] std::string_view to_string(FaultKind kind);
[[nodiscard]] const std::vector<FaultKind>& all_fault_kinds();

struct ScheduledFault {
  std::int64_t at_ms = 0;
  FaultKind kind = FaultKind::kEngineKill;
  std::string target;       // "n3"; empty = drawn
  std::int64_t for_ms = 0;  // 0 = drawn
  Bytes bytes = 0;
  double share = 0.5;
};

// From `at_ms` on, requests for one model come at this rate, by a Poisson process of its own.
struct LoadPhase {
  std::int64_t at_ms = 0;
  int model = 0;  // counted from 1 in order of names; 0: all models, by Zipf
  double rps = 0;
};

// What a run must show, counted from `from` on (90 s: the first loads are done); a broken one is L6. -1:
// anything.
struct Expectation {
  std::int64_t from_ms = 90'000;
  int moves_max = -1, moves_min = -1;      // replicas placed
  int scaled_max = -1, scaled_min = -1;    // decisions of the autoscaler
  int evicted_max = -1, evicted_min = -1;  // replicas unloaded for others
  double good_min = -1;                    // share of the requests
};

// What each key and the team of them all may use.
struct Quota {
  int keys = 0;  // 0: nobody is counted
  KeyLimits key, team;
};

struct Scenario {
  std::string name;
  int servers = 1;
  std::string store = "sqlite";
  int nodes = 4;
  std::vector<std::string> gpus;
  int models = 4;
  int first_model = -1;  // of the catalogue; -1: drawn
  int spare_replicas = 1;
  int slots = 0;          // of a replica; 0: the product's choice
  int replicas_min = -1;  // -1: 1 + spare_replicas, and as many at most
  int replicas_max = -1;

  double rps = 1.0;
  double noise = 0;  // each rate changes every minute, by so much at most
  std::vector<LoadPhase> phases;
  Expectation expect;
  Quota quota;
  int mean_tokens = 120;
  int mean_prompt = 400;
  std::int64_t ttft_ms = 15'000;
  std::string trace;

  std::int64_t duration_ms = 3'600'000;
  std::int64_t settle_ms = 300'000;

  std::int64_t delay_ms = 2;
  std::int64_t jitter_ms = 3;

  double faults_per_hour = 0;
  bool overlap = false;
  std::int64_t for_min_ms = 2'000;
  std::int64_t for_max_ms = 30'000;
  std::vector<std::pair<FaultKind, int>> mix;
  std::vector<ScheduledFault> faults;

  double admin_per_hour = 0;
  bool replace = true;
  bool retry = true;
};

// Errors: kInvalidArgument with `where` = "NAME:LINE" and the key in the reason. `name` is only for messages.
Result<Scenario> parse_scenario(std::string_view text, const std::string& name);
Result<Scenario> read_scenario(const std::string& path);

}  // namespace aiv::sim
