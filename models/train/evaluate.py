"""Exact match of the whole answer, per task and length, on held-out words, people, places and templates; and the default
needle test's own families."""
import json
import os

import numpy as np
import torch

import templates
from tasks import Tasks

FAMILIES = [f for f in Tasks.FAMILIES if f not in ("magic", "compare_near", "quote", "chat")] + ["multi_turn"]
FAMILIES += ["needle-" + f for f, _, _ in templates.held_out()]


LISTS = ("multi_value", "variables")  # benchmarks count the items that are named, so their share is shown as well


@torch.no_grad()
def accuracy(model, documents, length, family, n, tokens=131072):
    """-> share of answers without a fault, share of their items (between commas) without one. Teacher-forced, which for exact
    match equals greedy decoding."""
    needles = {f: (v, p) for f, v, p in templates.held_out()}
    docs = [documents.needle(length, *needles[family[7:]]) if family.startswith("needle-") else documents.document(length, family) for _ in range(n)]
    comma = documents.tok.token_to_id(",")
    ok, items, bs = 0, [], max(1, tokens // length)
    device = model.emb.weight.device
    with torch.autocast(device.type, torch.bfloat16):
        for i in range(0, n, bs):
            ids = torch.tensor(np.stack([d[0] for d in docs[i:i + bs]])).to(device)
            asked = torch.tensor(np.stack([d[1] for d in docs[i:i + bs]]))[:, 1:].to(device) > 0
            h = model(ids[:, :-1])
            row, said = asked.nonzero()[:, 0], ids[:, 1:][asked]
            right = (h[asked] @ model.emb.weight.T.bfloat16()).argmax(-1) == said
            ok += len(ids) - len(row[~right].unique())
            item = row * length + torch.cumsum(said == comma, 0)
            items += [right[item == k].all().item() for k in item.unique()] if family in LISTS else []
    return ok / n, np.mean(items) if items else None


@torch.no_grad()
def greedy(model, tok, prompt, tokens):
    """The answer to a prompt, up to a line's end."""
    ids, out = tok.encode(prompt, add_special_tokens=False).ids, []
    for _ in range(tokens):
        h = model(torch.tensor([ids + out]).to(model.emb.weight.device))[0, -1]
        out.append(int((h @ model.emb.weight.T.to(h.dtype)).argmax()))
        if out[-1] in (0, 2) or "\n" in tok.decode(out[-1:]):
            break
    return tok.decode(out).strip()


def right(row, got):
    """babilong: the place, in the first sentence; RULER: the share of values named; needles: the whole answer."""
    want = row["expected"]
    if row["metric"] == "accuracy":
        return want in got.split(".")[0]
    return np.mean([w in got for w in want.split(", ")]) if row["metric"] == "recall" else got == want


@torch.no_grad()
def asked(model, tok, folder, show=1):
    """The same of the very prompts of a run of `headkv-eval ... --out folder`, whose filler training has not seen, and `show` wrong
    answers of each kind."""
    read = lambda name: [json.loads(line) for line in open(os.path.join(folder, name), encoding="utf8")]
    texts, found, wrong = {p["digest"]: p["text"] for p in read("prompts.jsonl")}, {}, {}
    with torch.autocast(model.emb.weight.device.type, torch.bfloat16):
        for row in read("rows.jsonl"):
            kind = f"{row['dataset']} {row['bucket'] or row['length']}"
            text = texts[row["prompt"]]
            got = greedy(model, tok, f"<|im_start|>user\n{text}<|im_end|>\n<|im_start|>assistant\n" if row["protocol"] == "chat" else text, 40)
            found.setdefault(kind, []).append(right(row, got))
            if found[kind][-1] < 1:
                wrong.setdefault(kind, []).append(f"{row['expected']} / {got}")
    print("asked as tests ask: " + ", ".join(f"{k} {100 * np.mean(v):.0f} (n={len(v)})" for k, v in found.items()), flush=True)
    for kind, texts in wrong.items():
        print(f"  {kind}: " + " | ".join(texts[:show]), flush=True)


def table(model, make, lengths, n, tag):
    """Prints one line per task; returns the mean."""
    print(f"| {tag} | " + " | ".join(f"{l} (n={k})" for l, k in zip(lengths, n)) + " |", flush=True)
    sums = []
    for fam in FAMILIES:
        row = [accuracy(model, make(987654 + l), l, fam, k) for l, k in zip(lengths, n)]
        sums.append([x for x, _ in row])
        print(f"| {fam} | " + " | ".join(f"{100*x:.0f}" for x, _ in row) + " |", flush=True)
        if fam in LISTS:
            print(f"| {fam}, each | " + " | ".join(f"{100*x:.0f}" for _, x in row) + " |", flush=True)
    print("| mean | " + " | ".join(f"{100*x:.1f}" for x in np.mean(sums, 0)) + " |", flush=True)
    return float(np.mean(sums))
