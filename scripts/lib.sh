# Shared by the scripts beside it: progress lines, failures with cause and fix, locked downloads.
# Source it; it sets the strict mode and changes to the repository's root.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
ROOT=$PWD
CACHE=$ROOT/.cache
JOBS=${JOBS:-$(nproc)}

say() { printf '[%s] %s\n' "$(basename "$0" .sh)" "$*" >&2; }

# die "cause" "fix"
die() {
  printf '[%s] failed: %s\n' "$(basename "$0" .sh)" "$1" >&2
  [ $# -lt 2 ] || printf '[%s] fix: %s\n' "$(basename "$0" .sh)" "$2" >&2
  exit 1
}

# locked FILE PACKAGE -> "version integrity"
locked() {
  awk -v name="$2" '$1 == name { print $2, $3; found = 1 } END { exit !found }' "$1" ||
    die "$2 is not in $1" "restore the file: git checkout $1"
}

integrity_of() { printf 'sha512-%s' "$(openssl dgst -sha512 -binary "$1" | base64 -w0)"; }

# fetch_package LOCKFILE PACKAGE: downloads the packed file unless it is there already, checks its hash against the
# lock and prints its path. Nothing of the package is run: `npm pack` only downloads.
fetch_package() {
  local lock=$1 name=$2 version integrity file got log
  read -r version integrity <<<"$(locked "$lock" "$name")"
  [ -n "$version" ] || exit 1
  file=$CACHE/downloads/$(printf '%s' "$name-$version.tgz" | tr -d '@' | tr '/' '-')
  mkdir -p "$CACHE/downloads"
  if [ -f "$file" ] && [ "$(integrity_of "$file")" = "$integrity" ]; then
    printf '%s\n' "$file"
    return
  fi
  command -v npm >/dev/null || die "npm is not installed" "apt-get install npm (scripts/setup.sh does it)"
  say "downloading $name $version"
  local temporary
  temporary=$(mktemp -d "$CACHE/downloads/tmp.XXXXXX")
  log=$temporary/npm.log
  if ! npm pack "$name@$version" --ignore-scripts --pack-destination "$temporary" >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -rf "$temporary"
    die "npm could not download $name@$version" \
      "check the network and npm's registry setting (npm config get registry), then run the same command again"
  fi
  mv "$temporary"/*.tgz "$file.part"
  rm -rf "$temporary"
  got=$(integrity_of "$file.part")
  if [ "$got" != "$integrity" ]; then
    rm -f "$file.part"
    die "$name@$version is not what $lock pins: got $got, want $integrity" \
      "the registry or the way to it changed the file; do not use it. Try another network or registry"
  fi
  mv "$file.part" "$file"
  printf '%s\n' "$file"
}
