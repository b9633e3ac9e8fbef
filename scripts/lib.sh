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

# npm's own default, read out of Debian's package of npm: that one alone, without the hundreds that it depends on.
default_registry() {
  local folder known=$CACHE/downloads/npm-default-registry
  if [ ! -s "$known" ]; then
    folder=$(mktemp -d "$CACHE/downloads/tmp.XXXXXX")
    (cd "$folder" && apt-get download npm >/dev/null 2>&1 && dpkg-deb --fsys-tarfile npm_*.deb |
      tar -xO --wildcards '*/npm-registry-fetch/lib/default-opts.js' | grep -om 1 "https://[^'\"]*" >"$known") || true
    rm -rf "$folder"
  fi
  cat "$known" 2>/dev/null || true
}

# The npm registry that npm would ask: its environment variable, the user's and the machine's settings, else its default.
# Nothing where that cannot be found out.
npm_registry() {
  local found=${npm_config_registry:-${NPM_CONFIG_REGISTRY:-}} file
  for file in "$HOME/.npmrc" /etc/npmrc; do
    [ -n "$found" ] || [ ! -r "$file" ] || found=$(sed -n 's/^ *registry *= *//p' "$file" | tail -n 1)
  done
  printf '%s' "${found:-$(default_registry)}" | sed 's,/*$,,'
}

# download_package NAME VERSION FOLDER: by npm where there is one (it knows mirrors, proxies and passwords); else by curl,
# as npm comes with hundreds of Debian packages and ours comes from the registry too; where that fails, by Debian's npm
# after all. Nothing of the package is run.
download_package() {
  local registry
  if ! command -v npm >/dev/null; then
    registry=$(npm_registry)
    [ -n "$registry" ] &&
      curl -fsSL --retry 3 --connect-timeout 30 -o "$3/package.tgz" "$registry/$1/-/${1##*/}-$2.tgz" && return 0
    # A mirror or a certificate that only npm's own settings know of.
    scripts/setup.sh npm || return 1
  fi
  npm pack "$1@$2" --ignore-scripts --pack-destination "$3"
}

# fetch_package LOCKFILE PACKAGE: downloads the packed file unless it is there already, checks its hash against the
# lock and prints its path.
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
  say "downloading $name $version"
  local temporary
  temporary=$(mktemp -d "$CACHE/downloads/tmp.XXXXXX")
  log=$temporary/download.log
  if ! download_package "$name" "$version" "$temporary" >"$log" 2>&1; then
    tail -n 5 "$log" >&2
    rm -rf "$temporary"
    die "$name@$version could not be downloaded from the npm registry $(npm_registry)" \
      "check the network, the proxy and the registry (npm_config_registry or registry= in ~/.npmrc), then run the same command again"
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
