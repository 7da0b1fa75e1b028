"""Trains models/tiny on one GPU, in timed and resumable legs.

    python train.py --tokenizer ../tiny --out OUT --babi PROMPTS.json --book kjv.txt --seconds 900 --stages 512:.1,1024:.2,4096:.4,16384:.3
The first leg starts from random weights; `--state FILE` carries the full-precision weights and the optimisers from leg to leg,
`--start FOLDER` an earlier leg's exported weights. The program evaluates and exports after every stage.
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
from evaluate import table
from model import CFG, LM, export, load
from muon import Muon

LM_SHARE = 8  # one filler token of so many is in the language-model loss


class Data(torch.utils.data.IterableDataset):
    def __init__(self, make, length, batch, seed):
        self.make, self.length, self.batch, self.seed = make, length, batch, seed

    def __iter__(self):
        torch.set_num_threads(1)
        d = self.make(self.seed * 1000 + torch.utils.data.get_worker_info().id)
        while True:
            docs = [d.document(self.length) for _ in range(self.batch)]
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


def arguments():
    p = argparse.ArgumentParser()
    p.add_argument("--tokenizer", required=True, help="folder of tokenizer.json")
    p.add_argument("--start", help="folder of an earlier leg's weights; random ones without")
    p.add_argument("--state", help="file that carries weights and optimisers from leg to leg")
    p.add_argument("--out", required=True)
    p.add_argument("--babi", required=True, help="babilong's prompts.json")
    p.add_argument("--book", required=True, help="the filler's book: see corpus.py")
    p.add_argument("--seconds", type=float, required=True, help="training, without evaluation and start")
    p.add_argument("--stages", required=True, help="length:share of the seconds, ...")
    p.add_argument("--deadline", type=float, default=1e9, help="seconds after which no stage goes on")
    p.add_argument("--lr", type=float, default=.02, help="of the matrices")
    p.add_argument("--lr-rest", type=float, default=3e-3, help="of embeddings and gains")
    p.add_argument("--keep", type=float, default=.4, help="share of the time before the rates fall")
    p.add_argument("--lm", type=float, default=.2, help="weight of the filler's loss")
    p.add_argument("--tokens", type=int, default=65536, help="per step")
    p.add_argument("--workers", type=int, default=14)
    p.add_argument("--leg", type=int, default=1, help="seed of weights and data")
    p.add_argument("--last-table", default="1024:64,4096:64,8192:32,16384:16", help="length:documents of the last evaluation")
    return p.parse_args()


def main():
    a = arguments()
    t0 = time.time()
    say = lambda *x: print(f"{time.time()-t0:5.0f}s", *x, flush=True)
    templates.check()
    torch.manual_seed(a.leg)
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.cache_size_limit = 64
    tok = Tokenizer.from_file(f"{a.tokenizer}/tokenizer.json")
    prose, verses = corpus.prose(), corpus.book(a.book)
    filler, words, sentences = corpus.tokens(tok, prose, verses), corpus.words(prose + verses), corpus.sentences(prose + verses)
    babi = json.load(open(a.babi))
    say("filler tokens", [len(x[0]) for x in filler], "words", len(words), "sentences", len(sentences), vars(a))
    make = lambda seed, held=False: Documents(tok, filler, words, sentences, babi, seed, held)
    held = lambda seed: make(seed, True)
    model = LM().cuda()
    if a.start:
        load(model, a.start)
    matrices = [x for x in model.blocks.parameters() if x.dim() > 1]
    rest = [model.emb.weight] + [x for x in model.parameters() if x.dim() < 2]
    opts = [Muon(matrices, lr=a.lr), torch.optim.AdamW(rest, lr=a.lr_rest, betas=(.9, .98), weight_decay=0, fused=True)]
    top = [a.lr, a.lr_rest]
    if a.state and os.path.exists(a.state):
        saved = torch.load(a.state)
        model.load_state_dict(saved["model"])
        for opt, s in zip(opts, saved["opts"]):
            opt.load_state_dict(s)
    stages = [(int(l), float(s)) for l, s in (x.split(":") for x in a.stages.split(","))]
    rng, jumps = torch.Generator("cuda").manual_seed(a.leg), np.random.default_rng(a.leg)
    run = torch.compile(model, dynamic=False)
    loaders = lambda i: iter(torch.utils.data.DataLoader(
        Data(make, stages[i][0], max(1, a.tokens // stages[i][0]), a.leg * 100 + i), batch_size=None, num_workers=a.workers, prefetch_factor=8, pin_memory=True))
    data = loaders(0)
    step, used, seen = 0, 0.0, 0
    for i, (length, share) in enumerate(stages):
        begin, n = time.time(), 0
        while time.time() - begin < share * a.seconds and time.time() - t0 < a.deadline:
            ids, w = next(data)
            ids, w = ids.cuda(non_blocking=True).long(), w.cuda(non_blocking=True)
            done = used + (time.time() - begin) / a.seconds
            fall = 1 if done <= a.keep else max(0.01, (1 - done) / (1 - a.keep))
            rate = min(1, (step + 1) / 200) * fall
            for opt, lr in zip(opts, top):
                for g in opt.param_groups:
                    g["lr"] = lr * rate
            with torch.autocast("cuda", torch.bfloat16):
                answer, fill = loss_of(run, model.emb.weight, ids, w, positions(length, jumps).cuda(), rng)
            (answer + a.lm * fill).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for opt in opts:
                opt.step()
                opt.zero_grad(set_to_none=True)
            step, n, seen = step + 1, n + 1, seen + ids.numel()
            if n == 1:  # what compiling takes is not training
                begin = time.time()
            if n % 200 == 0:
                say(f"step {step} length {length} rate {rate:.2f} answer {answer.item():.3f} filler {fill.item():.3f} {seen/1e6:.0f}M tokens {(time.time()-begin)/n*1e3:.0f} ms/step")
        used += share
        del data
        last = i + 1 == len(stages)
        data = None if last else loaders(i + 1)
        say("sha256", export(model, tok, a.out), f"after stage {i}, {n} steps")
        if a.state:
            torch.save(dict(model=model.state_dict(), opts=[o.state_dict() for o in opts]), a.state)
        rows = [tuple(map(int, x.split(":"))) for x in (a.last_table if last else "1024:32,4096:32").split(",")]
        table(model, held, *zip(*rows), f"stage {i}, length {length}")
    table(model, make, (1024, 4096), (48, 48), "end, training's own words and templates")
    say("done")


main()
