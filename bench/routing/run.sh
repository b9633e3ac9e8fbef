#!/usr/bin/env bash
# Routing over unequal cards: mean and p99 beside HAProxy with least connections. usage: bench/routing/run.sh [--rounds N] ...
# (bench/routing/run.mjs; some 20 minutes: at real speeds answers take seconds, and a p99 needs hundreds of them)
set -euo pipefail
cd "$(dirname "$0")/../.."
tests/e2e/prepare.sh
export AIV_BIN="${AIV_BIN:-${AIV_BUILD_DIR:-$PWD/build/release}/bin/aiv}"
exec node bench/routing/run.mjs "$@"
