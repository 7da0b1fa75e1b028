#!/usr/bin/env bash
# Puts a CUDA 13.0 compiler together from PyPI's wheels, for building on a machine without a GPU or a toolkit.
#
#   scripts/gpu/toolkit.sh [FOLDER]                     default: ~/.cache/cuda-13.0
#   source ~/.cache/cuda-13.0/env.sh && cargo build --release --locked --features headkv-eval/cuda --bin headkv-eval
#
# Needs python3 with pip, and gcc. The libraries it links are empty: the program finds the driver's and CUDA's own where it
# runs (LD_LIBRARY_PATH=/usr/local/cuda/lib64).
set -euo pipefail
folder=${1:-${XDG_CACHE_HOME:-$HOME/.cache}/cuda-13.0}
compiler=(nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cccl==13.0.85)
# Of these only the headers: the libraries are hundreds of megabytes.
headers=(nvidia-cublas==13.0.2.14 nvidia-curand==10.4.0.35 nvidia-cuda-nvrtc==13.0.88)

if [ ! -x "$folder/bin/nvcc" ]; then
    draft=$(mktemp -d)
    trap 'rm -rf "$draft"' EXIT
    fetch() { python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$@"; }
    fetch "$draft/compiler" "${compiler[@]}"
    fetch "$draft/headers" "${headers[@]}"
    python3 - "$draft" <<'PY'
import pathlib, sys, zipfile
draft = pathlib.Path(sys.argv[1])
for wheel in draft.glob("*/*.whl"):
    with zipfile.ZipFile(wheel) as wheel_file:
        for name in wheel_file.namelist():
            if wheel.parent.name == "compiler" or "/include/" in name:
                wheel_file.extract(name, draft / "all")
PY
    mkdir -p "$folder"
    cp -r "$draft/all/nvidia/cu13/." "$folder/"
    chmod +x "$folder"/bin/* "$folder"/nvvm/bin/*
fi
ln -sfn lib "$folder/lib64"
ln -sf libcudart.so.13 "$folder/lib/libcudart.so"

# Empty functions of the names that cudarc's bindings, which cargo has fetched, declare.
cargo fetch --quiet --locked
bindings=$(find "${CARGO_HOME:-$HOME/.cargo}/registry/src" -maxdepth 2 -name 'cudarc-0.19.*' | sort | tail -1)/src
stub() { # library, its soname, the bindings' folder
    grep -rhoE 'pub (unsafe )?fn [a-zA-Z0-9_]+' "$bindings/$3" | awk '{ print "void " $NF "(void) {}" }' | sort -u |
        gcc -w -shared -fPIC -Wl,-soname,"$2" -x c - -o "$folder/lib/lib$1.so"
}
stub cuda libcuda.so.1 driver/sys
stub nvrtc libnvrtc.so.13 nvrtc/sys
stub curand libcurand.so.10 curand/sys
stub cublas libcublas.so.13 cublas/sys
stub cublasLt libcublasLt.so.13 cublaslt/sys

cat > "$folder/env.sh" <<ENV
export CUDA_HOME="$folder" CUDA_PATH="$folder" CUDA_ROOT="$folder" CUDA_TOOLKIT_ROOT_DIR="$folder" CUDA_COMPUTE_CAP=\${CUDA_COMPUTE_CAP:-90}
export PATH="$folder/bin:\$PATH" LIBRARY_PATH="$folder/lib:\${LIBRARY_PATH:-}"
ENV
echo "source $folder/env.sh"
