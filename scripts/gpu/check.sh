#!/usr/bin/env bash
# Compiles the kernels for GPUs and everything that calls them, tests included; needs no GPU.
#
#   scripts/gpu/check.sh
#
# Fetches the compiler if it is not there (toolkit.sh).
set -euo pipefail
cd "$(dirname "$0")/../.."
scripts/gpu/toolkit.sh
# shellcheck disable=SC1091
source "${XDG_CACHE_HOME:-$HOME/.cache}/cuda-13.0/env.sh"
cargo check --release --locked -p headkv-plugin --no-default-features --features cuda --all-targets
