#!/usr/bin/env bash
# The same scenario and seed must give the same run, event by event, from every compiler at every level of optimisation:
# builds the simulator alone with g++ and clang++-19, at -O0 and -O2, and compares the hashes of the event logs.
# usage: sim-hash.sh [SEEDS per scenario, default 2]
. "$(dirname "$0")/lib.sh"

seeds=${1:-2}
mapfile -t scenarios < <(ls tests/scenarios/*.toml | grep -v lab_day)  # a day long; chaos has all its faults
reference=
status=0
for compiler in g++ clang++-19; do
  command -v "$compiler" >/dev/null || die "$compiler is not installed" "scripts/setup.sh clang"
  for level in O2 O0; do
    build=$ROOT/build/sim-hash-$compiler-$level
    cmake -S . -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_COMPILER="$compiler" \
      -DCMAKE_CXX_COMPILER_LAUNCHER=ccache -DCMAKE_CXX_FLAGS="-$level" >"$build.log" 2>&1 ||
      die "cmake failed for $compiler -$level" "see $build.log"
    ninja -C "$build" aiv-sim-hash >>"$build.log" 2>&1 || die "the build failed for $compiler -$level" "see $build.log"
    "$build/bin/aiv-sim-hash" 1 "$seeds" "${scenarios[@]}" >"$build.txt" || die "a run failed" "$build/bin/aiv-sim-hash"
    reference=${reference:-$build.txt}
    if diff "$reference" "$build.txt" >"$build.diff"; then
      say "$compiler -$level: $(wc -l <"$build.txt") runs, all hashes as from g++ -O2"
    else
      say "$compiler -$level: OTHER hashes ($build.diff):"
      head -n 6 "$build.diff" >&2
      status=1
    fi
  done
done
exit $status
