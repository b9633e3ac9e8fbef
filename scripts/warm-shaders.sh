#!/usr/bin/env bash
# Compiles the software GPU's shaders for the demo model, once per engine and Mesa: 15 to 60 s of CPU that would else be
# spent in the first replica's load and in the first answers. usage: warm-shaders.sh PRESET
. "$(dirname "$0")/lib.sh"

preset=${1:?usage: warm-shaders.sh PRESET}
engine=$(readlink -f "build/$preset/bin/engine")
cache=${AIV_SHADER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/aivailable/shaders}
icd=$(find /usr/share/vulkan/icd.d -name 'lvp_icd*.json' 2>/dev/null | head -n 1)
model=models/demo.gguf
[ -f $model ] || model=build/$preset/share/aivailable/demo.gguf
[ -x "$engine/llama-server" ] && [ -e "$engine/libggml-vulkan.so" ] && [ -n "$icd" ] && [ -f "$model" ] || exit 0
key=$({ sha256sum "$engine/facts.json" "$model" 2>/dev/null; dpkg-query -W mesa-vulkan-drivers; } | sha256sum | cut -c1-16)
[ "$(cat "$cache/.warm" 2>/dev/null)" != "$key" ] || exit 0

started=$SECONDS
say "compiling the software GPU's shaders (once, a minute or two)"
mkdir -p "$cache" && chmod 700 "$cache"
log=$CACHE/warm-shaders.log
port=$((20000 + RANDOM % 20000))
env -i PATH=/usr/bin:/bin VK_ICD_FILENAMES="$icd" NODEVICE_SELECT=1 GGML_VK_VISIBLE_DEVICES=0 GGML_NO_BACKTRACE=1 \
  LP_NUM_THREADS=0 MESA_SHADER_CACHE_DIR="$cache" "$engine/llama-server" -m "$model" --host 127.0.0.1 --port $port -dev Vulkan0 -ngl all \
  --fit off -sm none -c 1024 -np 2 --no-kv-unified -fa on -ub 512 -t 1 --no-ui --cache-ram 0 --offline \
  -ot token_embd.weight=Vulkan0 >"$log" 2>&1 </dev/null &
pid=$!
disown $pid
trap 'kill -9 $pid 2>/dev/null || true' EXIT
# ask PROMPT: the status line of the answer; nothing while nobody listens.
ask() {
  local body="{\"prompt\":$1,\"n_predict\":2,\"temperature\":0,\"cache_prompt\":false}"
  { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || return 0
  printf 'POST /completion HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' \
    ${#body} "$body" >&3
  timeout 300 cat <&3 | head -n 1 || true
  exec 3>&-
}

# The engine picks other kernels for other lengths of prompt: one to eight columns, then tiles of growing size.
for length in 1 2 3 4 5 6 7 8 12 24 40 72 136 260; do
  prompt="[$(printf '5,%.0s' $(seq 2 $length))5]"
  while kill -0 $pid 2>/dev/null && [ $((SECONDS - started)) -lt 900 ]; do
    case $(ask "$prompt") in  # 503 until the model is loaded
      *" 200 "*) continue 2 ;;
    esac
    sleep 0.2
  done
  break
done
case $(ask '"Hello"') in
  *" 200 "*)
    printf '%s' "$key" >"$cache/.warm"
    say "the shaders are ready after $((SECONDS - started)) s"
    exit 0
    ;;
esac
# Not a reason to stop: the first replica compiles them then.
say "the shaders could not be compiled beforehand (see $log); the first replica will take longer"
