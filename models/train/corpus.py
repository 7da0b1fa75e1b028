"""Filler text: English prose of Python's own documentation, a book, and generated sentences.

Source: the docstrings and `pydoc_data.topics` of the running Python (PSF-2.0), of numpy and torch (BSD-3-Clause), of which
only paragraphs of plain prose stay; and the King James Bible (1611, public domain), as Debian's package bible-kjv prints it:
`echo | bible -f gen1:1-rev22:21 > kjv.txt`.
"""
import ast
import glob
import multiprocessing
import os
import re
import zlib
from collections import Counter

import numpy as np

from base_tasks import synthetic_sentence


def _prose(text):
    for p in re.split(r"\n\s*\n", text):
        p = " ".join(p.split())
        plain = sum(c.isalpha() or c in " ,'" for c in p)
        if len(p) > 60 and p[0].isupper() and p.endswith(".") and plain > .93 * len(p):
            yield p


def _docstrings(path):
    try:
        tree = ast.parse(open(path, encoding="utf8").read())
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return []
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return [p for node in ast.walk(tree) if isinstance(node, kinds) for p in _prose(ast.get_docstring(node) or "")]


def prose():
    import pydoc_data.topics as topics
    import torch
    seen = {}
    for text in topics.topics.values():
        seen.update(dict.fromkeys(_prose(text)))
    roots = [os.path.dirname(os.__file__), os.path.dirname(np.__file__), os.path.dirname(torch.__file__)]
    paths = [p for i, root in enumerate(roots) for p in sorted(glob.glob(root + "/**/*.py", recursive=True)) if i > 0 or "-packages" not in p]
    with multiprocessing.Pool() as pool:
        for found in pool.imap(_docstrings, paths, 50):
            seen.update(dict.fromkeys(found))
    return list(seen)


def book(path):
    """Verses, without their numbers."""
    return [line.split(" ", 1)[1].strip() for line in open(path, encoding="utf8") if re.match(r"[A-Za-z0-9]+\d+:\d+ ", line)]


def sentences(paragraphs):
    """Those of 7 to 40 words."""
    found = [s + "." for p in paragraphs for s in p.rstrip(".").split(". ")]
    return [s for s in dict.fromkeys(found) if 6 < len(s.split()) < 41]


def words(paragraphs):
    c = Counter(w for p in paragraphs for w in re.findall(r"\b[a-z]{3,10}\b", p))
    return [w for w, _ in c.most_common(30000)][100:]


def tokens(tok, paragraphs, verses):
    """-> [(ids, sentence ends)] of prose, of the book and of generated sentences."""
    r = np.random.default_rng(1)
    order = sorted(paragraphs, key=lambda p: zlib.crc32(p.encode()))
    out = []
    for texts in ([" " + p for p in order], [" " + v for v in verses], [synthetic_sentence(r) for _ in range(60000)]):
        ids = np.concatenate([np.array(e.ids, np.int64) for e in tok.encode_batch(texts, add_special_tokens=False)])
        out.append((ids, np.flatnonzero(ids == tok.token_to_id(".")) + 1))
    return out
