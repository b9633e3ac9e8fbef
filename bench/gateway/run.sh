#!/usr/bin/env bash
# What the gateway costs, next to nginx and HAProxy in front of the same engine; and what a start and the processes cost.
# One command, under five minutes. usage: bench/gateway/run.sh [--rounds N] [--quick]
set -euo pipefail
cd "$(dirname "$0")/../.."
exec python3 bench/gateway/measure.py --build "${AIV_BUILD_DIR:-$PWD/build/release}" "$@"
