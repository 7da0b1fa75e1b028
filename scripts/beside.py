#!/usr/bin/env python3
"""What a long prompt does to answers that are running, and they to it, on a server of headkv-serve.

  scripts/beside.py URL [--tokens 128000] [--running 8] [--step 4096]

First the long prompt alone, then beside running answers. A gap is the time between two pieces of one answer, any part of it while the long prompt is read; --step is the
server's --step-tokens, from which a piece's mean time follows.
"""
import argparse, http.client, json, random, threading, time, urllib.parse

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("url")
parser.add_argument("--tokens", type=int, default=128_000)
parser.add_argument("--running", type=int, default=8)
parser.add_argument("--step", type=int, default=4096)
args = parser.parse_args()
address = urllib.parse.urlparse(args.url).netloc


def pieces(prompt, tokens):
    """Times at which pieces of the answer came."""
    connection = http.client.HTTPConnection(address, timeout=600)
    body = {"prompt": prompt, "max_tokens": tokens, "stream": True, "temperature": 0}
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    answer = connection.getresponse()
    if answer.status != 200:
        raise SystemExit(f"{answer.status}: {answer.read(500)}")
    for line in answer:
        if line.startswith(b"data: {"):
            yield time.monotonic()


def prompt(seed, tokens):
    rng = random.Random(seed)
    return [rng.randrange(300, 3000) for _ in range(tokens)]


def first(seed):
    start = time.monotonic()
    for at in pieces(prompt(seed, args.tokens), 2):
        return start, at


def running(seed, times, stop):
    while not stop.is_set():
        for at in pieces(prompt(seed, 500), 3000):
            times.append(at)
            if stop.is_set():
                return
        times.append(None)


start, end = first(1)
alone = end - start
stop, times = threading.Event(), [[] for _ in range(args.running)]
threads = [threading.Thread(target=running, args=(10 + i, times[i], stop), daemon=True) for i in range(args.running)]
for thread in threads:
    thread.start()
time.sleep(4)
before = time.monotonic()
start, end = first(2)
stop.set()
for thread in threads:
    thread.join(timeout=10)


def gaps(since, until):
    all_gaps = [b - a for one in times for a, b in zip(one, one[1:]) if a and b and since < b and a < until]
    return sorted(all_gaps)


quiet, busy = gaps(before - 2, before), gaps(start, end)
piece = alone / -(-args.tokens // args.step)
print(f"long prompt of {args.tokens} tokens: {alone:.2f} s alone, {end - start:.2f} s beside {args.running} answers ({(end - start) / alone:.2f} times)")
print(f"a piece takes {piece:.3f} s on average")
for name, found in (("before it", quiet), ("while it is read", busy)):
    if found:
        print(f"gaps {name}: {len(found)}, median {found[len(found) // 2] * 1e3:.1f} ms, p99 {found[int(len(found) * .99)] * 1e3:.1f} ms, largest {found[-1] * 1e3:.1f} ms"
              f" ({found[-1] / piece:.2f} pieces)")
