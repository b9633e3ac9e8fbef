#!/usr/bin/env bash
# The same scenario and seed must give the same run, event by event, from every compiler at every level of optimisation:
# builds the simulator with g++ and clang 19, optimised and not, and compares the hashes of the event logs. The build
# folders of the presets are used; what they have compiled already is not compiled again.
# usage: sim-hash.sh [SEEDS per scenario, default 2] [BUILD...]   builds: release dev clang clang-release
. "$(dirname "$0")/lib.sh"

seeds=${1:-2}
shift || true
builds=("$@")
[ ${#builds[@]} -gt 0 ] || builds=(release dev clang clang-release)
mapfile -t scenarios < <(ls tests/scenarios/*.toml | grep -v lab_day)  # a day long; chaos has all its faults
reference=
status=0
for name in "${builds[@]}"; do
  build=$ROOT/build/$name
  if [ ! -f "$build/build.ninja" ] || ! grep -q '^AIV_TESTS:BOOL=ON' "$build/CMakeCache.txt"; then
    if [ "$name" = clang-release ]; then
      options=(--preset clang -B "$build" -DCMAKE_CXX_FLAGS_DEBUG=-O2)
    else
      options=(--preset "$name")
    fi
    mkdir -p "$build"
    cmake "${options[@]}" -DAIV_TESTS=ON >"$build/configure.log" 2>&1 ||
      die "cmake failed for $name" "scripts/setup.sh build test clang; details in $build/configure.log"
  fi
  ninja -C "$build" -j "$JOBS" aiv-sim-hash >"$build/sim-hash.log" 2>&1 ||
    die "the build failed for $name" "read $build/sim-hash.log"
  "$build/bin/aiv-sim-hash" 1 "$seeds" "${scenarios[@]}" >"$build/sim-hash.txt" ||
    die "a run failed" "$build/bin/aiv-sim-hash 1 $seeds tests/scenarios/chaos.toml"
  reference=${reference:-$build/sim-hash.txt}
  if diff "$reference" "$build/sim-hash.txt" >"$build/sim-hash.diff"; then
    say "$name: $(wc -l <"$build/sim-hash.txt") runs, hashes as from ${builds[0]}"
  else
    say "$name: OTHER hashes ($build/sim-hash.diff):"
    head -n 6 "$build/sim-hash.diff" >&2
    status=1
  fi
done
exit $status
