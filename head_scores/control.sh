#!/bin/sh
# The needle test with head scores, and with the same values given to other heads by five seeds: the control that scores
# must beat. Prints a table of QA-F1 x 100.
#
# Usage: head_scores/control.sh SCORES CAPACITY NEEDLES [options of headkv-eval needle]
#   head_scores/control.sh head_scores/tiny_retrieval.json 16 head_scores/control_tiny.jsonl --depths 20,80
# Needs: cargo build --release --bin head-scoring --bin headkv-eval (BIN names another folder of the two).
set -eu

scores=$1 capacity=$2 needles=$3
shift 3
bin=${BIN:-$(dirname "$0")/../target/release}
draft=$(mktemp -d)
trap 'rm -rf "$draft"' EXIT

files=$scores
for seed in 1 2 3 4 5; do
    "$bin/head-scoring" convert "$scores" --shuffle "$seed" --out "$draft/shuffled-$seed.json"
    files=$files,$draft/shuffled-$seed.json
done
"$bin/headkv-eval" needle --method headkv --capacity "$capacity" --scores "$files" --needles "$needles" \
    --out "$draft/results" "$@"
