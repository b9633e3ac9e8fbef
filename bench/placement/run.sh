#!/bin/sh
# Prints the planner's tables: against CBC and HiGHS on small labs, against the printed bound on larger sites, and at
# scale. Usage: bench/placement/run.sh [LABS] [SECONDS_PER_SOLVER]. Builds the release preset first.
set -eu
cd "$(dirname "$0")/../.."
cmake --preset release >/dev/null
cmake --build build/release --target placement_bench >/dev/null
bench=$PWD/build/release/bin/placement_bench
echo "# planner, simulated clusters; commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), $(date -u +%F), $(nproc) cores, load $(cut -d' ' -f1 /proc/loadavg)"
if command -v node >/dev/null; then
  (cd bench/placement && { [ -d node_modules ] || npm ci --silent >/dev/null 2>&1 || true; } &&
    node labs.mjs "$bench" "${1:-100}" "${2:-20}" 2>/dev/null)
else
  echo "node is not installed: the tables against the solvers are left out"
fi
"$bench" bound 20 24 1000 2
"$bench" bound 200 5 1000
"$bench" scale 10000
"$bench" scale 10000 3
