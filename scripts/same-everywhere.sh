#!/usr/bin/env bash
# The same input and seed must give the same plan, byte for byte, and the same simulated run, event by event, from every
# compiler at every level of optimisation. Builds the planner and the simulator with g++ and clang 19, optimised and
# not, and compares hashes: of `aiv plan --json`'s content over LABS labs, and of the event logs of SEEDS runs of each
# scenario with faults (2 of those that are hours of load without any). The presets' build folders are used; what they
# have compiled already is not compiled again.
# usage: same-everywhere.sh [SEEDS, default 20] [LABS, default 40] [BUILD...]   builds: release dev clang clang-release
. "$(dirname "$0")/lib.sh"

seeds=${1:-20}
labs=${2:-40}
shift $(($# < 2 ? $# : 2))
builds=("$@")
[ ${#builds[@]} -gt 0 ] || builds=(release dev clang clang-release)
mapfile -t faulty < <(grep -lE '^faults?\b' tests/scenarios/*.toml | grep -v lab_day)  # a day long; chaos has all its faults
mapfile -t calm < <(grep -LE '^faults?\b' tests/scenarios/*.toml)

# configure NAME: a build folder with tests and benchmarks.
configure() {
  local build=$ROOT/build/$1 options=(--preset "$1")
  [ "$1" != clang-release ] || options=(--preset clang -B "$build" -DCMAKE_CXX_FLAGS_DEBUG=-O2)
  if [ -f "$build/build.ninja" ] && grep -q '^AIV_TESTS:BOOL=ON' "$build/CMakeCache.txt" &&
    grep -q '^AIV_BENCH:BOOL=ON' "$build/CMakeCache.txt"; then return; fi
  mkdir -p "$build"
  cmake "${options[@]}" -DAIV_TESTS=ON -DAIV_BENCH=ON >"$build/configure.log" 2>&1 ||
    die "cmake failed for $1" "scripts/setup.sh build test bench clang; details in $build/configure.log"
}

reference=
status=0
for name in "${builds[@]}"; do
  build=$ROOT/build/$name
  configure "$name"
  ninja -C "$build" -j "$JOBS" aiv-sim-hash placement_bench >"$build/same.log" 2>&1 ||
    die "the build failed for $name" "read $build/same.log"
  {
    "$build/bin/placement_bench" digest "$labs" | sed 's/^/plan /'
    "$build/bin/aiv-sim-hash" 1 "$seeds" "${faulty[@]}"
    "$build/bin/aiv-sim-hash" 1 "$((seeds < 2 ? seeds : 2))" "${calm[@]}"
  } >"$build/same.txt" || die "a run failed" "$build/bin/aiv-sim-hash 1 $seeds tests/scenarios/chaos.toml"
  reference=${reference:-$build/same.txt}
  if diff "$reference" "$build/same.txt" >"$build/same.diff"; then
    say "$name: $(grep -c '^plan' "$build/same.txt") plans and $(grep -cv '^plan' "$build/same.txt") runs, hashes as from ${builds[0]}"
  else
    say "$name: OTHER hashes ($build/same.diff):"
    head -n 6 "$build/same.diff" >&2
    status=1
  fi
done
exit $status
