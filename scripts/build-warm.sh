#!/usr/bin/env bash
# Page, product and demo model, while the engine compiles the software GPU's shaders: one thread that would else make the
# first start wait. usage: build-warm.sh PRESET first|all [TARGET...]
. "$(dirname "$0")/lib.sh"

usage="usage: build-warm.sh PRESET first|all [TARGET...]"
preset=${1:?$usage}
shaders=${2:?$usage}
shift 2
scripts/build-web.sh
scripts/build.sh "$preset" VkLayer_aiv_vgpu
scripts/warm-shaders.sh "$preset" "$shaders" &
warm=$!
trap 'kill $warm 2>/dev/null || true' EXIT
scripts/build.sh "$preset" "$@"
scripts/demo-model.sh "$preset"
wait $warm
trap - EXIT
