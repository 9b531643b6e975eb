#!/bin/sh
# Makes label.ptx from label.cu and label.h, and proves that drivers from CUDA 11 to today's take it.
#
#   kernels/src/label/cuda/ptx.sh [work folder]
#
# Needs python3 with pip to fetch NVIDIA's compilers (about 600 MB unpacked) into the work folder, where they stay for the next time;
# no root, no GPU. PTX is checked in, so that builds need none of this.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-${TMPDIR:-/tmp}/label-ptx}
new="$work/13"
old="$work/11"

# The compiler, and the oldest assembler that knows sm_75 and is still to be had.
fetch() {
    target=$1
    shift
    [ -e "$target/.complete" ] && return
    mkdir -p "$target"
    python3 -m pip download --quiet --no-deps --dest "$target" "$@"
    for wheel in "$target"/*.whl; do python3 -m zipfile -e "$wheel" "$target"; done
    chmod +x "$target"/nvidia/*/bin/* "$target"/nvidia/*/nvvm/bin/* 2>/dev/null || true
    touch "$target/.complete"
}
fetch "$new" nvidia-cuda-nvcc==13.5.37 nvidia-cuda-crt==13.5.37 nvidia-cuda-runtime==13.5.37 nvidia-nvvm==13.5.37 \
    nvidia-cuda-cccl==13.3.5.0.6 nvidia-cuda-nvdisasm==13.5.37
fetch "$old" nvidia-cuda-nvcc-cu11==11.8.89
bin="$new/nvidia/cu13/bin"

hash=$(cat "$here/label.cu" "$here/label.h" | sha256sum | cut -d' ' -f1)
"$bin/nvcc" -ptx -arch=compute_75 -O3 -o "$work/raw.ptx" "$here/label.cu"
# The compiler claims the version of PTX of its own release, which only the newest drivers accept; nothing in the kernels is newer
# than 7.0, that is CUDA 11.0.
{
    echo "// Made from label.cu and label.h by ptx.sh; do not edit."
    echo "// sha256 of both, one after the other: $hash"
    sed -e 's/^\.version .*/.version 7.0/' -e '/^\/\//d' -e '/^$/d' "$work/raw.ptx"
} > "$work/label.ptx"

echo "assembler architecture kernel registers spilled-bytes"
for pair in 11:75 11:80 11:86 11:89 11:90 13:75 13:80 13:86 13:89 13:90 13:100 13:120; do
    release=${pair%:*}
    arch=${pair#*:}
    if [ "$release" = 11 ]; then ptxas="$old/nvidia/cuda_nvcc/bin/ptxas"; else ptxas="$bin/ptxas"; fi
    "$ptxas" -arch="sm_$arch" -v -o "$work/label.$release.$arch.cubin" "$work/label.ptx" 2> "$work/ptxas.log" || { cat "$work/ptxas.log"; exit 1; }
    awk -v release="$release" -v arch="$arch" '
        /Compiling entry function/ { split($0, parts, "\047"); kernel = parts[2] }
        /bytes spill stores/ { for (i = 1; i < NF; i++) if ($(i + 1) == "bytes" && $(i + 2) == "spill") spilled += $i }
        /Used [0-9]+ registers/ {
            for (i = 1; i <= NF; i++) if ($i == "Used") registers = $(i + 1)
            print release, "sm_" arch, kernel, registers, spilled + 0
            if (spilled > 0) failed = 1
            spilled = 0
        }
        END { exit failed }
    ' "$work/ptxas.log" || { echo "a kernel spills registers"; exit 1; }
done

# Instructions of the loop that makes one Mix per turn.
echo "architecture kernel instructions-per-Mix of-these: logic add/move shift byte-permute"
for arch in 75 86 90 120; do
    "$bin/nvdisasm" -c "$work/label.13.$arch.cubin" | python3 "$here/count.py" "sm_$arch"
done
cp "$work/label.ptx" "$here/label.ptx"
