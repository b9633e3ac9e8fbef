#!/usr/bin/env bash
# Runs the GPU check, from the pack if there is one (no network needed), else from the build. A report that was made on a
# GPU is kept in docs/gpu-reports/. Exit 0: all held, 1: one check did not, 3: no GPU here.
. "$(dirname "$0")/lib.sh"

if [ -f dist/gpu-check.tar.gz ]; then
  rm -rf build/gpu-check
  mkdir -p build
  tar -xzf dist/gpu-check.tar.gz -C build
  check=(build/gpu-check/run)
elif [ -x build/release/bin/aiv ]; then
  check=(build/release/bin/aiv gpu-check)
else
  die "neither dist/gpu-check.tar.gz nor build/release/bin/aiv is there" \
    "\`make build\` here, or bring the pack that \`make gpu-check-pack\` makes on another machine"
fi
report=$(mktemp)
status=0
"${check[@]}" --report "$report" "$@" || status=$?
case " $* " in *" --software"*) trial=yes ;; *) trial= ;; esac
if [ "$status" != 3 ] && [ -z "$trial" ] && [ -s "$report" ]; then
  mkdir -p docs/gpu-reports
  kept=docs/gpu-reports/$(date -u +%Y-%m-%dT%H%M%SZ).json
  cp "$report" "$kept"
  say "the report is kept in $kept"
fi
rm -f "$report"
exit $status
