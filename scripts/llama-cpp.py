#!/usr/bin/env python3
"""Measures headkv-eval and llama.cpp in turn on the same GGUF file, cores and lengths, and prints medians, spreads and ratios.

    pip install cmake && pip install --no-binary llama-cpp-python llama-cpp-python
    taskset -c 0 scripts/llama-cpp.py MODEL.gguf --threads 1 --lengths 1000,7000 --paths full,headkv@128

Each measurement is a process of its own, as `headkv-eval bench` has it: a short run first, a prompt read whole, then tokens generated
greedily. llama.cpp (its Python binding's C functions) has its defaults: a cache in f16, here of 8,192 tokens. Several programs
(--programs OLD,NEW) are measured in turn too.
"""
import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import time


def one(model, length, decode, threads):
    """One measurement of llama.cpp, printed as JSON."""
    import llama_cpp
    import numpy

    llama = llama_cpp.Llama(
        model, n_ctx=8192, n_threads=threads, n_threads_batch=threads, verbose=False
    )
    context, words = llama.ctx, llama.n_vocab()

    def run(tokens):
        batch = (llama_cpp.llama_token * len(tokens))(*tokens)
        if llama_cpp.llama_decode(context, llama_cpp.llama_batch_get_one(batch, len(tokens))):
            raise SystemExit("llama_decode failed")

    def likeliest():
        logits = llama_cpp.llama_get_logits_ith(context, -1)
        return int(numpy.ctypeslib.as_array(logits, (words,)).argmax())

    draw = random.Random(1)
    prompt = [draw.randrange(100, words) for _ in range(length)]
    # Threads and memory are there when the clock starts.
    run(prompt[:64])
    llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(context), True)
    start = time.perf_counter()
    for at in range(0, length, llama.n_batch):
        run(prompt[at : at + llama.n_batch])
    token = likeliest()
    read = time.perf_counter()
    for _ in range(decode - 1):
        run([token])
        token = likeliest()
    end = time.perf_counter()
    with open("/proc/self/status") as status:
        peak = next(line for line in status if line.startswith("VmHWM:"))
    figures = {"prompt": length / (read - start), "decode": (decode - 1) / (end - read)}
    print(json.dumps(figures | {"peak_bytes": int(peak.split()[1]) * 1024}))


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("--programs", default="target/release/headkv-eval")
    parser.add_argument("--paths", default="full")
    parser.add_argument("--lengths", default="1000")
    parser.add_argument("--decode", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    lengths = [int(length) for length in args.lengths.split(",")]
    if args.one:
        one(args.model, lengths[0], args.decode, args.threads)
        return
    threads = str(args.threads)
    rows = {}
    for length in lengths:
        same = [sys.executable, __file__, args.model, "--one", "--threads", threads]
        rows[length, "llama.cpp"] = same + ["--lengths", str(length), "--decode", str(args.decode)]
        for program in args.programs.split(","):
            for path in args.paths.split(","):
                ours = [program, "bench-one", "--device", "cpu", "--batch", "1", "--path", path]
                ours += ["--model", args.model, "--lengths", str(length)]
                rows[length, f"{program} {path}"] = ours + ["--decode", str(args.decode)]
    environment = os.environ | {"RAYON_NUM_THREADS": threads}
    measured = {row: [] for row in rows}
    for _ in range(args.rounds):
        for row, command in rows.items():
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise SystemExit(done.stderr)
            measured[row].append(json.loads(done.stdout.splitlines()[-1]))
    figures = ["prompt", "decode"]
    print("| tokens, what | prompt tok/s | x | decode tok/s | x | peak MiB |")
    print("|---|---|---|---|---|---|")
    for (length, what), rounds in measured.items():
        cells = []
        for figure in figures:
            values = [round[figure] for round in rounds]
            beside = [round[figure] for round in measured[length, "llama.cpp"]]
            # Measured one after the other, so that what else the machine does is in both.
            ratio = statistics.median(a / b for a, b in zip(values, beside))
            spread = f"{min(values):.1f} to {max(values):.1f}"
            cells.append(f"{statistics.median(values):.1f} ({spread}) | {ratio:.2f}")
        peak = statistics.median(round["peak_bytes"] for round in rounds) / 2**20
        print(f"| {length} {what} | {' | '.join(cells)} | {peak:.0f} |")


if __name__ == "__main__":
    main()
