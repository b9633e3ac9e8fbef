#!/usr/bin/env bash
# Installs what the browser tests need, as their lock file pins it; nothing to do when it is there already.
cd "$(dirname "$0")" || exit 1
[ node_modules/.package-lock.json -nt package-lock.json ] && exit 0
exec npm ci --ignore-scripts --no-audit --no-fund
