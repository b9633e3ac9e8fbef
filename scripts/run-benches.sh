#!/usr/bin/env bash
# Runs the benchmarks one after another. usage: run-benches.sh [NAME...]   (folders of bench/; all by default)
. "$(dirname "$0")/lib.sh"

names=("$@")
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(find bench -mindepth 2 -maxdepth 2 \( -name CMakeLists.txt -o -name run.sh \) -printf '%h\n' | sort -u | xargs -rn1 basename)
node_bin=$(scripts/fetch-node.sh) || exit 1
export PATH=$node_bin:$PATH
export AIV_BUILD_DIR=$ROOT/build/release
for name in "${names[@]}"; do
  [ -d "bench/$name" ] || die "there is no benchmark $name" "one of: $(ls bench | grep -v CMake | tr '\n' ' ')"
  say "bench/$name"
  if [ -x "bench/$name/run.sh" ]; then
    "bench/$name/run.sh"
  elif [ -x "build/release/bin/${name}_bench" ]; then
    "build/release/bin/${name}_bench"
  else
    die "bench/$name has neither run.sh nor a program ${name}_bench" "see bench/CMakeLists.txt"
  fi
done
