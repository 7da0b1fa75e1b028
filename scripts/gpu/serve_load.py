#!/usr/bin/env python3
"""What clients of an OpenAI-compatible server see under load: output tokens a second, and both latencies.

    scripts/gpu/serve_load.py URL [--concurrency 1,16,64,128] [--input 8000] [--output 256] [--spread] [--rounds 2]
                              [--temperature 0] [--top-p 1] [--label NAME]

Every client sends its next request when its last one is answered, `rounds` each (at least 4 in all), over random words; with
--spread answers are of half to one and a half times --output tokens, so that no two sequences are in step. One Markdown row for each concurrency: requests, output tok/s over the whole time, first token and time
between tokens as p50 and p99, failures. Only Python's own library.
"""
import argparse
import http.client
import json
import random
import sys
import threading
import time
import urllib.parse

WORDS = "time year people way day man thing woman life child world school state family student group country problem hand part".split()


def text(tokens, count, seed):
    """Words of about so many tokens, cut by the server's own tokenizer."""
    rng = random.Random(seed)
    words = " ".join(rng.choice(WORDS) for _ in range(count))
    return tokens("detokenize", {"tokens": tokens("tokenize", {"prompt": words})["tokens"][:count]})["prompt"]


def ask(url, body):
    """One streamed completion: seconds to its first token, between the others, and tokens."""
    start = last = time.perf_counter()
    connection = http.client.HTTPConnection(url.hostname, url.port, timeout=600)
    connection.request("POST", "/v1/completions", json.dumps(body), {"content-type": "application/json"})
    reply = connection.getresponse()
    if reply.status != 200:
        return {"failed": f"{reply.status} {reply.read(200)!r}"}
    first, gaps, tokens = None, [], 0
    for line in reply:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        event = json.loads(line[6:])
        now = time.perf_counter()
        if event.get("usage"):
            tokens = event["usage"]["completion_tokens"]
        if event["choices"] and event["choices"][0].get("text"):
            if first is None:
                first = now - start
            else:
                gaps.append(now - last)
            last = now
    return {"first": first, "gaps": gaps, "tokens": tokens}


def percentile(values, p):
    values = sorted(values)
    return values[min(len(values) - 1, int(p / 100 * len(values)))] if values else float("nan")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("url")
    p.add_argument("--concurrency", default="1,16,64,128")
    p.add_argument("--input", type=int, default=8000)
    p.add_argument("--output", type=int, default=256)
    p.add_argument("--spread", action="store_true")
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--temperature", type=float, default=0)
    p.add_argument("--top-p", type=float, default=1)
    p.add_argument("--label", default="server")
    a = p.parse_args()
    url = urllib.parse.urlparse(a.url)

    def tokens(path, body):
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=600)
        connection.request("POST", f"/{path}", json.dumps(body), {"content-type": "application/json"})
        return json.loads(connection.getresponse().read())

    for clients in map(int, a.concurrency.split(",")):
        rounds = max(a.rounds, -(-4 // clients))
        seeds = [[client * 1000 + at for at in range(rounds)] for client in range(clients)]
        prompts = [[(seed, text(tokens, a.input, seed)) for seed in own] for own in seeds]
        answers, lock = [], threading.Lock()

        def client(own):
            for seed, prompt in own:
                most = random.Random(seed).randint(a.output // 2, a.output * 3 // 2) if a.spread else a.output
                body = {"prompt": prompt, "max_tokens": most, "temperature": a.temperature, "top_p": a.top_p, "stream": True,
                        "stream_options": {"include_usage": True}}
                try:
                    answer = ask(url, body)
                except Exception as why:  # a row of the table, not the end of it
                    answer = {"failed": repr(why)}
                with lock:
                    answers.append(answer)

        start = time.perf_counter()
        threads = [threading.Thread(target=client, args=(own,)) for own in prompts]
        [t.start() for t in threads]
        [t.join() for t in threads]
        took = time.perf_counter() - start
        failed = [x["failed"] for x in answers if "failed" in x]
        done = [x for x in answers if "failed" not in x]
        first = [x["first"] for x in done if x["first"] is not None]
        gaps = [gap for x in done for gap in x["gaps"]]
        seconds = lambda values, p: f"{percentile(values, p):.2f}"
        ms = lambda values, p: f"{percentile(values, p) * 1e3:.0f}"
        print(f"| {a.label} | {clients} | {len(done)} | {sum(x['tokens'] for x in done) / took:,.0f} | {seconds(first, 50)} | "
              f"{seconds(first, 99)} | {ms(gaps, 50)} | {ms(gaps, 99)} | {len(failed)} |", flush=True)
        for why in sorted(set(failed))[:3]:
            print(why, file=sys.stderr)


if __name__ == "__main__":
    main()
