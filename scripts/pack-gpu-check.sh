#!/usr/bin/env bash
# Packs dist/gpu-check.tar.gz (at most 60 MiB): product, engine and the libraries they need, for a machine with a GPU and
# perhaps without network. There: tar -xzf gpu-check.tar.gz && gpu-check/run
. "$(dirname "$0")/lib.sh"

bin=build/release/bin
[ -x $bin/aiv ] && [ -x $bin/engine/llama-server ] || die "product or engine is not built" "make gpu-check-pack builds both"
pack=$ROOT/dist/gpu-check
rm -rf "$pack" "$pack.tar.gz"
mkdir -p "$pack/bin/lib" "$pack/bin/engine" "$pack/fallback"
install -s -m 755 $bin/aiv "$pack/bin/aiv"
cp $bin/libVkLayer_aiv_vgpu.so "$pack/bin/"
cp -rL $bin/engine/. "$pack/bin/engine/"
# What another distribution has in other versions; not glibc and not the C++ runtime, which drivers need as they are.
ldd $bin/aiv | awk '$3 ~ /^\// { print $3 }' |
  grep -vE '/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s)\.so' | xargs -r -I{} cp -L {} "$pack/bin/lib/"
cp -L "$(ldconfig -p | awk '$1 == "libvulkan.so.1" { print $NF; exit }')" "$pack/fallback/libvulkan.so.1"
cat >"$pack/run" <<'RUN'
#!/bin/sh
# Checks the product's promises on this machine's GPU. Flags are those of `aiv gpu-check`. Exit 0: all held, 1: one did
# not, 3: there is no GPU that can be used.
here=$(cd "$(dirname "$0")" && pwd)
# The Vulkan loader comes with the driver on most machines; where it does not, ours.
if ! { ldconfig -p 2>/dev/null || /sbin/ldconfig -p; } | grep -q 'libvulkan\.so\.1'; then
  cp "$here/fallback/libvulkan.so.1" "$here/bin/engine/"
  cp "$here/fallback/libvulkan.so.1" "$here/bin/lib/"
fi
exec "$here/bin/aiv" gpu-check "$@"
RUN
chmod +x "$pack/run"
# On the other machine nothing is installed: what the linker finds here must come from the pack.
LD_TRACE_LOADED_OBJECTS=1 "$pack/bin/aiv" | grep -q "$pack/bin/lib/libsimdjson" ||
  die "the pack's aiv does not take its libraries from the pack" "its RPATH must be \$ORIGIN/lib: readelf -d $pack/bin/aiv"
tar -C dist -czf "$pack.tar.gz" gpu-check
bytes=$(stat -c %s "$pack.tar.gz")
[ "$bytes" -le $((60 * 1024 * 1024)) ] || die "the pack has $bytes bytes, more than 60 MiB" "see what grew: tar -tvzf $pack.tar.gz"
say "dist/gpu-check.tar.gz: $((bytes / 1024 / 1024)) MiB; on the other machine: tar -xzf gpu-check.tar.gz && gpu-check/run"
