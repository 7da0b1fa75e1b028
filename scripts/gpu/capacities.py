"""Writes the tokens that each head keeps under HeadKV, for the kernels' benchmark.

usage: capacities.py SCORES.json > capacities.txt

One line per mode ("kv" or "query" head), mean capacity and layer: the heads' kept tokens, window included, by the
formulas of the paper's section 3.3 (beta 1.2, window 8).
"""
import json
import sys

BETA, WINDOW, KV_HEADS = 1.2, 8, 8


def main(path):
    with open(path) as file:
        scores = json.loads(file.readline())
    means = {tuple(map(int, name.split("-"))): sum(s) / len(s) for name, s in scores.items()}
    layers, heads = (1 + max(at[i] for at in means) for i in (0, 1))
    for mode, stored in (("kv", KV_HEADS), ("query", heads)):
        group = heads // stored
        rows = [
            [sum(means[layer, h * group + g] for g in range(group)) / group for h in range(stored)]
            for layer in range(layers)
        ]
        total = sum(map(sum, rows))
        for capacity in (128, 1024):
            mean = capacity - WINDOW
            shared = mean // BETA
            pool, floor = shared * layers * stored, mean - shared
            for layer, row in enumerate(rows):
                kept = (round(score / total * pool + floor) + WINDOW for score in row)
                print(mode, capacity, layer, *map(int, kept))


if len(sys.argv) != 2:
    sys.exit(__doc__)
main(sys.argv[1])
