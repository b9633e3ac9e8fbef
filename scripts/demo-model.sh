#!/usr/bin/env bash
# Makes sure that there is a model to show: models/demo.gguf of the repository, else one with random weights, written
# where aiv looks for it. usage: demo-model.sh PRESET
. "$(dirname "$0")/lib.sh"
preset=${1:?usage: demo-model.sh PRESET}
file=build/$preset/share/aivailable/demo.gguf
if [ -f models/demo.gguf ]; then
  rm -f "$file"  # aiv looks there first
  exit 0
fi
tool=build/$preset/bin/aiv-make-model
[ ! -f "$file" ] || [ "$tool" -nt "$file" ] || exit 0
mkdir -p "$(dirname "$file")"
say "writing a small model with random weights: it runs, and answers nonsense"
"$tool" "$file" --name "demo (random weights)" || die "the demo model cannot be written" "check the free space: df -h build"
