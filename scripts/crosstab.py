#!/usr/bin/env python3
"""Rankings and poolings against budgets at equal bytes, as Markdown, out of `headkv-eval report`'s report.csv.

    scripts/crosstab.py headkv-out/rankings/report.csv [COLUMN]

One table for each model, protocol and capacity; a row is a ranking with its pooling (before, after, decay), a column a method.
Each cell is the score with its 95 % interval, COLUMN (default: average) of it; bold is the best of its table. The intervals
are the report's own.
"""
import collections
import csv
import sys


def settings(text):
    return dict(part.split("=", 1) for part in text.split()) if text else {}


def main(path, column="average"):
    tables, full, prompts = collections.defaultdict(dict), {}, {}
    for row in csv.DictReader(open(path)):
        if row["column"] != column or not row["score"]:
            continue
        setup = (row["benchmark"], row["model"], row["protocol"], row["backend"])
        prompts[setup] = row["prompts"]
        cell = float(row["score"]), row["low"] and float(row["low"]), row["high"] and float(row["high"])
        if not row["capacity"]:
            full[setup] = cell
            continue
        s = settings(row["settings"])
        pool = f"{s['pool_before']}, {s['pool_after']}, {s.get('pool_decay', '1')}" if "pool_before" in s else "the method's"
        tables[setup, int(row["capacity"])][s.get("ranking", "the method's"), pool, row["method"]] = cell
    show = lambda cell: f"{cell[0]:.1f}" + (f" ({cell[1]:.1f} to {cell[2]:.1f})" if cell[1] != "" else "")
    for (setup, capacity), cells in sorted(tables.items(), key=lambda kv: (kv[0][0], kv[0][1])):
        benchmark, model, protocol, backend = setup
        print(f"\n**{model}, {benchmark}, {protocol}, {backend}: {capacity} tokens a head**, n = {prompts[setup]}, full {show(full[setup]) if setup in full else 'not run'}\n")
        methods = sorted({method for _, _, method in cells})
        rows = sorted({key[:2] for key in cells}, key=lambda key: (key[1], key[0]))
        best = max(cell[0] for cell in cells.values())
        print("| ranking | pooling | " + " | ".join(methods) + " |")
        print("|---|---|" + "---|" * len(methods))
        for ranking, pool in rows:
            line = []
            for method in methods:
                cell = cells.get((ranking, pool, method))
                text = show(cell) if cell else ""
                line.append(f"**{text}**" if cell and cell[0] == best else text)
            print(f"| {ranking} | {pool} | " + " | ".join(line) + " |")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3) or sys.argv[1].startswith("-"):
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    main(*sys.argv[1:])
