#!/usr/bin/env python3
"""A decode step's timeline, from what timeline.c wrote: what runs, for how long, and how long nothing does.

  scripts/gpu/timeline.py FILE [--rows 20]

A step ends with the kernel that chooses tokens. The step that is shown is the median of the last 40 by its length.
"""
import argparse, collections, re, subprocess

ENDS = "largest_kernel"  # runtime/src/cuda/batch_sampling.cu

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("file")
parser.add_argument("--rows", type=int, default=20)
args = parser.parse_args()

records = []
for line in open(args.file):
    start, end, name = line.rstrip("\n").split(" ", 2)
    records.append((int(start), int(end), name))
records.sort()
ends = [i for i, (_, _, name) in enumerate(records) if ENDS in name]
if len(ends) < 3:
    raise SystemExit(f"{args.file} has {len(ends)} steps; a run must generate 3 tokens at least")
steps = [(records[b][1] - records[a][1], a + 1, b + 1) for a, b in zip(ends, ends[1:])][-40:]
wall, first, last = sorted(steps)[len(steps) // 2]
step, begin = records[first:last], records[first - 1][1]

busy, at, gaps = 0, begin, []
for start, end, _ in step:
    gaps.append(max(0, start - at))
    busy += max(0, end - max(start, at))
    at = max(at, end)
names = collections.Counter(), collections.Counter()
for start, end, name in step:
    names[0][name] += end - start
    names[1][name] += 1
mangled = list(names[0])
plain = subprocess.run(["c++filt", *mangled], capture_output=True, text=True, check=False).stdout.splitlines() or mangled
short = {m: re.sub(r"<unnamed>|\(anonymous namespace\)::|void |\(.*", "", p)[:90] for m, p in zip(mangled, plain)}

print(f"{wall / 1e3:.0f} us a step, {busy / 1e3:.0f} us of it busy ({100 * busy / wall:.0f} %), {len(step)} kernels and copies\n")
between = sorted(gaps[1:])
print(f"nothing runs for {gaps[0] / 1e3:.0f} us before the first of them, and between two for {sum(between) / 1e3:.0f} us together, "
      f"{between[len(between) // 2] / 1e3:.1f} us in the median and {between[-1] / 1e3:.0f} us at most\n")
print("| kernel | times | us | of the step |\n|---|---|---|---|")
for name, ns in names[0].most_common(args.rows):
    print(f"| `{short[name]}` | {names[1][name]} | {ns / 1e3:.0f} | {100 * ns / wall:.1f} % |")
rest = sum(ns for _, ns in names[0].most_common()[args.rows:])
print(f"| others | {sum(names[1].values()) - sum(names[1][n] for n, _ in names[0].most_common(args.rows))} | {rest / 1e3:.0f} | {100 * rest / wall:.1f} % |")
