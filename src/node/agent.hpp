// The node agent: dials the server, serves the node API over HTTP/2 on that connection, finds the GPUs and
// keeps the engines that the desired document asks for.
//
// Files below `data_dir` (0700):
//   desired.json            last NodeDesired that was accepted, with its SHA-256
//   run/HASH.sock|.shim     an engine's socket and its shim's
//   replicas/ID/            spec.json  state  exit  engine.log[.1]  api.key   (node/replica_files.hpp)
//   gpus/                   configuration and accounting of software GPUs
//
// Engines outlive the agent: each runs under its own shim (node/shim.hpp), and a restarted agent adopts those
// that still match what is desired. Rationale: an agent crash or upgrade must not cost a model load.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/documents.hpp"
#include "net/async.hpp"

namespace aiv::node {

struct AgentOptions {
  std::string node_id;         // "n1"; as in the certificate
  std::string server_address;  // "tcp:127.0.0.1:PORT"
  std::string data_dir;
  std::string ca_file;
  std::string cert_file;
  std::string key_file;
  // What the node offers. kLlama: real GPUs, or software GPUs when `gpus` is set. kFake: devices of `gpus`
  // that exist only in the agent's books.
  EngineKind engine = EngineKind::kLlama;
  std::string engine_dir;           // folder of llama-server and its backends (kLlama)
  std::string fake_engine_program;  // empty: `aiv-fake-engine` beside this executable
  std::string gpus;                 // "GTX 1080:8GiB,RX 580:8GiB" (one node's part); empty: real GPUs
  std::string vgpu_layer_dir;       // see SoftwareGpuOptions
  // Program and first arguments that run engine_shim_main; empty: this executable with "engine-shim".
  std::vector<std::string> shim_command;

  // On SIGTERM: stop the engines (`aiv dev`, which must leave no process), or leave them to the next agent.
  bool stop_engines_on_exit = false;
  std::int64_t drain_limit_ms = 5'000;            // how long SIGTERM waits for running requests
  std::int64_t orphan_limit_ms = 10 * 60 * 1000;  // a shim without an agent stops its engine after this
  std::int64_t load_limit_ms = 0;                 // 0: from the model's size (node/supervisor.hpp)
  std::int64_t stall_limit_ms = 100'000;  // an engine that sends nothing for so long, its ping of each 30 s neither, has "stalled"
};

// Runs until SIGTERM or SIGINT; returns a process exit code (exit_code.hpp).
int run_agent(AgentOptions options);

}  // namespace aiv::node
