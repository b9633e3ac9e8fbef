#!/bin/sh
# The same plans, byte for byte, from g++ and clang 19, optimised and not. Usage: bench/placement/same_bytes.sh [COUNT]
# Presets may be given by AIV_PRESETS; the first is what the others are compared with. Exit 1 if any differs.
set -eu
cd "$(dirname "$0")/../.."
status=0
first=
for preset in ${AIV_PRESETS:-release dev clang}; do
  cmake --preset "$preset" >/dev/null
  cmake --build "build/$preset" --target placement_bench >/dev/null
  out=$(mktemp)
  "build/$preset/bin/placement_bench" digest "${1:-40}" >"$out"
  if [ -z "$first" ]; then
    first=$out
    echo "$preset: $(wc -l <"$out") plans"
  elif diff "$first" "$out" >/dev/null; then
    echo "$preset: the same"
    rm -f "$out"
  else
    echo "$preset: DIFFERENT"
    diff "$first" "$out" | head -5
    status=1
    rm -f "$out"
  fi
done
rm -f "$first"
exit $status
