#!/usr/bin/env bash
# Page, product and demo model, while the engine compiles the software GPU's shaders: one thread that would else make the
# first start wait. usage: build-warm.sh PRESET [TARGET...]
. "$(dirname "$0")/lib.sh"

preset=${1:?usage: build-warm.sh PRESET [TARGET...]}
scripts/warm-shaders.sh "$preset" &
warm=$!
trap 'kill $warm 2>/dev/null || true' EXIT
scripts/build-web.sh
scripts/build.sh "$@"
scripts/demo-model.sh "$preset"
wait $warm
trap - EXIT
