#!/usr/bin/env python3
"""Means of a run's methods with 95 % intervals, and of their differences from one of them, prompt by prompt.

    scripts/intervals.py headkv-out/held-out/rows.jsonl headkv

A bootstrap over needles with all of their lengths and depths (10,000 draws, seed 0), which fail and succeed together; a
difference is paired, so that it is one of methods, not of needles.
"""

import collections
import json
import random
import sys


def needle(dataset, sample, depth):
    item = sample.partition("/")[2] or sample
    if depth is not None:  # `3 at 20` is one of those that were drawn; a fixed needle is its data set.
        item = item.partition(" at ")[0] if " at " in item else ""
    return dataset, item


def interval(values):
    clusters = collections.defaultdict(list)
    for (dataset, sample, _, depth), value in values.items():
        clusters[needle(dataset, sample, depth)].append(value)
    clusters = [(sum(of), len(of)) for of in clusters.values()]
    rng = random.Random(0)
    means = []
    for _ in range(10_000):
        drawn = rng.choices(clusters, k=len(clusters))
        means.append(sum(of for of, _ in drawn) / sum(n for _, n in drawn))
    means.sort()
    return sum(values.values()) / len(values), means[250], means[9749]


def main(path, reference):
    scores = collections.defaultdict(dict)
    for line in open(path):
        row = json.loads(line)
        if row.get("error") is None:
            capacity = row.get("capacity")
            name = row["method"] + (f"@{capacity}" if capacity else "")
            prompt = (row["dataset"], row["sample"], row["length"], row["depth"])
            scores[name][prompt] = 100 * row["score"]
    print(f"| method | n | mean | 95 % | against {reference} | 95 % |\n|---|---|---|---|---|---|")
    for name in sorted(scores, key=lambda name: (name.partition("@")[2].zfill(9), name)):
        own = scores[name]
        mean, low, high = interval(own)
        line = f"| {name} | {len(own)} | {mean:.1f} | {low:.1f} to {high:.1f} |"
        other = scores.get(f"{reference}@{name.partition('@')[2]}")
        if other and not name.startswith(f"{reference}@"):
            mean, low, high = interval({key: own[key] - other[key] for key in own if key in other})
            line += f" {mean:+.1f} | {low:+.1f} to {high:+.1f} |"
        else:
            line += " | |"
        print(line)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
