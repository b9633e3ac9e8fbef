#!/usr/bin/env bash
# Builds the web page into web/dist, unless it is there for exactly these sources.
# usage: build-web.sh [packages]   (packages: make sure of web/node_modules only, for its tests)
. "$(dirname "$0")/lib.sh"

[ -f web/package.json ] || exit 0
stamp=$({ find web -type f -not -path 'web/node_modules/*' -not -path 'web/dist/*' -print0 | sort -z | xargs -0 sha256sum
  cat scripts/node.lock; } | sha256sum | cut -c1-16)
if [ "${1:-}" != packages ] && [ -f web/dist/index.html ] && [ "$(cat "$CACHE/web.stamp" 2>/dev/null)" = "$stamp" ]; then
  exit 0
fi

started=$SECONDS
node_bin=$(scripts/fetch-node.sh) || exit 1
export PATH=$node_bin:$PATH
mkdir -p "$CACHE"
log=$CACHE/web.log
lock_stamp=$(sha256sum web/package-lock.json | cut -c1-16)
if [ "$(cat web/node_modules/.aiv-lock 2>/dev/null)" != "$lock_stamp" ]; then
  say "installing the page's packages, pinned by web/package-lock.json"
  (cd web && npm ci --ignore-scripts --no-audit --no-fund) >"$log" 2>&1 ||
    { tail -n 15 "$log" >&2; die "npm could not install the page's packages" "check the network and npm's registry setting; details in $log"; }
  printf '%s' "$lock_stamp" >web/node_modules/.aiv-lock
fi
[ "${1:-}" != packages ] || exit 0
say "building the web page"
(cd web && npm run build) >"$log" 2>&1 ||
  { tail -n 25 "$log" >&2; die "the page does not build" "details in $log"; }
printf '%s' "$stamp" >"$CACHE/web.stamp"
say "the page is ready after $((SECONDS - started)) s"
