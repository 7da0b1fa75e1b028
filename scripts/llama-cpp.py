#!/usr/bin/env python3
"""Measures llama.cpp (PyPI: llama-cpp-python, built from source) as `headkv-eval bench` measures a model: in a process of
its own, a prompt of random tokens read whole, then tokens generated greedily. Prints one JSON object.

    pip install --no-binary llama-cpp-python llama-cpp-python
    taskset -c 0 scripts/llama-cpp.py MODEL.gguf --length 1000 --decode 64 --threads 1
"""

import argparse
import json
import random
import time

import llama_cpp
import numpy


def batch(context, tokens):
    """Runs tokens through the model, the logits of the last one being computed."""
    if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(tokens, len(tokens))):
        raise SystemExit("llama_decode failed")


def ids(tokens):
    return (llama_cpp.llama_token * len(tokens))(*tokens)


def likeliest(context, words):
    logits = llama_cpp.llama_get_logits_ith(context, -1)
    return int(numpy.ctypeslib.as_array(logits, (words,)).argmax())


def peak():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def main():
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("model")
    options.add_argument("--length", type=int, default=1000)
    options.add_argument("--decode", type=int, default=64)
    options.add_argument("--threads", type=int, default=1)
    options.add_argument("--context", type=int, default=8192)
    options = options.parse_args()

    llama = llama_cpp.Llama(
        options.model,
        n_ctx=options.context,
        n_threads=options.threads,
        n_threads_batch=options.threads,
        verbose=False,
    )
    context, words = llama.ctx, llama.n_vocab()
    draw = random.Random(1)
    prompt = [draw.randrange(100, words) for _ in range(options.length)]

    # A short run first: threads and memory are there when the clock starts.
    batch(context, ids(prompt[:64]))
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)

    start = time.perf_counter()
    for at in range(0, len(prompt), llama.n_batch):
        batch(context, ids(prompt[at : at + llama.n_batch]))
    token = likeliest(context, words)
    read = time.perf_counter()
    for _ in range(options.decode - 1):
        batch(context, ids([token]))
        token = likeliest(context, words)
    end = time.perf_counter()
    print(
        json.dumps(
            {
                "prompt": options.length / (read - start),
                "decode": (options.decode - 1) / (end - read),
                "peak_bytes": peak(),
            }
        )
    )


if __name__ == "__main__":
    main()
