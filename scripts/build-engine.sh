#!/usr/bin/env bash
# Makes the folder of the engine (llama-server, llama-fit-params, backends, facts.json) and prints its path.
# usage: [AIV_ENGINE=vulkan|cuda|/path/to/dir] build-engine.sh
# Done once per content of engine/ and of these scripts; after that it only prints.
. "$(dirname "$0")/lib.sh"

ENGINE=${AIV_ENGINE:-vulkan}

# check DIR: both first checks of a folder, recorded in facts.json.
check() {
  local dir=$1 version devices library
  [ -x "$dir/llama-server" ] || die "$dir has no llama-server" \
    "AIV_ENGINE must be vulkan, cuda or a folder with llama-server and its libggml-*.so beside it"
  ls "$dir"/libggml-vulkan.so "$dir"/libggml-cuda.so "$dir"/libggml-hip.so >/dev/null 2>&1 ||
    [ -n "$(find -L "$dir" -maxdepth 1 \( -name 'libggml-vulkan.so' -o -name 'libggml-cuda.so' -o -name 'libggml-hip.so' \))" ] ||
    die "$dir has no GPU backend (libggml-vulkan.so, libggml-cuda.so or libggml-hip.so): it would serve from the CPU" \
      "take a build with a GPU backend as a shared library (GGML_BACKEND_DL=ON)"
  version=$(timeout 60 "$dir/llama-server" --version 2>&1) || die "$dir/llama-server --version fails: $version" \
    "look for missing libraries: ldd $dir/llama-server"
  devices=$(timeout 120 "$dir/llama-server" --list-devices 2>&1) || die "$dir/llama-server --list-devices fails: $devices" \
    "run it by hand; a Vulkan driver may be broken (vulkaninfo --summary)"
  version=$(printf '%s\n' "$version" | grep -m1 '^version:' || true)
  library=$(find -L "$dir" -maxdepth 1 -name 'libggml-*.so' -printf '%f\n' | sort | tr '\n' ' ')
  printf '%s\n' "$version" "$devices" "$library" | python3 -c '
import json, sys
lines = sys.stdin.read().split("\n")
devices = [l.strip() for l in lines[1:] if l.startswith("  ")]
print(json.dumps({"version": lines[0].removeprefix("version:").strip(),
                  "libraries": lines[-2].split(), "devices": devices,
                  "backend": sys.argv[1], "lock": sys.argv[2]}, indent=2))' "$2" "$3"
}

case $ENGINE in
  vulkan | cuda) ;;
  /*)
    facts=$(check "$ENGINE" own "") || exit 1
    say "using the engine in $ENGINE"
    printf '%s\n' "$ENGINE"
    exit
    ;;
  *) die "AIV_ENGINE=$ENGINE is not known" "use vulkan, cuda or the absolute path of a folder" ;;
esac

read -r VERSION _ <<<"$(locked engine/engine.lock node-llama-cpp)"
STAMP=$(cat engine/engine.lock engine/CMakeLists.txt scripts/build-engine.sh scripts/fetch-engine.sh | sha256sum | cut -c1-16)
RESULT=$CACHE/engine/$VERSION-$ENGINE
if [ -f "$RESULT/facts.json" ] && grep -q "\"lock\": \"$STAMP\"" "$RESULT/facts.json"; then
  printf '%s\n' "$RESULT"
  exit
fi

started=$SECONDS
scripts/fetch-engine.sh "$ENGINE"
SOURCE=$CACHE/engine-src/$VERSION/llama.cpp
LIBS=$CACHE/engine-lib/$VERSION-$ENGINE
BUILD=$CACHE/engine-build/$VERSION-$ENGINE
launcher=()
! command -v ccache >/dev/null || launcher=(-DCMAKE_C_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
say "building llama-server against the prebuilt $ENGINE backend (about 100 s on two free cores)"
mkdir -p "$BUILD"
if ! cmake -S engine -B "$BUILD" -G Ninja -DCMAKE_BUILD_TYPE=Release "${launcher[@]}" \
  -DLLAMA_SRC="$SOURCE" -DPREBUILT="$LIBS" >"$BUILD/configure.log" 2>&1; then
  tail -n 15 "$BUILD/configure.log" >&2
  die "the engine's build cannot be configured" "read $BUILD/configure.log"
fi
# Ninja's own counter shows the progress on a terminal; elsewhere a line each ten steps.
if [ -t 2 ]; then
  ninja -C "$BUILD" -j "$JOBS" >&2 || die "the engine does not compile" "see the first error above"
else
  set +e
  ninja -C "$BUILD" -j "$JOBS" 2>&1 | tee "$BUILD/build.log" | sed -u -n -E 's/^(\[[0-9]*0\/.{0,90}).*/\1/p' >&2
  status=${PIPESTATUS[0]}
  set -e
  if [ "$status" != 0 ]; then
    grep -m1 -A15 'FAILED' "$BUILD/build.log" >&2
    die "the engine does not compile" "read $BUILD/build.log (out of memory? try JOBS=1)"
  fi
fi

rm -rf "$RESULT.tmp"
mkdir -p "$RESULT.tmp"
cp --reflink=auto "$LIBS"/*.so "$RESULT.tmp/"
[ ! -d "$LIBS/fallback" ] || cp -r --reflink=auto "$LIBS/fallback" "$RESULT.tmp/"
cp "$BUILD/bin/llama-server" "$BUILD/bin/llama-fit-params" "$RESULT.tmp/"
strip "$RESULT.tmp/llama-server" "$RESULT.tmp/llama-fit-params"
cp "$SOURCE/LICENSE" "$RESULT.tmp/LICENSE.llama.cpp"
facts=$(check "$RESULT.tmp" "$ENGINE" "$STAMP") || exit 1
printf '%s\n' "$facts" >"$RESULT.tmp/facts.json"
rm -rf "$RESULT"
mv "$RESULT.tmp" "$RESULT"
say "the engine is ready after $((SECONDS - started)) s: $RESULT"
printf '%s\n' "$RESULT"
