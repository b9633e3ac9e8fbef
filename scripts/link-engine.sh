#!/usr/bin/env bash
# Puts the engine beside `aiv` of a build folder, where aiv looks for it. usage: link-engine.sh PRESET
. "$(dirname "$0")/lib.sh"
preset=${1:?usage: link-engine.sh PRESET}
engine=$(scripts/build-engine.sh) || exit 1
mkdir -p "build/$preset/bin"
ln -sfn "$engine" "build/$preset/bin/engine"
