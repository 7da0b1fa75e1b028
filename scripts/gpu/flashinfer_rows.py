#!/usr/bin/env python3
"""FlashInfer's decode and prompt kernels at the benchmark's shapes, for comparison.

    scripts/gpu/flashinfer_rows.py CAPACITIES

Decoding: BatchDecodeWithPagedKVCacheWrapper (pages of 16 tokens), over full caches, and over the same ragged heads as ours by
making each stored head a request of its own, which is how a library without ragged heads can be given them. Its plan is
made before the clock starts, as ours; of its kernels with and without tensor cores the faster one counts. Prompts: single_prefill_with_kv_cache, causal. Medians over graph replays.
"""
import torch
import flashinfer

from torch_rows import DIM, HEADS, KV_HEADS, LAYERS, measure, microseconds, random

PAGE = 16


def planned(lengths, heads, kv_heads, tensor_cores):
    """A wrapper planned for requests of these lengths, its queries and its pages."""
    pages = [-(-n // PAGE) for n in lengths]
    ends = torch.tensor([0] + pages, dtype=torch.int32).cumsum(0, dtype=torch.int32)
    last = torch.tensor([n - PAGE * (p - 1) for n, p in zip(lengths, pages)], dtype=torch.int32)
    indices = torch.arange(int(ends[-1]), dtype=torch.int32, device="cuda")
    wrapper = flashinfer.BatchDecodeWithPagedKVCacheWrapper(
        torch.empty(64 << 20, dtype=torch.uint8, device="cuda"), "NHD", use_cuda_graph=True,
        use_tensor_cores=tensor_cores,
        paged_kv_indptr_buffer=ends.cuda(), paged_kv_indices_buffer=indices, paged_kv_last_page_len_buffer=last.cuda())
    wrapper.plan(ends, indices, last, heads, kv_heads, DIM, PAGE, q_data_type=torch.bfloat16, kv_data_type=torch.bfloat16)
    return wrapper, random(len(lengths), heads, DIM), random(int(ends[-1]), 2, PAGE, kv_heads, DIM)


def timed(layers, heads, kv_heads):
    """Microseconds a layer, for layers of requests of these lengths."""
    best = float("inf")
    for tensor_cores in (False, True):
        made = [planned(lengths, heads, kv_heads, tensor_cores) for lengths in layers]
        best = min(best, microseconds(lambda: [wrapper.run(q, kv) for wrapper, q, kv in made]) / len(made))
    return best


def full_cache():
    print("\nFlashInfer over the full cache, decode\n| tokens | batch | us/layer |\n|---|---|---|")
    for tokens, batch, buffers in ((1024, 1, 32), (8192, 1, 32), (32768, 1, 16), (1024, 32, 8), (8192, 32, 4)):
        print(f"| {tokens} | {batch} | {timed([[tokens] * batch] * buffers, HEADS, KV_HEADS):.1f} |", flush=True)


def ragged(capacities):
    print("\nFlashInfer over the same ragged heads (each stored head a request of its own), decode")
    print("| capacity | kept per | batch | us/layer |\n|---|---|---|---|")
    for (mode, capacity), layers in sorted(capacities.items()):
        share = HEADS // KV_HEADS if mode == "kv" else 1
        for batch in (1, 8, 32):
            count = 8 if batch == 32 else LAYERS
            # With the 32 generated tokens of our own rows.
            lengths = [[n + 32 for n in heads] * batch for heads in layers[:: LAYERS // count]]
            print(f"| {capacity} | {mode} head | {batch} | {timed(lengths, share, 1):.1f} |", flush=True)


def prompt():
    print("\nFlashInfer, causal prompt\n| d | tokens | ms | TFLOP/s |\n|---|---|---|---|")
    for dim in (128, 64):
        for tokens in (8192, 32768):
            q, k, v = random(tokens, HEADS, dim), random(tokens, KV_HEADS, dim), random(tokens, KV_HEADS, dim)
            us = microseconds(lambda: flashinfer.single_prefill_with_kv_cache(q, k, v, causal=True), 5)
            print(f"| {dim} | {tokens} | {us / 1e3:.2f} | {2 * tokens**2 * dim * HEADS / us / 1e6:.0f} |", flush=True)


if __name__ == "__main__":
    measure(f"FlashInfer {flashinfer.__version__}, PyTorch {torch.__version__}", full_cache, ragged, prompt)
