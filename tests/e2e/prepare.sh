#!/usr/bin/env bash
# Installs the pinned npm packages of the end-to-end tests; does nothing when they are there already.
set -euo pipefail
cd "$(dirname "$0")"
if [ node_modules/.package-lock.json -nt package-lock.json ]; then exit 0; fi
root=$(git rev-parse --show-toplevel 2>/dev/null || true)
if [ -n "$root" ] && [ -x "$root/scripts/fetch-node.sh" ]; then PATH=$("$root/scripts/fetch-node.sh"):$PATH; fi
npm ci --ignore-scripts --no-audit --no-fund
touch node_modules/.package-lock.json
