#!/usr/bin/env bash
# Installs the Debian packages that are missing, and says which. Does nothing when all are there.
# usage: setup.sh WHAT...   (words of scripts/packages.txt: build run test bench npm clang format demo)
. "$(dirname "$0")/lib.sh"

wanted=$(awk -v what=" $* " 'index(what, " " $1 " ") { for (i = 2; i <= NF; i++) print $i }' scripts/packages.txt)

missing=()
installed=$(dpkg-query -W -f '${db:Status-Status} ${binary:Package}\n' 2>/dev/null | sed -n 's/^installed \([^:]*\).*/\1/p') ||
  die "dpkg-query is missing: this is not Debian" "install by hand what scripts/packages.txt names, then run \`make build\`"
for package in $wanted; do
  grep -qx -- "$package" <<<"$installed" || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" != 0 ]; then
  command -v sudo >/dev/null || die "${#missing[@]} Debian packages are missing, and this is neither root nor is sudo there" \
    "as root: apt-get install ${missing[*]}"
  as_root=(sudo)
fi
say "installing ${#missing[@]} Debian packages: ${missing[*]}"
mkdir -p "$CACHE"
log=$CACHE/apt.log
apt() {
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -q -y -o Dpkg::Use-Pty=0 -o APT::Color=0 "$@" 2>&1 |
    tee -a "$log" | { grep --line-buffered -E '^(Need to get|After this|Fetched|E:)' || true; } |
    while IFS= read -r line; do say "  $line"; done
}
: >"$log"
apt update || die "apt-get update failed: $(grep -m1 '^E:' "$log" || tail -n 1 "$log")" "check the network and /etc/apt; details in $log"
apt install --no-install-recommends "${missing[@]}" ||
  die "apt-get install failed: $(grep -m1 '^E:' "$log" || tail -n 1 "$log")" \
    "run it by hand to see why: apt-get install ${missing[*]} (Debian 12 is needed; details in $log)"
