#!/usr/bin/env bash
# Downloads the pinned engine packages and unpacks what the build needs:
#   .cache/engine-src/VERSION/            llama.cpp's source (from the git bundle in the package)
#   .cache/engine-lib/VERSION-BACKEND/    prebuilt libraries of the backend
# usage: fetch-engine.sh vulkan|cuda
. "$(dirname "$0")/lib.sh"

BACKEND=${1:?usage: fetch-engine.sh vulkan|cuda}
LOCK=engine/engine.lock
[ "$(uname -m)" = x86_64 ] || die "there is no prebuilt engine for $(uname -m)" \
  "build llama.cpp v0.5.0 yourself and set AIV_ENGINE=/path/to/its/folder"

read -r VERSION _ <<<"$(locked $LOCK node-llama-cpp)"
SOURCE=$CACHE/engine-src/$VERSION
LIBS=$CACHE/engine-lib/$VERSION-$BACKEND

# unpack PACKAGE DEST MEMBER...: into a temporary folder, then in one step, so that a cut leaves nothing half done.
unpack() {
  local package=$1 dest=$2 file
  shift 2
  file=$(fetch_package $LOCK "$package")
  say "unpacking $package"
  rm -rf "$dest.tmp"
  mkdir -p "$dest.tmp"
  tar -xzf "$file" -C "$dest.tmp" "$@" || die "$file cannot be unpacked" "check the free space: df -h $CACHE"
}

if [ ! -f "$SOURCE/.complete" ]; then
  unpack node-llama-cpp "$SOURCE" package/llama/gitRelease.bundle package/llama/binariesGithubRelease.json
  git clone -q "$SOURCE.tmp/package/llama/gitRelease.bundle" "$SOURCE.tmp/llama.cpp" 2>"$SOURCE.tmp/git.log" ||
    die "the source bundle cannot be read: $(tail -n 1 "$SOURCE.tmp/git.log")" "delete $CACHE/downloads and run again"
  rm -rf "$SOURCE" "$SOURCE.tmp/llama.cpp/.git"
  mkdir -p "$SOURCE"
  mv "$SOURCE.tmp/llama.cpp" "$SOURCE.tmp/package/llama/binariesGithubRelease.json" "$SOURCE/"
  rm -rf "$SOURCE.tmp"
  touch "$SOURCE/.complete"
fi

if [ ! -f "$LIBS/.complete" ]; then
  unpack "@node-llama-cpp/linux-x64-$BACKEND" "$LIBS" "package/bins/linux-x64-$BACKEND"
  mkdir -p "$LIBS"
  mv "$LIBS.tmp/package/bins/linux-x64-$BACKEND"/*.so "$LIBS/"
  rm -rf "$LIBS.tmp"
  if [ "$BACKEND" = cuda ]; then
    # The fallback set serves Maxwell, Pascal and Volta with CUDA 12's libraries.
    unpack "@node-llama-cpp/linux-x64-cuda-ext" "$LIBS-ext" "package/bins"
    mkdir -p "$LIBS/fallback"
    find "$LIBS-ext.tmp/package/bins" -path '*fallback*' -name '*.so' -exec mv {} "$LIBS/fallback/" \;
    rm -rf "$LIBS-ext.tmp"
  fi
  touch "$LIBS/.complete"
fi
