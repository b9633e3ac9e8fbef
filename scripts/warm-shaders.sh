#!/usr/bin/env bash
# Compiles the software GPU's shaders for the demo model, once per engine and Mesa: CPU time that would else be spent in the
# first replica's load and in the first answers. usage: warm-shaders.sh PRESET first|all [PID]
#   first   what the load and most first prompts need: about 70 s of CPU
#   all     other lengths of prompt too, a kernel for each: three minutes of CPU
#   PID     ends with that process
. "$(dirname "$0")/lib.sh"

usage="usage: warm-shaders.sh PRESET first|all [PID]"
preset=${1:?$usage}
what=${2:?$usage}
# The engine picks other kernels for other lengths of prompt: one for each number of columns up to eight, then tiles of
# growing size. The longest compile first: who asks meanwhile waits for one kernel at most.
case $what in
  first) lengths='12 1 8 24 40' ;;
  all) lengths='12 1 8 24 40 7 6 5 4 3 2 72 260 136' ;;
  *) die "warm-shaders.sh: $what is neither first nor all" "$usage" ;;
esac
engine=$(readlink -f "build/$preset/bin/engine")
layer=$PWD/build/$preset/bin/libVkLayer_aiv_vgpu.so
cache=${AIV_SHADER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/aivailable/shaders}
icd=$(find /usr/share/vulkan/icd.d -name 'lvp_icd*.json' 2>/dev/null | head -n 1)
model=models/demo.gguf
[ -f $model ] || model=build/$preset/share/aivailable/demo.gguf
[ -x "$engine/llama-server" ] && [ -e "$engine/libggml-vulkan.so" ] && [ -n "$icd" ] && [ -f "$model" ] && [ -f "$layer" ] || exit 0
key=$({ sha256sum "$engine/facts.json" "$model" 2>/dev/null; dpkg-query -W mesa-vulkan-drivers; } | sha256sum | cut -c1-16)
for done in "$cache/.warm-$what" "$cache/.warm-all"; do
  [ "$(cat "$done" 2>/dev/null)" != "$key" ] || exit 0
done

started=$SECONDS
say "compiling the software GPU's shaders ($what, once)"
mkdir -p "$cache" && chmod 700 "$cache"
log=$CACHE/warm-shaders.log
port=$((20000 + RANDOM % 20000))
# One software GPU, as an agent makes it (src/node/software_gpu.cpp): its layer keeps the engine from asking without a pause
# whether the device is done, which takes as much of the processor as the compiler.
gpu=$(mktemp -d "$CACHE/warm.XXXXXX")
printf 'aiv-vgpu-config 1\ndevice\t%032d\t%d\t%d\twarm\n' 1 $((1 << 28)) $((1 << 31)) >"$gpu/devices.conf"
printf '{"file_format_version": "1.2.0", "layer": {"name": "VK_LAYER_AIV_vgpu", "type": "GLOBAL", "library_path": "%s", "api_version": "1.3.230", "implementation_version": "1", "description": "AIvailable software GPUs"}}\n' \
  "$layer" >"$gpu/layer.json"
env -i PATH=/usr/bin:/bin VK_ICD_FILENAMES="$icd" VK_LAYER_PATH="$gpu" VK_INSTANCE_LAYERS=VK_LAYER_AIV_vgpu NODEVICE_SELECT=1 \
  AIV_VGPU_CONFIG="$gpu/devices.conf" AIV_VGPU_DEVICES="$(printf '%032d' 1)" AIV_VGPU_STATE="$gpu/accounting" GGML_NO_BACKTRACE=1 \
  LP_NUM_THREADS=0 MESA_SHADER_CACHE_DIR="$cache" "$engine/llama-server" -m "$model" --host 127.0.0.1 --port $port -dev Vulkan0 -ngl all \
  --fit off -sm none -c 1024 -np 2 --no-kv-unified -fa on -ub 512 -t 1 --no-ui --cache-ram 0 --offline \
  -ot token_embd.weight=Vulkan0 >"$log" 2>&1 </dev/null &
pid=$!
disown $pid
trap 'kill -9 $pid 2>/dev/null || true; rm -rf "$gpu"' EXIT
if [ -n "${3:-}" ]; then
  (while kill -0 "$3" 2>/dev/null && kill -0 $pid 2>/dev/null; do sleep 1; done; kill -9 $pid 2>/dev/null) &
fi
# ask PROMPT: the status line of the answer; nothing while nobody listens.
ask() {
  local body="{\"prompt\":$1,\"n_predict\":2,\"temperature\":0,\"cache_prompt\":false}"
  { exec 3<>"/dev/tcp/127.0.0.1/$port"; } 2>/dev/null || return 0
  printf 'POST /completion HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s' \
    ${#body} "$body" >&3
  timeout 300 cat <&3 | head -n 1 || true
  exec 3>&-
}

for length in $lengths; do
  prompt="[$(printf '5,%.0s' $(seq 2 $length))5]"
  while kill -0 $pid 2>/dev/null && [ $((SECONDS - started)) -lt 900 ]; do
    case $(ask "$prompt") in  # 503 until the model is loaded
      *" 200 "*) continue 2 ;;
    esac
    sleep 0.2
  done
  break
done
case $(ask '[5]') in
  *" 200 "*)
    printf '%s' "$key" >"$cache/.warm-$what"
    say "the shaders are ready after $((SECONDS - started)) s"
    exit 0
    ;;
esac
# Not a reason to stop: the first replica compiles them then.
say "the shaders could not be compiled beforehand (see $log); the first replica will take longer"
