// `aiv engine-shim`: the small parent of one engine process, so that engines outlive the agent.
//
// It holds the engine's stdin and stdout (the engine leaves when stdin closes), writes its log within a
// bound, and speaks with the agent over a Unix socket in lines. One thread, poll(), no TLS, no JSON. The
// engine dies with the shim (PR_SET_PDEATHSIG and EOF on stdin); a shim that no agent talks to for
// `--orphan-limit-ms` stops its engine.
//
// usage: engine-shim --dir DIR --socket PATH --replica ID --spec-hash HASH --epoch N --rev N
//                    [--orphan-limit-ms N] [--log-bytes-max N] -- PROGRAM ARGS...
// The engine gets exactly the shim's own environment. The working directory becomes DIR.
//
// Lines to the agent: "hello PID START_TIME", then what was kept ("log TEXT" from the start of the engine's
// log, "out TEXT", the newest child-protocol line), "live", then both as they come, and at the end "exit
// STATUS". Lines from the agent: "term" (SIGTERM and word on stdin, SIGKILL after a while), "kill", "quiet"
// (no more log lines).
#pragma once

namespace aiv::node {

// `argv[0]` is the verb. Dispatched at the very top of main, before anything else is set up. Exit codes: 0
// the engine ended and its status is in DIR/exit; 2 usage; 1 the engine could not be started.
int engine_shim_main(int argc, char** argv);

}  // namespace aiv::node
