#!/usr/bin/env bash
# Runs every test and prints, as the last line, the count of single cases over GoogleTest and Node's runner:
#   N passed, N failed[, N skipped]
# usage: run-tests.sh PRESET [ctest arguments]
# A program that crashes, times out or reports nothing counts as one failed case.
. "$(dirname "$0")/lib.sh"

preset=${1:?usage: run-tests.sh PRESET [ctest arguments]}
shift
build=$ROOT/build/$preset
results=$build/test-results
rm -rf "$results"
mkdir -p "$results"
node_bin=$(scripts/fetch-node.sh) || exit 1
export PATH=$node_bin:$PATH

scripts/build-web.sh packages
for install in tests/e2e/*/install.sh; do
  [ -f "$install" ] || continue
  bash "$install" >"$results/install.log" 2>&1 ||
    { tail -n 10 "$results/install.log" >&2; die "$install failed" "check the network and npm's registry setting"; }
done

# Each GoogleTest program writes NAME.xml into this folder (the trailing slash says so).
say "running the tests of build/$preset"
AIV_TEST_RESULTS=$results GTEST_OUTPUT=xml:$results/ ctest --test-dir "$build" --output-on-failure --no-tests=error \
  --output-junit "$results/ctest.junit" "$@" >&2 || true

# Tests of the web page: vitest if it has them.
if [ -f web/package.json ] && grep -q '"test"' web/package.json; then
  say "running the tests of the web page"
  (cd web && npm test --silent -- --reporter=default --reporter=junit --outputFile.junit="$results/web.vitest") >&2 || touch "$results/web.failed"
fi

exec python3 scripts/count_tests.py "$results" >&1
