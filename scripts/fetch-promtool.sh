#!/usr/bin/env bash
# Puts promtool into .cache/promtool, where the tests find it. It comes in Debian's `prometheus` package, which also has
# a server that would start and listen: so the package is only unpacked, never installed. apt checks its signature.
# Without a network the tests that need it say that they skip.
. "$(dirname "$0")/lib.sh"

DEST=$CACHE/promtool
[ ! -x "$DEST/promtool" ] && ! command -v promtool >/dev/null || exit 0
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
say "downloading promtool (of Debian's package prometheus)"
# The lists of packages may be missing or older than the archive.
fetch() { (cd "$temporary" && apt-get -q download prometheus >"$temporary/log" 2>&1); }
refresh() { if [ "$(id -u)" = 0 ]; then apt-get -q update; else sudo -n apt-get -q update; fi >"$temporary/log" 2>&1; }
if fetch || { refresh && fetch; } && dpkg-deb -x "$temporary"/prometheus_*.deb "$temporary/unpacked"; then
  mkdir -p "$DEST"
  mv "$temporary/unpacked/usr/bin/promtool" "$DEST/promtool.part"
  mv "$DEST/promtool.part" "$DEST/promtool"
else
  say "promtool could not be downloaded; its test will be skipped: $(tail -n 1 "$temporary/log")"
fi
