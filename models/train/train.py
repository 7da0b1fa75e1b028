"""Trains the successor of models/tiny on one GPU, in timed and resumable legs.

    python train.py --start ../tiny --out OUT --seconds 900 --stages 1024:.4,4096:.4,16384:.2
`--start` is a folder with a tokenizer and weights, such as an earlier leg's output; `--state` is a file
that carries the full-precision weights and the optimiser from leg to leg. The program evaluates and exports after every stage.
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
from documents import Documents
from evaluate import table
from model import LM, export, load

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


def loss_of(run, weight, ids, w, rng):
    """Answer loss, and the language-model loss of a share of the other tokens."""
    h = run(ids[:, :-1])
    target, w = ids[:, 1:], w[:, 1:]
    extra = (torch.rand(w.shape, device=w.device, generator=rng) < 1 / LM_SHARE) & (w == 0)
    keep = (extra | (w > 0)).flatten().nonzero()[:, 0]
    logits = h.reshape(-1, h.shape[-1])[keep] @ weight.T.to(h.dtype)
    loss = F.cross_entropy(logits.float(), target.reshape(-1)[keep], reduction="none")
    w = w.flatten()[keep]
    return (loss * w).sum() / w.sum(), loss[w == 0].mean()


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--start", required=True)
    p.add_argument("--out", required=True)
    p.add_argument("--babi", required=True, help="babilong's prompts.json")
    p.add_argument("--seconds", type=float, required=True, help="training, without evaluation and start")
    p.add_argument("--stages", required=True, help="length:share of the seconds, ...")
    p.add_argument("--deadline", type=float, default=1e9, help="seconds after which no stage goes on")
    p.add_argument("--state", help="file that carries the optimiser from leg to leg")
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--tokens", type=int, default=131072, help="per step")
    p.add_argument("--leg", type=int, default=1, help="seed of the data")
    p.add_argument("--baseline", action="store_true", help="first print the start's table")
    a = p.parse_args()
    t0 = time.time()
    say = lambda *x: print(f"{time.time()-t0:5.0f}s", *x, flush=True)
    torch.manual_seed(a.leg)
    torch.set_float32_matmul_precision("high")
    torch._dynamo.config.cache_size_limit = 64
    tok = Tokenizer.from_file(f"{a.start}/tokenizer.json")
    prose = corpus.prose()
    filler, words, babi = corpus.tokens(tok, prose), corpus.words(prose), json.load(open(a.babi))
    say("prose tokens", len(filler[0][0]), "words", len(words), vars(a))
    make = lambda seed, held=False: Documents(tok, filler, words, babi, seed, held)
    held = lambda seed: make(seed, True)
    model = LM().cuda()
    load(model, a.start)
    decay = [x for x in model.parameters() if x.dim() > 1]
    plain = [x for x in model.parameters() if x.dim() < 2]
    opt = torch.optim.AdamW([dict(params=decay, weight_decay=.05), dict(params=plain, weight_decay=0)], lr=a.lr, betas=(.9, .98), fused=True)
    if a.state and os.path.exists(a.state):
        saved = torch.load(a.state)
        model.load_state_dict(saved["model"])
        opt.load_state_dict(saved["opt"])
    stages = [(int(l), float(s)) for l, s in (x.split(":") for x in a.stages.split(","))]
    rng = torch.Generator("cuda").manual_seed(a.leg)
    run = torch.compile(model, dynamic=False)
    loaders = lambda i: iter(torch.utils.data.DataLoader(
        Data(make, stages[i][0], max(1, a.tokens // stages[i][0]), a.leg * 100 + i), batch_size=None, num_workers=14, prefetch_factor=8, pin_memory=True))
    data = loaders(0)
    if a.baseline:
        table(model, held, (1024, 4096), (48, 48), "start")
    step, used, seen = 0, 0.0, 0
    for i, (length, share) in enumerate(stages):
        begin, n = time.time(), 0
        while time.time() - begin < share * a.seconds and time.time() - t0 < a.deadline:
            ids, w = next(data)
            ids, w = ids.cuda(non_blocking=True).long(), w.cuda(non_blocking=True)
            done = used + (time.time() - begin) / a.seconds
            lr = a.lr * min(1, (step + 1) / 200) * min(1, max(0.02, (1 - done) / .5))
            for g in opt.param_groups:
                g["lr"] = lr
            with torch.autocast("cuda", torch.bfloat16):
                answer, fill = loss_of(run, model.emb.weight, ids, w, rng)
            (answer + .1 * fill).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            opt.zero_grad(set_to_none=True)
            step, n, seen = step + 1, n + 1, seen + ids.numel()
            if n % 100 == 0:
                say(f"step {step} length {length} lr {lr:.1e} answer {answer.item():.3f} filler {fill.item():.3f} {seen/1e6:.0f}M tokens {(time.time()-begin)/n*1e3:.0f} ms/step")
        used += share
        del data
        last = i + 1 == len(stages)
        data = None if last else loaders(i + 1)
        say("sha256", export(model, tok, a.out), f"after stage {i}, {n} steps")
        if a.state:
            torch.save(dict(model=model.state_dict(), opt=opt.state_dict()), a.state)
        table(model, held, (1024, 4096, 16384) if last else (1024, 4096), (64, 64, 16) if last else (32, 32), f"stage {i}, length {length}")
    table(model, make, (1024, 4096), (48, 48), "end, training's own words and templates")
    say("done")


main()
