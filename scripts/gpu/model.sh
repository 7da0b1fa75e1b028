#!/usr/bin/env bash
# Runs headkv-eval on a GPU: the needle test on models/tiny, and an 8B model's speed and memory against mistral.rs's own.
#
#   scripts/gpu/model.sh HEADKV_EVAL SCORES.json [needle|1k|8k|32k|128k|batch|limit|vocabulary|transformers ...]
#
# By default everything.
#
# HEADKV_EVAL is the program, built with --features headkv-eval/cuda; SCORES.json is a head-score file of a model with 32
# layers x 32 heads. HEADKV_8B names the 8B model's folder; only its shape matters, random weights will do. Tables go to
# stdout, rows and reports to HEADKV_BENCH_DIR.
set -euo pipefail
eval=${1:?usage: model.sh HEADKV_EVAL SCORES.json [step ...]}; scores=${2:?the head scores are missing}; shift 2
steps=${*:-needle 1k 8k 32k 128k batch limit vocabulary transformers}
here=$(cd "$(dirname "$0")/../.." && pwd)
out=${HEADKV_BENCH_DIR:-/tmp/headkv-bench}
model=${HEADKV_8B:-/tmp/8b}
mkdir -p "$out"

# The program looks for the scores of a model under its name.
export HEADKV_HOME=$out/home
mkdir -p "$HEADKV_HOME/head_scores"
cp "$here"/head_scores/tiny_* "$HEADKV_HOME/head_scores/"
cp "$scores" "$HEADKV_HOME/head_scores/$(basename "$model" | tr '[:upper:]' '[:lower:]')_retrieval.json"
bench() { "$eval" bench --device cuda --model "$model" --rounds "${ROUNDS:-1}" "$@"; }

nvidia-smi --query-gpu=name,driver_version --format=csv,noheader
for step in $steps; do
    start=$(date +%s)
    case $step in
        needle) "$eval" needle --device cuda --model "$here/models/tiny" --out "$out/needle" ;;
        8k) bench --lengths 8000 --paths upstream,paged,full,snapkv@1024,headkv@1024,headkv@128 ;;
        32k) bench --lengths 32000 --paths upstream,paged,full,snapkv@1024,headkv@1024,headkv@128 ;;
        128k) bench --lengths 128000 --paths full,snapkv@1024,headkv@1024,headkv@128 ;;
        1k) bench --lengths 1000 --paths paged,full,headkv@1024 ;;
        batch)
            bench --lengths 8000 --batch 16 --paths full,headkv@1024,headkv@128
            bench --lengths 8000 --batch 64 --paths full,headkv@1024,headkv@128 ;;
        # The largest batch of full caches on 141 GB, one that is too large, and twice that one with compressed caches.
        limit)
            bench --lengths 8000 --batch 112 --paths full
            bench --lengths 8000 --batch 128 --paths full || echo "a batch of 128 does not fit"
            bench --lengths 8000 --batch 256 --paths headkv@1024 ;;
        # What a server does: many short prompts, over a real vocabulary.
        vocabulary)
            for batch in 16 64 128 256; do
                bench --lengths 2000 --batch $batch --paths full,headkv@512 || echo "a batch of $batch does not fit"
            done ;;
        transformers)
            python3 "$here/scripts/gpu/transformers_rows.py" "$model/config.json" --lengths 8000,32000
            bench --lengths 8000,32000 --paths full,headkv@1024 ;;
        *) echo "unknown step $step; known are needle, 1k, 8k, 32k, 128k, batch, limit, vocabulary, transformers" >&2; exit 2 ;;
    esac
    echo "[$step: $(($(date +%s) - start)) s]"
done
