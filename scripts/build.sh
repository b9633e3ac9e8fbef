#!/usr/bin/env bash
# Configures and builds the product. usage: build.sh PRESET [TARGET...]
. "$(dirname "$0")/lib.sh"

preset=${1:?usage: build.sh PRESET [TARGET...]}
shift
build=build/$preset
mkdir -p "$build"
started=$SECONDS
# `make run` on a bare machine has no test packages: the product and its layer need none, everything else does.
case ${1:-} in
  product | VkLayer_aiv_vgpu) wanted=OFF ;;
  *) wanted=ON ;;
esac
if [ ! -f "$build/build.ninja" ] || { [ $wanted = ON ] && grep -q '^AIV_TESTS:BOOL=OFF' "$build/CMakeCache.txt"; }; then
  say "configuring $build"
  cmake --preset "$preset" -DAIV_TESTS=$wanted -DAIV_BENCH=$wanted >"$build/configure.log" 2>&1 || {
    tail -n 15 "$build/configure.log" >&2
    die "cmake failed" "packages missing? scripts/setup.sh build run test bench; details in $build/configure.log"
  }
fi
# Ninja shows its counter on a terminal; elsewhere a line each twenty steps.
if [ -t 2 ]; then
  ninja -C "$build" -j "$JOBS" "$@" >&2 || die "the build failed" "see the first error above (out of memory? try JOBS=1)"
else
  set +e
  ninja -C "$build" -j "$JOBS" "$@" 2>&1 | tee "$build/build.log" |
    sed -u -n -E 's/^(\[[0-9]*[02468]0\/.{0,110}).*/\1/p; /^FAILED|error:/p' >&2
  status=${PIPESTATUS[0]}
  set -e
  [ "$status" = 0 ] || die "the build failed" "read $build/build.log (out of memory? try JOBS=1)"
fi
[ $((SECONDS - started)) -lt 5 ] || say "$preset is built after $((SECONDS - started)) s"
