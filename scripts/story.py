#!/usr/bin/env python3
"""Draws docs/story.svg, the picture of README.md, from docs/quality/held-out-80.csv.

Usage: scripts/story.py [--check]      (--check: fails if the picture is not what the figures say)
"""

import csv
import pathlib
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Colours that stand out on a white and on a dark page, and apart for those who do not see red or green.
LINES = [
    ("headkv-plus", "#d55e00", "headkv-plus (this project)"),
    ("headkv", "#0072b2", "headkv (the paper)"),
    ("adakv", "#8c8c8c", "adakv"),
    ("snapkv", "#b0a060", "snapkv"),
]
LEFT, TOP, WIDTH, HEIGHT = 70, 50, 470, 230
FIRST, LAST = 12, 24


def averages():
    rows = csv.DictReader((ROOT / "docs/quality/held-out-80.csv").open())
    found = {}
    for row in rows:
        if row["column"] == "average":
            found.setdefault(row["method"], {})[int(row["capacity"] or 0)] = float(row["score"])
    return found


def x(capacity):
    return LEFT + WIDTH * (capacity - FIRST) / (LAST - FIRST)


def y(score):
    return TOP + HEIGHT * (1 - score / 100)


def text(at_x, at_y, said, fill="#666666", anchor="start", size=13):
    return f'<text x="{at_x:.0f}" y="{at_y:.0f}" fill="{fill}" text-anchor="{anchor}" font-size="{size}">{said}</text>'


def picture():
    found = averages()
    full = found["full"][0]
    out = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 340" font-family="sans-serif" role="img">',
        "<title>Held-out needles in 2,000 tokens: score against tokens kept per head</title>",
        text(LEFT, 24, "Held-out needles, QA-F1 x 100, when each head keeps only so many of 2,000 tokens", size=15),
    ]
    for score in range(0, 101, 25):
        out.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y(score):.1f}" y2="{y(score):.1f}" stroke="#cccccc" stroke-width="0.5"/>')
        out.append(text(LEFT - 10, y(score) + 4, score, anchor="end"))
    out.append(f'<line x1="{LEFT}" x2="{LEFT + WIDTH}" y1="{y(full):.1f}" y2="{y(full):.1f}" stroke="#666666" stroke-dasharray="6 4"/>')
    out.append(text(LEFT + 6, y(full) - 6, f"full cache: {full:.1f}"))
    ends = []
    for method, colour, label in LINES:
        points = sorted(found[method].items())
        path = " ".join(f"{x(capacity):.1f},{y(score):.1f}" for capacity, score in points)
        out.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="3"/>')
        for capacity, score in points:
            out.append(f'<circle cx="{x(capacity):.1f}" cy="{y(score):.1f}" r="4" fill="{colour}"/>')
        ends.append((y(points[-1][1]), f"{points[-1][1]:.1f}  {label}", colour))
    # Labels that would lie on each other move apart.
    at = 0
    for end, label, colour in sorted(ends):
        at = max(end + 5, at + 18)
        out.append(text(LEFT + WIDTH + 12, at, label, fill=colour))
    for capacity, said in [(12, "12 (0.6 %)"), (16, "16 (0.8 %)"), (24, "24 (1.2 %)")]:
        out.append(text(x(capacity), TOP + HEIGHT + 22, said, anchor="middle"))
    out.append(text(LEFT + WIDTH / 2, TOP + HEIGHT + 46, "tokens kept per head", anchor="middle"))
    return "\n".join(out + ["</svg>", ""])


def main():
    file = ROOT / "docs/story.svg"
    if "--check" in sys.argv:
        if file.read_text() != picture():
            sys.exit(f"{file} is not what the figures say; run scripts/story.py")
    else:
        file.write_text(picture())


if __name__ == "__main__":
    main()
