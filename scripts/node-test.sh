#!/usr/bin/env bash
# Runs tests written for Node's own runner (node:test), as ctest calls it. usage: node-test.sh NAME FILE...
# The cases go to stdout for people and, when run-tests.sh asks for it, to $AIV_TEST_RESULTS/NAME.node.
. "$(dirname "$0")/lib.sh"
name=${1:?usage: node-test.sh NAME FILE...}
shift
node_bin=$(scripts/fetch-node.sh) || exit 1
export PATH=$node_bin:$PATH
reporters=(--test-reporter=spec --test-reporter-destination=stdout)
[ -z "${AIV_TEST_RESULTS:-}" ] ||
  reporters+=(--test-reporter=junit "--test-reporter-destination=$AIV_TEST_RESULTS/$name.node")
exec node --test "${reporters[@]}" "$@"
