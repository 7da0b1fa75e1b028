#!/usr/bin/env python3
"""Writes this folder's goldens: capacities and kept positions, computed from the papers' formulas in plain Python.

A second implementation of the rules, in double precision and without a line of the Rust one: HeadKV (arXiv 2410.19258,
section 3.3), SnapKV (arXiv 2404.14469), PyramidKV (arXiv 2406.02069) and Ada-KV (arXiv 2407.11550), rounded as the
original program rounds. Inputs are two score files of the first embedded model (tiny_*.json) and random numbers; the form is that of the
original's own outputs, which tests/tests/behaviour/parity.rs reads where they are present.

    python3 tests/goldens/make.py
"""

import json
import math
import random
import struct
from pathlib import Path

HERE = Path(__file__).parent
LAYERS, HEADS = 8, 8


def head_scores(choice):
    """A mean per layer and head."""
    kind = {"copy": "retrieval", "reason": "reasoning"}[choice]
    lists = json.loads((HERE / f"tiny_{kind}.json").read_text())
    heads = [(layer, head) for layer in range(LAYERS) for head in range(HEADS)]
    return [sum(lists[f"{l}-{h}"]) / len(lists[f"{l}-{h}"]) for l, h in heads]


def head_capacities(scores, capacity, window, beta, temp):
    mean = capacity - window
    shared = mean // beta
    powers = [s**temp for s in scores]
    pool = shared * len(scores)
    return [round(p / sum(powers) * pool + (mean - shared)) for p in powers]


def window_scores(q, k, window):
    """Per position before the window, the attention that the window's queries pay to it, summed."""
    tokens, dim = len(k), len(k[0])
    total = [0.0] * (tokens - window)
    for at in range(tokens - window, tokens):
        logits = [sum(a * b for a, b in zip(q[at], key)) / math.sqrt(dim) for key in k[: at + 1]]
        most = max(logits)
        powers = [math.exp(x - most) for x in logits]
        for i in range(tokens - window):
            total[i] += powers[i] / sum(powers)
    return total


def pooled(row, kernel, pooling):
    reach = kernel // 2
    out = []
    for at in range(len(row)):
        near = row[max(0, at - reach) : at + reach + 1]
        out.append(max(near) if pooling == "maxpool" else sum(near) / kernel)
    return out


def best(row, count):
    return sorted(range(len(row)), key=lambda at: (-row[at], at))[:count]


def adakv_lengths(rows, mean, floor):
    if mean >= len(rows[0]):
        return [len(rows[0])] * len(rows)
    held = [sum(row[at] for at in best(row, mean)) / sum(row) for row in rows]
    every = [(-s * part, h, at) for h, (row, part) in enumerate(zip(rows, held)) for at, s in enumerate(row)]
    won = [0] * len(rows)
    for _, head, _ in sorted(every)[: mean * len(rows)]:
        won[head] += 1
    sure = int(mean * floor)
    return [min(len(rows[0]), round(n * (1 - floor) + sure)) for n in won]


def pyramid(mean, beta, layer, layers, candidates):
    least, most = mean // beta, 2 * mean - mean // beta
    if most >= candidates:
        most = candidates
        least = min(max(2 * mean - most, 0), most)
    return most - layer * ((most - least) // (layers - 1))


def kept(run, rows, candidates, tokens):
    mean = run["capacity"] - run["window"]
    if tokens <= run["capacity"]:
        return [list(range(tokens))] * len(rows)
    if run["method"] == "snapkv":
        counts = [mean] * len(rows)
    elif run["method"] == "pyramidkv":
        counts = [pyramid(mean, run["pyram_beta"], run["layer"], run["layers"], candidates)] * len(rows)
    elif run["method"] == "adakv":
        counts = adakv_lengths(rows, mean, run["floor"])
    else:
        all_heads = head_capacities(head_scores(run["choice"]), run["capacity"], run["window"], run["beta"], run["temp"])
        counts = all_heads[run["layer"] * HEADS :][:HEADS]
    last = list(range(candidates, tokens))
    return [best(row, count) + last for row, count in zip(rows, counts)]


def runs(heads):
    for window, kernel, pooling in [(8, 7, "maxpool"), (8, 5, "avgpool"), (4, 1, "maxpool")]:
        base = {"window": window, "kernel": kernel, "pooling": pooling}
        for capacity in (16, 40, 200):
            at = base | {"capacity": capacity}
            yield at | {"method": "snapkv"}
            for layer in (0, 3, 7):
                yield at | {"method": "pyramidkv", "layer": layer, "layers": LAYERS, "pyram_beta": 20}
            for floor in (0.2, 0.5):
                yield at | {"method": "adakv", "floor": floor}
            if heads == HEADS:
                for choice, beta, layer in (("copy", 1.2, 0), ("copy", 2, 5), ("reason", 1.2, 3)):
                    yield at | {"method": "headkv", "choice": choice, "beta": beta, "temp": 1, "layer": layer, "layers": LAYERS}


def write_safetensors(path, tensors):
    header, at = {}, 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [at, at + len(data)]}
        at += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, data in tensors.values()))


def main():
    capacities = []
    for choice in ("copy", "reason"):
        scores = head_scores(choice)
        for capacity in (16, 24, 64, 128):
            for beta in (1, 1.2, 2, 1.005, 100):
                for temp in (1, 0.5):
                    setting = {"model": "tiny", "choice": choice, "capacity": capacity, "window": 8, "beta": beta, "temp": temp}
                    counts = head_capacities(scores, capacity, 8, beta, temp)
                    capacities.append(setting | {"head_capacity": counts})
    (HERE / "capacities.json").write_text(json.dumps(capacities) + "\n")

    cases, tensors = [], {}
    for name, heads, tokens, dim in (("few", 3, 90, 8), ("tiny", HEADS, 120, 16)):
        rng = random.Random(f"headkv {name}")
        single = lambda: struct.unpack("<f", struct.pack("<f", rng.gauss(0, 1.5)))[0]
        q, k = ([[[single() for _ in range(dim)] for _ in range(tokens)] for _ in range(heads)] for _ in "qk")
        for letter, x in (("q", q), ("k", k)):
            flat = [value for head in x for row in head for value in row]
            tensors[f"{name}.{letter}"] = ([heads, tokens, dim], struct.pack(f"<{len(flat)}f", *flat))
        attention, done = {}, []
        for run in runs(heads):
            window = run["window"]
            if window not in attention:
                attention[window] = [window_scores(q[h], k[h], window) for h in range(heads)]
            rows = [pooled(row, run["kernel"], run["pooling"]) for row in attention[window]]
            done.append(run | {"kept": kept(run, rows, tokens - window, tokens)})
        cases.append({"name": name, "heads": heads, "tokens": tokens, "head_dim": dim, "runs": done})
    (HERE / "selection.json").write_text(json.dumps(cases) + "\n")
    write_safetensors(HERE / "selection.safetensors", tensors)


if __name__ == "__main__":
    main()
