#!/usr/bin/env python3
"""Prompt and decode speed of Hugging Face Transformers with SDPA, for a model of which only the shape matters.

usage: transformers_rows.py CONFIG.json LENGTH[,LENGTH...]

Random weights in bf16 are made on the GPU; as in serving, logits are asked for the last token only. Medians of 3 after
one that warms up. A table goes to stdout.
"""
import json
import statistics
import sys
import time

import torch
import transformers
from transformers import LlamaConfig, LlamaForCausalLM

config = LlamaConfig(**json.load(open(sys.argv[1])))
config._attn_implementation = "sdpa"
with torch.device("cuda"):
    torch.set_default_dtype(torch.bfloat16)
    model = LlamaForCausalLM(config).eval()


def timed(call):
    torch.cuda.synchronize()
    start = time.time()
    result = call()
    torch.cuda.synchronize()
    return time.time() - start, result


print(f"Transformers {transformers.__version__}, PyTorch {torch.__version__}, {torch.cuda.get_device_name()}")
print("| tokens | prompt tok/s | decode tok/s |\n|---|---|---|")
with torch.inference_mode():
    for length in map(int, sys.argv[2].split(",")):
        prompt = torch.randint(0, 4096, (1, length), device="cuda")
        prompts, decodes = [], []
        for round in range(4):
            seconds, out = timed(lambda: model(prompt, use_cache=True, logits_to_keep=1))
            cache, token = out.past_key_values, out.logits[:, -1:].argmax(-1)
            def decode():
                t, c = token, cache
                for _ in range(32):
                    out = model(t, past_key_values=c, use_cache=True, logits_to_keep=1)
                    t, c = out.logits[:, -1:].argmax(-1), out.past_key_values
            steps, _ = timed(decode)
            if round:
                prompts.append(length / seconds)
                decodes.append(32 / steps)
            del out, cache
        print(f"| {length} | {statistics.median(prompts):.0f} | {statistics.median(decodes):.0f} |", flush=True)
