"""Filler text: English prose of Python's own documentation, a book, and generated sentences.

Source: the docstrings and `pydoc_data.topics` of the running Python (PSF-2.0), of numpy and torch (BSD-3-Clause), of which
only paragraphs of plain prose stay; novels and speeches in the lines of print (`books.py`); and the King James Bible (1611, public
domain), as Debian's package bible-kjv prints it: `echo | bible -f gen1:1-rev22:21 > kjv.txt`.
"""
import ast
import glob
import multiprocessing
import os
import pickle
import re
import textwrap
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


def books(folder):
    """Paragraphs of all texts of `books.py`, in their lines, one after the other as in the text."""
    texts = [open(path, encoding="utf8").read() for path in sorted(glob.glob(folder + "/*.txt"))]
    return [p.strip("\n") for text in texts for p in re.split(r"\n\s*\n", text) if p.strip()]


def sentences(paragraphs):
    """Those of 7 to 40 words."""
    found = [s + "." for p in paragraphs for s in p.rstrip(".").split(". ")]
    return [s for s in dict.fromkeys(found) if 6 < len(s.split()) < 41]


def words(paragraphs):
    c = Counter(w for p in paragraphs for w in re.findall(r"\b[a-z]{3,10}\b", p))
    return [w for w, _ in c.most_common(30000)][100:]


FRAMES = ("The {a} {n} {v} the {n}.|A {n} {v} its {n} and the {n} {v}.|When the {n} {v}, every {n} {v} the {a} {n}.|Did the {n} ever {v} a {a} {n}?"
          "|Between the {n} and the {n} a {a} {n} {v}.|\"{A} {n},\" the {n} {v}, \"{v} the {n}.\"|It {v} {d}, and the {n} was {a}.|{D}, the {n} of the {n} {v} {d}."
          "|There were {a} {n}s near the {n}, which {v} {d}.|Neither the {n} nor the {a} {n} {v}.|Some {n}s {v}; others {v} the {n}.|If the {n} {v} {d}, the {n} {v}."
          "|Had the {a} {n} really {v} the {n} {d}?|Why had the {n} {v}?|Who {v} the {n} while every {n} {v}?|What is the {n} of the {a} {n}?"
          "|Where was the {n} that the {n} {v}?|Which {n} {v} the {n}, and which the {a} {n}?|No {n} knew that the {a} {n} had {v} a {n}.|{A} and {a}, the {n} {v} {d}.|So the {n} {v} what the {n} {v}.|They {v} the {n} because a {n} was too {a}.").split("|")


def invented(words, rng, paragraphs):
    """Paragraphs of English form without sense. A few words come again and again, others in the next text, so that facts are told
    from texts of any kind, those of tests among them."""
    out = []
    for i in range(paragraphs):
        if i % 12 == 0:
            known = {k: [words[j] for j in rng.integers(len(words), size=n)] for k, n in dict(a=12, n=30, v=15, d=6).items()}
        def fill(m):
            w = known[m.group(1).lower()]
            w = w[rng.integers(len(w))]
            return w.capitalize() if m.group(1).isupper() else w
        out.append(" " + " ".join(re.sub(r"\{(\w)\}", fill, FRAMES[rng.integers(len(FRAMES))]) for _ in range(rng.integers(3, 9))) + "\n")
    return out


def kind(word):
    """A crude class of a content word, by its end."""
    return next((end for end in ("ing", "ed", "ly", "s") if word.endswith(end)), "")


def retold(paragraphs, words, kept, rng):
    """Paragraphs of books in which every word that is not `kept` is another one, of the few dozens that a text of twelve paragraphs
    has: sentences of all forms, and words that come again and again."""
    by_kind = {}
    for w in words:
        by_kind.setdefault(kind(w), []).append(w)
    out = []
    for i, p in enumerate(paragraphs):
        if i % 12 == 0:
            known = {k: [ws[j] for j in rng.integers(len(ws), size=30 if k == "" else 10)] for k, ws in by_kind.items()}
        def other(m):
            w = m.group().lower()
            if w in kept:
                return m.group()
            w = known[kind(w)][rng.integers(len(known[kind(w)]))]
            return w.capitalize() if m.group()[0].isupper() else w
        out.append(" " + re.sub(r"[A-Za-z]{3,}", other, " ".join(p.split())) + ("\n" if rng.random() < .5 else ""))
    return out


def common(paragraphs, n=180):
    """The most frequent words: those that make a sentence's form."""
    c = Counter(w for p in paragraphs for w in re.findall(r"\b[a-z]{3,}\b", p))
    return {w for w, _ in c.most_common(n)}


def wrapped(text, rng):
    """Half of the texts in lines, as books are printed."""
    return textwrap.fill(text, int(rng.integers(50, 90))) if rng.random() < .5 else text


def printed(paragraphs, rng):
    """As editions differ: lines or none, straight quotes or curly ones, with and without empty lines between paragraphs."""
    out = []
    for i, p in enumerate(paragraphs):
        if i % 40 == 0:
            lines, curly, gap = rng.random(3) < [.6, .5, .5]
        p = p if lines else " ".join(p.split())
        if curly:
            p = re.sub(r'"(?=\w)', "“", p).replace('"', "”").replace("'", "’")
        out.append(p + ("\n\n" if gap else " "))
    return out


def village(path):
    """Paragraphs, with the breaks between them: the text that headkv-eval hides needles in, of another seed than its tests'
    (`cargo run --release -p headkv-haystack --example filler -- 1000003 12000000 > village.txt`)."""
    return open(path, encoding="utf8").read().splitlines(keepends=True)


SHARES = dict(prose=.12, verses=.06, synthetic=.04, invented=.16, books=.24, retold=.2, village=.18)


def tokens(tok, paragraphs, verses, pages, vocabulary, villages):
    """-> [(ids, sentence ends)] of prose, of the Bible, of generated sentences, of invented ones, of books, of books retold and of
    headkv-eval's filler, in the order of `SHARES`."""
    r = np.random.default_rng(1)
    order = sorted(paragraphs, key=lambda p: zlib.crc32(p.encode()))
    out = []
    for texts in ([" " + wrapped(p, r) for p in order], [" " + wrapped(v, r) for v in verses], [synthetic_sentence(r) for _ in range(60000)],
                  invented(vocabulary, r, 20000), printed(pages, r), retold(pages, vocabulary, common(pages), r), villages):
        ids = np.concatenate([np.array(e.ids, np.int64) for e in tok.encode_batch(texts, add_special_tokens=False)])
        out.append((ids.astype(np.uint16), np.flatnonzero(ids == tok.token_to_id(".")) + 1))
    return out


def load(tok, book_path, books_folder, village_path, cache):
    """-> filler of all kinds, words, sentences; made once and kept in the file `cache`, if there is one."""
    if cache and os.path.exists(cache):
        return pickle.load(open(cache, "rb"))
    paragraphs, verses = prose(), book(book_path)
    vocabulary = words(paragraphs + verses)
    made = tokens(tok, paragraphs, verses, books(books_folder), vocabulary, village(village_path)), vocabulary, sentences(paragraphs + verses)
    if cache:
        pickle.dump(made, open(cache, "wb"))
    return made
