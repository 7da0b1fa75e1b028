"""PyTorch's own attention at the benchmark's shapes, for comparison. usage: torch_rows.py CAPACITIES"""
import sys
from collections import defaultdict

import torch
import torch.nn.functional as F

HEADS, KV_HEADS, DIM, LAYERS = 32, 8, 128, 32


def microseconds(work, repeats=10):
    """Median over graph replays of `work`, which runs all layers."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        for _ in range(2):
            work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    times = []
    for _ in range(repeats + 1):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return sorted(times[1:])[repeats // 2]


def random(*shape):
    return torch.randn(*shape, device="cuda", dtype=torch.bfloat16)


def full_cache():
    print("\nPyTorch SDPA over the full cache, decode\n| tokens | batch | us/layer |\n|---|---|---|")
    for tokens, batch, buffers in ((1024, 1, 32), (8192, 1, 32), (32768, 1, 16), (1024, 32, 8), (8192, 32, 4)):
        q = random(batch, HEADS, 1, DIM)
        kv = [(random(batch, KV_HEADS, tokens, DIM), random(batch, KV_HEADS, tokens, DIM)) for _ in range(buffers)]
        us = microseconds(lambda: [F.scaled_dot_product_attention(q, k, v, enable_gqa=True) for k, v in kv])
        print(f"| {tokens} | {batch} | {us / buffers:.1f} |", flush=True)
        del kv


def variable_length(capacities):
    from torch.nn.attention.varlen import varlen_attn

    print("\nPyTorch's variable-length kernel over the same ragged heads (each query head a sequence of its own)")
    print("| capacity | batch | us/layer |\n|---|---|---|")
    for (mode, capacity), layers in sorted(capacities.items()):
        if mode != "query":
            continue
        for batch in (1, 8, 32):
            count = 8 if batch == 32 else LAYERS
            q = random(batch * HEADS, 1, DIM)
            starts = torch.arange(batch * HEADS + 1, device="cuda", dtype=torch.int32)
            inputs = []
            for heads in layers[:: LAYERS // count]:
                lengths = torch.tensor(heads * batch, device="cuda", dtype=torch.int32)
                ends = F.pad(lengths.cumsum(0, dtype=torch.int32), (1, 0))
                total = int(ends[-1])
                inputs.append((random(total, 1, DIM), random(total, 1, DIM), ends, max(heads)))
            us = microseconds(lambda: [varlen_attn(q, k, v, starts, ends, 1, most) for k, v, ends, most in inputs])
            print(f"| {capacity} | {batch} | {us / count:.1f} |", flush=True)
            del inputs


def prompt():
    print("\nPyTorch SDPA, causal prompt\n| d | tokens | ms | TFLOP/s |\n|---|---|---|---|")
    for dim in (128, 64):
        for tokens in (8192, 32768):
            q, k, v = random(1, HEADS, tokens, dim), random(1, KV_HEADS, tokens, dim), random(1, KV_HEADS, tokens, dim)
            us = microseconds(lambda: F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True), 5)
            print(f"| {dim} | {tokens} | {us / 1e3:.2f} | {2 * tokens**2 * dim * HEADS / us / 1e6:.0f} |", flush=True)


def measure(library, full_cache, ragged, prompt):
    """Prints all rows of a library, over the capacities that the command line names; what fails is a line of its own."""
    if len(sys.argv) != 2:
        sys.exit(sys.modules["__main__"].__doc__)
    capacities = defaultdict(list)
    with open(sys.argv[1]) as file:
        for line in file:
            mode, capacity, _, *heads = line.split()
            capacities[mode, int(capacity)].append(list(map(int, heads)))
    print(library)
    for part in (full_cache, lambda: ragged(capacities), prompt):
        try:
            with torch.no_grad():
                part()
        except Exception as error:
            print(f"not measured: {type(error).__name__}: {str(error).splitlines()[0]}")
        torch.cuda.empty_cache()


if __name__ == "__main__":
    measure(f"PyTorch {torch.__version__}", full_cache, variable_length, prompt)
