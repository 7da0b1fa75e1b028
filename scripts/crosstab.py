#!/usr/bin/env python3
"""Rankings and poolings against budgets at equal bytes, as Markdown, out of what `headkv-eval` wrote.

    scripts/crosstab.py report.csv [report.csv ...]          the report's scores and intervals
    scripts/crosstab.py --named rows.jsonl [rows.jsonl ...]  the share of answers that hold the expected one

A table for each model, protocol, device and capacity; a row is a ranking with its pooling (before, after, decay), a column a
method. Cells are scores with 95 % intervals; bold is the best of its table. `--named` is for models that answer in whole sentences,
which QA-F1 counts against them: letter case and punctuation aside, the expected answer stands in the answer or it does not;
its intervals are `intervals.py`'s, a bootstrap over needles.
"""
import collections
import csv
import json
import string
import sys

from intervals import interval


def plain(text):
    return " ".join("".join(c for c in text.lower() if c not in string.punctuation).split())


def from_rows(paths):
    """(setup, method, capacity, settings, cell, prompts) of each variant."""
    answers = collections.defaultdict(dict)
    for path in paths:
        for line in open(path):
            row = json.loads(line)
            setup = row["benchmark"], row["model"], row["protocol"], row["backend"]
            settings = tuple(sorted((row.get("settings") or {}).items()))
            named = plain(row["expected"]) in plain(row["answer"] or "")
            prompt = row["dataset"], row["sample"], row["length"], row["depth"]
            answers[setup, row["method"], row["capacity"], settings][prompt] = 100.0 * named
    for (setup, method, capacity, settings), values in answers.items():
        yield setup, method, capacity, dict(settings), interval(values), len(values)


def from_reports(paths):
    for path in paths:
        for row in csv.DictReader(open(path)):
            if row["column"] == "average" and row["score"]:
                cell = tuple(float(row[name]) if row[name] else None for name in ("score", "low", "high"))
                settings = dict(part.split("=", 1) for part in row["settings"].split())
                setup = row["benchmark"], row["model"], row["protocol"], row["backend"]
                yield setup, row["method"], row["capacity"] and int(row["capacity"]), settings, cell, row["prompts"]


def show(cell):
    return f"{cell[0]:.1f}" + (f" ({cell[1]:.1f} to {cell[2]:.1f})" if cell[1] is not None else "")


def main(variants):
    tables, full, prompts = collections.defaultdict(dict), {}, {}
    for setup, method, capacity, settings, cell, n in variants:
        prompts[setup] = n
        if not capacity:
            full[setup] = cell
            continue
        pool = [str(settings[key]) for key in ("pool_before", "pool_after", "pool_decay") if key in settings]
        others = [f"{key} {value}" for key, value in settings.items() if key != "ranking" and not key.startswith("pool_")]
        row = ", ".join([str(settings.get("ranking", "the method's"))] + others), ", ".join(pool) or "the method's"
        tables[setup, capacity][row, method] = cell
    for (setup, capacity), cells in sorted(tables.items()):
        benchmark, model, protocol, backend = setup
        against = show(full[setup]) if setup in full else "not run"
        print(f"\n**{model}, {benchmark}, {protocol}, {backend}: {capacity} tokens a head**; n = {prompts[setup]}; full {against}\n")
        methods = sorted({method for _, method in cells})
        best = max(cell[0] for cell in cells.values())
        print("| ranking | pooling | " + " | ".join(methods) + " |")
        print("|---|---|" + "---|" * len(methods))
        for row in sorted({row for row, _ in cells}, key=lambda row: (row[1], row[0])):
            texts = []
            for method in methods:
                cell = cells.get((row, method))
                text = show(cell) if cell else ""
                texts.append(f"**{text}**" if cell and cell[0] == best else text)
            print(f"| {row[0]} | {row[1]} | " + " | ".join(texts) + " |")


if __name__ == "__main__":
    files = sys.argv[1:]
    named = files[:1] == ["--named"]
    if not files or files == ["--named"] or files[0] in ("-h", "--help"):
        print(__doc__, file=sys.stderr)
        sys.exit(2)
    main(from_rows(files[1:]) if named else from_reports(files))
