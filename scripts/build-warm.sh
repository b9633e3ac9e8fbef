#!/usr/bin/env bash
# Page, product and demo model, while the engine compiles the software GPU's shaders: one thread that would else make the
# first start wait. usage: build-warm.sh PRESET first|all [TARGET...]
. "$(dirname "$0")/lib.sh"

preset=${1:?usage: build-warm.sh PRESET first|all [TARGET...]}
scripts/warm-shaders.sh "$preset" "${2:?first or all shaders}" &
warm=$!
trap 'kill $warm 2>/dev/null || true' EXIT
scripts/build-web.sh
scripts/build.sh "$preset" "${@:3}"
scripts/demo-model.sh "$preset"
wait $warm
trap - EXIT
