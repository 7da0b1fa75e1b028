#!/usr/bin/env python3
"""Prompt and decode speed of Hugging Face Transformers with SDPA, for a model of which only the shape matters; with NVIDIA's
kvpress, if it is asked for.

    scripts/gpu/transformers_rows.py CONFIG.json [--lengths 8000,32000] [--batch 1] [--paths full,snapkv@1024,adakv@1024]

Random weights in bf16 are made on the GPU; as in serving, logits are asked for the last token only. Prompts are read one by one
into one batch's cache where --batch is above 1 (all at once does not fit). Medians of 3 after one that warms up. `adakv` is
kvpress's SnapKV under AdaKV, whose heads are masked and not freed. `cache` is what the cache's tensors take, `peak` what
PyTorch allocated. A table goes to stdout.
"""
import argparse
import contextlib
import json
import statistics
import time

import torch
import transformers
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("config")
parser.add_argument("--lengths", default="8000,32000")
parser.add_argument("--batch", type=int, default=1)
parser.add_argument("--paths", default="full")
parser.add_argument("--decode", type=int, default=32)
parser.add_argument("--rounds", type=int, default=3)
parser.add_argument("--device", default="cuda")
args = parser.parse_args()

config = LlamaConfig(**json.load(open(args.config)))
config._attn_implementation = "sdpa"
with torch.device(args.device):
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(config).eval()
gpu = torch.cuda if args.device == "cuda" else None


def press(path, length):
    """A fresh press for a prompt of that length; nothing for `full`."""
    if path == "full":
        return contextlib.nullcontext
    import kvpress

    method, capacity = path.split("@")
    made = kvpress.SnapKVPress(compression_ratio=max(0.0, 1 - int(capacity) / length))
    if method == "adakv":
        made = kvpress.AdaKVPress(made)
    elif method != "snapkv":
        raise SystemExit(f"{method} is no path: full, snapkv@N, adakv@N")
    return lambda: made(model)


def timed(call):
    if gpu:
        gpu.synchronize()
    start = time.time()
    result = call()
    if gpu:
        gpu.synchronize()
    return time.time() - start, result


def prompt_pass(prompts, context):
    """Reads the prompts; their cache, and the first tokens."""
    caches, tokens = [], []
    for prompt in prompts:
        cache = DynamicCache()
        with context():
            out = model(prompt[None], past_key_values=cache, use_cache=True, logits_to_keep=1)
        caches.append(cache)
        tokens.append(out.logits[:, -1].argmax(-1))
    if len(caches) == 1:
        return caches[0], tokens[0][None]
    whole = DynamicCache()
    for layer in range(config.num_hidden_layers):
        layers = [cache.layers[layer] for cache in caches]
        whole.update(torch.cat([x.keys for x in layers]), torch.cat([x.values for x in layers]), layer)
        for x in layers:
            x.keys = x.values = None
    return whole, torch.stack(tokens)


def decode(cache, token, length):
    for step in range(args.decode):
        # Positions are the text's, not the cache's.
        at = torch.full((token.shape[0], 1), length + step, device=args.device)
        out = model(token, past_key_values=cache, position_ids=at, use_cache=True, logits_to_keep=1)
        token = out.logits[:, -1:].argmax(-1)


print(f"Transformers {transformers.__version__}, PyTorch {torch.__version__}, {gpu.get_device_name() if gpu else 'CPU'}")
print("| prompts | path | prompt tok/s | decode tok/s | cache | peak |\n|---|---|---|---|---|---|")
with torch.inference_mode():
    for length in map(int, args.lengths.split(",")):
        for path in args.paths.split(","):
            prompts, decodes = [], []
            if gpu:
                gpu.empty_cache()
                gpu.reset_peak_memory_stats()
            try:
                context = press(path, length)
                for round in range(args.rounds + 1):
                    ids = torch.randint(0, min(4096, config.vocab_size), (args.batch, length), device=args.device)
                    seconds, (cache, token) = timed(lambda: prompt_pass(ids, context))
                    held = sum(x.keys.nbytes + x.values.nbytes for x in cache.layers)
                    steps, _ = timed(lambda: decode(cache, token, length))
                    if round:
                        prompts.append(args.batch * length / seconds)
                        decodes.append(args.batch * args.decode / steps)
                    # What AdaKV masks stays with the layers' attention.
                    del cache, token
                peak = f"{gpu.max_memory_allocated() / 2**30:.1f} GiB" if gpu else ""
                print(f"| {args.batch} x {length} | {path} | {statistics.median(prompts):.0f} | {statistics.median(decodes):.0f} "
                      f"| {held / 2**30:.2f} GiB | {peak} |", flush=True)
            except torch.OutOfMemoryError:
                print(f"| {args.batch} x {length} | {path} | out of memory | | | |", flush=True)
