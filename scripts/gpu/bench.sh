#!/usr/bin/env bash
# Builds the CUDA kernels, checks them against a float64 reference and under compute-sanitizer, and times them.
#
#   scripts/gpu/bench.sh SCORES.json [build|check|sanitize|time|torch|flashinfer ...]     default: all but flashinfer
#
# SCORES.json is a head-score file of a model with 32 layers x 32 heads. Results go to stdout. Needs nvcc, a GPU, and for
# the rows of PyTorch and FlashInfer a python3 that has it. CUDA_COMPUTE_CAP (default 90) is the target; HEADKV_COMMIT names the commit
# where the sources come without their repository.
set -euo pipefail
scores=${1:?usage: bench.sh SCORES.json [build|check|sanitize|time|torch|flashinfer ...]}; shift
steps=${*:-build check sanitize time torch}
here=$(cd "$(dirname "$0")" && pwd)
kernels=$here/../../headkv-plugin/kernels
out=${HEADKV_BENCH_DIR:-/tmp/headkv-bench}
cap=${CUDA_COMPUTE_CAP:-90}
mkdir -p "$out"

build() {
    local pids=() f target
    for f in "$kernels"/*.cu "$kernels"/bench/*.cu; do
        case $f in *_hopper.cu) target=90a ;; *) target=$cap ;; esac
        nvcc -std=c++17 -O3 -gencode "arch=compute_$target,code=sm_$target" -c "$f" -o "$out/$(basename "$f").o" & pids+=($!)
    done
    nvcc -std=c++17 -O3 -c "$kernels/plan.cpp" -o "$out/plan.cpp.o" & pids+=($!)
    for f in "${pids[@]}"; do wait "$f"; done
    local library=("$out"/{decode,window,drop,compete,select,prompt,prompt_hopper,product,product_tiles}.cu.o "$out/plan.cpp.o")
    nvcc -o "$out/check" "$out/check.cu.o" "${library[@]}"
    nvcc -o "$out/bench" "$out/bench.cu.o" "${library[@]}"
}

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
echo "commit ${HEADKV_COMMIT:-$(git -C "$here" rev-parse --short HEAD 2>/dev/null || echo unknown)}, $(date -u +%F), $(nvcc --version | grep -o 'release [0-9.]*')"
python3 "$here/capacities.py" "$scores" > "$out/capacities.txt"
for step in $steps; do
    start=$(date +%s)
    case $step in
        build) build ;;
        check) "$out/check" ;;
        sanitize)
            for tool in memcheck racecheck; do
                compute-sanitizer --tool $tool --error-exitcode 9 "$out/check" --quick | tail -3
            done ;;
        time) "$out/bench" "$out/capacities.txt" ;;
        torch) python3 "$here/torch_rows.py" "$out/capacities.txt" ;;
        flashinfer) python3 "$here/flashinfer_rows.py" "$out/capacities.txt" ;;
        *) echo "unknown step $step; known are build, check, sanitize, time, torch, flashinfer" >&2; exit 2 ;;
    esac
    echo "[$step: $(($(date +%s) - start)) s]"
done
