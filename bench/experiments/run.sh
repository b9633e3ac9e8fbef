#!/usr/bin/env bash
# The simulated experiments of docs/experiments.md. usage: run.sh [TRACE.csv]   (default: the optional test data's Azure
# conversation trace where it is present, else synthetic requests)
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${AIV_BUILD_DIR:-build/release}/bin
trace=${1:-}
data=${AIV_TEST_DATA:-../shared}/data/AzureLLMInferenceTrace_conv.csv
[ -n "$trace" ] || { [ -f "$data" ] && trace=$data; } || true
echo "== placement (simulated)"
"$bin/experiments_bench" placement
echo "== six hours of requests (simulated)"
"$bin/experiments_bench" day
echo "== routing (simulated)"
"$bin/experiments_bench" routing ${trace:+"$trace"}
echo "== availability (simulated): seeds 1-20 of each; ours, without re-placement, without retry and resume, without both"
for policy in "true true" "false true" "true false" "false false"; do
  read -r replace retry <<<"$policy"
  file=$(mktemp --suffix=.toml)
  { cat bench/experiments/availability.toml; echo "policy = { replace = $replace, retry = $retry }"; } > "$file"
  "$bin/aiv" sim "$file" --seeds 20 --json | python3 bench/experiments/availability.py "replace=$replace retry=$retry" || true
  rm -f "$file"
done
