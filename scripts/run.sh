#!/usr/bin/env bash
# Starts `aiv dev` on this machine's GPUs if the engine sees any, else on software GPUs. usage: run.sh PRESET [flags]
. "$(dirname "$0")/lib.sh"

preset=${1:?usage: run.sh PRESET [flags of aiv dev]}
shift
bin=build/$preset/bin
gpus=()
case " $* " in
  *" --gpus"* | *" --real-gpus "* | *" --engine fake "* | *" --engine=fake "*) ;;
  *)
    found=$(timeout 60 "$bin/engine/llama-server" --list-devices 2>/dev/null | sed -n '/^Available devices:/,$ s/^  //p' | grep -v '^(none)' || true)
    if [ -n "$found" ]; then
      say "this machine's own GPUs serve (ARGS='--gpus ...' makes software GPUs instead):"
      while IFS= read -r line; do say "  $line"; done <<<"$found"
      gpus=(--real-gpus)
    else
      say "no GPU here that the engine can use: software GPUs serve, at the speed of the CPU"
      # What other lengths of prompt need, while nothing else wants the processor. This process becomes `aiv dev`, and ends it.
      nice -n 19 scripts/warm-shaders.sh "$preset" all $$ >/dev/null 2>&1 </dev/null &
    fi
    ;;
esac
exec "$bin/aiv" dev "${gpus[@]}" "$@"
