"""Trains models/tiny on one GPU, in timed and resumable legs.

    python train.py --tokenizer ../tiny --start ../tiny --state STATE --out OUT --babi PROMPTS.json --book kjv.txt --books BOOKS --village village.txt --seconds 1400 --deadline 560

The whole training takes `--seconds` of a GPU. A leg ends after `--deadline` and writes STATE (weights, optimiser, how far it came); the
same command goes on from there. Without `--start` the first leg begins with random weights. After every stage the program exports
the weights and prints a table.
"""
import argparse
import json
import os
import time

os.environ["TOKENIZERS_PARALLELISM"] = "false"
import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer

import corpus
import templates
from documents import Documents
from evaluate import asked, table
from model import CFG, LM, export, load

LM_SHARE = 8  # one filler token of so many is in the language-model loss


class Data(torch.utils.data.IterableDataset):
    """Batches of equal size whose documents have one of several lengths."""

    def __init__(self, make, lengths, tokens, seed):
        self.make, self.lengths, self.tokens, self.seed = make, lengths, tokens, seed

    def __iter__(self):
        torch.set_num_threads(1)
        d = self.make(self.seed * 1000 + torch.utils.data.get_worker_info().id)
        while True:
            length = self.lengths[d.r.integers(len(self.lengths))]
            docs = [d.document(length) for _ in range(max(1, self.tokens // length))]
            yield torch.from_numpy(np.stack([x[0] for x in docs]).astype(np.int32)), torch.from_numpy(np.stack([x[1] for x in docs]))


def positions(length, rng):
    """0, 1, 2 ..., in half of the steps with up to three jumps, so that short documents teach long distances (as PoSE,
    Zhu et al., ICLR 2024)."""
    at = np.arange(length)
    spare = CFG["ctx"] - length
    if spare > 0 and rng.random() < .5:
        for cut in rng.integers(1, length, rng.integers(1, 4)):
            jump = int(spare * rng.random() ** 2)
            at[cut:] += jump
            spare -= jump
    return torch.from_numpy(at)


def loss_of(run, weight, ids, w, at, rng):
    """Answer loss, and the language-model loss of a share of the other tokens."""
    h = run(ids[:, :-1], at)
    target, w = ids[:, 1:], w[:, 1:]
    extra = (torch.rand(w.shape, device=w.device, generator=rng) < 1 / LM_SHARE) & (w == 0)
    keep = (extra | (w > 0)).flatten().nonzero()[:, 0]
    logits = h.reshape(-1, h.shape[-1])[keep] @ weight.T.to(h.dtype)
    loss = F.cross_entropy(logits.float(), target.reshape(-1)[keep], reduction="none")
    w = w.flatten()[keep]
    return (loss * w).sum() / w.sum(), loss[w == 0].mean()


def columns(text):
    """-> lengths, numbers of documents"""
    return zip(*(map(int, x.split(":")) for x in text.split(",")))


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--tokenizer", required=True, help="folder of tokenizer.json")
    p.add_argument("--start", help="folder of weights to begin with; random ones without")
    p.add_argument("--state", required=True, help="file that carries weights and optimiser from leg to leg")
    p.add_argument("--out", required=True)
    p.add_argument("--babi", required=True, help="babilong's prompts.json")
    p.add_argument("--book", required=True, help="the filler's book: see corpus.py")
    p.add_argument("--books", required=True, help="folder that books.py wrote")
    p.add_argument("--village", required=True, help="headkv-eval's filler: see corpus.py")
    p.add_argument("--corpus", help="file that keeps the filler's tokens from leg to leg")
    p.add_argument("--seconds", type=float, required=True, help="of training in all legs, without evaluation and start")
    p.add_argument("--deadline", type=float, default=1e9, help="seconds after which this leg ends")
    p.add_argument("--stages", default="512+1024:.45,512+2048:.35,1024+4096+16384:.2", help="lengths:share of the seconds, ...")
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--keep", type=float, default=.4, help="share of the time before the rate falls")
    p.add_argument("--lm", type=float, default=.2, help="weight of the filler's loss")
    p.add_argument("--tokens", type=int, default=65536, help="per step")
    p.add_argument("--workers", type=int, default=14)
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--asked", nargs="*", default=[], help="folders of runs of headkv-eval, whose prompts are asked at the end")
    p.add_argument("--table", default="1024:32,4096:32", help="length:documents of the evaluation after a stage, and of that in training's own words")
    p.add_argument("--last-table", default="1024:64,4096:64,8192:32,16384:16", help="length:documents of the last evaluation")
    return p.parse_args()


def main():
    a = arguments()
    t0 = time.time()
    say = lambda *x: print(f"{time.time()-t0:5.0f}s", *x, flush=True)
    templates.check()
    gpu = torch.cuda.is_available()  # without one it is slow, and the same
    device = "cuda" if gpu else "cpu"
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.cache_size_limit = 64
    tok = Tokenizer.from_file(f"{a.tokenizer}/tokenizer.json")
    filler, words, sentences = corpus.load(tok, a.book, a.books, a.village, a.corpus)
    babi = json.load(open(a.babi))
    say("filler tokens", [len(x[0]) for x in filler], "words", len(words), "sentences", len(sentences), vars(a))
    make = lambda seed, held=False: Documents(tok, filler, words, sentences, babi, seed, held)
    held = lambda seed: make(seed, True)
    model = LM().to(device)
    if a.start:
        load(model, a.start)
    opt = torch.optim.AdamW(model.parameters(), lr=a.lr, betas=(.9, .98), weight_decay=0, fused=gpu)
    used, step, seen, leg = 0.0, 0, 0, 0
    if os.path.exists(a.state):
        saved = torch.load(a.state)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
        used, step, seen, leg = (saved[k] for k in ("used", "step", "seen", "leg"))
    rng, jumps = torch.Generator(device).manual_seed(a.seed + leg), np.random.default_rng(a.seed + leg)
    run = torch.compile(model, dynamic=False) if gpu else model
    compiled = set()
    stages = [(list(map(int, l.split("+"))), float(s)) for l, s in (x.split(":") for x in a.stages.split(","))]
    end = 0.0
    for i, (lengths, share) in enumerate(stages):
        end += share
        last, n, begun = i + 1 == len(stages), 0, used
        if used >= end - 1e-6:
            continue
        data = iter(torch.utils.data.DataLoader(Data(make, lengths, a.tokens, (a.seed * 100 + leg) * 10 + i), batch_size=None,
                                                num_workers=a.workers, prefetch_factor=8, pin_memory=gpu))
        clock = time.time()
        while used < end and time.time() - t0 < a.deadline:
            ids, w = next(data)
            ids, w = ids.to(device, non_blocking=True).long(), w.to(device, non_blocking=True)
            fall = 1 if used <= a.keep else max(0.01, (1 - used) / (1 - a.keep))
            for g in opt.param_groups:
                g["lr"] = a.lr * min(1, (step + 1) / 200) * fall
            with torch.autocast(device, torch.bfloat16, enabled=gpu):
                answer, fill = loss_of(run, model.emb.weight, ids, w, positions(ids.shape[1] - 1, jumps).to(device), rng)
            (answer + a.lm * fill).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            opt.zero_grad(set_to_none=True)
            step, n, seen = step + 1, n + 1, seen + ids.numel()
            if n % 200 == 0:
                say(f"step {step} length {ids.shape[1]-1} of {lengths} rate {fall:.2f} answer {answer.item():.3f} filler {fill.item():.3f} {seen/1e6:.0f}M tokens, {used:.3f} done")
            if ids.shape not in compiled:  # what compiling takes is not training
                compiled.add(ids.shape)
                answer.item()
                clock = time.time()
            used, clock = used + (time.time() - clock) / a.seconds, time.time()
        del data
        say("sha256", export(model, tok, a.out), f"stage {i}, {n} steps, {begun:.3f} to {used:.3f} of the training")
        torch.save(dict(model=model.state_dict(), opt=opt.state_dict(), used=used, step=step, seen=seen, leg=leg + 1), a.state)
        if used < end:
            return say("leg ends; the same command goes on")
        table(model, held, *columns(a.last_table if last else a.table), f"stage {i}, lengths {lengths}")
    for folder in a.asked:
        asked(model, tok, folder)
    table(model, make, *columns(a.table), "end, training's own words and templates")
    say("done")


main()
